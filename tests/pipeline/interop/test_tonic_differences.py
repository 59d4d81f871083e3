"""Every difference from tonic, shown with tonic itself: what it does with the same input, and what is done here.

ToFrame counts a polarity of -1 as ON: read as OFF where a format has it, refused elsewhere.
ToFrame counts a coordinate of -1 at the far edge, and fails with IndexError beyond the sensor: refused by name.
ToFrame counts -32,768 after 32,767: saturates, and saturated cells are counted.
ToFrame loses events without a word where times are out of order: refused.
ToFrame gives zeros of another type for no events: refused.
read_mnist_file reads a cut file without a word, or fails with numpy's error: refused by name.
read_mnist_file keeps times of a clock that starts again: refused.
NCALTECH101 has folder names for targets, in the order of the disk: labels are numbers in the order of names.
CIFAR10DVS reads .aedat4 only: the original .aedat and both .mat copies, too (test_cifar10dvs_reader.py).
DiskCachedDataset notices no change: other names, sizes of files or settings are refused.
"""

import os
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_events, write_digits_raw
from raw_sets import ncaltech101

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events import framing
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.tables.convert import from_columns
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.settings import ConversionSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tonic
    from tonic.io import read_mnist_file
    from tonic.transforms import ToFrame

TYPE = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


def theirs(events, *, bins=2, sensor=(4, 4)):
    array = np.empty(len(events), TYPE)
    for name in "xytp":
        array[name] = getattr(events, name)
    return ToFrame(sensor_size=(*sensor, 2), n_time_bins=bins)(array)


def ours(events, *, bins=2, sensor=(4, 4), dtype="uint16"):
    packed = pack(events, sensor_size=sensor, source="a.bin")
    how = {"size": sensor[0], "reduction": "sum", "dtype": dtype, "canvas": sensor, "source": "a.bin"}
    return framing.to_frames(packed, time_bins=bins, **how)


def events(t, x, y, p):
    return Events(np.array(t, np.int64), np.array(x, np.int32), np.array(y, np.int32), np.array(p))


def reason(call, *arguments, **options):
    with pytest.raises(RecordingError, match=r"a\.bin") as caught:
        call(*arguments, **options)
    return caught.value.reason


def test_off_as_minus_one():
    minus = events([0, 10, 20, 30], [1, 1, 2, 2], [1, 1, 2, 2], [-1, 1, -1, 1])
    assert theirs(minus)[:, 0].sum() == 0  # OFF events are among the ON ones
    assert theirs(minus)[:, 1].sum() == 3
    read = from_columns(minus.t, minus.x, minus.y, minus.p, source="a.bin")
    assert ours(read).frames[:, 0].sum() == 2
    assert reason(ours, replace(minus, p=np.array([-1, 1, -1, 1], np.int8).astype(np.uint8))) == "polarity"


def test_a_column_of_minus_one():
    wrong = events([0, 10, 20], [-1, 0, 0], [0, 0, 0], [1, 1, 1])
    assert theirs(wrong)[0, 1, 0, 3] == 1
    assert reason(ours, wrong) == "out_of_range"


def test_beyond_the_sensor():
    wrong = events([0, 10, 20], [4, 0, 0], [0, 0, 0], [1, 1, 1])
    with pytest.raises(IndexError):
        theirs(wrong)
    assert reason(ours, wrong) == "out_of_range"


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 65535)])
def test_a_hot_pixel_beyond_the_integers(dtype, most):
    n = 70_000
    zeros = np.zeros(n, np.int64)
    hot = events(np.arange(n), zeros, zeros, zeros.astype(np.uint8))
    assert theirs(hot, bins=1)[0, 0, 0, 0] == (n - 1) - 65536  # once around
    framed = ours(hot, bins=1, dtype=dtype)
    assert framed.frames[0, 0, 0, 0] == most
    assert framed.saturated_cells == 1


def test_a_hot_pixel_beyond_half_precision():
    n = 70_000
    zeros = np.zeros(n, np.int64)
    packed = pack(events(np.arange(n), zeros, zeros, zeros.astype(np.uint8)), sensor_size=(4, 4), source="a.bin")
    how = {"reduction": "bilinear", "dtype": "float16", "canvas": (4, 4), "source": "a.bin"}
    framed = framing.to_frames(packed, time_bins=1, size=4, **how)
    assert framed.frames[0, 0, 0, 0] == np.finfo(np.float16).max
    assert framed.saturated_cells == 1


def test_times_out_of_order():
    back = events([50, 60, 0, 10, 20], [0] * 5, [0] * 5, [1] * 5)
    assert theirs(back).sum() == 0  # from 50 to 20 nothing fits
    assert reason(ours, replace(back, p=back.p.astype(np.uint8))) == "unsorted"


def test_no_events():
    none = events([], [], [], [])
    assert theirs(none).dtype == np.float64  # int16 with events
    assert not theirs(none).any()
    assert reason(ours, none) == "empty"


@pytest.mark.parametrize(("left", "found"), [(1, None), (2, IndexError), (3, ValueError), (4, ValueError)])
def test_a_cut_file(tmp_path, left, found):
    data = bin40.encode(make_events(1, count=20))[: 95 + left]
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(found) if found else nullcontext():
        assert len(read_mnist_file(str(tmp_path / "a.bin"), TYPE)) == 19
    assert reason(bin40.decode, data, source="a.bin") == "truncated"
    assert reason(bin40.decode_packed, data, sensor_size=(34, 34), source="a.bin") == "truncated"


def test_a_clock_of_23_bits_that_starts_again(tmp_path):
    made = make_events(1, count=20)
    made.t[:] += 2**23 - 150_000
    data = bin40.encode(replace(made, t=made.t % 2**23))
    (tmp_path / "a.bin").write_bytes(data)
    assert (np.diff(read_mnist_file(str(tmp_path / "a.bin"), TYPE)["t"]) < 0).any()
    assert reason(bin40.decode_packed, data, sensor_size=(34, 34), source="a.bin") == "unsorted"


class NCALTECH101(tonic.datasets.NCALTECH101):
    """Takes what is there for the whole; the class must have this name."""

    def _check_exists(self):
        return True


def test_labels_and_order_of_ncaltech101(tmp_path):
    ncaltech101.write_raw(tmp_path / "NCALTECH101")
    data = NCALTECH101(str(tmp_path))
    listing = get_reader("ncaltech101").list_pair(tmp_path, tmp_path)
    assert set(data.targets) == set(listing.classes)  # names, not numbers
    order = [os.path.relpath(path, tmp_path / "NCALTECH101" / "Caltech101") for path in data.data]
    found = {recording.name: recording for recording in listing.recordings}
    assert sorted(order) == [f"{name}.bin" for name in found]
    for i, (path, target) in enumerate(zip(order, data.targets, strict=True)):
        recording = found[path.removesuffix(".bin")]
        assert listing.classes[recording.label] == target
        mine = get_reader("ncaltech101").read_events(recording)
        for name in "txyp":  # both count from the smallest x and y
            np.testing.assert_array_equal(getattr(mine, name), data[i][0][name])


def test_a_cache_that_does_not_notice_a_change(tmp_path):
    first, second = ([(np.full(3, value), 0)] for value in (1, 2))
    tonic.DiskCachedDataset(first, str(tmp_path / "cache"))[0]
    assert tonic.DiskCachedDataset(second, str(tmp_path / "cache"))[0][0].tolist() == [1, 1, 1]
    raw = write_digits_raw(tmp_path / "raw")
    wanted = ConversionSettings(dataset="digits", time_bins=4, size=8)
    convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
    path = next((raw / "events").rglob("*.bin"))
    path.write_bytes(bin40.encode(make_events(9, count=5)))
    with pytest.raises(SettingsError, match="raw data"):
        convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
