"""The verb `calibrate`, from recordings on the disk to a profile."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import write_digits_raw
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.base.files import FileLock
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.fitted import read_camera
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.calibration import calibrate as calibration
from spikebridge.train.calibration import start
from spikebridge.train.calibration.fit import Effort
from spikebridge.train.calibration.outcome import in_microseconds
from spikebridge.train.config.profile import read_profile
from spikebridge.train.config.simulation_ranges import LANES
from spikebridge.train.data.simulation import SensorGrid
from spikebridge.train.errors import RunError


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Recordings of the built-in camera, single events, of digits."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("recordings")
    for number, image in enumerate(load_digits().images[:12]):
        events = simulate((image * (255 / 16)).astype("uint8"), settings=SimulatorSettings(), seed=0, key=str(number))
        (folder / f"{number:02}.bin").write_bytes(bin40.encode(events))
    return folder


def run(*words):
    return CliRunner().invoke(main, ["calibrate", *map(str, words)])


def test_what_lies_beside_recordings_is_passed_over_and_named(recordings, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(recordings, folder)
    (folder / "labels.csv").write_text("file,label\n00.bin,0\n")
    (folder / "cut.npz").write_bytes(b"PK\3\4")
    options = "--sensor", "34x34", "--out"
    plain = run(recordings, *options, tmp_path / "plain.toml", "--json")
    made = json.loads(run(folder, *options, tmp_path / "p.toml", "--json").stdout)
    assert (made["recordings"], made["recordings_found"], made["unreadable"]) == (12, 14, 2)
    assert [Path(message.split(": ")[0]).name for message in made["unreadable_messages"]] == ["cut.npz", "labels.csv"]
    assert made["profile"]["camera"] == json.loads(plain.stdout)["profile"]["camera"]
    text = run(folder, *options, tmp_path / "p.toml", "--overwrite").output
    assert "12 of 14 recordings (2 cannot be used, see below)" in text
    assert f"\n  cannot be used: {folder / 'labels.csv'}: " in text
    for number in range(3):
        (folder / f"{number:02}.bin").write_bytes(b"")
    few = run(folder, *options, tmp_path / "few.toml")
    assert few.exit_code == 1
    assert "found 9 recordings (and 5 that cannot be used, " in " ".join(few.output.split())


def test_two_calls_do_not_write_one_profile(recordings, tmp_path):
    out, lock = tmp_path / "profile.toml", tmp_path / ".profile.toml.lock"
    with FileLock(lock):
        done = run(recordings, "--sensor", "34x34", "--out", out)
    assert done.exit_code == 1
    assert "profile.toml: another calibrate is writing this profile; wait" in done.output
    assert lock.exists(), "it is the other one's"
    assert run(recordings, "--sensor", "34x34", "--out", out).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["profile.toml"]


def test_without_static_images_movement_and_polarities_are_told(recordings, tmp_path):
    out = tmp_path / "profile.toml"
    done = run(recordings, "--sensor", "34x34", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["recordings"] == 12
    assert made["statistics"]["recordings"] == 12
    assert {"threshold_on", "bandwidth", "inverted", "path"} <= set(made["undecided"])
    assert made["profile"]["camera"]["off_ratio"] == pytest.approx(0.255 / 0.238, rel=0.15)
    read = read_profile(out)
    assert read.informing["source"]["recordings_from"] == [f"{recordings.parent.name}/{recordings.name}"]
    assert "static_images_from" not in read.informing["source"]
    assert read.sensor == (34, 34)
    assert read.profile.legs[0].y == pytest.approx(4.95, abs=2), "down, then up"
    assert read.profile.legs[1].y == pytest.approx(-4.9, abs=2)
    camera = read_camera(out)
    assert camera.settings.sensor_size == (34, 34, 2)
    assert camera.settings.saccades[0].y_px == pytest.approx(read.profile.legs[0].y)
    assert camera.undecided == read.undecided
    again = run(recordings, "--out", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    text = run(recordings, "--out", out, "--overwrite")
    assert text.exit_code == 0, text.output
    assert "Not decided by these recordings" in text.output
    assert "smallest that holds all events" in text.output


def test_all_recordings_are_learnt_from_where_none_can_be_told(recordings, tmp_path):
    """Without static images nothing is simulated that those held out could be told from."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(calibration.FEWEST_TO_SPLIT):
        (many / f"{number}.bin").write_bytes((recordings / f"{number % 12:02}.bin").read_bytes())
    done = run(many, "--sensor", "34x34", "--out", tmp_path / "profile.toml", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["profile"]["source"]["held_out"] == 0


def test_what_columns_are_and_the_unit_of_time_can_be_said(recordings, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for file in recordings.iterdir():
        (t, x, y, p) = bin40.decode(file.read_bytes(), source=file.name)[0].columns
        rows = np.stack([p, y, x, t * 1000], 1).tolist()
        (tables / f"{file.stem}.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    left_open = run(tables, "--sensor", "34x34", "--out", tmp_path / "p.toml")
    assert left_open.exit_code == 1
    assert "Say what each column is with --columns" in " ".join(left_open.output.split())
    options = "--columns", "p,y,x,t", "--time-unit", "ns"
    for folder, more in ((recordings, ()), (tables, options)):
        assert run(folder, "--sensor", "34x34", "--out", tmp_path / f"{folder.name}.toml", *more).exit_code == 0
    plain, said = (read_profile(tmp_path / f"{folder.name}.toml") for folder in (recordings, tables))
    assert said.informing["camera"] == plain.informing["camera"]
    assert said.duration_us == plain.duration_us


def test_what_is_of_cells_is_not_said_of_pixels(recordings, tmp_path):
    """A sensor of many pixels is compared and simulated cell by cell; the shortest times are those of pixels."""
    made = {}
    for sensor in ("34x34", "102x68"):
        done = run(recordings, "--sensor", sensor, "--out", tmp_path / f"{sensor}.toml")
        assert done.exit_code == 0, done.output
        made[sensor] = " ".join(done.output.split()), read_profile(tmp_path / f"{sensor}.toml").informing
    for sensor, (words, tables) in made.items():
        cells = sensor == "102x68"
        assert ("cells, each as one pixel" in words) == cells
        assert ("share of 0.7 cells" in words) == cells
        assert ("share of 0.7 px" in words) == (not cells)
        assert tables["source"].get("cells") == ([64, 64] if cells else None)
        assert ("blur_px" in tables["microseconds"]) == (not cells)
    dead = [tables["microseconds"]["refractory_us"] for _, tables in made.values()]
    assert dead[0] == pytest.approx(dead[1], rel=0.01)
    assert read_camera(tmp_path / "34x34.toml").cells is None
    assert read_camera(tmp_path / "102x68.toml").cells == (64, 64)
    assert read_camera(tmp_path / "102x68.toml").settings.blur_px == SimulatorSettings().blur_px
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "photos" / "cat" / "1.png")
    words = [
        "simulate",
        "--images",
        tmp_path / "photos",
        "--camera",
        tmp_path / "102x68.toml",
        "--out",
        tmp_path / "raw",
    ]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert "fitted to 64x64 cells of the sensor, each as one pixel" in done.output


def test_hot_pixels_are_found_and_spoil_nothing(recordings, tmp_path):
    hot = tmp_path / "hot"
    hot.mkdir()
    for number, file in enumerate(sorted(recordings.iterdir())):
        (events, _), random = bin40.decode(file.read_bytes(), source=file.name), np.random.default_rng(number)
        t = np.r_[events.t, np.sort(random.integers(events.t[-1], size=900))]
        order = np.argsort(t, kind="stable")
        x, y, p = (np.r_[own, np.full(900, added)] for own, added in zip(events.columns[1:], (5, 29, 0), strict=True))
        y[-450:] = 30  # two, side by side
        changed = Events(
            t[order],
            *(column[order].astype(own.dtype) for column, own in zip((x, y, p), events.columns[1:], strict=True)),
        )
        (hot / file.name).write_bytes(bin40.encode(changed))
    profiles = []
    for folder in (recordings, hot):
        out = tmp_path / f"{folder.name}.toml"
        done = run(folder, "--sensor", "34x34", "--out", out)
        assert done.exit_code == 0, done.output
        profiles.append(read_profile(out))
    plain, found = profiles
    assert plain.profile.hot_pixels == ()
    assert "2 hot pixels, which the fit left out and training has; the busiest, x=5 y=" in done.output
    assert {(pixel.x, pixel.y) for pixel in found.profile.hot_pixels} == {(5, 29), (5, 30)}
    for pixel in found.profile.hot_pixels:
        assert pixel.off == pytest.approx(450, abs=2)
        assert pixel.on < 1
    assert found.informing["camera"] == pytest.approx(plain.informing["camera"], rel=0.02)
    for one, other in zip(found.profile.legs, plain.profile.legs, strict=True):
        assert (one.x, one.y, one.start) == pytest.approx((other.x, other.y, other.start), abs=0.1)
    assert len(read_camera(tmp_path / "hot.toml").settings.hot_pixels) == 2


def test_too_little_and_the_wrong_thing_are_refused(recordings, tmp_path):
    few = run(recordings / "00.bin", "--out", tmp_path / "p.toml")
    assert few.exit_code == 1
    assert "found 1 recordings; expected at least 10" in few.output
    on = tmp_path / "on"
    on.mkdir()
    for file in recordings.iterdir():
        events, _ = bin40.decode(file.read_bytes(), source=file.name)
        (on / file.name).write_bytes(bin40.encode(replace(events, p=np.ones_like(events.p))))
    one_polarity = run(on, "--sensor", "34x34", "--out", tmp_path / "p.toml")
    assert one_polarity.exit_code == 1
    assert "12 recordings: all events are ON; expected both polarities" in one_polarity.output
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "manifest.json").write_text("{}")
    for verb, more in (("calibrate", ()), ("match", ("--static", recordings))):
        words = [verb, tmp_path / "shards", *more, "--out", tmp_path / "p.toml"]
        a_set = CliRunner().invoke(main, list(map(str, words)))
        assert a_set.exit_code == 1
        assert "shards is a shard set; expected the recordings that it was made of" in " ".join(a_set.output.split())
    no_images = run(recordings, "--static", recordings, "--out", tmp_path / "p.toml")
    assert no_images.exit_code == 1
    assert "no image below it" in no_images.output
    absent = run(tmp_path / "absent", "--out", tmp_path / "p.toml")
    assert absent.exit_code == 1
    assert "no such file" in absent.output
    small = run(recordings, "--sensor", "20x20", "--out", tmp_path / "p.toml")
    assert small.exit_code == 1
    assert "the sensor of 20x20 pixels allows 0 to 19" in " ".join(small.output.split())
    raw = write_digits_raw(tmp_path / "raw", train=4, test=1, classes=2)
    few = run(recordings, "--static", raw / "static" / "Train" / "0", "--out", tmp_path / "p.toml")
    assert few.exit_code == 1
    assert "found 4 static images, 4 of them different" in few.output
    for name, image in (("black", np.zeros((8, 8), np.uint8)), ("alike", np.eye(8, dtype=np.uint8) * 255)):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
        alike = run(recordings, "--static", tmp_path / name, "--sensor", "34x34", "--out", tmp_path / "p.toml")
        assert alike.exit_code == 1
        said = " ".join(alike.output.split())
        assert f"found 12 static images, {int(name == 'alike')} of them different and of more than one grey" in said
    page = run(recordings, "--html", tmp_path / "p.html", "--out", tmp_path / "p.toml")
    assert page.exit_code == 1
    assert "there is none without --static" in page.output
    page = run(recordings, "--static", raw / "static", "--html", tmp_path / "p.html", "--out", tmp_path / "p.toml")
    assert page.exit_code == 1
    assert "--html needs at least 40 recordings" in page.output
    told = run(recordings, "--held-out", "2", "--out", tmp_path / "p.toml")
    assert "--held-out tells simulated recordings from real ones, and there is none without --static" in told.output
    told = run(recordings, "--static", raw / "static", "--held-out", "5", "--out", tmp_path / "p.toml")
    assert told.exit_code == 1
    assert "found 12 recordings; expected 0, or 5 and more, so that 10 are left" in " ".join(told.output.split())
    table = tmp_path / "pairs.csv"
    table.write_text("recording,image\n00,Train/0/none\n")
    alone = run(recordings, "--pairs", table, "--out", tmp_path / "p.toml")
    assert "give --static" in alone.output
    two = [
        recordings,
        recordings / "00.bin",
        "--static",
        raw / "static",
        "--pairs",
        table,
        "--out",
        tmp_path / "p.toml",
    ]
    assert "found 2 of recordings; name the one above them" in " ".join(run(*two).output.split())
    wrong = run(recordings, "--static", raw / "static", "--pairs", table, "--out", tmp_path / "p.toml")
    assert "no image 'Train/0/none'" in wrong.output
    assert not (tmp_path / "p.toml").exists()
    for name, words in (("p.json", "ends in .toml"), (".", "ends in .toml"), ("folder.toml", "is a folder")):
        (tmp_path / "folder.toml").mkdir(exist_ok=True)
        other = run(recordings, "--out", tmp_path / name, "--overwrite")
        assert (other.exit_code, words in other.output) == (1, True)


def test_a_page_or_a_profile_that_cannot_be_written_loses_no_fit(recordings, tmp_path, monkeypatch):
    """What failed is said before the fit where that can be known; else the same command goes on with what it left."""
    raw = write_digits_raw(tmp_path / "raw", train=6, test=1, classes=2)
    (tmp_path / "file").write_text("no folder")
    words = [recordings, "--static", raw / "static", "--sensor", "34x34", "--held-out", "5"]
    for out, html in (("file/p.toml", "p.html"), ("p.toml", "file/p.html")):
        done = run(*words, "--out", tmp_path / out, "--html", tmp_path / html)
        assert done.exit_code == 1
        assert "file is no folder that can be written; choose another one" in " ".join(done.output.split())
    done = run(*words, "--out", tmp_path / "p.toml", "--html", tmp_path / "p.toml")
    assert "is the file of the profile, --out; choose another for the page" in " ".join(done.output.split())

    whole, write, full = calibration.calibrate_to, calibration.write_atomic, set()

    def fitted(seen, images, *, state_file, **more):
        state_file.write_bytes(b"what the fit left")
        told = SimpleNamespace(as_dict=dict)
        return replace(whole(seen, None, state_file=state_file, **more), fidelity=told, compared=(None, None))

    def write_where_room_is(path, data):
        if path.name in full:
            raise RunError(f"cannot write {path}: No space left on device")
        write(path, data)

    monkeypatch.setattr(calibration, "FEWEST", 5)
    monkeypatch.setattr(calibration, "calibrate_to", fitted)
    monkeypatch.setattr(calibration, "write_atomic", write_where_room_is)
    out, html, state = tmp_path / "o" / "p.toml", tmp_path / "o" / "p.html", tmp_path / "o" / ".p.toml.state"

    def once(**more):
        calibration.calibrate(
            [recordings], out, html=html, page=lambda *_: "page", static=raw / "static", sensor=(34, 34), held_out=5,
            **more,
        )  # fmt: skip

    for name in ("p.html", "p.toml"):
        full = {name}
        with pytest.raises(RunError, match=f"{name}: No space left"):
            once()
        assert list(out.parent.iterdir()) == [state], "the same command finds nothing in its way, and what is done"
    full = set()
    once()
    assert sorted(out.parent.iterdir()) == [html, out]


def test_profiles_do_not_depend_on_threads(recordings, tmp_path, monkeypatch):
    threads, begin = torch.get_num_threads(), start._begin
    seen = []
    monkeypatch.setattr(start, "_begin", lambda *words: seen.append(torch.get_num_threads()) or begin(*words))
    torch.set_num_threads(2)
    try:
        assert run(recordings, "--sensor", "34x34", "--out", tmp_path / "p.toml").exit_code == 0
    finally:
        torch.set_num_threads(threads)
    assert seen == [1]


def test_of_a_short_recording_the_dead_time_is_a_microsecond_at_least():
    """`simulate` knows none."""
    assert in_microseconds(dict.fromkeys(LANES, 1.0) | {"dead_time": 1e-4}, 1_000)["refractory_us"] == 1


def test_events_at_one_time_tell_of_no_dead_time(recordings, tmp_path):
    """As of a camera whose clock is coarse."""
    for file in recordings.iterdir():
        (events, _) = bin40.decode(file.read_bytes(), source=file.name)
        coarse = Events(events.t // 10_000 * 10_000, *events.columns[1:])
        (tmp_path / file.name).write_bytes(bin40.encode(coarse))
    made = json.loads(run(tmp_path, "--sensor", "34x34", "--out", tmp_path / "p.toml", "--json").stdout)
    assert made["statistics"]["refractory_us"] == 0
    assert "dead_time" in made["undecided"]


def test_an_interrupted_fit_of_another_sensor_is_not_continued(monkeypatch, tmp_path):
    """Even where its frames are the same; nor one of another shortest time."""
    keys = []

    def interrupted(*_, state, **__):
        keys.append(str(state._arrays["key"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "fit", interrupted)
    frames, images = torch.ones(10, 12, 2, 8, 8), torch.rand(12, 1, 8, 8)
    for sensor, floor in (((80, 80), None), ((88, 80), None), ((80, 80), 0.01), ((80, 80), None)):
        with pytest.raises(KeyboardInterrupt):
            calibration.calibrate_frames(
                frames, images, SensorGrid(8, sensor, "sum"), sensor=sensor, duration_us=1000, floor=floor,
                simulated=True, shown_fraction=1.0, seed=0, effort=Effort(), state_file=tmp_path / "state",
            )  # fmt: skip
    assert keys[0] == keys[-1]
    assert len(set(keys)) == 3


@pytest.mark.long
def test_pairs_of_a_table_are_fitted(recordings, tmp_path):
    from sklearn.datasets import load_digits

    (tmp_path / "images").mkdir()
    for number, image in enumerate(load_digits().images[:12]):
        Image.fromarray((image * (255 / 16)).astype("uint8")).save(tmp_path / "images" / f"{number}.png")
    table = tmp_path / "pairs.csv"
    table.write_text("recording,image\n" + "".join(f"{number:02},{number}\n" for number in range(11)))
    done = run(
        recordings, "--static", tmp_path / "images", "--pairs", table, "--sensor", "34x34", "--shown", "0.825",
        "--sets", "20", "--out", tmp_path / "p.toml", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["pairs"], made["recordings"]) == (11, 11)
    assert made["profile"]["source"]["pairs"] == 11
    assert read_profile(tmp_path / "p.toml").profile.inverted


@pytest.mark.long
def test_the_built_in_camera_is_found_by_the_other_simulator(tmp_path):
    """The simulators share no code; what both have agrees as far as the stated uncertainty, and no less than 30 %."""
    import spikebridge.pipeline.simulation.write as raw

    raw.write_digits(tmp_path / "raw")
    done = run(
        tmp_path / "raw" / "events" / "Train", "--static", tmp_path / "raw" / "static" / "Train", "--sensor", "34x34",
        "--shown", "0.825", "--out", tmp_path / "p.toml", "--html", tmp_path / "p.html", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["simulated"]
    assert made["fidelity"]["asked"] == 100
    assert "SIMULATED" in (tmp_path / "p.html").read_text()
    tables = made["profile"]
    assert read_profile(tmp_path / "p.toml").profile.inverted
    true = {"threshold_on": 0.238, "off_ratio": 0.255 / 0.238, "x_start": -2.7, "y_start": -1.51, "scale": 1.0}
    for name, value in true.items():
        assert abs(tables["camera"][name] - value) < 3 * tables["uncertainty"][name] + 0.3 * abs(value), name
    assert tables["microseconds"]["refractory_us"] == pytest.approx(1430, rel=0.6)
