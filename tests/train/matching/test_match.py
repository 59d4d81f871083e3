"""`match` names the image behind a recording, says nothing where it cannot, and its table pairs and audits a set."""

from __future__ import annotations

import csv
import json
import math
import resource
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from known_cameras import digit_images
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.base.files import FileLock
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.shards.manifest import read
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.config.profile import CameraProfile
from spikebridge.train.config.simulation_ranges import ALL_LANES, FINE_INSTANTS, PROFILES
from spikebridge.train.data.simulation import SensorGrid, SimulationDraws, simulate_frames, simulation_draws
from spikebridge.train.errors import RunError
from spikebridge.train.matching import gallery, match, register
from spikebridge.train.matching.gallery import TIME_BINS, features
from spikebridge.train.verbs.match import _text

IMAGES, SHOWN = 30, 14


def run(*words, code=0):
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Digits in folders by class, and recordings by the other simulator under names that say nothing of them."""
    from sklearn.datasets import load_digits

    root, data = tmp_path_factory.mktemp("raw"), load_digits()
    images = (data.images * (255 / 16)).astype("uint8")
    for number in range(IMAGES):
        path = root / "static" / str(data.target[number]) / f"photo{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path)
    for number in [*range(SHOWN), *range(IMAGES, IMAGES + 3)]:
        path = root / "events" / str(data.target[number]) / f"{number:02}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        events = simulate(images[number], settings=SimulatorSettings(), seed=0, key=str(number))
        path.write_bytes(bin40.encode(events))
    (root / "events" / "0" / "99.bin").write_bytes(b"123")
    fitted = {"source": {"shown_fraction": 0.8235}}
    (root / "camera.toml").write_text(CameraProfile(PROFILES["saccades"], (34, 34), 300_000, (), fitted).dump())
    return root


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(gallery, "VARIED", 150)
    monkeypatch.setattr(gallery, "ASKED", 150)
    monkeypatch.setattr(match, "REGISTERED", 1)
    monkeypatch.setattr(register, "STEPS", 1)


def test_recordings_find_their_images_and_the_table_pairs_and_audits_a_set(raw, tmp_path, quick):
    pairs, shards = tmp_path / "pairs.csv", tmp_path / "shards"
    words = ["match", raw / "events", "--static", raw / "static", "--camera", raw / "camera.toml", "--sensor", "34x34",
             "--dataset", "folders", "--out", pairs]  # fmt: skip
    made = json.loads(run(*words, "--json").stdout)
    assert made["shown_fraction"] == 0.8235, "as the camera was fitted"
    assert made["least"] == match.LEAST
    rows = {row["recording"]: row for row in csv.DictReader(pairs.read_text().splitlines())}
    right = [name for name, row in rows.items() if row["image"] == f"{name[0]}/photo{name[-2:]}"]
    answered = [row for row in rows.values() if row["image"]]
    assert len(rows) == made["recordings"] == SHOWN + 4
    assert (len(right), made["answered"]) == (len(answered), len(answered)), "no answer is wrong"
    assert len(right) >= 0.8 * SHOWN
    assert not any(rows[name]["image"] for name in rows if int(name[-2:]) >= SHOWN), "shown by none, and a damaged one"
    assert made["unreadable"] == 1
    assert "99.bin" in made["unreadable_messages"][0]
    assert made["classes"] == {"answers": len(answered), "of_one_class": len(answered)}
    assert "pass --overwrite" in run(*words, code=1).output
    text = _text(made)
    assert f"{len(answered):,} with a confidence of 0.9 or more" in text
    assert "1 cannot be used" in text
    assert "34x34, given; images fill 0.8235 of it" in text
    assert "34x34, given; images fill it" in _text(made | {"shown_fraction": 1.0})

    convert = ["preprocess", "--dataset", "folders", "--events", raw / "events", "--static", raw / "static", "--sensor",
               "34x34", "--time-bins", "2", "--size", "12", "--workers", "1", "--out", shards]  # fmt: skip
    run(*convert, "--pairs", pairs)
    manifest = read(shards)
    assert manifest["pairing"]["kind"] == "exact"
    assert len(manifest["settings"]["pairs_sha256"]) == 64
    assert f"static images by a table: {len(answered)} recordings show {len(answered)} of them" in manifest["notes"]
    assert any(note.startswith(f"{len(rows) - len(answered)} recordings are not used") for note in manifest["notes"])
    report = run("verify", shards, "--match", pairs).output
    assert f"{len(answered)} of {len(answered)} recordings show by content the image that the set pairs them" in report

    leaky, planted = tmp_path / "leaky", [name for name in sorted(rows) if rows[name]["image"]][::3]
    splits = tmp_path / "splits.csv"
    splits.write_text("recording,split\n" + "".join(f"{r},{'test' if r in planted else 'train'}\n" for r in rows))
    by_class = [leaky if word is shards else word for word in convert]  # the pool holds what these test recordings show
    run(*by_class, "--splits", splits, "--max-bad", "1", code=3)
    report = run("verify", leaky, "--match", pairs, code=4).output
    assert report.count("problem: leak by content: test-") == len(planted)
    assert all(f"test-{r[0]}-{r[2:]} (test) shows {rows[r]['image']}, which training sees" in report for r in planted)


def test_a_few_recordings_and_a_damaged_one_say_nothing(raw, tmp_path, quick):
    """The header of the latter would state its sensor."""
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        shutil.copy(next(raw.glob(f"events/*/{number:02}.bin")), few)
    (few / "damaged.aedat4").write_bytes(b"123")
    done = run("match", few, "--static", raw / "static", "--camera", raw / "camera.toml", "--sensor", "34x34",
               "--shown", "0.8235", "--out", tmp_path / "pairs.csv")  # fmt: skip
    words = " ".join(done.output.split())
    assert "4; 1 cannot be used:" in words
    assert "4; nothing is told where fewer than 5 are clearly nearer to one image" in words
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    assert [(row["recording"], row["image"]) for row in rows] == [("00", ""), ("01", ""), ("02", ""), ("damaged", "")]


def test_two_calls_do_not_write_one_table(raw, tmp_path):
    lock = tmp_path / ".pairs.csv.lock"
    with FileLock(lock):
        done = run("match", raw / "events", "--static", raw / "static", "--camera", raw / "camera.toml", "--sensor",
                   "34x34", "--shown", "0.8235", "--out", tmp_path / "pairs.csv", code=1)  # fmt: skip
    assert "pairs.csv: another match is writing this table" in done.output
    assert lock.exists(), "it is the other one's"


def test_a_table_that_another_call_wrote_meanwhile_is_not_replaced(raw, tmp_path, monkeypatch):
    """It was absent when this call began to read."""
    out, read = tmp_path / "pairs.csv", match._Images.read

    def slow(*words):
        out.write_text("theirs")
        return read(*words)

    monkeypatch.setattr(match._Images, "read", slow)
    done = run("match", raw / "events", "--static", raw / "static", "--camera", raw / "camera.toml", "--sensor",
               "34x34", "--shown", "0.8235", "--out", out, code=1)  # fmt: skip
    assert "pass --overwrite" in done.output
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("pairs.csv", "theirs")]


def test_where_the_sign_of_the_light_is_not_known_both_are_tried(raw, tmp_path, quick):
    """The answers are those of the right sign; a profile that claims to know the wrong one finds nothing."""
    right, wrong = PROFILES["saccades"], replace(PROFILES["saccades"], inverted=False, surround=1.0)
    answers = []
    for number, (camera, undecided) in enumerate(((right, ()), (wrong, ("inverted",)), (wrong, ()))):
        file, out = tmp_path / f"{number}.toml", tmp_path / f"{number}.csv"
        profile = replace(camera, surround=camera.surround or 0.0, either_sign=bool(undecided))
        file.write_text(CameraProfile(profile, (34, 34), 300_000, undecided, {}).dump())
        run("match", raw / "events", "--static", raw / "static", "--camera", file, "--sensor", "34x34", "--shown",
            "0.8235", "--out", out)  # fmt: skip
        answers.append([row["image"] for row in csv.DictReader(out.read_text().splitlines())])
    assert answers[0] == answers[1]
    assert sum(map(bool, answers[2])) < sum(map(bool, answers[0])) / 2


@pytest.mark.parametrize("many", [False, True])
def test_of_two_beginnings_it_is_that_with_which_recordings_are_clearer(tmp_path, quick, monkeypatch, many):
    """Where the calibration could not tell; what it could is left alone. Of many images those that are near count."""
    if many:
        monkeypatch.setattr(match, "AROUND", 1)
        monkeypatch.setattr(match, "DRAWN", 10)
    true = replace(PROFILES["saccades"], surround=0.0, appeared=True, rest=0.8, blind_after=True)
    sensor, images = (34, 34), (digit_images(120, 34) * 255).to(torch.uint8)
    grid, shown = SensorGrid(34, sensor, "sum"), lambda total, what: lambda: None
    placed = match._Images(images.numpy(), np.arange(120), {}, 34)
    drawn = simulation_draws(9, 0, torch.arange(30), grid, device=torch.device("cpu"))
    draws = replace(drawn, pixels=torch.full_like(drawn.pixels, 0.5))  # as in renderings: those differ from none else
    frames = simulate_frames(
        images[:30] / 255, draws, grid, time_bins=TIME_BINS, profile=gallery.middle(true), instants=FINE_INSTANTS
    )
    seen = SimpleNamespace(frames=lambda **_: frames.numpy())
    wrong, fitted = replace(true, appeared=False, either_begin=True), replace(true, rest=0.81)
    for undecided, rivals, expected in (
        ((), (), replace(wrong, either_begin=False)), (("appeared",), (), true), (("appeared",), (fitted,), fitted)
    ):  # fmt: skip
        cameras = [CameraProfile(one, sensor, 300_000, undecided, {}) for one in (wrong, *rivals)]
        state = tmp_path / f"{len(undecided)} {len(rivals)}"
        state.mkdir()
        assert match._registered(cameras, seen, placed, grid, 0, state, shown)._profile == expected


def test_where_images_begin_is_found_by_the_recordings_that_show_them(tmp_path, quick):
    """Where the calibration could not tell; what it could is left alone."""
    true = replace(PROFILES["saccades"], surround=0.0)
    sensor, images = (34, 34), (digit_images(60, 34) * 255).to(torch.uint8)
    grid, shown = SensorGrid(34, sensor, "sum"), lambda total, what: lambda: None
    placed = match._Images(images.numpy(), np.arange(60), {}, 34)
    draws = simulation_draws(9, 0, torch.arange(30), grid, device=torch.device("cpu"))
    frames = simulate_frames(
        images[:30] / 255, draws, grid, time_bins=TIME_BINS, profile=gallery.middle(true), instants=FINE_INSTANTS
    )
    seen = SimpleNamespace(frames=lambda **_: frames.numpy())
    elsewhere = match._begun_elsewhere(true, -4.0, 3.0)
    starts = []
    for undecided in ((), ("y_start",)):
        state = tmp_path / str(len(undecided))
        state.mkdir()
        cameras = [CameraProfile(elsewhere, sensor, 300_000, undecided, {})]
        found = match._registered(cameras, seen, placed, grid, 0, state, shown)._profile.ranges
        starts.append((np.mean(found.x_start), np.mean(found.y_start)))
    expected = [(np.mean(one.ranges.x_start), np.mean(one.ranges.y_start)) for one in (elsewhere, true)]
    assert starts[1] == pytest.approx(expected[1], abs=1.0)
    assert math.dist(starts[0], expected[1]) > 3


def test_a_rendering_for_another_sensor_is_not_continued(tmp_path, monkeypatch):
    """Where images lie on it in the same way."""
    keys, placed = [], match._Images(np.zeros((20, 1, 8, 8), np.uint8), np.arange(20), {}, 8)

    def interrupted(*_, keep, **__):
        keys.append(keep.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(match, "Gallery", interrupted)
    seen = SimpleNamespace(frames=lambda **_: np.ones((TIME_BINS, 5, 2, 8, 8), np.float32))
    for sensor in ((80, 80), (160, 160), (80, 80)):
        cameras = [CameraProfile(PROFILES["saccades"], sensor, 300_000, (), {})]
        with pytest.raises(KeyboardInterrupt):
            match._registered(cameras, seen, placed, SensorGrid(8, sensor, "sum"), 0, tmp_path, None)
    assert keys[0] == keys[2] != keys[1]


def test_an_interrupted_rendering_is_continued(tmp_path, monkeypatch):
    """As is one whose file ends within an image; the numbers are the same to the bit."""
    for name, count in {"LEARNT_FROM": 8, "VARIED": 8, "ASKED": 8, "RENDERED": 4}.items():
        monkeypatch.setattr(gallery, name, count)
    images, keep, read = (digit_images(30, 12) * 255).to(torch.uint8), tmp_path / "kept", []

    def rendered(keep, most=99):
        read.clear()

        def shown(total, what):
            left = iter(range(most))

            def advance():
                if next(left, None) is None:
                    raise KeyboardInterrupt

            return advance

        def some(rows):
            read.extend(rows)
            return images[list(rows)]

        grid = SensorGrid(12, (12, 12), "sum")
        return gallery.Gallery(30, some, grid, PROFILES["saccades"], seed=0, shown=shown, keep=keep).places

    whole, all_read = rendered(None), len(read)
    with pytest.raises(KeyboardInterrupt):
        rendered(keep, most=5)
    (kept,) = tmp_path.iterdir()
    with kept.open("ab") as file:
        file.write(b"torn")
    assert torch.equal(rendered(keep), whole)
    assert len(read) < all_read
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.stat().st_size // 2, limits[1]))  # as a full disk has one
    kept.unlink()
    try:
        with pytest.raises(RunError, match=f"cannot write .*{kept.name}: File too large; free some space"):
            rendered(keep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(rendered(keep), whole)
    assert torch.equal(rendered(keep), whole), "of a file that is whole"
    found = gallery._components
    monkeypatch.setattr(gallery, "_components", lambda centred: -found(centred))  # as another processor may find them
    assert torch.equal(rendered(keep), -whole)


@pytest.mark.long
def test_a_camera_is_brought_to_recordings_of_known_images():
    """From a place that is off by more than a pixel."""
    images, grid = digit_images(12, 16), SensorGrid(16, (16, 16), "sum")
    true = PROFILES["saccades"]

    def render(camera):
        draws = SimulationDraws(torch.full((12, ALL_LANES), 0.5), torch.full((4, 12, 16, 16), 0.5))
        made = simulate_frames(
            images, draws, grid, time_bins=10, profile=gallery.middle(camera), instants=FINE_INSTANTS
        )
        return features(made, free=False)

    steps = ((0.1, 0.0), (-0.1, 0.0)) * 5
    wrong = replace(true, ranges=replace(true.ranges, x_start=(-2.9, 0.1)), steps=steps)
    found, left = register.register(wrong, render(true), render)
    assert left < 0.5
    assert np.mean(found.ranges.x_start) == pytest.approx(np.mean(true.ranges.x_start), abs=0.5)
    assert np.ptp(found.ranges.x_start) == pytest.approx(3.0), "ranges keep their width"
    assert found.steps == steps, "small ones, which a fit to all recordings knows better"
    told = []
    again, left = register.register(true, render(true), render, shown=lambda total, _: lambda: told.append(total))
    assert (again.legs, left) == (true.legs, 0)
    assert told == [register.STEPS] * register.STEPS, "a bar is full at the end, also where nothing is gained"


def test_a_free_camera_is_compared_without_time_and_polarity():
    frames = torch.rand(10, 3, 2, 34, 34)
    assert features(frames, free=False).shape == (3, 10 * 17 * 17)
    assert features(frames, free=True).shape == (3, 17 * 17)
    turned = frames.flip(0, 2)
    assert torch.allclose(features(turned, free=True), features(frames, free=True), atol=1e-5)


def test_what_cannot_be_matched_is_refused(raw, tmp_path, quick):
    def refused(*words):
        return run("match", *words, "--out", tmp_path / "p.csv", code=1).output

    assert "no such folder" in refused(tmp_path / "absent", "--static", raw / "static")
    assert "no image below it" in refused(raw / "events", "--static", raw / "events")
    assert "none of 18 recordings can be used" in refused(
        raw / "events", "--static", raw / "static", "--sensor", "20x20"
    )
    few = tmp_path / "few"
    few.mkdir()
    idx.write(few / "train-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
    assert "found 1 different static images" in refused(raw / "events", "--static", few, "--sensor", "34x34")
    (tmp_path / "other.toml").write_text((raw / "camera.toml").read_text().replace("[34, 34]", "[64, 48]"))
    wrong = refused(
        raw / "events", "--static", raw / "static", "--camera", tmp_path / "other.toml", "--sensor", "34x34"
    )
    assert "of a sensor of 64x48 pixels, the recordings are of 34x34" in wrong
    (few / "a.bin").write_bytes(b"123")
    assert "a.bin: 3 bytes is no multiple of 5" in refused(few, "--static", raw / "static")
    assert not (tmp_path / "p.csv").exists()


def test_a_recording_of_one_of_two_near_copies_has_both_as_candidates(monkeypatch):
    """The first 20 images are near copies of the last 20; there is a recording of each."""
    random = np.random.default_rng(2)
    made = object.__new__(gallery.Gallery)
    places = torch.from_numpy(random.normal(0, 30, (60, 16))).float()
    made.places = torch.cat([places, places[:20] + 0.05 * torch.from_numpy(random.normal(0, 1, (20, 16))).float()])
    made._variation, made._seed = torch.eye(16), 0
    drawn, departure = random.integers(80, size=600), torch.from_numpy(random.normal(0, 1, (600, 16))).float()
    made._truth, made._departure = torch.from_numpy(drawn), departure
    asked = made.places + torch.from_numpy(random.normal(0, 1, (80, 16))).float()
    found = made.answer(asked, 0.8)
    doubtful = np.repeat([True, False, True], [20, 40, 20])
    assert np.array_equal(found.confidence < 0.8, doubtful)
    several = [set(each.tolist()) for each in found.candidates]
    assert [bool(each) for each in several] == doubtful.tolist(), "where it is answered there are none"
    both = [{row % 60, row % 60 + 60} for row in range(80)]
    assert np.mean([each == two for each, two in zip(several, both, strict=True) if each]) > 0.9
    assert all(each[0] == image for each, image in zip(found.candidates, found.image, strict=True) if len(each))
    assert found.held[doubtful].min() > 0.8
    strangers = made.answer(torch.from_numpy(random.normal(0, 30, (80, 16))).float(), 0.8)
    assert not any(map(len, strangers.candidates)), "nothing is known of recordings of other images"
    assert not any(map(len, made.answer(asked, 0.0).candidates)), "every recording is answered"
    monkeypatch.setattr(gallery, "MOST_CANDIDATES", 1)
    assert max(len(each) for each in made.answer(asked, 0.8).candidates) <= 1, "of too many none is named"


@pytest.mark.parametrize("shown", [0, 20, 200])
def test_recordings_that_show_no_image_are_not_answered_however_many_they_are(shown):
    """Of 600. Learnt from together with images that they do not show, they would seem to show them."""
    random = np.random.default_rng(5)
    made = object.__new__(gallery.Gallery)
    images = torch.from_numpy(random.normal(0, 2.0, (800 + 600, 80))).float()
    made.places = images[:800]
    made._variation, made._seed = torch.eye(80), 0
    made._truth = torch.from_numpy(random.integers(800, size=2000))
    made._departure = torch.from_numpy(random.normal(0, 1, (2000, 80))).float()
    truth = np.concatenate([np.arange(shown), np.full(600 - shown, -1)])
    recorded = torch.cat([images[:shown], images[800 : 1400 - shown]])
    found = made.answer(recorded + torch.from_numpy(random.normal(0, 1, (600, 80))).float(), 0.8)
    answered = found.confidence >= 0.8
    wrong = np.sum(found.image[answered] != truth[answered])
    assert wrong <= 2 + 2 * np.sum(1 - found.confidence[answered])
    assert np.sum(answered) >= 0.8 * shown


def test_what_measures_a_recording_is_learnt_from_others():
    random = np.random.default_rng(6)
    made = object.__new__(gallery.Gallery)
    made.places = torch.from_numpy(random.normal(0, 5, (200, 40))).float()
    made._variation, made._seed = torch.eye(40), 0
    made._truth = torch.from_numpy(random.integers(200, size=500))
    made._departure = torch.from_numpy(random.normal(0, 1, (500, 40))).float()
    recordings = made.places[:103] + torch.from_numpy(random.normal(0, 1, (103, 40))).float()
    changed = recordings.clone()
    changed[1 :: gallery.FOLDS] = made.places[150] + 1
    before, after = made._crossed(recordings).measures, made._crossed(changed).measures
    assert [torch.equal(one.unit, other.unit) for one, other in zip(before, after, strict=True)] == [
        number == 1 for number in range(gallery.FOLDS)
    ]
