"""Voxel grids and time surfaces: the formulas of their papers, and tonic's results where those follow them."""

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.events import framing
from spikebridge.pipeline.events.binning import Binning
from spikebridge.pipeline.events.loops import framing_plain
from spikebridge.pipeline.events.packing import LongEvents, pack

SENSOR = (16, 12)


def frames(events, time_bins, **how):
    """Frames in which every cell is a pixel."""
    packed = pack(events, sensor_size=SENSOR, source="x")
    how = {"size": SENSOR[1], "width": SENSOR[0], "canvas": SENSOR, "dtype": "float16", "source": "x", **how}
    return framing.to_frames(packed, time_bins=time_bins, **how)


def tonic_events(events):
    structured = np.empty(len(events), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    for name in "xytp":
        structured[name] = getattr(events, name)
    return structured


def triangles(events, at, step, values):
    """Sum the values times max(0, 1 - |t - at| / step), the kernel of both papers, [T,P,H,W]."""
    sums = np.zeros((len(at), 2, SENSOR[1], SENSOR[0]))
    for k, centre in enumerate(at):
        weights = np.maximum(0, 1 - np.abs(events.t - events.t[0] - centre) / step)
        np.add.at(sums[k], (events.p, events.y, events.x), weights * values)
    return sums


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(2, 300), st.booleans())
def test_a_voxel_grid_is_that_of_its_paper(seed, time_bins, count, timed):
    events = make_events(seed, count=count, size=SENSOR)
    if events.duration_us < time_bins:
        return
    step = events.duration_us / (time_bins - 1)
    values = (events.t - events.t[0]) / events.duration_us if timed else np.ones(len(events))
    framed = frames(events, time_bins, reduction="est" if timed else "voxel")
    expected = triangles(events, step * np.arange(time_bins), step, values)
    np.testing.assert_allclose(framed.frames.astype(float), expected, rtol=2e-3, atol=1e-4)
    assert framed.dropped_events == 0
    if not timed:
        assert framed.frames.sum(dtype=float) == pytest.approx(len(events), rel=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_windows_give_the_voxel_grid_of_tonic(seed, time_bins):
    """tonic sets T points over (T - 1) / T of the time, and adds OFF as -1."""
    from tonic.functional import to_voxel_grid_numpy

    events = make_events(seed, count=200, size=SENSOR)
    events.t[-1] = events.t[0] + (events.t[-1] - events.t[0]) // time_bins * time_bins
    events.t[:] = np.minimum(events.t, events.t[-1])
    window = int(events.t[-1] - events.t[0]) // time_bins
    framed = frames(events, time_bins, reduction="voxel", binning=Binning("window", window_us=window))
    ours = framed.frames.astype(float)
    theirs = to_voxel_grid_numpy(tonic_events(events), (*SENSOR, 2), n_time_bins=time_bins)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs[:, 0], rtol=5e-3, atol=5e-3)
    assert framed.dropped_events == int((events.t == events.t[-1]).sum())  # which tonic drops, too


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 8), st.integers(1, 10**6))
def test_a_time_surface_is_that_of_tonic(seed, time_bins, tau_us):
    from tonic.functional import to_timesurface_numpy

    events = make_events(seed, count=200, size=SENSOR)
    if events.duration_us < time_bins:
        return
    window = events.duration_us // time_bins
    theirs = to_timesurface_numpy(tonic_events(events), (*SENSOR, 2), dt=window, tau=tau_us)[:time_bins]
    for binning in (Binning(), Binning("window", window_us=window)):
        framed = frames(events, time_bins, reduction="surface", tau_us=tau_us, binning=binning)
        np.testing.assert_allclose(framed.frames[: len(theirs)].astype(float), theirs, rtol=1e-3, atol=1e-7)


@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.sampled_from([10, 300_000, 10**7])
)
def test_recent_events_are_those_of_their_paper(seed, bins, depth, parts, duration):
    """The published formula, pixel by pixel, of events before the end of a bin: whole, in chunks, and by numpy."""
    events = make_events(seed, count=150, size=(5, 4), duration_us=duration)
    packed = pack(events, sensor_size=SENSOR, source="x")
    if packed.duration_us < bins:
        return
    how = {
        "size": SENSOR[1],
        "width": SENSOR[0],
        "canvas": SENSOR,
        "dtype": "float16",
        "source": "x",
        "reduction": "tore",
    }
    how |= {"time_bins": bins * depth, "latest_events": depth}
    framed = framing.to_frames(packed, **how)
    expected = np.empty((bins, depth, 2, SENSOR[1], SENSOR[0]))
    for step, end in enumerate(packed.duration_us // bins * np.arange(1, bins + 1)):
        for p, y, x in np.ndindex(2, SENSOR[1], SENSOR[0]):
            here = (events.p == p) & (events.y == y) & (events.x == x) & (events.t - events.t[0] < end)
            ages = [*sorted(end - (events.t[here] - events.t[0])), *[5e6] * depth][:depth]
            expected[step, :, p, y, x] = np.maximum(np.log(np.minimum(ages, 5e6) + 1) - np.log(151), 0)
    np.testing.assert_allclose(framed.frames.reshape(expected.shape).astype(float), expected, rtol=1e-3)
    chunks = LongEvents(
        lambda: iter(np.array_split(packed.words, parts)), len(packed), packed.duration_us, "", 0, (5, 4)
    )
    with pytest.MonkeyPatch.context() as patch:
        for loops in (framing.loops(), framing_plain):
            patch.setattr(framing, "loops", lambda loops=loops: loops)
            again = framing.to_frames(chunks, **how)
            assert (again.dropped_events, again.outside_events) == (framed.dropped_events, 0)
            np.testing.assert_array_equal(again.frames, framed.frames)


def test_places_between_events():
    """With bins of equal counts the points lie on events, and a bin of a surface ends with its last one."""
    events = make_events(3, count=9, size=SENSOR)
    by_count = Binning("count", events_per_bin=4)
    framed = frames(events, 2, reduction="voxel", binning=by_count).frames
    assert framed[0].sum(dtype=float) == pytest.approx(1 + 0.75 + 0.5 + 0.25)
    assert framed[1].sum(dtype=float) == pytest.approx(0.25 + 0.5 + 0.75 + 1 + 0.75 + 0.5 + 0.25)
    surface = frames(events, 2, reduction="surface", tau_us=50_000, binning=by_count)
    for step, last in enumerate((3, 7)):
        assert surface.frames[step, events.p[last], events.y[last], events.x[last]] == 1
    assert surface.dropped_events == 1
