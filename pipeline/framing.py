"""Events to frames: equal time bins, and a resize fused into the binning.

Axes: N events, T time bins, P polarity (0 = OFF, 1 = ON), H and W pixels of a frame.
A frame cell is a sum over events, and both resizes are linear in the counts; so every event is scattered straight into
the small frame with its weights, and no frame of the sensor's size is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordingError
from pipeline.events import Events


@dataclass(frozen=True)
class Framed:
    """One recording as frames.

    Args:
        frames: [T,P,H,W] uint8, uint16 or float16.
        dropped_events: events after the last full bin.
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
) -> Framed:
    """Bin a recording's events into T frames of S x S pixels.

    The bin length is (t_last - t_first) // T; events after T whole bins are dropped (at least the last event), which
    is the rule of tonic's `ToFrame(n_time_bins=T)`. Counts saturate at the maximum of the type, they never wrap.

    Args:
        events: a checked recording (sorted, in range).
        time_bins: T.
        size: S.
        reduction: `sum` adds 1 to the cell (y * S // H, x * S // W); `bilinear` equals binning at full resolution and
            resizing with aligned corners and no antialiasing.
        dtype: uint8 or uint16 for `sum`, float16 for `bilinear`.
        canvas: (W, H) that is stretched to S x S; None takes the recording's own extent, its maximum + 1.
        source: file name for messages.

    Raises:
        RecordingError: shorter than T microseconds, so that a bin would have no length (`too_short`).

    Source: tonic 1.7 `to_frame`; He et al., AAAI 2024, for the stretched extent and the bilinear resize.
    """
    from pipeline import framing_kernel as kernel

    bin_us = events.duration_us // time_bins
    if bin_us == 0:
        raise RecordingError(
            f"{source}: {len(events)} event(s) within {events.duration_us} us; expected at least {time_bins} us for "
            f"{time_bins} time bins. Use fewer bins, or remove the recording.",
            reason="too_short",
        )
    width, height = canvas or (int(events.x.max()) + 1, int(events.y.max()) + 1)
    if reduction == "sum":
        counts = np.zeros((time_bins, 2, size, size), np.int64)
        columns = np.arange(width, dtype=np.int64) * size // width  # [W]
        rows = np.arange(height, dtype=np.int64) * size // height  # [H]
        used = kernel.scatter_counts(events.t, events.x, events.y, events.p, bin_us, columns, rows, counts)
        limit = np.iinfo(dtype).max
        saturated = int(np.count_nonzero(counts > limit))
        return Framed(np.minimum(counts, limit).astype(dtype), len(events) - used, saturated)
    weights = np.zeros((time_bins, 2, size, size), np.float32)
    used = kernel.scatter_weights(
        events.t,
        events.x,
        events.y,
        events.p,
        bin_us,
        *_axis_weights(width, size),
        *_axis_weights(height, size),
        weights,
    )
    largest = np.float32(np.finfo(np.float16).max)
    saturated = int(np.count_nonzero(weights > largest))
    return Framed(np.minimum(weights, largest).astype(dtype), len(events) - used, saturated)


@lru_cache(maxsize=1024)
def _axis_weights(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Which output cells an input pixel reaches along one axis, and with which weight.

    Returns:
        starts [length + 1], cells and weights: pixel i reaches cells[starts[i]:starts[i + 1]].
        The arithmetic is in float32, as in torch's `interpolate(mode="bilinear", align_corners=True)`.
    """
    step = np.float32(length - 1) / np.float32(size - 1) if size > 1 else np.float32(0)
    position = np.arange(size, dtype=np.float32) * step
    low = np.minimum(position.astype(np.int64), length - 1)
    upper_weight = np.minimum(position - low.astype(np.float32), np.float32(1))
    high = np.minimum(low + 1, length - 1)
    pixel = np.concatenate([low, high])
    cell = np.concatenate([np.arange(size), np.arange(size)])
    weight = np.concatenate([np.float32(1) - upper_weight, upper_weight])
    kept = weight > 0
    pixel, cell, weight = pixel[kept], cell[kept], weight[kept]
    order = np.lexsort((cell, pixel))
    starts = np.searchsorted(pixel[order], np.arange(length + 1))
    return starts.astype(np.int64), cell[order].astype(np.int64), weight[order].astype(np.float32)
