"""Frames: equal to tonic where tonic is right, to torch's resizes and to N-Omniglot's frames; counts are conserved."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.fitting import fit_box
from spikebridge.pipeline.events import framing
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.events.rates import bin_lengths, relative_rates


def to_frames(events, **how):
    """Frames of columns, checked and packed as a conversion does."""
    packed = pack(events, sensor_size=how.get("canvas") or (4096, 2048), source="x")
    return framing.to_frames(packed, **how)


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


GOLDEN = np.load(ROOT / "tests" / "golden" / "nomniglot_frames.npz")
FLOAT = {"reduction": "frequency", "dtype": "float16", "source": "x"}


def golden_events(seed, count):
    r = np.random.RandomState(seed)
    t = np.sort(r.randint(0, 1000003, count))
    x, y, p = r.randint(0, 34, count), r.randint(0, 26, count), r.randint(0, 2, count)
    return Events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


@pytest.mark.parametrize(("case", "seed", "count", "time_bins"), [("a", 11, 4000, 12), ("b", 12, 900, 4)])
@pytest.mark.parametrize("reduction", ["frequency", "event"])
def test_nomniglot_frames_equal_the_published_ones(case, seed, count, time_bins, reduction):
    # A canvas as wide as the golden one and square, so that 34 x 34 cells are its pixels; rows 26 to 33 stay empty.
    framed = to_frames(
        golden_events(seed, count),
        time_bins=time_bins,
        size=34,
        reduction=reduction,
        dtype={"frequency": "float16", "event": "uint8"}[reduction],
        canvas=(34, 34),
        source="x",
    )
    np.testing.assert_array_equal(framed.frames[:, :, :26], GOLDEN[f"{case}_{reduction}"])
    assert not framed.frames[:, :, 26:].any()
    assert framed.dropped_events == 0  # the last bin takes the rest


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 50))
def test_frequency_is_the_cropped_full_frame_resized_as_torch_does(seed, time_bins, size):
    import torch

    events = make_events(seed, size=(60, 50))
    crop = (7, 3, 47, 43)
    full = np.zeros((time_bins, 2, 50, 60), np.int32)
    lengths = bin_lengths(events.duration_us, time_bins)
    step = np.minimum((events.t - events.t[0]) // lengths[0], time_bins - 1)
    np.add.at(full, (step, events.p, events.y, events.x), 1)
    rates = np.stack(
        [relative_rates(n, n.max((1, 2), keepdims=True), int(us)) for n, us in zip(full, lengths, strict=True)]
    )
    cut = torch.from_numpy(rates[:, :, 3:43, 7:47].astype(np.float32))
    expected = torch.nn.functional.interpolate(cut, size=(size, size), mode="bilinear", align_corners=False)
    framed = to_frames(events, time_bins=time_bins, size=size, canvas=(60, 50), crop=crop, **FLOAT)
    np.testing.assert_allclose(framed.frames.astype(np.float32), expected.numpy(), rtol=1e-3, atol=1e-4)
    assert framed.frames.dtype == np.float16
    inside = (events.x >= 7) & (events.x < 47) & (events.y >= 3) & (events.y < 43)
    assert framed.dropped_events == len(events) - int(inside.sum())


@pytest.mark.parametrize("reduction", ["sum", "bilinear", "event"])
def test_crop_is_what_the_sensor_would_have_been(reduction):
    events = make_events(3, count=2000)
    inside = (events.x >= 5) & (events.x < 29) & (events.y >= 2) & (events.y < 26)
    inside[[0, -1]] = True  # the bins are those of the whole recording
    events.x[[0, -1]] = events.y[[0, -1]] = 10
    alone = Events(events.t[inside], events.x[inside] - 5, events.y[inside] - 2, events.p[inside])
    how = {"reduction": reduction, "dtype": "float16" if reduction == "bilinear" else "uint8", "source": "x"}
    cropped = to_frames(events, time_bins=4, size=12, canvas=(34, 34), crop=(5, 2, 29, 26), **how)
    np.testing.assert_array_equal(cropped.frames, to_frames(alone, time_bins=4, size=12, canvas=(24, 24), **how).frames)
    if reduction == "event":
        assert set(np.unique(cropped.frames)) <= {0, 1}


def test_nothing_inside_the_crop():
    events = Events(np.array([0, 9]), np.zeros(2, np.int32), np.zeros(2, np.int32), np.zeros(2, np.uint8))
    with pytest.raises(RecordingError, match="inside the crop") as caught:
        to_frames(events, time_bins=1, size=2, canvas=(9, 9), crop=(4, 4, 8, 8), **PLAIN)
    assert caught.value.reason == "empty"


def test_span_counts_from_zero_to_its_end():
    one = Events(np.array([3000]), np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.uint8))
    framed = to_frames(one, time_bins=8, size=1, canvas=(1, 1), span_us=8000, **PLAIN)
    np.testing.assert_array_equal(framed.frames[:, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0])
    with pytest.raises(RecordingError, match="0 to 2999") as caught:
        to_frames(one, time_bins=3, size=1, canvas=(1, 1), span_us=3000, **PLAIN)
    assert caught.value.reason == "out_of_range"


@pytest.mark.parametrize("reduction", ["sum", "bilinear", "frequency", "event"])
def test_a_padded_sensor_is_a_larger_one_and_a_cropped_one_a_smaller(reduction):
    events = make_events(4, count=600, size=(40, 20))
    how = {"time_bins": 3, "reduction": reduction, "source": "x"}
    how["dtype"] = {"sum": "uint16", "event": "uint8"}.get(reduction, "float16")
    packed = pack(events, sensor_size=(40, 20), source="x")
    padded = framing.to_frames(packed, size=10, canvas=(40, 20), fit="pad", **how)
    lower = pack(replace(events, y=events.y + 10), sensor_size=(40, 40), source="x")
    np.testing.assert_array_equal(padded.frames, framing.to_frames(lower, size=10, canvas=(40, 40), **how).frames)
    assert padded.outside_events == 0
    cropped = framing.to_frames(packed, size=10, canvas=(40, 20), fit="crop", **how)
    expected = framing.to_frames(packed, size=10, canvas=(40, 20), crop=(10, 0, 30, 20), **how)
    np.testing.assert_array_equal(cropped.frames, expected.frames)
    assert cropped.outside_events == expected.outside_events > 0
    wide = framing.to_frames(packed, size=10, width=20, canvas=(40, 20), **how)
    assert wide.frames.shape == (3, 2, 10, 20)
    for fit in ("pad", "crop"):  # of the same aspect there is nothing to fit
        same = framing.to_frames(packed, size=10, width=20, canvas=(40, 20), fit=fit, **how)
        np.testing.assert_array_equal(same.frames, wide.frames)


def test_frames_of_another_width_count_every_event_where_it_lies():
    events = make_events(5, count=500, size=(30, 20))
    packed = pack(events, sensor_size=(30, 20), source="x")
    framed = framing.to_frames(
        packed, time_bins=1, size=4, width=6, canvas=(30, 20), reduction="sum", dtype="uint16", source="x"
    )
    expected = np.zeros((2, 4, 6), int)
    kept = events.t < events.t[0] + packed.duration_us
    np.add.at(expected, (events.p[kept], events.y[kept] * 4 // 20, events.x[kept] * 6 // 30), 1)
    np.testing.assert_array_equal(framed.frames[0], expected)


@given(st.tuples(*[st.integers(1, 700)] * 2), st.tuples(*[st.integers(1, 130)] * 2), st.sampled_from(["pad", "crop"]))
def test_a_fitted_box_is_centred_and_of_the_frames_aspect(size, frame, fit):
    left, top, right, bottom = fit_box((5, 7, 5 + size[0], 7 + size[1]), frame, fit)
    width, height = right - left, bottom - top
    assert min(width, height) >= 1
    assert (width >= size[0] and height >= size[1]) if fit == "pad" else (width <= size[0] and height <= size[1])
    assert width == size[0] or height == size[1]
    assert abs(width / frame[0] - height / frame[1]) <= 1 / min(frame) + 1e-9 or min(width, height) == 1
    for low, high, first, length in ((left, right, 5, size[0]), (top, bottom, 7, size[1])):
        assert abs((low + high) - (2 * first + length)) <= 1
    assert fit_box((0, 0, *size), frame, "squash") == (0, 0, *size)
