"""Figures of events that can be counted by hand; reading of sets."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import make_events
from event_files import text_lines
from PIL import Image

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.prophesee import dat
from spikebridge.pipeline.images.decode import to_static
from spikebridge.pipeline.measurement import recordings
from spikebridge.pipeline.measurement.hot_pixels import find_hot_pixels
from spikebridge.pipeline.measurement.placing import Placing
from spikebridge.pipeline.measurement.recordings import RecordingSet, read_recordings, read_static_images
from spikebridge.pipeline.measurement.shown import read_shown
from spikebridge.pipeline.measurement.sources import sources_of_dataset, sources_of_files
from spikebridge.pipeline.measurement.statistics import measure, shortest_interval_us
from spikebridge.pipeline.shards import settings


def events(*rows: tuple[int, int, int, int]) -> Events:
    t, x, y, p = np.array(sorted(rows)).T
    return Events(t.astype(np.int64), x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def test_figures_are_those_that_one_counts():
    one = events((0, 1, 1, 1), (1500, 1, 1, 1), (4000, 1, 1, 0), (9000, 2, 0, 1), (10_000, 3, 3, 0))
    two = events((0, 1, 1, 1), (10_000, 1, 1, 1))
    found = measure(RecordingSet(("a", "b"), (one, two), (4, 4), "given", False, 2))
    assert found["events"] == 3.5
    assert found["on_share"] == pytest.approx(5 / 7)
    assert found["events_per_pixel_s"] == pytest.approx(7 / (0.02 * 16))
    assert found["same_polarity"] == pytest.approx(2 / 3)  # of 1500, 2500 and 10,000 us
    assert found["profile"] == [2.0, 1.5]
    assert found["refractory_us"] is None, "three times are too few"
    classes = np.flatnonzero(found["intervals"])
    edges = found["interval_edges_us"]
    assert [edges[i - 1] for i in classes] == [1000, 2154, 10_000]
    assert found["hot_pixels"] == []


def test_hot_pixels_and_refractory_time():
    rows = [(7 + 2000 * i, 5, 2, i % 2) for i in range(600)] + [(1000 * i, i % 8, i // 8 % 8, 1) for i in range(1200)]
    found = measure(RecordingSet(("a",), (events(*rows),), (8, 8), "given", False, 1))
    assert found["hot_pixels"] == [(5, 2, 300, 300)]
    steady = [(2000 * i, i % 3, 0, 1) for i in range(1200)] + [(2000 * i + 1500, i % 3, 0, 1) for i in range(1200)]
    found = measure(RecordingSet(("a",), (events(*steady),), (3, 1), "given", False, 1))
    assert found["refractory_us"] == 1500
    some = RecordingSet(("a",), (events(*steady),), (3, 1), "given", False, 1)
    assert shortest_interval_us(some) == 1500
    assert shortest_interval_us(some.part([0]).without([(0, 0), (1, 0)])) is None, "too few"


def test_hot_pixels_side_by_side_are_found_and_lines_are_none():
    recordings = np.zeros((10, 2, 9, 9), int)
    recordings[:, :, 4] = 4  # a line that all recordings show
    recordings[:, 0, 1, 1:3], recordings[:, 1, 7, 7] = (9, 6), 3
    assert find_hot_pixels(recordings) == [(1, 1, 9, 0), (2, 1, 6, 0), (7, 7, 0, 3)]
    recordings[4:, 1, 7, 7] = 0
    assert len(find_hot_pixels(recordings)) == 2, "a pixel that fired in few recordings is none"
    assert find_hot_pixels([]) == []


def test_hot_pixels_are_found_where_something_passes_over_them():
    """In some recordings an object is there, with more events than they have."""
    random = np.random.default_rng(0)
    recordings = random.poisson(0.02, (20, 2, 12, 12))
    recordings[:9, :, 3:9, 3:9] += random.poisson(9, (9, 2, 6, 6))
    assert find_hot_pixels(recordings) == []
    recordings[:, 1, 5, 6] += random.poisson(4, 20)
    ((x, y, off, on),) = find_hot_pixels(recordings)
    assert (x, y) == (6, 5)
    assert on == pytest.approx(4, abs=1), "what passes is none of its own"
    assert off < 0.2
    recordings[:9, :, 4, 5:8] = 0
    recordings[9:, :, 3:9, 3:9] += random.poisson(9, (11, 2, 6, 6))
    assert find_hot_pixels(recordings) == [], "nobody knows, where there is always something"


def test_recordings_without_hot_pixels_are_as_long():
    one = events((0, 5, 2, 1), (10, 1, 1, 0), (20, 5, 2, 0), (30, 2, 2, 1), (40, 5, 2, 1))
    whole = RecordingSet(("a",), (one,), (8, 8), "given", False, 1)
    left = whole.without([(5, 2)])
    assert [column.tolist() for column in left.events[0].columns] == [
        [0, 10, 30, 40],
        [5, 1, 2, 5],
        [2, 1, 2, 2],
        [1, 0, 1, 1],
    ]
    assert left.duration_us == whole.duration_us
    frames, rest = (seen.frames(time_bins=4, size=8) for seen in (whole, left))
    assert frames.sum() - rest.sum() == 1
    assert (frames - rest)[2, 0, 0, 2, 5] == 1


def test_sets_are_drawn_and_their_sensor_is_known(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.bin").write_bytes(bin40.encode(make_events(number, size=(20, 12))))
    seen = read_recordings([tmp_path], most=4, seed=1)
    assert (len(seen.events), seen.found) == (4, 6)
    assert seen.sensor[0] <= 20
    assert "holds all events" in seen.sensor_known
    assert not seen.simulated
    assert seen.names == read_recordings(sorted(tmp_path.glob("*.bin")), most=4, seed=1).names
    frames = seen.frames(time_bins=5, size=20)
    assert frames.shape == (5, 4, 2, 20, 20)
    assert frames.sum() > 0.9 * sum(map(len, seen.events))
    (tmp_path / "short.bin").write_bytes(bin40.encode(make_events(0, count=3)))
    with pytest.raises(RecordingError, match=r"short\.bin: holds 3 events"):
        read_recordings([tmp_path / "short.bin"], most=4, seed=1)
    with pytest.raises(LayoutError, match="no such file"):
        read_recordings([tmp_path / "absent"], most=4, seed=1)


def dat_file(path, sensor):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dat.encode(make_events(1, size=(20, 12)), sensor_size=sensor))


def test_a_camera_has_one_sensor_that_files_or_their_folder_state(tmp_path):
    dat_file(tmp_path / "cat" / "a.dat", (640, 480))
    (tmp_path / "cat" / "b.bin").write_bytes(bin40.encode(make_events(1, size=(20, 12))))  # states none
    seen = read_recordings([tmp_path], most=4, seed=1)
    assert (seen.sensor, seen.sensor_known) == ((640, 480), "stated by the files")
    dat_file(tmp_path / "dog" / "c.dat", (320, 240))
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    several = r"1 of 640x480 pixels \(such as .*cat/a\.dat\), 1 of 320x240 pixels .*one camera"
    with pytest.raises(LayoutError, match=several):
        read_recordings([tmp_path], most=4, seed=1)
    with pytest.raises(LayoutError, match=several):
        sources_of_files(tmp_path, tmp_path)
    assert read_recordings([tmp_path], most=4, seed=1, sensor=(64, 64)).sensor_known == "given"
    (tmp_path / "sensor.txt").write_text("800 600")
    for path in (tmp_path, tmp_path / "dog", tmp_path / "cat" / "b.bin"):
        seen = read_recordings([path], most=4, seed=1)
        assert (seen.sensor, seen.sensor_known) == ((800, 600), "stated by sensor.txt")


def test_simulated_recordings_are_known_by_the_note_above_them(tmp_path):
    file = tmp_path / "events" / "Train" / "3" / "1.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(bin40.encode(make_events(1, size=(20, 12))))
    camera = {"sensor_width_px": 40, "sensor_height_px": 30, "shown_fraction": 0.8}
    (tmp_path / "simulated.json").write_text(json.dumps({"settings": camera}))
    for path in (tmp_path, tmp_path / "events", file):
        seen = read_recordings([path], most=1, seed=1)
        assert seen.simulated
        assert (seen.sensor, seen.sensor_known) == ((40, 30), "stated by simulated.json")
    (tmp_path / "all").mkdir()
    for name in ("simulated.json", "events"):
        (tmp_path / name).rename(tmp_path / "all" / name)
    seen = read_recordings([tmp_path], most=1, seed=1)
    assert seen.simulated, "some of those below are"
    assert seen.sensor == (40, 30)


def test_recordings_that_may_be_of_two_cameras_are_doubted(tmp_path, caplog):
    """N-MNIST's format states no sensor, so events alone tell."""
    for number in range(6):
        size = (16, 12) if number < 3 else (64, 48)
        (tmp_path / f"{number}.bin").write_bytes(bin40.encode(make_events(number, count=2000, size=size)))
    read_recordings([tmp_path], most=9, seed=1)
    assert "3 of 6 recordings have events within 16x12 of the 64x48 pixels alone, such as" in caplog.text
    assert "0.bin" in caplog.text
    caplog.clear()
    (tmp_path / "0.bin").unlink()
    read_recordings([tmp_path], most=9, seed=1)
    assert not caplog.text, "two may be unlike the others"


def test_a_sensor_much_larger_than_what_recordings_reach_is_doubted(tmp_path, caplog):
    """As one that was said wrongly; half of it the one way alone is what a wide sensor may see."""
    for number in range(4):
        (tmp_path / f"{number}.bin").write_bytes(bin40.encode(make_events(number, count=2000, size=(64, 48))))
    for sensor in ((64, 48), (127, 96), (128, 95)):
        read_recordings([tmp_path], most=9, seed=1, sensor=sensor)
    assert not caplog.text
    read_recordings([tmp_path], most=9, seed=1, sensor=(128, 96))
    assert "all 4 recordings have events within 64x48 of the 128x96 pixels alone" in caplog.text


def save_columns(path, duration_us, *, columns="txyp", **others):
    """Write 300 events of both polarities, or as `others` has them."""
    random = np.random.default_rng(0)
    found = {"t": np.linspace(0, duration_us, 300).astype(int)}
    found |= {"x": random.integers(0, 20, 300), "y": random.integers(0, 12, 300), "p": random.integers(0, 2, 300)}
    found |= others
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.stack([found[name] for name in columns], 1)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows.tolist()))


def test_recordings_of_unequal_lengths_one_polarity_or_another_unit_are_doubted(tmp_path, caplog):
    """What `preprocess` warns of, a fit says, too: its profile has times in shares of a recording."""
    for number in range(8):
        save_columns(tmp_path / "alike" / f"{number}.csv", 200_000 + 5000 * number)
    read_recordings([tmp_path / "alike"], most=9, seed=1)
    assert not caplog.text
    save_columns(tmp_path / "alike" / "long.csv", 2_000_000)
    read_recordings([tmp_path / "alike"], most=9, seed=1)
    assert re.search(r"last from 0\.2 s \(.*0\.csv\) to 2 s \(.*long\.csv\), in the median 0\.22 s", caplog.text)
    caplog.clear()
    for number in range(8):
        save_columns(
            tmp_path / "on" / f"{number}.csv", 200_000, p=np.full(300, 1) if number < 2 else np.arange(300) % 2
        )
        save_columns(tmp_path / "ms" / f"{number}.csv", 200)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    sources_of_files(tmp_path / "on", tmp_path).draw(9, 1)
    assert "2 of 8 recordings have events of one polarity, such as 0: " in caplog.text
    caplog.clear()
    read_recordings([tmp_path / "ms"], most=9, seed=1)
    assert re.search(r"0\.csv and 7 more: 300 events in 200 us .* say it with --time-unit", caplog.text)
    caplog.clear()
    assert read_recordings([tmp_path / "ms"], most=9, seed=1, table={"time_unit": "ms"}).duration_us == 200_000
    assert not caplog.text


def test_no_more_recordings_are_read_than_there_is_memory_for(tmp_path, caplog, monkeypatch):
    """Thousands of events in each of many; those that are read are of all of the list, not of its beginning."""
    for number in range(12):
        save_columns(tmp_path / f"{number:02}.csv", 200_000)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    whole = read_recordings([tmp_path], most=12, seed=1)
    assert [Path(name).stem for name in whole.names] == [f"{number:02}" for number in range(12)]
    monkeypatch.setattr(recordings, "MOST_EVENTS", 1000)
    monkeypatch.setattr(recordings, "FEWEST_KEPT", 2)
    assert not caplog.text
    some = read_recordings([tmp_path], most=12, seed=1)
    assert (len(some.events), some.found) == (4, 12)
    assert "4 of 12 recordings hold 1,200 events, and no more are read" in caplog.text
    assert sorted(some.names) == list(some.names)
    assert max(some.names) > str(tmp_path / "06")
    drawn = sources_of_files(tmp_path, tmp_path).draw(12, 1)
    assert list(drawn.names) == [Path(name).stem for name in some.names]
    first = np.random.default_rng(1).permutation(12)[0]
    (tmp_path / f"{first:02}.csv").write_text("t,x,y,p\n1,1,1,1\n")
    caplog.clear()
    assert len(sources_of_files(tmp_path, tmp_path).draw(12, 1).events) == 4
    assert "4 of 12 recordings hold 1,200 events" in caplog.text, "one that cannot be read holds none"
    monkeypatch.setattr(recordings, "FEWEST_KEPT", 20)
    assert len(sources_of_files(tmp_path, tmp_path).draw(12, 1).events) == 11


def test_what_columns_are_can_be_said(tmp_path):
    save_columns(tmp_path / "1.csv", 200_000, columns="pyxt")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(RecordingError, match="--columns"):
        read_recordings([tmp_path], most=9, seed=1)
    columns = {"columns": ("p", "y", "x", "t")}
    (read,) = read_recordings([tmp_path], most=9, seed=1, table=columns).events
    assert (read.duration_us, int(read.x.max()), int(read.y.max())) == (200_000, 19, 11)
    assert sources_of_files(tmp_path, tmp_path, table=columns).events(0).duration_us == 200_000
    with pytest.raises(SettingsError, match="nmnist knows its own"):
        sources_of_dataset("nmnist", tmp_path, tmp_path, table=columns)


def test_colours_are_those_of_a_pool_for_a_fit_and_those_of_a_camera_for_a_match(tmp_path):
    """Training shows what static pools hold; light is a sum over colours."""
    colours = np.zeros((12, 12, 3), np.uint8)
    colours[:4, :, 0] = colours[4:8, :, 2] = 200
    Image.fromarray(colours).save(tmp_path / "1.png")
    (tmp_path / "1.csv").write_text("".join(f"{t},1,1,{t % 2}\n" for t in range(100)))
    placing = Placing(12, (12, 12))
    of_fit = read_static_images(tmp_path, placing, most=1, seed=0).placed[0, 0]
    sources = sources_of_files(tmp_path, tmp_path, sensor=(12, 12))
    shown = read_shown(sources, [0], placing)[0, 0]
    _, of_match = sources.image(0, placing)
    pool = to_static(colours, size=12, encoding=settings.CHOICES["encoding"][0])
    assert (255 * of_fit).round().astype(int).tolist() == pool[0].tolist() == (255 * shown).round().astype(int).tolist()
    assert of_match[0, ::4, 0].tolist() == [60, 23, 0]


def test_every_kind_of_recording_below_a_folder_counts(tmp_path):
    """A `.txt` of numbers is a recording, here as in a conversion; a text is none."""
    image = tmp_path / "images" / "1.png"
    image.parent.mkdir()
    Image.new("RGB", (8, 8)).save(image)
    folder = tmp_path / "events" / "cat"
    dat_file(folder / "1.dat", (20, 12))
    (folder / "2.txt").write_bytes(text_lines(make_events(2, size=(20, 12))))
    (folder / "notes.txt").write_text("what the camera saw\n")
    assert [Path(name).name for name in read_recordings([folder], most=9, seed=1).names] == ["1.dat", "2.txt"]
    assert sources_of_files(folder, image.parent).recordings == ("1", "2")


def test_recordings_that_cannot_be_used_are_passed_over_and_named(tmp_path):
    """Damaged, empty, no recording at all, or of a larger sensor."""
    folder = tmp_path / "cat"
    dat_file(folder / "1.dat", (20, 12))
    (folder / "2.npz").write_bytes(b"PK\3\4")
    (folder / "labels.csv").write_text("file,label\n1.dat,cat\n")
    (folder / "short.bin").write_bytes(bin40.encode(make_events(0, count=3)))
    (folder / "wide.bin").write_bytes(bin40.encode(make_events(2, size=(34, 34))))
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    seen = read_recordings([tmp_path], most=9, seed=1)
    assert [Path(name).name for name in seen.names] == ["1.dat"]
    wrong = ("2.npz", "labels.csv", "short.bin", "wide.bin")
    assert [Path(message.split(": ")[0]).name for message in seen.unreadable] == list(wrong)
    assert all(message.startswith(str(folder)) for message in seen.unreadable)
    assert seen.counted == f"1 recordings (and 4 that cannot be used, {seen.unreadable[0]})"
    drawn = sources_of_files(tmp_path, tmp_path).draw(9, 1)
    assert (drawn.names, len(drawn.unreadable)) == (("cat/1",), 4)
    (folder / "1.dat").unlink()
    with pytest.raises(RecordingError, match=r"^none of 4 recordings can be used; the first: .*2\.npz: "):
        read_recordings([tmp_path], most=9, seed=1, sensor=(20, 12))


def test_static_images_are_files_or_those_of_mnist(tmp_path):
    def read(folder):
        return read_static_images(folder, Placing(16, (16, 16), 0.5), most=5, seed=0).placed

    (tmp_path / "files").mkdir()
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save(tmp_path / "files" / "white.png")
    placed = read(tmp_path / "files")
    assert placed.shape == (1, 1, 16, 16)
    assert placed.sum() == 64, "half of the sensor's side"
    Image.new("L", (20, 10), 255).save(tmp_path / "files" / "wide.png")
    wide = read_static_images(tmp_path / "files", Placing(16, (16, 16)), most=5, seed=0)
    assert wide.aspect == pytest.approx((1.05, 1.5, 1.95))
    (tmp_path / "deep").mkdir()
    for name, value in (("dark", 0x0100), ("light", 0x0FFF)):
        Image.fromarray(np.full((10, 10), value, np.uint16)).save(tmp_path / "deep" / f"{name}.png")
    dark, light = read(tmp_path / "deep").max((1, 2, 3))
    assert (dark, light) == (pytest.approx(16 / 255), 1), "all of 12 bits, whatever one of them needs"
    (tmp_path / "mnist").mkdir()
    idx.write(tmp_path / "mnist" / "train-images-idx3-ubyte", np.full((7, 4, 4), 255, np.uint8))
    assert read(tmp_path / "mnist").shape == (5, 1, 16, 16)
    packed = gzip.compress((tmp_path / "mnist" / "train-images-idx3-ubyte").read_bytes())
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train-images-idx3-ubyte.gz").write_bytes(packed)
    assert np.array_equal(read(tmp_path / "packed"), read(tmp_path / "mnist"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no image below it"):
        read(tmp_path / "empty")
