"""Raw data sets of simulated recordings: layout, resumption, refusals, equal bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError
from spikebridge.pipeline.base.files import FileLock
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.images.decode import common_bits
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.simulation import folder as rawdata_folder
from spikebridge.pipeline.simulation import write as rawdata
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.folder import COMPLETE, LOCK, PARTIAL
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.pipeline.simulation.write import luminance, write_digits, write_images


def _tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _first_digits(patch: pytest.MonkeyPatch, count: int) -> None:
    """Scikit-learn's first digits only, for speed."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    bunch.images, bunch.target = bunch.images[:count], bunch.target[:count]
    patch.setattr(sklearn.datasets, "load_digits", lambda: bunch)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Iterator[Path]:
    """A raw set of the first 100 digits, read only."""
    out = tmp_path_factory.mktemp("raw") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        _first_digits(patch, 100)
        made = write_digits(out, seed=0)
        assert (made["recordings"], made["written"], made["up_to_date"]) == (100, 100, False)
        yield out


@pytest.fixture
def few_digits(monkeypatch):
    """Scikit-learn's first 40 digits only."""
    _first_digits(monkeypatch, 40)


@pytest.fixture
def image_folder(tmp_path) -> Path:
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / name / f"{i}.png")
    (folder / "cat" / "notes.txt").write_text("not an image")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / "readme.png").write_bytes(b"in no class folder")
    return folder


def test_digits_have_the_layout_of_the_data_set(tmp_path, monkeypatch):
    from sklearn.datasets import load_digits

    one = Events(np.array([7]), np.array([1], np.int32), np.array([2], np.int32), np.array([1], np.uint8))
    monkeypatch.setattr(rawdata, "simulate", lambda *args, **kwargs: one)
    digits = tmp_path / "digits"
    made = write_digits(digits)
    assert made == {"recordings": 1797, "events": 1797, "written": 1797, "up_to_date": False}

    bunch = load_digits()
    static = sorted((digits / "static").glob("*/*/*.png"))
    events = sorted((digits / "events").glob("*/*/*.bin"))
    names = [p.relative_to(digits / "static").with_suffix("") for p in static]
    assert names == [p.relative_to(digits / "events").with_suffix("") for p in events]
    assert sorted(int(n.name) for n in names) == list(range(1, 1798))
    for digit in range(10):
        n = int((bunch.target == digit).sum())
        assert sum(name.parts[:2] == ("Test", str(digit)) for name in names) == round(0.2 * n)
    for path in static[::200]:
        index = int(path.stem) - 1
        assert path.parent.name == str(bunch.target[index])
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (8, 8))
            assert np.array_equal(np.asarray(image), np.rint(bunch.images[index] * 255 / 16))
    facts = json.loads((digits / COMPLETE).read_text())
    assert facts["simulated"] is True
    assert "simulated" in facts["statement"]
    assert facts["counts"]["recordings"] == 1797
    assert facts["counts"]["events"] == sum(p.stat().st_size for p in events) // 5
    assert sum(facts["counts"]["per_folder"].values()) == 1797
    assert set(os.listdir(digits)) == {"events", "static", COMPLETE}


def test_digit_recordings_are_those_of_the_simulator(digits):
    path = next((digits / "events" / "Test" / "3").glob("*.bin"))
    with Image.open(digits / "static" / "Test" / "3" / f"{path.stem}.png") as image:
        expected = simulate(np.asarray(image), settings=SimulatorSettings(), seed=0, key=path.stem)
    found, markers = bin40.decode(path.read_bytes(), source=str(path))
    assert markers == 0
    assert all(np.array_equal(getattr(found, c), getattr(expected, c)) for c in "txyp")


def test_tonic_reads_the_recordings(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.io import read_mnist_file
    for path in sorted((digits / "events" / "Train").glob("*/*.bin"))[::30]:
        theirs = read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        ours, _ = bin40.decode(path.read_bytes(), source=str(path))
        assert all(np.array_equal(theirs[c], getattr(ours, c)) for c in "txyp")


def test_complete_folder_is_left_alone(digits):
    before = {p: p.stat().st_mtime_ns for p in digits.rglob("*")}
    made = write_digits(digits, seed=0)
    assert made["up_to_date"]
    assert (made["recordings"], made["written"]) == (100, 0)
    assert made["events"] > 0
    assert before == {p: p.stat().st_mtime_ns for p in digits.rglob("*")}


@pytest.mark.parametrize("header", [COMPLETE, PARTIAL])
def test_folders_of_earlier_versions_are_taken_up(few_digits, tmp_path, header):
    write_digits(tmp_path)
    written = json.loads((tmp_path / COMPLETE).read_bytes())
    written["generator"] = "spikebridge pipeline.rawdata.write_digits"  # modules have moved since
    if header == PARTIAL:
        (tmp_path / COMPLETE).unlink()
        written = {name: value for name, value in written.items() if name != "counts"} | {"clearing": False}
    (tmp_path / header).write_text(json.dumps(written))
    made = write_digits(tmp_path)
    assert (made["written"], made["up_to_date"]) == (0, header == COMPLETE)


def test_other_settings_are_refused_with_the_difference(digits):
    with pytest.raises(SettingsError, match="seed: 0 there, 5 wanted"):
        write_digits(digits, seed=5)
    with pytest.raises(SettingsError, match=r"settings.threshold_on: .* there, 0.9 wanted"):
        write_digits(digits, settings=SimulatorSettings(threshold_on=0.9))


def test_overwrite_replaces_everything(few_digits, tmp_path):
    write_digits(tmp_path / "a", seed=1)
    write_digits(tmp_path / "b", seed=0)
    (tmp_path / "b" / "events" / "stray.bin").write_bytes(b"x")
    made = write_digits(tmp_path / "b", seed=1, overwrite=True)
    assert made["written"] == 40
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


class _KilledError(Exception):
    """Stands for the end of the process in the middle of a run."""


def test_interrupted_run_resumes(few_digits, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    write_digits(whole, seed=2)

    def dying(image, *, settings, seed, key):
        if int(key) > 25:
            raise _KilledError
        return simulate(image, settings=settings, seed=seed, key=key)

    with monkeypatch.context() as patch:
        patch.setattr(rawdata, "simulate", dying)
        with pytest.raises(_KilledError):
            write_digits(out, seed=2)
    assert not (out / COMPLETE).exists()
    kept = sorted((out / "events").rglob("*.bin"))
    assert len(kept) == 25
    stamps = [p.stat().st_mtime_ns for p in kept[1:]]
    kept[0].write_bytes(b"")  # what a power cut may leave
    kept[0].with_name(f".{kept[0].name}.partial").write_bytes(b"half")
    with pytest.raises(SettingsError, match="seed: 2 there, 3 wanted"):
        write_digits(out, seed=3)
    made = write_digits(out, seed=2)
    assert made["written"] == 16
    assert stamps == [p.stat().st_mtime_ns for p in kept[1:]]
    assert _tree(out) == _tree(whole)


@pytest.mark.parametrize("moment", ["clearing", "rmtree", "complete"])
def test_killed_overwrite_never_mixes_old_and_new(few_digits, tmp_path, monkeypatch, moment):
    new, out = tmp_path / "new", tmp_path / "out"
    write_digits(new, seed=8)
    write_digits(out, seed=7)
    real_rmtree, real_write = rawdata_folder.shutil.rmtree, rawdata_folder.write_bytes

    def dying_rmtree(path):
        if moment == "rmtree" and Path(path).name == "static":
            raise _KilledError
        real_rmtree(path)

    def dying_write(path, data):
        if moment == "complete" and path.name == COMPLETE:
            raise _KilledError
        real_write(path, data)
        if moment == "clearing" and path.name == PARTIAL:
            raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(rawdata_folder.shutil, "rmtree", dying_rmtree)
        patch.setattr(rawdata_folder, "write_bytes", dying_write)
        with pytest.raises(_KilledError):
            write_digits(out, seed=8, overwrite=True)
    # Before anything was removed, the old set is still whole; afterwards only the new settings may go on.
    if moment == "clearing":
        assert write_digits(out, seed=7)["up_to_date"]
    else:
        with pytest.raises(SettingsError, match="seed"):
            write_digits(out, seed=7)
    write_digits(out, seed=8, overwrite=moment == "clearing")
    assert _tree(out) == _tree(new)


def test_two_calls_do_not_write_one_folder(few_digits, tmp_path):
    """A killed one, whose lock is left without its owner, is in nobody's way."""
    out = tmp_path / "raw"
    out.mkdir()
    with FileLock(out / LOCK), pytest.raises(SettingsError, match="another simulate is writing this folder"):
        write_digits(out, seed=0)
    assert [path.name for path in out.iterdir()] == [LOCK]
    assert write_digits(out, seed=0)["written"] > 0
    assert not (out / LOCK).exists()


def test_foreign_folders_are_refused(tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=r"not empty \(thesis.txt\)"):
            write_digits(out, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "precious"
    for text in ("[]", "[" * 10**5, '{"settings": {}}', '{"settings": {}, "counts": {"recordings": NaN}}'):
        (out / COMPLETE).write_text(text)
        with pytest.raises(SettingsError, match="not what this command writes"):
            write_digits(out)
    with pytest.raises(SettingsError, match="is a file"):
        write_digits(out / "thesis.txt")
    with pytest.raises(SettingsError, match="seed"):
        write_digits(tmp_path / "new", seed=-1)
    assert not (tmp_path / "new").exists()


def test_images_are_copied_and_simulated(image_folder, tmp_path):
    seen = []
    made = write_images(
        image_folder, tmp_path / "out", sensor=(64, 48), seed=1, progress=lambda i: seen.extend(i) or seen
    )
    assert (made["recordings"], len(seen)) == (6, 6)
    tree = _tree(tmp_path / "out")
    names = [f"{c}/{i}" for c in ("cat", "dog") for i in range(3)]
    assert sorted(tree) == sorted([COMPLETE, *(f"events/{n}.bin" for n in names), *(f"static/{n}.png" for n in names)])
    for name in names:
        assert tree[f"static/{name}.png"] == (image_folder / f"{name}.png").read_bytes()
    events, _ = bin40.decode(tree["events/dog/1.bin"], source="")
    assert 34 < events.x.max() < 64
    assert 34 < events.y.max() < 48
    assert write_images(image_folder, tmp_path / "out", sensor=(64, 48), seed=1)["up_to_date"]
    with pytest.raises(SettingsError, match=r"settings.sensor_width_px: 64 there, 34 wanted"):
        write_images(image_folder, tmp_path / "out", seed=1)
    (image_folder / "cat" / "0.png").unlink()
    with pytest.raises(SettingsError, match=r"source\.images: 6 image files there, 5 image files wanted"):
        write_images(image_folder, tmp_path / "out", sensor=(64, 48), seed=1)


def test_the_sensors_of_larger_cameras_go_into_a_container_that_holds_them(tmp_path):
    photo = tmp_path / "photos" / "cat" / "0.png"
    photo.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (20, 30, 3), np.uint8)).save(photo)
    short = SimulatorSettings(duration_us=20_000, sample_us=4_000, shot_hz=1.0)
    out = tmp_path / "out"
    made = write_images(tmp_path / "photos", out, sensor=(346, 260), seed=1, settings=short)
    path = out / "events" / "cat" / "0.dat"
    events = recording_files.read(path)
    assert recording_files.sensor_size(path) == (346, 260)
    assert made["events"] == len(events) > 100
    assert 256 < events.x.max() < 346
    assert 240 < events.y.max() < 260
    image = luminance(photo.read_bytes(), source="x")
    settings = replace(short, sensor_width_px=346, sensor_height_px=260)
    expected = simulate(image, settings=settings, seed=1, key="cat/0")
    assert all((getattr(events, name) == getattr(expected, name)).all() for name in "txyp")
    converted = prepare(ConversionSettings(dataset="folders"), events_root=out, static_root=out)
    assert (converted.sensor_size, converted.simulated) == ((346, 260), True)


def test_image_folders_that_cannot_work_are_refused(image_folder, tmp_path):
    with pytest.raises(SettingsError, match="sensor_width_px: 2049 is too large"):
        write_images(image_folder, tmp_path / "out", sensor=(2049, 260))
    with pytest.raises(LayoutError, match="no such folder"):
        write_images(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(LayoutError, match="no images in class folders"):
        write_images(image_folder / "cat", tmp_path / "out")
    for inside in (image_folder / "out", image_folder, tmp_path):
        with pytest.raises(SettingsError, match="overlaps"):
            write_images(image_folder, inside)
    Image.new("L", (4, 4)).save(image_folder / "dog" / "1.bmp")
    with pytest.raises(LayoutError, match=r"dog: 1.bmp and 1.png have the same stem"):
        write_images(image_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_image_stops_the_run_by_name_and_the_rest_is_kept(image_folder, tmp_path):
    (image_folder / "dog" / "9.png").write_bytes((image_folder / "dog" / "1.png").read_bytes()[:200])
    with pytest.raises(RecordingError, match=r"9\.png"):
        write_images(image_folder, tmp_path / "out")
    assert not (tmp_path / "out" / COMPLETE).exists()
    assert len(list((tmp_path / "out" / "events").rglob("*.bin"))) == 6


def test_recording_without_events_is_an_error(tmp_path):
    (tmp_path / "in" / "flat").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "in" / "flat" / "black.png")
    with pytest.raises(RecordingError, match=r"static/flat/black.png: .* no events"):
        write_images(tmp_path / "in", tmp_path / "out", settings=SimulatorSettings(leak_hz=0, shot_hz=0))


def _encoded(image: Image.Image, kind: str, tmp_path: Path, **options) -> bytes:
    path = tmp_path / f"image.{kind}"
    image.save(path, **options)
    return path.read_bytes()


def test_luminance_of_every_kind_of_image(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Image.fromarray(ramp)
    assert np.array_equal(luminance(_encoded(grey, "png", tmp_path), source="x"), ramp)
    assert np.array_equal(luminance(_encoded(grey.convert("RGB"), "bmp", tmp_path), source="x"), ramp)
    assert np.array_equal(luminance(_encoded(grey, "gif", tmp_path), source="x"), ramp)
    wide = Image.fromarray(ramp.astype(np.uint16) * 257)
    assert np.abs(luminance(_encoded(wide, "png", tmp_path), source="x").astype(int) - ramp).max() <= 1
    cmyk = luminance(_encoded(grey.convert("CMYK"), "jpg", tmp_path, quality=100, subsampling=0), source="x")
    assert np.abs(cmyk.astype(int) - ramp).max() <= 4
    clear = Image.merge("LA", (grey, Image.new("L", (16, 16), 0)))
    assert not luminance(_encoded(clear, "png", tmp_path), source="x").any()
    red = luminance(_encoded(Image.new("RGB", (3, 2), (255, 0, 0)), "png", tmp_path), source="x")
    assert red.shape == (2, 3)
    assert set(red.ravel()) == {76}
    with pytest.raises(RecordingError, match=r"nonsense\.png"):
        luminance(b"nonsense", source="nonsense.png")


def test_deep_images_are_of_one_depth(tmp_path):
    """A dark picture of a 12-bit camera stays dark: all are simulated as their 8-bit copies are."""
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for folder in ("deep", "plain"):
        (tmp_path / folder / "a").mkdir(parents=True)
    for name, values in (("bright", 16 * ramp), ("dark", 3 * ramp)):
        Image.fromarray(values).save(tmp_path / "deep" / "a" / f"{name}.png")
        Image.fromarray((values // 16).astype(np.uint8)).save(tmp_path / "plain" / "a" / f"{name}.png")
    for folder in ("deep", "plain"):
        write_images(tmp_path / folder, tmp_path / f"{folder}-out", sensor=(16, 16))
    for name in ("bright", "dark"):
        found, expected = (tmp_path / f"{f}-out" / "events" / "a" / f"{name}.bin" for f in ("deep", "plain"))
        assert found.read_bytes() == expected.read_bytes()
    assert json.loads((tmp_path / "deep-out" / "simulated.json").read_text())["source"]["image_bits"] == "12"
    assert common_bits((tmp_path / "deep" / "a").iterdir()) == 12
    assert common_bits((tmp_path / "plain" / "a").iterdir()) == 0


def test_equal_bytes_whatever_the_surroundings(image_folder, tmp_path):
    code = (
        "import sys, os; from pathlib import Path; from spikebridge.pipeline.simulation.write import write_images; "
        "os.umask(int(sys.argv[3], 8)); write_images(Path(sys.argv[1]), Path(sys.argv[2]), seed=4)"
    )
    trees = []
    for out, zone, mask, hash_seed in (("a", "UTC", "022", "0"), ("elsewhere/b", "Asia/Kolkata", "077", "123")):
        env = os.environ | {"TZ": zone, "PYTHONHASHSEED": hash_seed, "LC_ALL": "C"}
        target = tmp_path / out
        subprocess.run(
            [sys.executable, "-c", code, str(image_folder), str(target), mask], check=True, env=env, cwd=ROOT
        )
        trees.append(_tree(target))
    assert trees[0] == trees[1]
