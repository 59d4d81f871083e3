"""Events to frames: time bins, and a resize fused into the binning.

Axes: N events, T time bins, P polarity (0 = OFF, 1 = ON), H and W pixels of a frame, S the side of a square one.
A frame cell is a sum over events, and the resizes of `sum` and `bilinear` are linear in the counts; so every event is
scattered straight into the small frame with its weights, and no frame of the sensor's size is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.fitting import Box, fit_box
from spikebridge.pipeline.events.binning import Binning, Edges, bin_us, loops
from spikebridge.pipeline.events.packing import TIME_SHIFT, X_MASK, X_SHIFT, Y_MASK, Y_SHIFT, CheckedEvents
from spikebridge.pipeline.events.rates import rate_frames
from spikebridge.pipeline.events.resize import aligned_weights

TORE_LEAST_US, TORE_MOST_US = 150, 5_000_000
"""Ages between which the published time-ordered recent events tell one from another."""
Frame = tuple[int, int]
"""(W, H) in pixels of what is made."""


@dataclass(frozen=True)
class RecordingFrames:
    """One recording as frames."""

    frames: NDArray[np.generic]
    """[T,P,H,W] uint8, uint16 or float16."""
    dropped_events: int
    """Events after the last bin or outside the crop."""
    saturated_cells: int
    """Cells whose count did not fit the type and was set to its maximum."""
    clipped_events: int = 0
    """Events that these cells lack."""
    outside_events: int = 0
    """Events that were dropped because they lie outside the crop."""


def narrow(frames: NDArray[Any], dtype: str) -> tuple[NDArray[Any], int, int]:
    """Return counts in a type as wide or less, saturated; how many cells saturate, and the events that they lack."""
    if frames.dtype == dtype:
        return frames, 0, 0
    limit = int(np.iinfo(dtype).max)
    above = frames[frames > limit]
    return np.minimum(frames, limit).astype(dtype), above.size, int(above.sum(dtype=np.int64)) - limit * above.size


def to_frames(
    events: CheckedEvents,
    *,
    time_bins: int,
    size: int,
    width: int = 0,
    fit: str = "squash",
    reduction: str,
    dtype: str,
    canvas: tuple[int, int] | None,
    source: str,
    crop: Box | None = None,
    span_us: int | None = None,
    binning: Binning = Binning(),  # noqa: B008  (immutable)
    tau_us: int = 0,
    latest_events: int = 0,
) -> RecordingFrames:
    """Bin a recording's events into T frames of S x S pixels, or of another width.

    Equal bins are (t_last - t_first) // T long. `sum` and `bilinear` drop the events after T whole bins (at least the
    last event), which is the rule of tonic's `ToFrame(n_time_bins=T)`; `frequency` and `event` give them to the last
    bin, which is the rule of N-Omniglot. Counts saturate at the maximum of the type, they never wrap.

    Args:
        events: a checked recording.
        time_bins: T.
        size: S, the height.
        width: W; 0 for S.
        fit: what becomes of a canvas or crop of another aspect, see `pipeline.base.fitting`.
        reduction: `sum` adds 1 to the cell (y * S // H, x * S // W); `event` sets that cell to 1; `bilinear` equals
            binning at full resolution and resizing with aligned corners and no antialiasing; `frequency` see
            `pipeline.events.rates`; `voxel` shares each event between the two nearest of T points in time; `est` shares
            its time, from 0 to 1, in place of the 1; `surface` is exp(-age / tau) of a cell's last event at the end of
            a bin, 0 where there is none yet; `tore` the logarithm of the ages of its latest events there, see `_tore`.
        dtype: uint8 or uint16 for `sum`, uint8 for `event`, float16 for the others.
        canvas: (W, H) of the sensor, which is stretched to S x S; None takes the recording's own extent, maximum + 1.
        source: file name for messages.
        crop: what is stretched instead of the canvas.
        span_us: length of a recording that begins at t = 0 whether or not there is an event; None counts from the
            first event to the last.
        binning: other bins than equal ones; not with `frequency`. The T points of `voxel` and `est` go from the first
            event to the last for equal bins, from one start of a window to the next, or from event to event.
        tau_us: of `surface`, in microseconds.
        latest_events: K of `tore`: each of T / K bins has K frames, that of the last event first.

    Raises:
        RecordingError: too short for the bins (`too_short`); no event inside the crop (`empty`); a time outside the
            span (`out_of_range`).

    Source: tonic 1.7 `to_frame`; He et al., AAAI 2024, for the stretched extent and the bilinear resize; Li et al.,
    N-Omniglot, Scientific Data 2022, for `frequency` and `event`; Zhu et al., CVPR 2019, equation 1, for `voxel`, which
    with its two polarities is the count of Gehrig et al., ICCV 2019, under their trilinear kernel, and `est` their
    timestamps under it; Lagorce et al., TPAMI 2017, for `surface`; Baldwin et al., TPAMI 2022, for `tore`.
    Differs: `event` is published as a bilinear resize of 0 and 1, whose samples miss most pixels of a large sensor;
    here a cell is 1 when any event falls into it. At full resolution both are the same. tonic's `ToVoxelGrid` sets
    T points over (T - 1) / T of the time, unlike the paper, and drops the last event: windows of duration / T do that.
    """
    last_us = events.start_us + events.duration_us
    if span_us is not None and (events.start_us < 0 or last_us >= span_us):
        raise RecordingError(
            f"{source}: times run from {events.start_us} to {last_us} us; expected 0 to {span_us - 1} us.",
            reason="out_of_range",
        )
    frame = (width or size, size)
    box = fit_box(crop or (0, 0, *(canvas or events.extent)), frame, fit)
    if reduction == "frequency":
        return _compute_rates(events, time_bins, frame, box, span_us, source)
    rest = reduction in ("frequency", "event") and binning.mode == "bins"
    bins = time_bins // (latest_events or 1)
    edges = binning.edges(events, time_bins=bins, span_us=span_us, rest=rest, source=source)
    type_ = np.dtype(dtype)
    if reduction == "bilinear":
        framed = _sum_weights(events, edges, frame, box, type_)
    elif reduction in ("voxel", "est"):
        framed = _share_events(events, edges, frame, box, type_, binning.mode == "bins", reduction == "est")
    elif reduction == "surface":
        framed = _surface(events, edges, frame, box, type_, tau_us)
    elif reduction == "tore":
        framed = _tore(events, edges, frame, box, type_, latest_events)
    else:
        framed = _count_events(events, edges, frame, box, type_, reduction == "event")
    if (crop or fit == "crop") and framed.dropped_events == len(events):
        _require_inside(events, box, source)
    return framed


def _count_events(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, dtype: np.dtype[np.generic], once: bool
) -> RecordingFrames:
    """Return saturating counts per cell; `once` caps them at 1, which is not counted as saturation."""
    kernel = loops()
    counts = np.zeros((len(edges.at) - 1, 2, frame[1], frame[0]), np.uint32)
    frames = np.empty(counts.shape, dtype)
    columns, rows = cell_tables(events.extent, box, frame[1], frame[0])
    used = binned = 0
    for words, cuts in _cut(events, edges):
        binned += int(cuts[-1] - cuts[0])
        used += kernel.scatter_counts(words, cuts, columns, rows, counts.reshape(-1), 2 * frame[0] * frame[1])
    limit = 1 if once else int(np.iinfo(dtype).max)  # type: ignore[type-var]
    saturated = kernel.saturate(counts.reshape(-1), limit, frames.reshape(-1))
    dropped, outside = len(events) - used, binned - used
    if once or not saturated:
        return RecordingFrames(frames, dropped, 0, 0, outside)
    clipped = int((counts[counts > limit] - np.uint32(limit)).sum(dtype=np.int64))
    return RecordingFrames(frames, dropped, saturated, clipped, outside)


def _cut(events: CheckedEvents, edges: Edges) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the words of a recording in chunks, with the cuts of its bins among them."""
    before = 0
    for words in events.chunks():
        yield words, edges.cuts(words, before)
        before += len(words)


@lru_cache(maxsize=4096)
def cell_tables(
    extent: tuple[int, int], box: Box, size: int, width: int = 0
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return tables of the flat cell [P,S,W] of an event: columns[x] + rows[2 y + p]; 2 S W or more for none."""
    frame = (width or size, size)
    cells = 2 * frame[0] * frame[1]
    tables = []
    for reach, low, high, side in zip(extent, box[:2], box[2:], frame, strict=True):
        pixel = np.arange(max(reach, high), dtype=np.int64)
        cell = (pixel - low) * side // (high - low)
        tables.append(np.where((pixel >= low) & (pixel < high), cell, -1))
    columns, rows = tables
    planes = np.array([0, frame[0] * frame[1]])
    offsets = np.where(rows[:, None] < 0, cells, rows[:, None] * frame[0] + planes)  # [H,P]
    return np.where(columns < 0, cells, columns).astype(np.uint32), offsets.astype(np.uint32).reshape(-1)


def _sum_weights(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, dtype: np.dtype[np.generic]
) -> RecordingFrames:
    """Return sums of the weights per cell."""
    kernel = loops()
    left, top, right, bottom = box
    weights = np.zeros((len(edges.at) - 1, 2, frame[1], frame[0]), np.float32)
    axes = (*aligned_weights(right - left, frame[0]), *aligned_weights(bottom - top, frame[1]))
    used = binned = 0
    for words, cuts in _cut(events, edges):
        binned += int(cuts[-1] - cuts[0])
        used += kernel.scatter_weights(words, cuts, left, top, *axes, weights)
    return _narrow_sums(weights, dtype, len(events) - used, binned - used)


def _narrow_sums(sums: NDArray[np.float32], dtype: np.dtype[Any], dropped: int, outside: int) -> RecordingFrames:
    """Return sums [T,P,H,W] in a narrower type, saturated; of the events, how many were dropped, and lie outside."""
    limit = np.float32(np.finfo(dtype).max)
    saturated = int(np.count_nonzero(sums > limit))
    clipped = int((sums[sums > limit] - limit).sum(dtype=np.float64)) if saturated else 0
    return RecordingFrames(np.minimum(sums, limit).astype(dtype), dropped, saturated, clipped, outside)


def _share_events(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, dtype: np.dtype[Any], ends: bool, timed: bool
) -> RecordingFrames:
    """Return events shared between T points in time; the last event lies on the last point with `ends`.

    An event counts 1, or with `timed` its place between the first point, 0, and the last or the end of the bins, 1.
    """
    kernel = loops()
    bins = len(edges.at) - 1
    sums = np.zeros((bins, 2, frame[1], frame[0]), np.float32)
    tables = cell_tables(events.extent, box, frame[1], frame[0])
    first, reach = int(edges.at[0]), bins - 1 if ends else bins
    step = edges.span_us / reach if ends else float(edges.step)
    used = shared = before = 0
    for words in events.chunks():
        at = words >> TIME_SHIFT if edges.of_time else np.arange(before, before + len(words))
        places = (at - first) / step
        values = places / reach if timed else np.ones(len(words))
        shared += int(np.count_nonzero(places < bins))
        used += kernel.scatter_shares(words, places, values, *tables, sums.reshape(bins, -1))
        before += len(words)
    return _narrow_sums(sums, dtype, len(events) - used, shared - used)


def _surface(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, dtype: np.dtype[Any], tau_us: int
) -> RecordingFrames:
    """Return exp(-age / tau) of the last event of every cell at the end of each bin."""
    latest, ends, dropped, outside = _keep_latest(events, edges, frame, box, 1)
    ages = np.where(latest < 0, 0, ends[:, None, None] - latest)  # bins may end before the first event
    values = np.where(latest < 0, 0, np.exp(-ages / tau_us)).astype(dtype)
    return RecordingFrames(values.reshape(-1, 2, frame[1], frame[0]), dropped, 0, outside_events=outside)


def _tore(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, dtype: np.dtype[Any], depth: int
) -> RecordingFrames:
    """Return log((age + 1) / (150 us + 1)) of the latest `depth` events of every cell at the end of each bin, from 0.

    Ages, and cells with fewer events so far, count as 5 s at most.

    Differs: the published program takes events of one time in one cell in any order, and one sensor's pixels as cells.
    """
    latest, ends, dropped, outside = _keep_latest(events, edges, frame, box, depth)
    ages = np.where(latest < 0, TORE_MOST_US, np.minimum(ends[:, None, None] - latest, TORE_MOST_US))
    values = np.maximum(np.log(ages + 1) - np.log(TORE_LEAST_US + 1), 0).astype(dtype)  # [bins,cells,depth]
    frames = np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(-1, 2, frame[1], frame[0])
    return RecordingFrames(frames, dropped, 0, outside_events=outside)


def _keep_latest(
    events: CheckedEvents, edges: Edges, frame: Frame, box: Box, depth: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """Find the latest events of every cell at the end of each bin.

    Returns:
        Their times [bins,cells,depth], the last one first and -1 where there are fewer; the end of each bin [bins];
        how many events were dropped, and how many of these lie outside.
    """
    kernel = loops()
    bins = len(edges.at) - 1
    latest = np.full((bins, 2 * frame[0] * frame[1], depth), -1, np.int64)
    tables = cell_tables(events.extent, box, frame[1], frame[0])
    ends = edges.at[1:].copy() if edges.of_time else np.zeros(bins, np.int64)  # else a bin ends with its last event
    used = binned = 0
    for words, cuts in _cut(events, edges):
        binned += int(cuts[-1] - cuts[0])
        used += kernel.keep_latest(words, cuts, *tables, latest)
        if not edges.of_time:
            filled = np.diff(cuts) > 0
            ends[filled] = words[cuts[1:][filled] - 1] >> TIME_SHIFT
    for step in range(1, bins):
        both = np.concatenate([latest[step - 1], latest[step]], axis=1)  # in order of time, that of the bin last
        latest[step] = -np.sort(-both, axis=1)[:, :depth] if depth > 1 else both.max(axis=1, keepdims=True)
    return latest, np.maximum.accumulate(ends), len(events) - used, binned - used


def _compute_rates(
    events: CheckedEvents, time_bins: int, frame: Frame, box: Box, span_us: int | None, source: str
) -> RecordingFrames:
    """Return relative rates; the largest is that of the whole sensor, also where a box is cut out."""
    bin_us(events, time_bins, span_us, source)  # refuses what is too short
    inside = _count_inside(events, box)
    if not inside:
        _require_inside(events, box, source)
    start, duration = (events.start_us, events.duration_us) if span_us is None else (0, span_us)
    frames = rate_frames(events, start_us=start, duration_us=duration, time_bins=time_bins, frame=frame, box=box)
    return RecordingFrames(frames, len(events) - inside, 0, 0, len(events) - inside)


def _count_inside(events: CheckedEvents, box: Box) -> int:
    left, top, right, bottom = box
    inside = 0
    for words in events.chunks():
        x, y = words >> X_SHIFT & X_MASK, words >> Y_SHIFT & Y_MASK
        inside += int(np.count_nonzero((x >= left) & (x < right) & (y >= top) & (y < bottom)))
    return inside


def _require_inside(events: CheckedEvents, box: Box, source: str) -> None:
    if _count_inside(events, box):
        return
    left, top, right, bottom = box
    raise RecordingError(
        f"{source}: none of {len(events)} events lies inside the crop of columns {left} to {right - 1} and rows "
        f"{top} to {bottom - 1}. Is this file from another camera?",
        reason="empty",
    )
