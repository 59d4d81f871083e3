"""The fit finds the values of cameras that it has never seen, within the uncertainty that it states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_cameras import KnownCamera, digit_images

from spikebridge.train.calibration import fit as fitting
from spikebridge.train.calibration import start as starting
from spikebridge.train.calibration.fit import Effort, Fit, _Sets, fit, without_images
from spikebridge.train.calibration.moments import Unit, moments
from spikebridge.train.calibration.outcome import _path_errors as path_errors
from spikebridge.train.calibration.outcome import profile_of
from spikebridge.train.calibration.parameters import LEG, STEP_PX, Unknowns, longer_than_usual
from spikebridge.train.calibration.start import guess
from spikebridge.train.calibration.state import State
from spikebridge.train.config.profile import LONGEST_US, read_profile
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS, LANES, Leg, Profile
from spikebridge.train.data.simulation import SensorGrid, scale_settings, simulate_frames, simulation_draws
from spikebridge.train.data.simulation import path as path_of
from spikebridge.train.networks.threads import same_threads

SIDE = 14
SMALL = Effort(batch=16, sets=48)


def fitted(
    camera: KnownCamera,
    *,
    recordings: int,
    side: int,
    time_bins: int,
    effort: Effort,
    state=None,
    advance=None,
    expect=None,
):
    images = digit_images(2 * recordings + 100, side)
    frames = camera.frames(images[:recordings], time_bins=time_bins)
    with same_threads(1):
        return fit(
            frames,
            images[recordings:],
            SensorGrid(side, (side, side), "sum"),
            guess(frames, (side, side)),
            sensor=(side, side),
            effort=effort,
            state=state,
            advance=advance or (lambda: None),
            expect=expect or (lambda runs: None),
        )


def test_the_images_of_the_recordings_leave_less_to_chance():
    """Sets that show the recordings' own images differ by the simulator's chance alone."""
    camera = KnownCamera.drawn(6, legs=1, pixels=0.6)
    images = digit_images(80, SIDE)
    frames, grid = camera.frames(images[:12], time_bins=10), SensorGrid(SIDE, (SIDE, SIDE), "sum")
    start = replace(guess(frames, (SIDE, SIDE)), legs=camera.legs)
    unknowns = Unknowns.from_start(start, sensor=(SIDE, SIDE), inverted=camera.inverted)
    true = np.array([p.place(camera.values[p.name]) for p in unknowns.parameters])
    spread, off = {}, {}
    for shown in (None, images[:12]):
        sets = _Sets(frames, images[12:], grid, unknowns, Effort(batch=8, sets=12), 0, shown)
        _, made = sets.simulate(true, np.zeros(len(true)), 0, State(None, ""), "", lambda: None)
        spread[shown is None] = np.median(made.std(0))
        off[shown is None] = np.median(np.abs(made.mean(0) - sets.mean))
    assert spread[False] < 0.75 * spread[True]
    assert off[False] < 0.7 * off[True]


def test_the_number_of_events_tells_of_nothing_but_the_rate():
    """A camera of fewer events would otherwise differ by one common factor, as recordings do among themselves."""
    frames = KnownCamera.drawn(6, legs=1, pixels=0.6).frames(digit_images(12, SIDE), time_bins=10)
    unit = Unit.of(frames, whole_counts=True)
    one, three = fitting._Moments(frames, unit), fitting._Moments(3 * frames, unit)
    first = sum(size for name, size in one.sizes[:5])  # rate, then four kinds that are sums over events
    rate = dict(one.sizes)["rate"]
    assert three.mean()[rate:first] == pytest.approx(one.mean()[rate:first], rel=1e-5, abs=1e-8)
    assert (np.abs(three.mean()[: rate // 2] - one.mean()[: rate // 2]) > 0.9).all(), "the logarithms of their numbers"
    without = one.mean(np.arange(1, 12))
    assert one.mean() - one.deviations()[0] / 11 == pytest.approx(without, rel=0.05, abs=0.02)


@pytest.mark.long
def test_pairs_find_planted_cameras_about_as_well():
    """Over few recordings, in the mean over cameras."""
    off: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1, 7):
        camera = KnownCamera.drawn(number, legs=1 + number % 2, pixels=0.6)
        images = digit_images(200, SIDE)
        frames, grid = camera.frames(images[:12], time_bins=10), SensorGrid(SIDE, (SIDE, SIDE), "sum")
        for shown in (None, images[:12]):
            with same_threads(1):
                start = guess(frames, (SIDE, SIDE))
                found = fit(frames, images[12:], grid, start, sensor=(SIDE, SIDE), effort=Effort(12, 32), shown=shown)
            assert found.unknowns.inverted == camera.inverted
            off[shown is None].append(float(np.mean([miss**2 for miss in misses(camera, found).values()])))
    assert np.mean(off[False]) <= 1.2 * np.mean(off[True])


def misses(camera: KnownCamera, found: Fit) -> dict[str, float]:
    """How far each value lies from the truth, in deviations of what was expected."""
    known = zip(found.unknowns.parameters, found.place, strict=True)
    return {p.name: place - p.place(camera.values[p.name]) for p, place in known if p.name in camera.values}


def errors(camera: KnownCamera, found: Fit) -> dict[str, float]:
    """How many of its own deviations each value lies from the truth."""
    spread = dict(zip([p.name for p in found.unknowns.parameters], found.spread, strict=True))
    return {name: miss / spread[name] for name, miss in misses(camera, found).items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A fit with little effort, what it left on the disk, and how often the simulator ran."""
    path, runs = tmp_path_factory.mktemp("fit") / "state", []
    camera = KnownCamera.drawn(6, legs=1, pixels=0.6)
    state = State(path, "key")
    found = fitted(
        camera, recordings=24, side=SIDE, time_bins=10, effort=SMALL, state=state, advance=lambda: runs.append(1)
    )
    return camera, found, path, len(runs)


def test_a_known_camera_is_found_within_the_stated_uncertainty(small):
    camera, found, _, _ = small
    assert found.unknowns.inverted == camera.inverted
    assert found.decides("inverted")
    assert all(one.unknowns.inverted == found.unknowns.inverted for one in found.rivals)
    assert set(found.others) == {"inverted", "appeared"}, "around black margins is nothing to find"
    assert (found.unknowns.legs, found.unknowns.steps) == (len(camera.legs), 10)
    off = np.array(list(errors(camera, found).values()))
    assert np.abs(off).max() < 4
    assert np.sqrt((off**2).mean()) < 1.5
    spread = dict(zip([p.name for p in found.unknowns.parameters], found.spread, strict=True))
    assert spread["rest"] < 0.75, "the first events decide it"
    assert spread["leg_1_x"] < 0.7, "places decide it"


def test_photographs_that_fill_the_frame_are_found_smaller_and_on_black(monkeypatch):
    """Nobody said how large the camera saw them, nor what lay around."""
    photos = digit_images(60, 2 * SIDE)[..., SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]  # out of the middle
    camera = KnownCamera.drawn(6, legs=1, pixels=0.6)
    camera = replace(camera, values=camera.values | {"scale": 0.75})
    frames, sensor = camera.frames(photos[:20], time_bins=10, surround=0.0), (SIDE, SIDE)
    start, grid = guess(frames, sensor), SensorGrid(SIDE, sensor, "sum")
    monkeypatch.setattr(fitting, "STEPS", 0)
    monkeypatch.setattr(fitting, "SURROUNDS", (0.0, None))
    with same_threads(1):
        (inverted, surround, _, other_surround, *place), *_ = fitting._search(
            frames, photos[20:], grid, sensor, start, None, 0, Effort(batch=16), None, State(None, ""), lambda: None
        )
    assert (inverted, surround) == (camera.inverted, 0)
    assert other_surround > 1
    unknowns = Unknowns.from_start(start, sensor=sensor, inverted=camera.inverted, fills=True, surround=0.0)
    found = unknowns.values(np.array(place))
    assert found["scale"] < 0.95
    profile = profile_of(
        Fit(unknowns, start, np.array(place), np.full(len(place), 0.1), {"inverted": 9.0, "surround": 1.01}, {}),
        sensor=sensor, duration_us=300_000, source={"shown_fraction": 1.0},
    )  # fmt: skip
    assert profile.profile.surround == 0
    assert "surround" in profile.undecided
    assert not profile.profile.either_sign
    assert profile.informing["alternatives"] == {"inverted": 9.0, "surround": 1.01}
    assert not profile.profile.appeared, "nobody knows on which ground"
    assert not unknowns.profile(np.array(place)).appeared
    assert profile.informing["microseconds"]["shown_fraction"] == pytest.approx(found["scale"], rel=1e-3)
    assert len(fitting.to_begin(digit_images(20, SIDE))) == 2, "those have a margin: the sign of the light is open"


def test_what_a_path_does_beside_its_legs_is_found():
    """The mount moves a little more before it rests, which is no leg."""
    camera = replace(KnownCamera.drawn(6, legs=1, pixels=0.6), legs=(Leg(3.0, 0.0, 0.1, 0.3),))
    values = camera.values
    steps = tuple((0.5 * (i == 6), 0.0) for i in range(10))
    true = replace(camera.profile(), steps=steps)
    images, grid = digit_images(24, SIDE), SensorGrid(SIDE, (SIDE, SIDE), "sum")
    draws = simulation_draws(1, 0, torch.arange(24), grid, device=torch.device("cpu"))
    frames = simulate_frames(images, draws, grid, time_bins=10, profile=true, instants=FINE_INSTANTS)
    start = replace(guess(frames, (SIDE, SIDE)), legs=camera.legs)
    plain = Unknowns.from_start(start, sensor=(SIDE, SIDE), inverted=camera.inverted)
    off, target = [], fitting._Target(frames, images, grid, 0)
    for unknowns in (plain, plain.with_steps(10, sensor=(SIDE, SIDE))):
        place = np.zeros(len(unknowns.parameters))
        for k, p in enumerate(unknowns.parameters):
            if p.name in (*LANES, "rest"):
                place[k] = p.place(values[p.name])
        assert {step for step in unknowns.profile(place).steps} <= {(0.0, 0.0)}, "until they are fitted"
        search = fitting._Search(target, unknowns, lambda: None, last=True).run(
            place, fitting.LAST_STEPS, fitting.NARROW
        )
        found = unknowns.profile(search.place)
        off.append(float((way(found) - way(true)).square().mean().sqrt()))
    assert found.steps[6] == pytest.approx((0.5, 0.0), abs=0.15)
    assert off[1] < off[0] / 2.5
    unsure = np.array(unknowns.beside(unknowns.deviations(search.place, search.spread)))
    assert ((unsure > 0) & (unsure < STEP_PX)).all(), "events tell more than was known before"
    wrong = np.array(found.steps)[:, 1] / unsure[:, 1]  # down, where nothing is
    assert np.sqrt((wrong**2).mean()) < 2


def way(profile: Profile) -> torch.Tensor:
    """Return where the image is over time relative to its start, [2,S], of a camera that is the same in all samples."""
    s = scale_settings(torch.zeros(1, len(LANES)), profile.ranges)
    found = path_of(torch.linspace(0, 1, 51), s, profile, torch.full((1, 16), 0.5))[:, 0]
    return found - found[:, :1]


def test_lonely_events_are_counted_by_polarity():
    frames = torch.zeros(2, 1, 2, SIDE, SIDE)
    frames[0, 0, 1, 2, 3] = frames[1, 0, 1, 9, 9] = frames[1, 0, 0, 5, 12] = 1
    frames[0, 0, 0, 12, 2:4] = 1  # two beside each other
    found = moments(frames, Unit.of(frames, whole_counts=True))["lonely events"]
    assert found.tolist() == [[pytest.approx(1 / 5), pytest.approx(2 / 5)]]


def test_a_movement_of_no_length_makes_no_path_unsure():
    legs = (Leg(4.0, 3.0, 0.1, 0.4), Leg(0.0, 0.001, 0.6, 0.1))
    off = {
        f"leg_{i}_{part}": value for i in (1, 2) for part, value in zip(LEG, (0.5, 0.5, 0.02 * i, 0.04), strict=True)
    }
    assert path_errors(legs, off) == pytest.approx((2**0.5 * 0.1, 0.02, 0.1), rel=1e-3)


def test_an_interrupted_fit_goes_on_to_the_same_profile(small):
    camera, found, path, runs = small
    kept = State(path, "key")
    begun, sign = kept.get("search"), f"inverted {found.unknowns.inverted}"
    assert len(begun) == 1, "the other sign is far: it was not followed"
    kept.put(f"{sign}: sets 1", kept.get(f"{sign}: sets 1")[:20])
    counted, expected = [], []
    again = fitted(
        camera,
        recordings=24,
        side=SIDE,
        time_bins=10,
        effort=SMALL,
        state=State(path, "key"),
        advance=lambda: counted.append(1),
        expect=expected.append,
    )
    assert np.array_equal(again.place, found.place)
    assert np.array_equal(again.spread, found.spread)
    assert len(counted) == 2 * SMALL.sets, "the search was not repeated"
    assert expected == [SMALL.fitting(begun.shape[1] - 4, 2)]
    assert runs > len(counted)
    half = State(path, "key")
    for name in ("search", *(name for name in half._arrays if name.startswith("finished"))):
        del half._arrays[name]
    counted.clear()
    again = fitted(
        camera, recordings=24, side=SIDE, time_bins=10, effort=SMALL, state=half, advance=lambda: counted.append(1)
    )
    assert np.array_equal(again.place, found.place)
    assert 2 * SMALL.sets < len(counted) < runs, "of the search, what was begun was kept"
    assert State(path, "key").continued
    assert not State(path, "another").continued
    assert State(path, "another").get("search") is None
    path.write_bytes(b"half")
    assert State(path, "key").get("search") is None


def test_what_is_not_decided_is_named_and_left_wide(small):
    camera, found, _, _ = small
    assert found.unknowns.appeared or not found.decides("appeared"), "24 small recordings hardly say it"
    made = profile_of(found, sensor=(SIDE, SIDE), duration_us=300_000, source={"shown_fraction": 1.0})
    spread = dict(zip([p.name for p in found.unknowns.parameters], found.spread, strict=True))
    for name in ("softness", "bandwidth", "off_ratio", "noise"):
        assert (name in made.undecided) == (spread[name] > 0.6), name
        low, high = getattr(made.profile.ranges, name)
        assert low <= made.informing["camera"][name] <= high
    frames = camera.frames(digit_images(24, SIDE), time_bins=10)
    without = without_images(frames, guess(frames, (SIDE, SIDE)), sensor=(SIDE, SIDE), floor=0.01)
    made = profile_of(without, sensor=(SIDE, SIDE), duration_us=300_000, source={"shown_fraction": 1.0})
    assert {"threshold_on", "dark_level", "bandwidth", "inverted", "rest", "path"} <= set(made.undecided)
    assert made.profile.either_sign
    assert made.profile.either_begin
    assert made.profile.freedom == (0.0, 1.0)
    assert not {"off_ratio", "dead_time"} & set(made.undecided)
    assert made.informing["camera"]["dead_time"] == pytest.approx(0.007)


def test_a_camera_is_expected_to_be_the_same_in_long_and_short_recordings(tmp_path):
    """Its values are shares of a recording; what is expected of them is chosen for recordings of about 0.3 s."""
    durations = [5_000, 20_000, 60_000, 99_000, 100_000, 300_000, 750_000, 755_000, 3_000_000, 30_000_000]
    factors = [longer_than_usual(each) for each in durations]
    assert factors[4:7] == [1.0, 1.0, 1.0]
    assert factors == sorted(factors)
    assert factors[3] == pytest.approx(1, abs=0.02)
    assert factors[7] == pytest.approx(1, abs=0.02)
    assert (factors[0], factors[-2], factors[-1]) == (pytest.approx(1 / 60), pytest.approx(10), pytest.approx(100))
    frames = KnownCamera.drawn(9, legs=2).frames(digit_images(16, 24), time_bins=20)
    source, made = {"shown_fraction": 1.0}, {}
    for duration in (20_000, 300_000, 30_000_000):
        found = without_images(frames, guess(frames, (24, 24)), sensor=(24, 24), longer=longer_than_usual(duration))
        made[duration] = profile_of(found, sensor=(24, 24), duration_us=duration, source=source)
        (tmp_path / "camera.toml").write_text(made[duration].dump())
        assert read_profile(tmp_path / "camera.toml").profile == made[duration].profile
    usual = made[300_000]
    assert (
        usual.informing
        == profile_of(
            without_images(frames, guess(frames, (24, 24)), sensor=(24, 24)),
            sensor=(24, 24),
            duration_us=300_000,
            source=source,
        ).informing
    )
    for other in made.values():
        for name in ("bandwidth_hz", "refractory_us", "leak_hz", "shot_hz", "threshold_on"):
            asked = usual.informing["microseconds"][name]
            assert name == "shot_hz" or other.informing["microseconds"][name] == pytest.approx(asked, rel=0.01)
        assert other.undecided == usual.undecided


@pytest.mark.parametrize("duration_us", [100, 1_000, 3_600_000_000, LONGEST_US])
def test_profiles_of_recordings_of_any_length_can_be_read(duration_us, tmp_path):
    """A dead time is no longer than the recording, however short that is; a leak has an end, however long."""
    frames, longer = (
        KnownCamera.drawn(9, legs=1).frames(digit_images(4, SIDE), time_bins=10),
        longer_than_usual(duration_us),
    )
    found = without_images(frames, guess(frames, (SIDE, SIDE)), sensor=(SIDE, SIDE), longer=longer)
    made = profile_of(found, sensor=(SIDE, SIDE), duration_us=duration_us, source={"shown_fraction": 1.0})
    (tmp_path / "camera.toml").write_text(made.dump())
    assert read_profile(tmp_path / "camera.toml").profile == made.profile


@pytest.mark.parametrize("longer", [1 / 60, 1.0, 100.0])
@pytest.mark.parametrize("floor", [1e-7, 0.5])
def test_a_search_begins_within_its_bounds(floor, longer):
    """Two events at about one time, or recordings of few events: no dead time is expected that none may have."""
    camera = KnownCamera.drawn(9, legs=1)
    start = replace(guess(camera.frames(digit_images(4, SIDE), time_bins=10), (SIDE, SIDE)), longer=longer)
    unknowns = Unknowns.from_start(start, sensor=(SIDE, SIDE), inverted=False, floor=floor)
    low, high = unknowns.bounds()
    assert (low <= 0).all()
    assert (high >= 0).all()


def test_movement_is_guessed_from_events_alone():
    camera = KnownCamera.drawn(9, legs=2)
    frames = camera.frames(digit_images(16, 24), time_bins=20)
    start = guess(frames, (24, 24))
    assert not start.free
    assert len(start.legs) == 2
    for leg, true in zip(start.legs, camera.legs, strict=True):
        assert leg.x == pytest.approx(true.x, abs=2)
        assert leg.y == pytest.approx(true.y, abs=2)
        assert leg.start == pytest.approx(true.start, abs=0.12)
    each = [KnownCamera.drawn(seed, legs=1).frames(digit_images(1, 24), time_bins=20) for seed in range(12)]
    assert guess(torch.cat(each, 1), (24, 24)).free, "each moves in its own way"


def test_a_curve_is_guessed_leg_by_leg():
    """A circle, all round at one speed: no pause parts its legs, and its ends lie where it began."""
    ends = np.array([[0, 0], [1, 1], [0, 2], [-1, 1], [0, 0]]) * 3.5
    legs = [Leg(*(ends[i + 1] - ends[i]), (i - 0.5) / 4, 0.5) for i in range(4)]
    camera = replace(KnownCamera.drawn(9, legs=1), legs=tuple(legs))
    start = guess(camera.frames(digit_images(12, 24), time_bins=20), (24, 24))
    assert len(start.legs) == 4
    for leg, true in zip(start.legs, legs, strict=True):
        assert leg.x == pytest.approx(true.x, abs=1.6)
        assert leg.y == pytest.approx(true.y, abs=1.6)
        assert leg.start + leg.duration / 2 == pytest.approx(true.start + true.duration / 2, abs=0.08)


def test_the_length_of_a_path_is_measured_where_photographs_fill_the_frame():
    """Events are everywhere then, whatever the image does: their places tell of no way."""
    texture = np.random.default_rng(5).random((24, 1, 24, 24), np.float32)
    photos = torch.nn.functional.avg_pool2d(torch.from_numpy(texture), 3, 1, 1).sub(0.5).mul(2).add(0.5).clamp(0, 1)
    camera = replace(KnownCamera.drawn(9, legs=1), legs=(Leg(6.0, -3.0, 0.05, 0.4), Leg(-5.0, -2.0, 0.55, 0.4)))
    start = guess(camera.frames(photos, time_bins=20), (24, 24))
    assert len(start.legs) == 2
    for leg, true in zip(start.legs, camera.legs, strict=True):
        assert (leg.x, leg.y) == pytest.approx((true.x, true.y), abs=0.8)


def test_with_known_images_all_ends_are_measured_alike(monkeypatch):
    """The chance by which one is judged is what recordings have beside their images; a wrong camera leaves more."""
    for name, value in {"CLEAR": 1e9, "PROMISING": 1e9, "STEPS": 1, "SIGN_STEPS": 1, "LAST_STEPS": 1}.items():
        monkeypatch.setattr(fitting, name, value)
    camera, images, effort = KnownCamera.drawn(1, legs=1, pixels=0.6), digit_images(60, SIDE), Effort(batch=12, sets=12)
    shown, grid = images[:12], SensorGrid(SIDE, (SIDE, SIDE), "sum")
    frames = camera.frames(shown, time_bins=10)
    with same_threads(1):
        found = fit(
            frames, images[12:], grid, guess(frames, (SIDE, SIDE)), sensor=(SIDE, SIDE), effort=effort, shown=shown
        )
        near = found.unknowns.profile(found.place)
        target = fitting._target(frames, images[12:], grid, 0, effort, shown, near, last=True)
        ends = [found, *found.rivals]
        alike = [fitting._Search(target, one.unknowns, lambda: None).distance_of(one.place) for one in ends]
    assert len(ends) == 4
    assert [one.distance for one in ends] == pytest.approx(alike)
    assert found.others["inverted"] > 3
    for one in ends:
        other = min(each.distance for each in ends if each.unknowns.inverted != one.unknowns.inverted)
        own = min(each.distance for each in ends if each.unknowns.inverted == one.unknowns.inverted)
        assert one.others["inverted"] == pytest.approx(other / own)


def test_where_no_sign_is_clear_both_are_followed_to_the_end(tmp_path, monkeypatch):
    """The nearer end is taken, and the sign stays undecided."""
    monkeypatch.setattr(fitting, "PROMISING", 1e9)
    monkeypatch.setattr(fitting, "CLEAR", 1e9)  # as of textures without a bright and a dark side
    camera, state = KnownCamera.drawn(6, legs=1, pixels=0.6), State(tmp_path / "state", "key")
    found = fitted(camera, recordings=12, side=SIDE, time_bins=10, effort=Effort(batch=8, sets=12), state=state)
    ends = {}
    for sign in (False, True):
        both = (state.get(f"inverted {sign}, appeared {appeared}: end") for appeared in (False, True))
        ends[sign] = min(float(end[0]) for end in both)
    assert found.unknowns.inverted == min(ends, key=ends.get) == camera.inverted
    assert found.others["inverted"] == pytest.approx(max(ends.values()) / min(ends.values()))
    reverse = next(one for one in found.rivals if one.unknowns.inverted != camera.inverted)
    for fitted_, sign in ((found, camera.inverted), (reverse, not camera.inverted)):
        made = profile_of(fitted_, sensor=(SIDE, SIDE), duration_us=300_000, source={"shown_fraction": 1.0})
        assert made.profile.inverted == sign
        assert "inverted" in made.undecided
        assert made.profile.either_sign
    all_four = [found, *found.rivals]
    assert len({(one.unknowns.inverted, one.unknowns.appeared) for one in all_four}) == 4
    assert [one.distance for one in all_four] == sorted(one.distance for one in all_four)
    assert len({one.place.tobytes() for one in all_four}) == 4, "each has values of its own"
    for one in all_four:
        other = next(
            two for two in all_four
            if two.unknowns == replace(one.unknowns, appeared=not one.unknowns.appeared)
        )  # fmt: skip
        assert one.others["appeared"] == pytest.approx(other.distance / one.distance)


def test_a_search_that_lost_its_way_tells_nothing_of_the_sign(monkeypatch):
    """The farther sign is sought once more from where the nearer one was found, and reaches as far at least."""
    monkeypatch.setattr(fitting, "SURROUNDS", (None,))
    monkeypatch.setattr(fitting, "SIGN_STEPS", 1)
    monkeypatch.setattr(fitting, "PROMISING", 0.0)  # so that neither goes on by itself
    texture = np.random.default_rng(5).random((60, 1, SIDE, SIDE), np.float32)
    photos = torch.nn.functional.avg_pool2d(torch.from_numpy(texture), 3, 1, 1).sub(0.5).mul(2).add(0.5).clamp(0, 1)
    camera = KnownCamera.drawn(6, legs=1, pixels=0.6)
    frames, sensor = camera.frames(photos[:20], time_bins=10), (SIDE, SIDE)
    ratios, reached = [], []
    run = fitting._Search.run

    def kept(search, place, steps, difference):
        reached.append(run(search, place, steps, difference))
        return reached[-1]

    monkeypatch.setattr(fitting._Search, "run", kept)
    for most in (0.0, 1e9):
        monkeypatch.setattr(fitting, "REVERSED", most)
        with same_threads(1):
            (_, _, ratio, *_), *_ = fitting._search(
                frames, photos[20:], SensorGrid(SIDE, sensor, "sum"), sensor, guess(frames, sensor), None, 0,
                Effort(batch=16), None, State(None, ""), lambda: None,
            )  # fmt: skip
        ratios.append(ratio)
    one, other, *_, again = reached
    assert again.unknowns.inverted != min(one, other, key=lambda search: search.distance).unknowns.inverted
    assert again.distance < max(one.distance, other.distance)
    assert 1 <= ratios[1] < ratios[0]


def test_a_larger_sensor_is_measured_in_its_own_pixels():
    camera = KnownCamera.drawn(9, legs=1)
    frames = camera.frames(digit_images(16, 24), time_bins=20)
    (one,), (four,) = guess(frames, (24, 24)).legs, guess(frames, (96, 96)).legs
    assert (four.x, four.y) == pytest.approx((4 * one.x, 4 * one.y), rel=0.02)


def test_where_no_way_is_clear_the_path_keeps_its_direction(monkeypatch):
    """As of a large sensor, whose cells are wider than the way."""
    camera = replace(KnownCamera.drawn(9, legs=1), legs=(Leg(4.0, 0.0, 0.05, 0.8),))
    monkeypatch.setattr(starting, "CLEAR_WAY", 99)
    legs = guess(camera.frames(digit_images(16, 24), time_bins=20), (24, 24)).legs
    x, y = sum(leg.x for leg in legs), sum(leg.y for leg in legs)
    assert x > 4 * abs(y)
    assert x == pytest.approx(starting.SHORTEST * 24, rel=0.3)


def test_hot_pixels_and_single_recordings_do_not_mislead_the_guess():
    camera = KnownCamera.drawn(9, legs=1)
    frames = camera.frames(digit_images(16, 24), time_bins=20)
    (true,) = guess(frames, (24, 24)).legs
    frames[:, :, 1, 3, 4] += 3
    (found,) = guess(frames, (24, 24)).legs
    assert (found.x, found.y) == pytest.approx((true.x, true.y), abs=0.5)
    alone = guess(frames[:, :1], (24, 24))
    assert 0 < len(alone.legs) <= 4
    assert all(np.isfinite([leg.x, leg.y]).all() for leg in alone.legs)


@pytest.mark.long
def test_several_cameras_are_found_within_the_stated_uncertainty():
    """Each with full effort, three minutes of processor time; errors in units of the stated deviations are near 1."""
    off = []
    for seed in (0, 1, 3, 9):
        camera = KnownCamera.drawn(seed)
        found = fitted(camera, recordings=64, side=28, time_bins=20, effort=Effort())
        assert found.unknowns.inverted == camera.inverted
        assert found.unknowns.legs == len(camera.legs)
        off += list(errors(camera, found).values())
    assert np.abs(off).max() < 5
    assert 0.3 < np.sqrt(np.mean(np.square(off))) < 1.5


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data[:60] + b"x" * 20 + data[80:]])
def test_a_damaged_state_is_computed_again(tmp_path, spoil):
    path = tmp_path / "state.npz"
    State(path, "key").put("search", np.arange(50.0))
    path.write_bytes(spoil(path.read_bytes()))
    assert State(path, "key").get("search") is None
