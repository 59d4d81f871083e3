"""Figures of events that can be counted by hand; reading of sets."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from conftest import make_events
from PIL import Image

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.prophesee import dat
from spikebridge.pipeline.measurement.hot_pixels import find_hot_pixels
from spikebridge.pipeline.measurement.recordings import RecordingSet, read_recordings, read_static_images
from spikebridge.pipeline.measurement.statistics import measure, shortest_interval_us


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
    (tmp_path / "events" / "Train" / "3").mkdir(parents=True)
    (tmp_path / "events" / "Train" / "3" / "1.bin").write_bytes(bin40.encode(make_events(1)))
    (tmp_path / "simulated.json").write_text("{}")
    assert read_recordings([tmp_path / "events" / "Train" / "3" / "1.bin"], most=1, seed=1).simulated
    assert read_recordings([tmp_path / "events"], most=1, seed=1).simulated
    (tmp_path / "all").mkdir()
    (tmp_path / "simulated.json").rename(tmp_path / "all" / "simulated.json")
    (tmp_path / "events").rename(tmp_path / "all" / "events")
    assert read_recordings([tmp_path], most=1, seed=1).simulated, "some of those below are"
    (tmp_path / "all").rename(tmp_path.with_name("simulated"))
    assert seen.names == read_recordings(sorted(tmp_path.glob("*.bin")), most=4, seed=1).names
    frames = seen.frames(time_bins=5, size=20)
    assert frames.shape == (5, 4, 2, 20, 20)
    assert frames.sum() > 0.9 * sum(map(len, seen.events))
    (tmp_path / "dat").mkdir()
    (tmp_path / "dat" / "a.dat").write_bytes(dat.encode(make_events(1, size=(20, 12)), sensor_size=(640, 480)))
    stated = read_recordings([tmp_path / "dat"], most=4, seed=1)
    assert (stated.sensor, stated.sensor_known) == ((640, 480), "stated by the files")
    (tmp_path / "short.bin").write_bytes(bin40.encode(make_events(0, count=3)))
    with pytest.raises(RecordingError, match=r"short\.bin: holds 3 events"):
        read_recordings([tmp_path / "short.bin"], most=4, seed=1)
    with pytest.raises(LayoutError, match="no such file"):
        read_recordings([tmp_path / "absent"], most=4, seed=1)


def test_static_images_are_files_or_those_of_mnist(tmp_path):
    def read(folder):
        return read_static_images(folder, most=5, seed=0, size=16, sensor=(16, 16), shown_fraction=0.5)

    (tmp_path / "files").mkdir()
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save(tmp_path / "files" / "white.png")
    placed = read(tmp_path / "files")
    assert placed.shape == (1, 1, 16, 16)
    assert placed.sum() == 64, "half of the sensor's side"
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
