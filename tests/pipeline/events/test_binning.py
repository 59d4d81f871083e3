"""Bins by time, window and count: equal to tonic's where tonic's are right, and the differences that are meant."""

import warnings

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.binning import Binning
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.shards.settings import ConversionSettings

SENSOR = (20, 20)


def ours(events, binning, time_bins, **how):
    packed = pack(events, sensor_size=SENSOR, source="a.bin")
    plain = {"size": 20, "reduction": "sum", "dtype": "uint16", "canvas": SENSOR, "source": "a.bin"}
    return to_frames(packed, time_bins=time_bins, binning=binning, **{**plain, **how})


def tonics(events, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.functional import to_frame_numpy
    structured = np.empty(len(events), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    for name in "xytp":
        structured[name] = getattr(events, name)
    return to_frame_numpy(structured, (*SENSOR, 2), **how)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(20, 300), st.integers(1, 12))
def test_counts_shared_out_equal_tonics_event_bins(seed, count, time_bins):
    events = make_events(seed, count=count, size=SENSOR)
    framed = ours(events, Binning("count"), time_bins)
    np.testing.assert_array_equal(framed.frames, tonics(events, n_event_bins=time_bins))
    assert framed.dropped_events == count % time_bins


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(20, 300), st.integers(5, 60))
def test_counts_given_equal_tonics_event_count_and_go_on_to_the_end(seed, count, each):
    events = make_events(seed, count=count, size=SENSOR)
    framed = ours(events, Binning("count", events_per_bin=each), 10)
    theirs = tonics(events, event_count=each, include_incomplete=True)[:10]
    np.testing.assert_array_equal(framed.frames[: len(theirs)], theirs)
    assert not framed.frames[len(theirs) :].any()
    assert framed.dropped_events == max(0, count - 10 * each)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(20, 300), st.integers(10_000, 90_000))
def test_windows_equal_tonics_and_keep_the_last(seed, count, window):
    events = make_events(seed, count=count, size=SENSOR)
    framed = ours(events, Binning("window", window_us=window), 8)
    theirs = tonics(events, time_window=window)[:8]  # whole windows only
    np.testing.assert_array_equal(framed.frames[: len(theirs)], theirs)
    late = int((events.t - events.t[0] >= 8 * window).sum())
    assert framed.dropped_events == late
    assert int(framed.frames.sum()) == count - late


def test_windows_after_the_end_are_empty_and_a_late_one_holds_the_last_event():
    events = make_events(3, count=50, size=SENSOR)
    framed = ours(events, Binning("window", window_us=events.duration_us), 3)
    assert framed.frames[1].sum() == 1  # the event exactly one window after the first
    assert not framed.frames[2].any()


def test_the_longest_window_does_not_overflow():
    events = make_events(3, count=50, size=SENSOR)
    assert ours(events, Binning("window", window_us=10**9), 1000).frames[0].sum() == 50


def test_fewer_events_than_bins_of_equal_counts():
    with pytest.raises(RecordingError, match=r"a\.bin: 5 event\(s\); expected at least 6") as caught:
        ours(make_events(0, count=5, size=SENSOR), Binning("count"), 6)
    assert caught.value.reason == "too_short"


SHORT = {"one event": [7], "equal times": [7] * 9, "fewer events than bins": [7, 1007, 2007]}
"""Times in microseconds; five bins."""


@pytest.mark.parametrize(
    ("binning", "expected"),
    [
        (Binning(), (None, None, [1, 0, 1, 0, 0])),
        (Binning("window", window_us=500), ([1, 0, 0, 0, 0], [9, 0, 0, 0, 0], [1, 0, 1, 0, 1])),
        (Binning("count"), (None, [1] * 5, None)),
        (Binning("count", events_per_bin=2), ([1, 0, 0, 0, 0], [2, 2, 2, 2, 1], [2, 1, 0, 0, 0])),
    ],
)
@pytest.mark.parametrize("reduction", ["sum", "bilinear", "event", "frequency"])
def test_recordings_of_hardly_anything(binning, expected, reduction):
    """Counts by bin, or refused; no event is lost without being counted."""
    if reduction == "frequency" and binning.mode != "bins":
        return
    dtype = {"sum": "uint16", "event": "uint8"}.get(reduction, "float16")
    for (name, times), counts in zip(SHORT.items(), expected, strict=True):
        one = np.full(len(times), 3, np.int32)
        events = Events(np.array(times), one, one, np.ones(len(times), np.uint8))
        if counts is None:
            with pytest.raises(RecordingError, match="expected at least") as caught:
                ours(events, binning, 5, reduction=reduction, dtype=dtype)
            assert caught.value.reason == "too_short"
            continue
        framed = ours(events, binning, 5, reduction=reduction, dtype=dtype)
        if reduction in ("event", "frequency"):
            found = [min(1, count) for count in counts[:-1]]
            found.append(1 if binning.mode == "bins" else min(1, counts[-1]))  # the last equal bin takes the rest
        else:
            found = counts
            assert sum(counts) + framed.dropped_events == len(times)
        assert framed.frames[:, 1, 3, 3].tolist() == found, name
        assert framed.frames.sum() == sum(found)


def test_a_reduction_to_ones_takes_every_binning():
    events = make_events(1, count=200, size=SENSOR)
    framed = ours(events, Binning("count"), 7, reduction="event", dtype="uint8")
    np.testing.assert_array_equal(framed.frames, tonics(events, n_event_bins=7) > 0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"binning": "window"}, "window_us"),
        ({"window_us": 5}, "goes with binning window only"),
        ({"events_per_bin": 5}, "goes with binning count only"),
        ({"binning": "count", "reduction": "frequency"}, "equal bins"),
        ({"reduction": "surface"}, "needs 1 or more"),
        ({"tau_us": 5}, "no other takes it"),
        ({"reduction": "tore"}, "latest_events: 0 found"),
        ({"latest_events": 2}, "reduction tore needs 1 or more, and no other"),
        ({"reduction": "tore", "latest_events": 4, "time_bins": 10}, "expected a multiple of latest_events"),
        ({"reduction": "voxel", "time_bins": 1}, "2 points in time"),
        ({"time_window_us": (5, 5)}, "later stop"),
        ({"time_window_us": (5,)}, "later stop"),
        ({"refractory_us": -1}, "refractory_us: -1 is too small"),
        ({"hot_pixels": float("nan")}, "hot_pixels: found the number nan"),
    ],
)
def test_settings_that_contradict_each_other(changes, match):
    with pytest.raises(SettingsError, match=match):
        ConversionSettings(dataset="digits", **changes)
