"""Events to frames: equal time bins, and a resize fused into the binning.

Axes: N events, T time bins, P polarity (0 = OFF, 1 = ON), H and W pixels of a frame, S the size of a square frame.
A frame cell is a sum over events, and the resizes of `sum` and `bilinear` are linear in the counts; so every event is
scattered straight into the small frame with its weights, and no frame of the sensor's size is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordingError
from pipeline.events import Events
from pipeline.framing_rates import rate_frames
from pipeline.framing_resize import aligned_weights


@dataclass(frozen=True)
class Framed:
    """One recording as frames.

    Args:
        frames: [T,P,H,W] uint8, uint16 or float16.
        dropped_events: events after the last full bin or outside the crop.
        saturated_cells: cells whose count did not fit the type and was set to its maximum.
    """

    frames: NDArray[np.generic]
    dropped_events: int
    saturated_cells: int


def to_frames(
    events: Events,
    *,
    time_bins: int,
    size: int,
    reduction: str,
    dtype: str,
    canvas: tuple[int, int] | None,
    source: str,
    crop: tuple[int, int, int, int] | None = None,
    span_us: int | None = None,
) -> Framed:
    """Bin a recording's events into T frames of S x S pixels.

    The bin length is (t_last - t_first) // T. `sum` and `bilinear` drop the events after T whole bins (at least the
    last event), which is the rule of tonic's `ToFrame(n_time_bins=T)`; `frequency` and `event` give them to the last
    bin, which is the rule of N-Omniglot. Counts saturate at the maximum of the type, they never wrap.

    Args:
        events: a checked recording (sorted, in range).
        time_bins: T.
        size: S.
        reduction: `sum` adds 1 to the cell (y * S // H, x * S // W); `event` sets that cell to 1; `bilinear` equals
            binning at full resolution and resizing with aligned corners and no antialiasing; `frequency` see
            `pipeline.framing_rates`.
        dtype: uint8 or uint16 for `sum`, uint8 for `event`, float16 for `bilinear` and `frequency`.
        canvas: (W, H) of the sensor, which is stretched to S x S; None takes the recording's own extent, maximum + 1.
        source: file name for messages.
        crop: (left, top, right, bottom) in pixels, right and bottom exclusive, that is stretched instead of the canvas.
        span_us: length of a recording that begins at t = 0 whether or not there is an event; None counts from the
            first event to the last.

    Raises:
        RecordingError: shorter than T microseconds, so that a bin would have no length (`too_short`); no event inside
            the crop (`empty`); a time outside the span (`out_of_range`).

    Source: tonic 1.7 `to_frame`; He et al., AAAI 2024, for the stretched extent and the bilinear resize; Li et al.,
    N-Omniglot, Scientific Data 2022, for `frequency` and `event`.
    Differs: `event` is published as a bilinear resize of 0 and 1, whose samples miss most pixels of a large sensor;
    here a cell is 1 when any event falls into it. At full resolution both are the same.
    """
    start, duration = (int(events.t[0]), events.duration_us) if span_us is None else (0, span_us)
    if span_us is not None and (int(events.t[0]) < 0 or int(events.t[-1]) >= span_us):
        raise RecordingError(
            f"{source}: times run from {int(events.t[0])} to {int(events.t[-1])} us; expected 0 to {span_us - 1} us.",
            reason="out_of_range",
        )
    bin_us = duration // time_bins
    if bin_us == 0:
        raise RecordingError(
            f"{source}: {len(events)} event(s) within {duration} us; expected at least {time_bins} us for "
            f"{time_bins} time bins. Use fewer bins, or remove the recording.",
            reason="too_short",
        )
    shown, box = events, crop or (0, 0, *(canvas or (int(events.x.max()) + 1, int(events.y.max()) + 1)))
    if crop:
        shown = _cut(events, crop, source)
    if reduction == "frequency":
        frames = rate_frames(events, start_us=start, duration_us=duration, time_bins=time_bins, size=size, box=box)
        return Framed(frames, len(events) - len(shown), 0)
    width, height = box[2] - box[0], box[3] - box[1]
    scatter = _bilinear if reduction == "bilinear" else _counts
    cells, used = scatter(shown, start, bin_us, (time_bins, 2, size, size), (width, height), reduction == "event")
    limit = 1 if reduction == "event" else np.finfo(dtype).max if dtype == "float16" else np.iinfo(dtype).max
    saturated = 0 if reduction == "event" else int(np.count_nonzero(cells > limit))
    return Framed(np.minimum(cells, cells.dtype.type(limit)).astype(dtype), len(events) - used, saturated)


def _cut(events: Events, box: tuple[int, int, int, int], source: str) -> Events:
    """The events inside a box, their coordinates counted from its corner."""
    left, top, right, bottom = box
    kept = (events.x >= left) & (events.x < right) & (events.y >= top) & (events.y < bottom)
    if not kept.any():
        raise RecordingError(
            f"{source}: none of {len(events)} events lies inside the crop of columns {left} to {right - 1} and rows "
            f"{top} to {bottom - 1}. Is this file from another camera?",
            reason="empty",
        )
    return Events(events.t[kept], events.x[kept] - left, events.y[kept] - top, events.p[kept])


def _counts(
    events: Events, start: int, bin_us: int, shape: tuple[int, ...], extent: tuple[int, int], rest: bool
) -> tuple[NDArray[np.int64], int]:
    """Counts per cell, and the events used; with `rest` the last bin takes what follows it."""
    from pipeline import framing_kernel as kernel

    counts = np.zeros(shape, np.int64)
    columns = np.arange(extent[0], dtype=np.int64) * shape[3] // extent[0]  # [W]
    rows = np.arange(extent[1], dtype=np.int64) * shape[2] // extent[1]  # [H]
    used = kernel.scatter_counts(events.t, events.x, events.y, events.p, start, bin_us, rest, columns, rows, counts)
    return counts, used


def _bilinear(
    events: Events, start: int, bin_us: int, shape: tuple[int, ...], extent: tuple[int, int], _rest: bool
) -> tuple[NDArray[np.float32], int]:
    """Weights per cell, and the events used."""
    from pipeline import framing_kernel as kernel

    weights = np.zeros(shape, np.float32)
    axes = (*aligned_weights(extent[0], shape[3]), *aligned_weights(extent[1], shape[2]))
    used = kernel.scatter_weights(events.t, events.x, events.y, events.p, start, bin_us, *axes, weights)
    return weights, used
