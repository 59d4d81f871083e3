"""Frames: equal to tonic where tonic is right and to torch's resize; counts are conserved and saturate."""

import warnings

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecordingError
from pipeline.events import Events
from pipeline.framing import to_frames

PLAIN = {"reduction": "sum", "dtype": "uint16", "source": "x"}


def tonic_frames(events, *, time_bins, sensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.transforms import ToFrame
    structured = np.empty(len(events), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    for name in "xytp":
        structured[name] = getattr(events, name)
    return ToFrame(sensor_size=(*sensor, 2), n_time_bins=time_bins)(structured)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(2, 400))
def test_equals_tonic_at_full_resolution(seed, time_bins, count):
    events = make_events(seed, count=count, size=(20, 20))
    if events.duration_us < time_bins:
        return
    ours = to_frames(events, time_bins=time_bins, size=20, canvas=(20, 20), **PLAIN)
    np.testing.assert_array_equal(ours.frames, tonic_frames(events, time_bins=time_bins, sensor=(20, 20)))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 40), st.booleans())
def test_sum_keeps_every_event_but_the_tail(seed, size, own_extent):
    events = make_events(seed)
    framed = to_frames(events, time_bins=7, size=size, canvas=None if own_extent else (34, 34), **PLAIN)
    end = events.t[0] + events.duration_us // 7 * 7
    assert framed.dropped_events == int((events.t >= end).sum()) >= 1
    assert int(framed.frames.sum()) + framed.dropped_events == len(events)
    for polarity in (0, 1):
        kept = (events.p == polarity) & (events.t < end)
        assert int(framed.frames[:, polarity].sum()) == int(kept.sum())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 50), st.integers(1, 50))
def test_bilinear_equals_torch_resize_with_aligned_corners(seed, size, width, height):
    import torch

    events = make_events(seed, size=(width, height))
    full = np.zeros((5, 2, height, width), np.float32)
    step = events.duration_us // 5
    kept = events.t - events.t[0] < 5 * step
    t = ((events.t - events.t[0]) // step)[kept]
    np.add.at(full, (t, events.p[kept], events.y[kept], events.x[kept]), 1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(full), size=(size, size), mode="bilinear", align_corners=True
    ).numpy()
    framed = to_frames(
        events, time_bins=5, size=size, reduction="bilinear", dtype="float16", canvas=(width, height), source="x"
    )
    np.testing.assert_allclose(framed.frames.astype(np.float32), expected, rtol=1e-3, atol=1e-4)


def test_own_extent_is_the_maximum_plus_one():
    events = Events(
        np.array([0, 50, 99, 100]), np.array([0, 9, 4, 0]), np.array([0, 4, 2, 0]), np.array([0, 0, 1, 0], np.uint8)
    )
    framed = to_frames(events, time_bins=1, size=5, canvas=None, **PLAIN)
    assert framed.frames[0, 0, 0, 0] == 1
    assert framed.frames[0, 0, 4, 4] == 1  # x = 9 of 10, y = 4 of 5
    assert framed.frames[0, 1, 2, 2] == 1


def test_counts_saturate_and_are_counted():
    n = 300
    events = Events(
        np.arange(n + 1) * 10, np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32), np.ones(n + 1, np.uint8)
    )
    framed = to_frames(events, time_bins=1, size=2, reduction="sum", dtype="uint8", canvas=(4, 4), source="x")
    assert framed.frames[0, 1, 0, 0] == 255
    assert framed.saturated_cells == 1


@pytest.mark.parametrize("times", [[7], [7, 7, 7], [0, 3]])
def test_too_short_for_the_bins(times):
    count = len(times)
    events = Events(np.array(times), np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros(count, np.uint8))
    with pytest.raises(RecordingError, match="00001") as caught:
        to_frames(events, time_bins=5, size=2, reduction="sum", dtype="uint8", canvas=(4, 4), source="00001")
    assert caught.value.reason == "too_short"


def test_time_zero_is_the_first_event():
    events = make_events(1)
    later = Events(events.t + 12345, events.x, events.y, events.p)
    one, other = (to_frames(e, time_bins=4, size=10, canvas=(34, 34), **PLAIN).frames for e in (events, later))
    np.testing.assert_array_equal(one, other)
