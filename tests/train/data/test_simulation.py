"""The training simulator: physics of the pixel, geometry of the frame, determinism, agreement with real recordings."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikebridge.models import backends
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.framing import cell_tables, to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.events.resize import aligned_weights
from spikebridge.pipeline.formats.bin40 import decode
from spikebridge.pipeline.images.decode import to_static
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.fitted import saccades_of
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.config.profile import CameraProfile
from spikebridge.train.config.simulation_ranges import (
    BEGIN_LANE,
    FINE_INSTANTS,
    FREEDOM_LANE,
    LANES,
    LEAST_BLUR_PX2,
    PROFILES,
    SIGN_LANE,
    SOFTNESS_PX2,
    TRIANGLE,
    Leg,
    Profile,
    SimulationRanges,
)
from spikebridge.train.data.images.light import Light, light_of
from spikebridge.train.data.simulation import (
    INSTANTS,
    SensorGrid,
    SimulationDraws,
    Simulator,
    scale_settings,
    simulate_frames,
    simulation_draws,
)
from spikebridge.train.data.simulation import _compare_blind as compare_blind
from spikebridge.train.data.simulation import _count as count
from spikebridge.train.data.simulation import _sample_light as sample_light
from spikebridge.train.data.simulation import path as path_of
from spikebridge.train.errors import MethodError

REAL = ROOT.parent / "shared" / "realdata" / "nmnist20"
CPU = torch.device("cpu")
T = 5


def at_middle(ranges: SimulationRanges, **values: float) -> SimulationRanges:
    """The middle of every range, without anything random from pixel to pixel, and some values of one's own."""
    middle = {name: (sum(getattr(ranges, name)) / 2,) * 2 for name in LANES}
    quiet = dict.fromkeys(("threshold_spread", "leak", "noise", "turn", "delay", "rotation", "shear", "stretch"), 0.0)
    fixed = {name: (value, value) for name, value in {**quiet, "amplitude_spread": 0.0, **values}.items()}
    return replace(ranges, **{**middle, **fixed})


def static_images(n: int = 4, size: int = 16) -> torch.Tensor:
    x = torch.zeros(n, 1, size, size)
    for i in range(n):
        x[i, 0, 4 : size - 4, 5 : 7 + i] = 1
    return x


def draws_of(n: int, grid: SensorGrid, *, seed: int = 0, first: int = 0) -> SimulationDraws:
    return simulation_draws(seed, 0, torch.arange(first, first + n), grid, device=CPU)


def frames_of(
    images: torch.Tensor, ranges: SimulationRanges, *, legs: tuple[Leg, ...] = TRIANGLE, inverted: bool = True
) -> torch.Tensor:
    grid = SensorGrid(images.shape[-1], (images.shape[-1],) * 2, "sum")
    return simulate_frames(
        images, draws_of(len(images), grid), grid, time_bins=T, profile=Profile(ranges, legs, inverted=inverted)
    )


def test_counts_are_whole_and_differ_from_draw_to_draw() -> None:
    x = frames_of(static_images(1).expand(6, -1, -1, -1), SimulationRanges())
    assert x.shape == (T, 6, 2, 16, 16)
    assert x.dtype == torch.float32
    assert torch.equal(x, x.round())
    assert x.min() == 0
    assert len({tuple(sample.flatten().tolist()) for sample in x.transpose(0, 1)}) == 6


@pytest.mark.parametrize("blind_after", [False, True])
@pytest.mark.parametrize("name", ["saccades", "smooth"])
def test_compiled_pixels_count_the_same_to_the_bit(name: str, blind_after: bool) -> None:
    """Two profiles, one and two threads: the numbers of torch's operations, of which there are many times more."""
    profile = replace(PROFILES[name], blind_after=blind_after)
    if blind_after:  # also longer than an instant
        profile = replace(profile, ranges=replace(profile.ranges, dead_time=(0.0, 0.1)))
    grid, threads = SensorGrid(32, (32, 32), "sum"), torch.get_num_threads()
    images, draws = static_images(8, size=32), draws_of(8, SensorGrid(32, (32, 32), "sum"))
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found = simulate_frames(images, draws, grid, time_bins=8, profile=profile)
            with backends.use("torch"):
                assert torch.equal(found, simulate_frames(images, draws, grid, time_bins=8, profile=profile))
        assert found.sum() > 1000
    finally:
        torch.set_num_threads(threads)


def test_a_sample_depends_on_its_draw_position_alone() -> None:
    images, grid = static_images(6), SensorGrid(16, (16, 16), "sum")
    profile = PROFILES["saccades"]
    whole = simulate_frames(images, draws_of(6, grid), grid, time_bins=T, profile=profile)
    some = simulate_frames(images[2:4], draws_of(2, grid, first=2), grid, time_bins=T, profile=profile)
    # The last bit of a logarithm may depend on where in memory it is taken, and could tip a count once in a million.
    assert (whole[:, 2:4] != some).float().mean() < 1e-3
    assert torch.equal(whole, simulate_frames(images, draws_of(6, grid), grid, time_bins=T, profile=profile))
    other = simulation_draws(0, 1, torch.arange(6), grid, device=CPU)
    assert not torch.equal(whole, simulate_frames(images, other, grid, time_bins=T, profile=profile))


@pytest.mark.parametrize("surround", [None, 0.2])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("appeared", [False, True])
def test_where_the_sign_is_open_some_samples_show_negatives_before_the_same_ground(
    surround: float | None, inverted: bool, appeared: bool
) -> None:
    images, grid = static_images(16), SensorGrid(16, (16, 16), "sum")
    profile = Profile(SimulationRanges(), TRIANGLE, inverted=inverted, surround=surround, appeared=appeared)
    draws = draws_of(16, grid)
    reverse = replace(profile, inverted=not inverted, surround=None if surround is None else 1 - surround)
    plain, negative, either = (
        simulate_frames(images, draws, grid, time_bins=T, profile=one)
        for one in (profile, reverse, replace(profile, either_sign=True))
    )
    reversed_ = draws.settings[:, SIGN_LANE] < 0.5
    assert 3 < reversed_.sum() < 13
    assert torch.equal(either[:, ~reversed_], plain[:, ~reversed_])
    # 1 - (1 - grey) is not grey to the last bit, which tips a count now and then.
    assert (either[:, reversed_] != negative[:, reversed_]).float().mean() < 2e-3
    assert (plain != negative).float().mean() > 0.05


@pytest.mark.parametrize("surround", [None, 0.2])
@pytest.mark.parametrize("appeared", [False, True])
def test_where_the_beginning_is_open_some_samples_begin_the_other_way(surround: float | None, appeared: bool) -> None:
    images, grid = static_images(16), SensorGrid(16, (16, 16), "sum")
    profile = Profile(SimulationRanges(), TRIANGLE, surround=surround, appeared=appeared, rest=0.6, rest_spread=0.3)
    draws = draws_of(16, grid)
    with_ground, without, either = (
        simulate_frames(images, draws, grid, time_bins=T, profile=one)
        for one in (
            replace(profile, appeared=True),
            replace(profile, appeared=False),
            replace(profile, either_begin=True),
        )
    )
    settled = draws.settings[:, BEGIN_LANE] < 0.5
    assert 3 < settled.sum() < 13
    assert torch.equal(either[:, settled], with_ground[:, settled])
    assert torch.equal(either[:, ~settled], without[:, ~settled])
    assert (with_ground != without).float().mean() > 0.01


def test_where_the_state_at_the_start_is_open_each_sample_has_its_own() -> None:
    images, grid = static_images(4), SensorGrid(16, (16, 16), "sum")
    profile, draws = Profile(SimulationRanges(), TRIANGLE, rest=0.75, rest_spread=0.5), draws_of(4, grid)
    assert profile.freedom == (0.0, 0.75), "from 0.25 to no more than 1"
    made = simulate_frames(images, draws, grid, time_bins=T, profile=profile)
    for i, number in enumerate(draws.settings[:, FREEDOM_LANE].tolist()):
        own = replace(profile, rest=1 - 0.75 * number, rest_spread=0.0)
        alone = simulate_frames(images, draws, grid, time_bins=T, profile=own)[:, i]
        assert (made[:, i] != alone).float().mean() < 1e-3
    assert not torch.equal(made, simulate_frames(images, draws, grid, time_bins=T, profile=replace(profile, rest=0.0)))


@given(st.integers(0, 2**40))
def test_settings_lie_in_their_ranges(seed: int) -> None:
    ranges, grid = SimulationRanges(), SensorGrid(4, (4, 4), "sum")
    values = scale_settings(draws_of(20, grid, seed=seed).settings, ranges)
    assert set(values) == set(LANES)
    for name, value in values.items():
        low, high = getattr(ranges, name)
        assert low - 1e-6 <= float(value.min())
        assert float(value.max()) <= high + 1e-6


def test_nothing_moves_nothing_fires() -> None:
    still = at_middle(SimulationRanges(), amplitude=0.0)
    assert not frames_of(static_images(), still).any()
    moving = at_middle(SimulationRanges())
    assert frames_of(static_images(), moving).any()
    assert not frames_of(torch.full((2, 1, 16, 16), 0.4), moving).any(), "no contrast"


def test_noise_and_leak_are_as_frequent_as_they_say() -> None:
    plain = torch.zeros(8, 1, 32, 32)
    noisy = frames_of(plain, at_middle(SimulationRanges(), noise=0.1))
    assert float(noisy.sum() / (8 * 32 * 32)) == pytest.approx(0.1, rel=0.1)
    assert float(noisy[:, :, 1].sum() / noisy.sum()) == pytest.approx(0.5, abs=0.05)
    assert float(noisy[0].sum() / noisy.sum()) == pytest.approx(1 / T, abs=0.05)
    leaking = frames_of(plain, at_middle(SimulationRanges(), leak=0.5, dead_time=0.0, off_ratio=0.1))
    # The level starts anywhere between the thresholds 1 above and .1 below, and rises by .5 thresholds.
    assert not leaking[:, :, 0].any()
    assert float(leaking[:, :, 1].sum() / (8 * 32 * 32)) == pytest.approx(0.5 / 1.1, rel=0.1)


def test_what_lies_around_an_image_moves_with_it() -> None:
    """A white image on black is one in a black margin of its own; where the border goes on, nothing fires."""
    ranges, white = at_middle(SimulationRanges(), softness=0.0, scale=0.5), torch.ones(2, 1, 16, 16)
    grid = SensorGrid(16, (16, 16), "sum")

    def made(images: torch.Tensor, surround: float | None, **changed: float) -> torch.Tensor:
        profile = Profile(at_middle(ranges, **changed), TRIANGLE, surround=surround)
        return simulate_frames(images, draws_of(2, grid), grid, time_bins=T, profile=profile)

    assert not made(white, None).any()
    assert not made(white, 1.0).any()
    on_black = made(white, 0.0)
    assert torch.equal(on_black, made(F.pad(white, (8, 8, 8, 8)), None, scale=1.0))
    assert torch.equal(made(1 - white, 1.0), made(1 - F.pad(white, (8, 8, 8, 8)), None, scale=1.0))


def test_pixels_at_rest_are_on_their_way_to_on_events() -> None:
    """Light falls by half an OFF threshold: a quarter of those tell that began anywhere, and none of those at rest."""
    thresholds = at_middle(
        SimulationRanges(), dead_time=0.0, bandwidth=1e12, threshold_on=0.2, off_ratio=1.0, threshold_spread=0.0
    )
    s = scale_settings(torch.zeros(1, len(LANES)), thresholds)
    light = torch.linspace(0, -0.1, T * INSTANTS + 1).exp().view(-1, 1, 1, 1).expand(-1, 1, 20, 20)
    pixels = torch.rand(4, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    fired = [float(count(light, pixels, s, T, torch.tensor([1 - rest])).sum() / 400) for rest in (0.0, 0.5, 1.0)]
    assert fired == pytest.approx([0.25, 0.0, 0.0], abs=0.05)


def test_pixels_begin_where_the_appearance_of_the_image_left_them() -> None:
    """Where it is darker than its ground, the last event was an OFF event, where it is brighter, an ON event."""
    thresholds = at_middle(
        SimulationRanges(), dead_time=0.0, bandwidth=1e12, threshold_on=0.2, off_ratio=1.0, threshold_spread=0.0
    )
    s = scale_settings(torch.zeros(1, len(LANES)), thresholds)
    pixels = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))

    def fired(ground: float, change: float, rest: float = 0.0) -> list[float]:
        """Return OFF and ON events of a pixel where light 1 changes so far, in logarithms."""
        light = torch.linspace(0, change, T * INSTANTS + 1).exp().view(-1, 1, 1, 1).expand(-1, 1, 40, 40)
        made = count(light, pixels, s, T, torch.tensor([1 - rest]), torch.tensor([ground]))
        return (made.sum((0, 1, 3, 4)) / 1600).tolist()

    assert fired(2.0, 0.1) == pytest.approx([0, 0], abs=0.01), "no ON threshold was near"
    assert fired(2.0, -0.1) == pytest.approx([0.5, 0], abs=0.05)
    assert fired(0.5, -0.1) == pytest.approx([0, 0], abs=0.01)
    assert fired(0.5, 0.1) == pytest.approx([0, 0.5], abs=0.05)
    assert fired(1.0, 0.1) == pytest.approx([0, 0.25], abs=0.05), "nothing changed: anywhere between the thresholds"
    assert fired(2.0, 0.19) == pytest.approx([0, 0], abs=0.01)
    assert fired(2.0, 0.19, rest=0.5) == pytest.approx([0, 0.45], abs=0.05), "half an ON threshold later"
    assert fired(2.0, -0.1, rest=0.5) == pytest.approx([0, 0], abs=0.01)
    assert fired(0.5, 0.1, rest=0.5) == pytest.approx([0, 0.5], abs=0.05), "half of them have fired and begun anew"
    moving = draws_of(3, SensorGrid(16, (16, 16), "sum"))
    grid, profile = SensorGrid(16, (16, 16), "sum"), Profile(at_middle(SimulationRanges()), TRIANGLE, appeared=True)
    for surround, other in ((None, 0.0), (0.0, None)):  # black, as that of images with a black border
        one, two = (
            simulate_frames(static_images(3), moving, grid, time_bins=T, profile=replace(profile, surround=around))
            for around in (surround, other)
        )
        assert torch.equal(one, two)
    before = simulate_frames(static_images(3), moving, grid, time_bins=T, profile=replace(profile, appeared=False))
    assert not torch.equal(one, before)


def test_events_add_up_to_the_change_of_the_light() -> None:
    """Without dead time and lag, the thresholds of all events sum to the change of the log light."""
    ranges = at_middle(SimulationRanges(), dead_time=0.0, bandwidth=1e12, threshold_on=0.1, off_ratio=1.3)
    images, grid = static_images(), SensorGrid(16, (16, 16), "sum")
    draws = draws_of(4, grid)
    s = scale_settings(draws.settings, ranges)
    times = torch.linspace(0, 1, T * INSTANTS + 1)
    places = path_of(times, s, PROFILES["saccades"], draws.settings[:, len(LANES) : FREEDOM_LANE])
    seen = light_of(images, s, draws.settings[:, SIGN_LANE], PROFILES["saccades"], (grid.height, grid.width))
    light = sample_light(seen, places, s, grid) + s["dark_level"][:, None, None]
    counts = count(light, draws.pixels, s, T, torch.ones(4))
    change = torch.cumsum(counts[:, :, 1] * 0.1 - counts[:, :, 0] * 0.13, 0)
    ends = light[INSTANTS::INSTANTS].log() - light[0].log()
    assert float((change - ends).abs().max()) < 0.1 + 0.13
    assert float(change.abs().max()) > 1


def test_thresholds_dead_time_and_bandwidth_take_events_away() -> None:
    def events(**values: float) -> float:
        return float(frames_of(static_images(), at_middle(SimulationRanges(), **values)).sum())

    assert events(threshold_on=0.4) < events(threshold_on=0.2) < events(threshold_on=0.1)
    assert events(dead_time=0.05) < events(dead_time=0.01) < events(dead_time=0.0)
    assert events(bandwidth=20.0) < events(bandwidth=2000.0)
    assert events(amplitude=0.5) < events(amplitude=1.5)


WAYS = st.floats(-8, 8).filter(lambda way: abs(way) > 0.01)


@given(WAYS, st.floats(0.0, 0.4), st.floats(0.1, 0.9), st.integers(0, 9))
def test_a_pixel_that_is_blind_after_its_events_has_them_when_they_are_due(
    way: float, dead: float, threshold: float, seed: int
) -> None:
    """The level changes at one rate: the first event at the threshold, then one a dead time and a threshold later."""
    steps = T * INSTANTS
    level = torch.linspace(0, way, steps + 1).view(-1, 1, 1, 1).repeat(1, 1, 1, 8)
    begun = torch.from_numpy(np.random.default_rng(seed).uniform(-0.99, 0.99, 8) * threshold).float().view(1, 1, 8)
    thresholds, none = torch.full((1, 1, 8), threshold), torch.zeros(1, 1, 8)
    at_once, blind = torch.full((1, 1, 1), 1e12), torch.full((1, 1, 1), dead * steps)
    found = compare_blind(level.exp(), level, at_once, thresholds, thresholds, none, blind, begun.clone(), T)
    for pixel, start in enumerate(begun.flatten().tolist()):
        first = (threshold - math.copysign(start, way * start)) / abs(way)
        due = np.arange(first, 1.001, dead + threshold / abs(way)) * T
        near = np.abs(due - np.round(due)) < 5e-3  # of one bin or the next
        counts = found[:, 0, int(way > 0), 0, pixel].numpy()
        assert not found[:, 0, int(way < 0), 0, pixel].any()
        assert np.abs(counts - np.histogram(due[~near], np.arange(T + 1))[0]).sum() <= near.sum()


LEGS = ((12.0, 3.0, 0.1, 0.4), (-9.0, -3.0, 0.5, 0.4))
"""Of a camera that both simulators have."""


def of_both(light: NDArray[np.uint8], **known: float) -> tuple[list[Events], Profile]:
    """Recordings in microseconds of images [n,28,28] by a camera without noise, and the same camera in training."""
    still = dict.fromkeys(
        ("position_jitter_px", "amplitude_jitter", "timing_jitter_us", "duration_jitter_us", "threshold_jitter",
         "threshold_noise", "threshold_spread", "refractory_spread", "shot_hz", "leak_hz"), 0.0
    )  # fmt: skip
    exact = SimulatorSettings(
        **still | {"shown_fraction": 1.0} | known, sensor_width_px=28, sensor_height_px=28, duration_us=100_000,
        sample_us=200, threshold_on=0.25, threshold_off=0.25, bandwidth_hz=3000.0, dark_level=0.1, inverted=False,
        saccades=saccades_of(LEGS, [], 100_000),
    )  # fmt: skip
    ranges = at_middle(
        SimulationRanges(), light_gamma=exact.gamma, dark_level=0.1, threshold_on=0.25, off_ratio=1.0,
        scale=exact.shown_fraction, bandwidth=300 * 2 * math.pi, amplitude=1.0, pace=1.0,
        softness=((exact.blur_px / exact.shown_fraction) ** 2 - LEAST_BLUR_PX2) / SOFTNESS_PX2,
        dead_time=exact.refractory_us / 100_000, x_start=exact.x_offset_px, y_start=exact.y_offset_px,
        threshold_spread=0.0, noise=0.0,
    )  # fmt: skip
    events = [simulate(image, settings=exact, seed=0, key=str(key)) for key, image in enumerate(light)]
    legs = tuple(Leg(*leg) for leg in LEGS)
    return events, Profile(ranges, legs, surround=0.0, lateness=0.0, blind_after=True, blurs_light=True)


def blocks(margin: int = 4) -> NDArray[np.uint8]:
    """Images [12,28,28] of grey squares on black."""
    images = np.zeros((12, 28, 28), np.uint8)
    inside, count = slice(margin, 28 - margin), (28 - 2 * margin) // 2
    images[:, inside, inside] = np.kron(np.random.default_rng(2).integers(0, 256, (12, count, count)), np.ones((2, 2)))
    return images


def trained_on(images: NDArray[np.uint8], profile: Profile) -> NDArray[np.float32]:
    """Their recordings in training, frames [20,n,2,28,28]."""
    grid = SensorGrid(28, (28, 28), "sum")
    light = torch.from_numpy(images[:, None] / 255).float()
    made: NDArray[np.float32] = simulate_frames(
        light, draws_of(len(images), grid), grid, time_bins=20, profile=profile, instants=FINE_INSTANTS
    ).numpy()
    return made


@pytest.mark.parametrize("refractory_us", [500, 6_000])
def test_both_simulators_have_their_events_at_the_same_time(refractory_us: int) -> None:
    """Of one camera, blind for a short and for a long time: microseconds, and the coarse clock of training."""
    events, profile = of_both(blocks(), refractory_us=refractory_us, gamma=1.0, blur_px=0.5)
    seen = sum(np.histogram(each.t, np.arange(21) * 5_000)[0] for each in events)
    late = {}
    for blind_after in (False, True):
        made = trained_on(blocks(), replace(profile, blind_after=blind_after)).sum((1, 2, 3, 4))
        late[blind_after] = (made * np.arange(20)).sum() / made.sum() - (seen * np.arange(20)).sum() / seen.sum()
    assert abs(late[True]) < 0.05, "time bins"
    assert made.sum() == pytest.approx(seen.sum(), rel=0.1)
    if refractory_us > 5_000:
        assert late[False] > 0.5


@pytest.mark.parametrize(("rest", "appeared"), [(0.0, False), (0.5, False), (1.0, False), (0.4, True), (1.0, True)])
def test_both_simulators_begin_alike(rest: float, appeared: bool) -> None:
    """Anywhere between the thresholds, on the way to an ON event, or where the appearance of the image left pixels."""
    images = np.concatenate([blocks()] * 2)
    events, profile = of_both(images, refractory_us=200, gamma=1.0, blur_px=0.5, rest=rest, appeared=appeared)
    made = trained_on(images, replace(profile, rest=rest, appeared=appeared)).sum((1, 3, 4))[2:5]  # [3,2]
    bins = np.arange(2, 6) * 5_000
    for polarity in (0, 1):
        seen = sum(np.histogram(each.t[each.p == polarity], bins)[0] for each in events)
        assert made[:, polarity].cumsum() == pytest.approx(seen.cumsum(), rel=0.12, abs=20)
        assert made[:, polarity].sum() == pytest.approx(seen.sum(), rel=0.05)
    first = made[0].tolist()
    assert (first[0] == 0, first[0] > 0.9 * first[1]) == (appeared or rest == 1, rest == 0)


@pytest.mark.parametrize(
    ("gamma", "blur_px", "shown_fraction", "margin"), [(1.0, 0.4, 1.0, 4), (2.2, 0.7, 1.0, 4), (1.0, 0.6, 0.7, 0)]
)
def test_both_simulators_blur_light(gamma: float, blur_px: float, shown_fraction: float, margin: int) -> None:
    """Of one display and one lens: pixels have their events by either, of which a blur of grey values knows less.

    Images that fill their frame are blurred into what lies around them, too.
    """
    images = blocks(margin)
    events, profile = of_both(images, refractory_us=500, gamma=gamma, blur_px=blur_px, shown_fraction=shown_fraction)
    seen, apart = np.zeros((12, 28, 28)), {}
    for counts, each in zip(seen, events, strict=True):
        np.add.at(counts, (each.y, each.x), 1)
    for blurs_light in (True, False):
        made = trained_on(images, replace(profile, blurs_light=blurs_light)).sum((0, 2))
        apart[blurs_light] = float(((made - seen) ** 2).mean() / seen.var())
        if blurs_light:
            assert made.sum((1, 2)) == pytest.approx(seen.sum((1, 2)), rel=0.06)
    assert apart[True] < 0.08
    assert apart[True] < apart[False] / 1.25


def test_a_bright_bar_that_moves_right_is_on_in_front_and_off_behind() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 6:10] = 1
    right = (Leg(2.0, 0.0, 0.1, 0.8),)
    ranges = at_middle(SimulationRanges(), x_start=0.0, y_start=0.0, amplitude=1.0, bandwidth=1e6)
    x = frames_of(image, ranges, legs=right, inverted=False)[:, 0].sum(0)[:, 8]  # [2,16] of one row
    places = torch.arange(16.0)
    off, on = ((x[p] * places).sum() / x[p].sum() for p in (0, 1))
    assert 5 <= off <= 8
    assert 9 <= on <= 12
    # Inverting the image and the camera's sign changes nothing.
    negative = frames_of(1 - image, ranges, legs=right, inverted=True)[:, 0].sum(0)[:, 8]
    assert torch.equal(x, negative)


def test_steps_are_what_a_path_does_beside_its_legs() -> None:
    """As short legs that overlap; equal ones are one steady movement. Samples differ in no pace and no lateness."""
    times, draws = torch.linspace(0, 1, 13), torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
    ranges = at_middle(SimulationRanges(), amplitude=1.0, pace=1.0, turn=0.0, delay=0.0, amplitude_spread=0.0)
    rest = Leg(0.0, 0.0, 0.0, 1.0)

    def way(profile: Profile, **values: float) -> torch.Tensor:
        s = scale_settings(torch.full((2, len(LANES)), 0.5), at_middle(profile.ranges, **values))
        return path_of(times, s, profile, draws) - torch.stack([s["x_start"], s["y_start"]])[..., None]

    spans = [(-1 / 6, 2 / 3), (1 / 6, 2 / 3), (1 / 2, 2 / 3)]
    steps = ((0.5, -1.0), (0.0, 2.0), (0.25, 0.125))
    stepped = Profile(ranges, (rest,), steps=steps)
    legs = Profile(ranges, tuple(Leg(*step, *span) for step, span in zip(steps, spans, strict=True)), lateness=0.0)
    torch.testing.assert_close(way(stepped), way(legs), atol=1e-6, rtol=0)
    both = Profile(ranges, (Leg(1.0, 2.0, 0.1, 0.4),), steps=steps, lateness=0.0)
    added = way(stepped) + way(Profile(ranges, both.legs, lateness=0.0))
    torch.testing.assert_close(way(both), added, atol=1e-6, rtol=0)
    steady = way(Profile(ranges, (rest,), steps=((0.5, 0.0),) * 3))[0, 0]
    torch.testing.assert_close(steady[3:10].diff(), torch.full((6,), 0.125), atol=1e-6, rtol=0)
    changed = {"amplitude": 1.5, "turn": 0.3, "delay": 0.1}
    torch.testing.assert_close(way(stepped, **changed), way(legs, **changed), atol=1e-6, rtol=0)
    torch.testing.assert_close(way(stepped, pace=0.5, amplitude_spread=0.5), way(stepped), atol=0, rtol=0)


def test_a_profile_says_how_late_its_legs_may_be() -> None:
    times, draws = torch.linspace(0, 1, 101), torch.zeros(1, 16)
    s = scale_settings(torch.full((1, len(LANES)), 0.5), at_middle(SimulationRanges(), pace=1.0))
    early, usual, none = (
        path_of(times, s, Profile(SimulationRanges(), (Leg(2.0, 0.0, 0.3, 0.4),), **own), draws)[0, 0]
        for own in ({"lateness": 0.1}, {}, {"lateness": 0.0})
    )
    torch.testing.assert_close(early[20:60], none[30:70], atol=1e-5, rtol=0)
    torch.testing.assert_close(usual[28:60], none[30:62], atol=1e-5, rtol=0)


def test_the_frame_is_made_as_the_pipeline_makes_it() -> None:
    summed, stretched = SensorGrid(28, (34, 34), "sum"), SensorGrid(28, (34, 34), "bilinear")
    columns, rows = cell_tables((34, 34), (0, 0, 34, 34), 28)
    starts, cells, weights = aligned_weights(34, 28)
    for pixel in range(34):
        one = torch.zeros(34, 34)
        one[5, pixel] = 1
        frame = summed.to_frames(one)
        assert frame.nonzero().tolist() == [[rows[2 * 5] // 28, columns[pixel]]]  # OFF events
        row = stretched.columns[:, pixel]
        expected = torch.zeros(28)
        expected[cells[starts[pixel] : starts[pixel + 1]]] = torch.from_numpy(
            weights[starts[pixel] : starts[pixel + 1]]
        )
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_frames_that_are_not_square() -> None:
    """Each axis by its own number of cells, for counts and for stretched ones; a sensor with a long side is coarse."""
    summed, stretched = (SensorGrid((28, 14), (34, 20), reduction) for reduction in ("sum", "bilinear"))
    columns, rows = cell_tables((34, 20), (0, 0, 34, 20), 14, 28)
    for x, y in ((0, 0), (33, 19), (12, 7), (5, 18)):
        one = torch.zeros(20, 34)
        one[y, x] = 1
        assert summed.to_frames(one).nonzero().tolist() == [[rows[2 * y] // 28, columns[x]]]
        assert stretched.to_frames(one).shape == (14, 28)
    every = SensorGrid((28, 14), (34, 24), "sum")
    assert (every.width, every.height, every.gain) == (34, 24, 1)
    coarse = SensorGrid((28, 14), (34, 60), "sum")
    assert (coarse.width, coarse.height, coarse.gain) == (34, 28, 60 / 28)
    manifest = {"sensor_size": [34, 20], "settings": {"reduction": "sum"}}
    images = static_images(3, 28)[:, :, :14]
    frames = Simulator(manifest, (T, 2, 14, 28), profile="smooth", seed=3).frames(
        images, epoch=1, draws=torch.arange(3)
    )
    assert frames.shape == (T, 3, 2, 14, 28)
    assert torch.equal(frames, frames.round())
    assert frames.sum((0, 2, 3, 4)).min() > 0


def test_images_finer_than_pixels_are_seen_as_they_are() -> None:
    """Strokes narrower than a pixel have events; those wider have those of an image as coarse as the pixels."""
    camera = Profile(at_middle(SimulationRanges(), softness=-0.2), TRIANGLE, blurs_light=True, blind_after=True)
    grid = SensorGrid(16, (16, 16), "sum")
    rows = torch.arange(48)
    wide = ((rows // 12) % 2).float().expand(2, 1, 48, 48)
    narrow = ((rows // 2) % 2).float().expand(2, 1, 48, 48)

    def events(images: torch.Tensor) -> torch.Tensor:
        return simulate_frames(images, draws_of(2, grid), grid, time_bins=T, profile=camera, instants=12)

    coarse, fine = events(F.avg_pool2d(wide, 3)), events(wide)
    assert float(fine.sum()) == pytest.approx(float(coarse.sum()), rel=0.15)
    assert float((fine - coarse).abs().sum()) < 0.5 * float(coarse.sum())
    assert float(events(narrow).sum()) > 2 * float(events(F.avg_pool2d(narrow, 4)).sum())


def test_of_a_large_sensor_several_pixels_stand_for_a_cell() -> None:
    """So that their events do not all come at once."""
    profile = Profile(at_middle(SimulationRanges()), TRIANGLE)
    grid = SensorGrid(24, (240, 240), "sum")
    frames = simulate_frames(static_images(2, 24), draws_of(2, grid), grid, time_bins=T, profile=profile)
    assert (grid.width, grid.gain) == (48, 25)
    assert set((frames / 25).unique().tolist()) > {0, 1, 2, 3}
    assert torch.equal(frames / 25, (frames / 25).round())


@pytest.mark.parametrize(
    ("sensor", "size", "reduction", "whole"),
    [
        ((34, 34), 34, "sum", True),
        ((60, 60), 48, "sum", True),  # one to four pixels a cell, simulated one by one
        ((76, 50), 48, "sum", True),
        ((34, 34), 34, "bilinear", True),
        ((34, 34), 28, "bilinear", False),
        ((128, 128), 48, "bilinear", False),
        ((128, 128), 48, "sum", False),
        ((96, 24), 48, "sum", True),
        ((100, 40), 48, "sum", False),
    ],
)
def test_frames_of_recordings_and_of_the_grid_count_alike(sensor, size, reduction, whole) -> None:
    """Events per pixel are compared where both hold whole events; nothing is simulated where no event can be."""
    random, dtype = np.random.default_rng(0), "uint16" if reduction == "sum" else "float16"
    x, y = (random.integers(0, side, 200_000).astype(np.uint16) for side in sensor)
    events = Events(np.arange(200_000), x, y, random.integers(0, 2, 200_000).astype(np.uint8))

    def frames(size: int, width: int, reduction: str, dtype: str) -> torch.Tensor:
        packed = pack(events, sensor_size=sensor, source="")
        made = to_frames(
            packed, time_bins=T, size=size, width=width, reduction=reduction, dtype=dtype, canvas=sensor, source=""
        )
        return torch.from_numpy(made.frames.astype(np.float32))

    grid, seen = SensorGrid(size, sensor, reduction), frames(size, size, reduction, dtype)
    pixel_by_pixel = (grid.width, grid.height) == sensor
    assert grid.counts_whole == whole
    assert bool((seen == seen.round()).all()) == whole or not pixel_by_pixel
    if pixel_by_pixel:
        of_grid = grid.to_frames(frames(sensor[1], sensor[0], "sum", "uint16"))
        assert torch.equal(of_grid, seen) if whole else torch.allclose(of_grid, seen, rtol=1e-3)
    else:
        flat = grid.to_frames(torch.full((grid.height, grid.width), 1.0))
        assert torch.equal(flat > 0, seen.sum((0, 1)) > 0)
        if reduction == "sum":
            assert float(flat.sum()) == pytest.approx(sensor[0] * sensor[1])


def test_other_units_of_frames() -> None:
    counts = torch.tensor([[0.0, 2.0], [4.0, 1.0]])
    assert SensorGrid(2, (2, 2), "event").to_frames(counts).tolist() == [[0, 1], [1, 1]]
    assert SensorGrid(2, (2, 2), "frequency").to_frames(counts).tolist() == [[0, 0.5], [1, 0.25]]
    assert SensorGrid(2, (2, 2), "frequency").to_frames(counts * 0).tolist() == [[0, 0], [0, 0]]
    large = SensorGrid(48, (240, 180), "sum")  # too large to be simulated pixel by pixel
    assert (large.width, large.height) == (96, 96)
    assert large.gain == pytest.approx(240 * 180 / 96**2)
    finer = SensorGrid(64, (240, 180), "sum")
    assert (finer.width, finer.height) == (64, 64), "more would take too long"
    assert SensorGrid(48, (240, 180), "bilinear").gain == 1
    small = at_middle(SimulationRanges())
    frames = simulate_frames(
        static_images(2, 48), draws_of(2, large), large, time_bins=T, profile=Profile(small, TRIANGLE)
    )
    assert frames.shape == (T, 2, 2, 48, 48)


def test_a_free_path_goes_anywhere_and_stays_in_the_middle() -> None:
    grid = SensorGrid(16, (16, 16), "sum")
    draws = draws_of(400, grid)
    ranges = replace(PROFILES["smooth"].ranges, x_start=(0.0, 0.0), y_start=(0.0, 0.0))
    s = scale_settings(draws.settings, ranges)
    places = path_of(
        torch.linspace(0, 1, 41), s, PROFILES["smooth"], draws.settings[:, len(LANES) : FREEDOM_LANE]
    )  # [2,B,S]
    assert float(places.mean(2).abs().max()) < 1e-4
    travelled = places[:, :, -1] - places[:, :, 0]
    angles = torch.atan2(travelled[1], travelled[0])
    assert torch.histc(angles, 4, -torch.pi, torch.pi).min() > 60
    assert float(places.diff(dim=2).abs().max()) < 3, "a jump"


def test_the_mismatched_camera_is_not_the_one_of_the_built_in_recordings() -> None:
    """Thresholds, light, dead time and movement; times as shares of its recordings."""
    built_in, ranges = SimulatorSettings(), PROFILES["mismatched"].ranges
    duration_s = built_in.duration_us * 1e-6
    values = {
        "light_gamma": built_in.gamma,
        "dark_level": built_in.dark_level,
        "threshold_on": built_in.threshold_on,
        "off_ratio": built_in.threshold_off / built_in.threshold_on,
        "bandwidth": 2 * np.pi * built_in.bandwidth_hz * duration_s,
        "dead_time": built_in.refractory_us / built_in.duration_us,
        "x_start": built_in.x_offset_px,
        "y_start": built_in.y_offset_px,
        "amplitude": 1.0,
        "turn": 0.0,
        "delay": 0.0,
    }
    for name, value in values.items():
        low, high = getattr(ranges, name)
        assert not low <= value <= high, name
        if name != "bandwidth":
            low, high = getattr(PROFILES["saccades"].ranges, name)
            assert low <= value <= high, name


def test_the_simulator_reads_the_shard_set() -> None:
    manifest = {"sensor_size": [34, 34], "settings": {"reduction": "sum"}}
    simulator = Simulator(manifest, (T, 2, 28, 28), profile="smooth", seed=3)
    images = static_images(3, 28).expand(-1, 2, -1, -1)
    first = simulator.frames(images, epoch=1, draws=torch.tensor([4, 9, 2]))
    assert first.shape == (T, 3, 2, 28, 28)
    assert torch.equal(first, simulator.frames(images, epoch=1, draws=torch.tensor([4, 9, 2])))
    assert not torch.equal(first, simulator.frames(images, epoch=2, draws=torch.tensor([4, 9, 2])))
    with pytest.raises(MethodError, match="frames"):
        Simulator(manifest, (T, 3, 28, 28), profile="smooth", seed=3)


def test_hot_pixels_fire_as_often_as_they_say_wherever_the_frame_shows_them() -> None:
    pixels = (HotPixel(4, 30, 3.0, 0.5), HotPixel(4, 30, 0.0, 2.0), HotPixel(33, 0, 60.0, 0.0))
    draws = torch.arange(400)

    def added(sensor: tuple[int, int], size: tuple[int, int], reduction: str, **settings: object) -> torch.Tensor:
        manifest = {"sensor_size": sensor, "settings": {"reduction": reduction, **settings}}
        simulator = Simulator(manifest, (T, 2, size[1], size[0]), profile="smooth", seed=3)
        images = static_images(1, 28).expand(len(draws), -1, -1, -1)
        without = simulator.frames(images, epoch=1, draws=draws)
        simulator.profile = replace(simulator.profile, hot_pixels=pixels)
        return (simulator.frames(images, epoch=1, draws=draws) - without).double().sum(0)  # [B,2,H,W]

    fine = added((34, 34), (34, 34), "sum")
    assert fine[:, :, 30, 4].mean(0).tolist() == pytest.approx([3.0, 2.5], abs=0.3)
    assert fine[:, :, 0, 33].mean(0).tolist() == pytest.approx([60.0, 0.0], abs=1)
    assert fine[:, 0, 30, 4].var() > 1, "more in one recording than in another"
    fine[:, :, 30, 4] = fine[:, :, 0, 33] = 0
    assert not fine.any()
    coarse = added((340, 340), (17, 17), "sum")  # whole events of one pixel in a cell of many
    assert coarse[:, :, 1, 0].mean(0).tolist() == pytest.approx([3.0, 2.5], abs=0.3)
    assert torch.equal(coarse.round(), coarse.round(decimals=3))
    cropped = added((40, 34), (17, 17), "sum", fit="crop")  # shows x from 3 to 36
    assert cropped[:, :, 15, 0].mean(0).tolist() == pytest.approx([3.0, 2.5], abs=0.3)
    assert cropped[:, 0, 0, 15].mean() == pytest.approx(60, abs=1)
    assert added((34, 34), (17, 17), "event").abs().max() <= T
    away = added((80, 34), (17, 17), "sum", fit="crop")  # shows x from 23 on
    assert away.sum((0, 1, 2)).nonzero().tolist() == [[5]]


def test_a_shard_set_without_hot_pixels_has_none_simulated() -> None:
    camera = CameraProfile(replace(PROFILES["smooth"], hot_pixels=(HotPixel(1, 2, 3, 4),)), (34, 34), 1, (), {})
    for filtered in (0.0, 20.0):
        manifest = {"sensor_size": [34, 34], "settings": {"reduction": "sum", "hot_pixels": filtered}}
        simulator = Simulator(manifest, (T, 2, 28, 28), profile=camera.inline(), seed=3)
        assert bool(simulator.profile.hot_pixels) == (not filtered)


@pytest.mark.parametrize(("fitted", "of_set", "factor"), [(1.0, 0.8, 1.25), (0.8, None, 0.8), (0.8, 0.8, 1.0)])
def test_a_profile_is_of_images_as_large_as_they_were_in_its_fit(fitted, of_set, factor) -> None:
    camera = CameraProfile(PROFILES["smooth"], (34, 34), 1, (), {"source": {"shown_fraction": fitted}})
    manifest = {"sensor_size": [34, 34], "shown_fraction": of_set, "settings": {"reduction": "sum"}}
    simulator = Simulator(manifest, (T, 2, 28, 28), profile=camera.inline(), seed=3)
    asked = [factor * scale for scale in PROFILES["smooth"].ranges.scale]
    assert simulator.profile.ranges.scale == pytest.approx(asked)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("sensor", [(34, 34), (60, 40), (30, 48)])
@pytest.mark.parametrize("fit", ["", "pad", "crop"])
def test_images_are_as_large_on_the_sensor_as_in_the_fit_whatever_a_set_made_of_them(fit, sensor, aspect) -> None:
    """A set stretches them with the sensor, or fits them to another side of it; the fit keeps their aspect."""
    source = {"shown_fraction": 0.6, "image_aspect": [aspect, aspect, aspect]}
    camera = CameraProfile(replace(PROFILES["smooth"], surround=0.0), sensor, 1, (), {"source": source})
    manifest = {"sensor_size": list(sensor), "settings": {"reduction": "sum", "fit": fit}}
    simulator = Simulator(manifest, (T, 2, 40, 40), profile=camera.inline(), seed=3)
    white = np.full((100, round(100 * aspect), 3), 255, np.uint8)
    shown = torch.from_numpy(to_static(white, size=40, fit=fit or "squash", encoding="v")[None] / np.float32(255))
    middles = {name: torch.tensor([sum(getattr(simulator.profile.ranges, name)) / 2]) for name in LANES}
    middles |= {name: torch.zeros(1) for name in ("rotation", "shear")}
    middles["scale"] /= sum(PROFILES["smooth"].ranges.scale) / 2
    grid = simulator.grid
    lit = sample_light(Light(shown, torch.zeros(1, 1, 1, 1)), torch.zeros(2, 1, 1), middles, grid)[0, 0]
    width, height = (float(lit.sum(axis).max()) / scale for axis, scale in ((1, grid.scale_x), (0, grid.scale_y)))
    asked = 0.6 * min(sensor[0] / aspect, sensor[1])
    across, down = (min(1, 1 / aspect), min(1, aspect)) if fit == "crop" else (1, 1)  # what is left of them
    assert width == pytest.approx(min(across * asked * aspect, grid.sensor[0]), abs=2.5)
    assert height == pytest.approx(min(down * asked, grid.sensor[1]), abs=2.5)


@pytest.mark.parametrize("aspect", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(("sensor", "shown"), [((34, 34), None), ((34, 34), 0.7), ((60, 40), None), ((346, 260), None)])
def test_light_is_as_blurred_as_in_the_fit_whatever_a_set_made_of_the_images(sensor, shown, aspect) -> None:
    """A lens blurs the sensor's pixels, across and down alike; images that a set squashed are made as wide after it."""
    random, source = np.random.default_rng(5), {"shown_fraction": 1.0, "image_aspect": [aspect] * 3}
    ranges = at_middle(SimulationRanges(), softness=0.9, light_gamma=1.0, scale=1.0)
    ranges = replace(ranges, **dict.fromkeys(("stretch", "rotation", "shear"), (0.0, 0.0)))
    plain = Profile(ranges, TRIANGLE, surround=0.0, blurs_light=True)
    camera = CameraProfile(plain, sensor, 1, (), {"source": source})
    manifest = {"sensor_size": list(sensor), "settings": {"reduction": "sum"}, "shown_fraction": shown}
    simulator, side = Simulator(manifest, (T, 2, 32, 32), profile=camera.inline(), seed=3), 12 * 32
    texture = np.kron(random.integers(0, 256, (20, round(20 * aspect)), np.uint8), np.ones((20, 20), np.uint8))
    rgb, canvas = np.repeat(texture[..., None], 3, -1), (12 * sensor[0], 12 * sensor[1])
    of_fit = to_static(rgb, size=side, encoding="v", canvas=canvas)
    of_set = to_static(rgb, size=side, encoding="v", canvas=canvas if shown else None, shown_fraction=shown or 1.0)
    s = {name: torch.tensor([getattr(ranges, name)[0]]) for name in ("softness", "light_gamma")}
    grid, lit = simulator.grid, []
    for image, profile in ((of_fit, plain), (of_set, simulator.profile)):
        light = light_of(
            torch.from_numpy(image[None] / np.float32(255)), s, torch.zeros(1), profile, (grid.height, grid.width)
        )
        middles = {name: torch.tensor([sum(getattr(profile.ranges, name)) / 2]) for name in LANES}
        lit.append(sample_light(light, torch.zeros(2, 1, 1), middles, grid)[0, 0])
    assert float((lit[1] - lit[0]).square().mean().sqrt() / lit[0].std()) < 0.02
    if simulator.profile.fitted_size == (1.0, 1.0):
        assert simulator.profile == camera.profile, "nothing was resized"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"extent": "recording"}, "(extent recording), simulated ones show the whole sensor"),
        ({"binning": "count"}, "no equal parts of a recording (binning count)"),
        ({"time_window_us": [0, 100_000]}, "parts of recordings (time_window_us), the profile's are whole ones"),
        ({"cut_us": 1000, "refractory_us": 0}, "parts of recordings (cut_us)"),
        ({"encoding": "luma"}, "static images of the shard set are luma, those of the profile's fit the largest of R"),
        ({"refractory_us": 500, "background_us": 9}, "filtered (refractory_us, background_us), simulated ones are not"),
    ],
)
def test_what_simulated_frames_have_not_is_named(caplog, setting, words) -> None:
    source = {"shown_fraction": 1.0, "image_aspect": [1.0, 1.0, 1.0]}
    camera = CameraProfile(PROFILES["smooth"], (34, 34), 1, (), {"source": source})
    plain = {"reduction": "sum", "extent": "canvas", "binning": "bins", "cut_us": 0, "time_window_us": []}
    plain |= {"encoding": "v"}
    of_fit = "parts of recordings" in words or "static images" in words
    for profile in ("saccades", camera.inline()):
        for settings in (plain, plain | setting):
            caplog.clear()
            manifest = {"sensor_size": [34, 34], "settings": settings}
            Simulator(manifest, (T, 2, 28, 28), profile=profile, seed=3)
            said = settings is not plain and (profile != "saccades" or not of_fit)
            assert (words in caplog.text) == said
            assert bool(caplog.text) == said


def test_of_a_profile_without_static_images_no_shape_is_known_and_that_is_said(caplog) -> None:
    """Nor were whole recordings the samples of a set, whether the fit saw images or not."""

    def said(source, *, sensor=(60, 40), shown=None, **settings):
        camera = CameraProfile(PROFILES["smooth"], sensor, 1, (), {"source": {"shown_fraction": 1.0, **source}})
        manifest = {"sensor_size": list(sensor), "settings": {"reduction": "sum", **settings}, "shown_fraction": shown}
        caplog.clear()
        simulator = Simulator(manifest, (T, 2, 28, 28), profile=camera.inline(), seed=3)
        assert simulator.profile.ranges.scale == pytest.approx(PROFILES["smooth"].ranges.scale)
        return caplog.text

    without, of_a_set = {"static_images": 0}, {"static_images": 60}
    for fit in ("", "pad"):
        assert "knows nothing of their shape: on the sensor of 60x40 pixels" in said(without, fit=fit)
    assert not said(without, sensor=(34, 34))
    assert not said(without, shown=1.0), "the set says how large images are, whatever their shape"
    assert not said(of_a_set)
    assert "parts of recordings (cut_us)" in said(without, sensor=(34, 34), cut_us=1000)
    assert not said(of_a_set, cut_us=1000)
    assert not said(without, sensor=(34, 34), encoding="luma"), "no images were seen as anything"


def test_images_of_several_shapes_are_taken_for_the_middle_aloud(caplog) -> None:
    for aspects, fit, loud in (([1.0, 1.0, 1.5], "", True), ([1.0, 1.0, 1.5], "pad", False), ([1, 1.01, 1.02], "", 0)):
        source = {"shown_fraction": 1.0, "image_aspect": aspects}
        camera = CameraProfile(PROFILES["smooth"], (34, 34), 1, (), {"source": source})
        manifest = {"sensor_size": [34, 34], "settings": {"reduction": "sum", "fit": fit}}
        caplog.clear()
        simulator = Simulator(manifest, (T, 2, 28, 28), profile=camera.inline(), seed=3)
        assert ("1 to 1.5 times as wide as high" in caplog.text) == bool(loud)
        assert simulator.profile.ranges.scale == pytest.approx(PROFILES["smooth"].ranges.scale, rel=0.01)


def test_agrees_with_real_recordings() -> None:
    """The 20 static images against their own N-MNIST recordings; at the middle of the ranges, and drawn from them."""
    if not REAL.is_dir():
        pytest.skip("no real recordings here")
    with (REAL / "expected.csv").open() as file:
        rows = list(csv.DictReader(file))
    real = torch.zeros(10, len(rows), 2, 28, 28)
    for i, row in enumerate(rows):
        events, _ = decode((REAL / row["file"]).read_bytes(), source=row["file"])
        bin_ = (events.t - events.t[0]) // ((events.t[-1] - events.t[0]) // 10)
        kept = bin_ < 10
        columns = (events.x[kept].astype(int) * 28 // 34, events.y[kept].astype(int) * 28 // 34)
        np.add.at(real[:, i].numpy(), (bin_[kept], events.p[kept], columns[1], columns[0]), 1)
    images = np.load(REAL / "mnist_images.npy")
    placed = [
        to_static(np.repeat(image[..., None], 3, -1), size=28, encoding="v", canvas=(34, 34), shown_fraction=28 / 34)
        for image in images
    ]
    photos, grid = torch.from_numpy(np.stack(placed)) / 255, SensorGrid(28, (34, 34), "sum")
    draws = simulation_draws(0, 0, torch.arange(len(rows)), grid, device=CPU)

    def compared(ranges: SimulationRanges) -> tuple[float, float, float]:
        """Correlation of all cells of a sample, events over the real number, ON share."""
        x = simulate_frames(photos, draws, grid, time_bins=10, profile=Profile(ranges, TRIANGLE, inverted=True))
        cells = zip(x.transpose(0, 1).flatten(1), real.transpose(0, 1).flatten(1), strict=True)
        correlation = np.mean([np.corrcoef(a.numpy(), b.numpy())[0, 1] for a, b in cells])
        return float(correlation), float(x.sum() / real.sum()), float(x[:, :, 1].sum() / x.sum())

    correlation, events, on = compared(at_middle(SimulationRanges(), threshold_spread=0.1, leak=0.15, noise=0.0175))
    assert correlation > 0.8
    assert 0.85 < events < 1.15
    assert abs(on - float(real[:, :, 1].sum() / real.sum())) < 0.03
    correlation, events, _ = compared(SimulationRanges())
    assert 0.35 < correlation < 0.8, "the ranges are narrow"
    assert 0.7 < events < 1.4
