"""The 40-bit event record: round trip, tonic's reader, overflow markers, truncation."""

import warnings

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40


def columns(events):
    return [np.asarray(column, np.int64) for column in (events.t, events.x, events.y, events.p)]


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_round_trip(seed, count):
    events = make_events(seed, count=count, size=(256, 240), duration_us=bin40.MAX_TIME_US)
    decoded, markers = bin40.decode(bin40.encode(events), source="x")
    assert markers == 0
    for found, expected in zip(columns(decoded), columns(events), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_agrees_with_tonic(tmp_path):
    events = make_events(3, count=1000)
    path = tmp_path / "a.bin"
    path.write_bytes(bin40.encode(events))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.io import read_mnist_file
    theirs = read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    for name, column in zip("txyp", columns(events), strict=True):
        np.testing.assert_array_equal(theirs[name], column)


def test_overflow_markers_shift_later_times():
    before = Events(np.array([10, 20]), np.array([1, 2]), np.array([3, 4]), np.array([0, 1], np.uint8))
    after = Events(np.array([5]), np.array([7]), np.array([8]), np.array([1], np.uint8))
    marker = bytes([0, bin40.OVERFLOW_Y, 0, 0, 0])
    decoded, markers = bin40.decode(bin40.encode(before) + 2 * marker + bin40.encode(after), source="x")
    assert markers == 2
    assert decoded.t.tolist() == [10, 20, 5 + 2 * 2**13]
    assert decoded.x.tolist() == [1, 2, 7]


@pytest.mark.parametrize(("size", "reason"), [(0, "empty"), (1, "truncated"), (6, "truncated"), (9, "truncated")])
def test_broken_files(size, reason):
    with pytest.raises(RecordingError, match=r"00001\.bin") as caught:
        bin40.decode(bytes(size), source="00001.bin")
    assert caught.value.reason == reason


@pytest.mark.parametrize("wrong", [{"x": 256}, {"y": 240}, {"t": 2**23}])
def test_refuses_what_the_record_cannot_hold(wrong):
    values = {"t": 0, "x": 0, "y": 0, **wrong}
    events = Events(*(np.array([values[name]]) for name in "txy"), np.array([0], np.uint8))
    with pytest.raises(SettingsError, match="smaller sensor or a shorter recording"):
        bin40.encode(events)
