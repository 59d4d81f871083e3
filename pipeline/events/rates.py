"""The `frequency` frames of N-Omniglot: event rates, each frame and polarity divided by its largest.

Axes: T time bins, P polarity, H and W pixels of the sensor, S the size of a square frame.
The rate of a pixel is rounded to float16 before it is divided by the largest of the whole sensor, also where a crop
cuts out a box later. The resize reads at most four pixels a cell, so only those are turned into rates.

Source: Li et al., "N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse few-shot learning",
Scientific Data 9, 2022, and the frames of its published loader.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.packing import CheckedEvents
from spikebridge.pipeline.events.resize import centred_samples

SMALLEST_RATE = np.float16(1e-5)
"""Smallest divisor of a frame, in events per microsecond."""


def rate_frames(
    events: CheckedEvents,
    *,
    start_us: int,
    duration_us: int,
    time_bins: int,
    size: int,
    box: tuple[int, int, int, int],
) -> NDArray[np.float16]:
    """Compute relative rates, resized to S x S with pixel centres aligned and no antialiasing.

    Bins are floor(duration / T) long; the last takes the rest, and its rate is over duration mod T microseconds more.

    T is `time_bins`, S is `size`; `duration_us` is at least T, `box` is (left, top, right, bottom) of what is resized.

    Returns:
        [T,P,S,S] float16, from 0 to 1.

    Differs: the published resize is torchvision's of its time; which one depends on the version installed, and this is
    the older one, without antialiasing.
    """
    from spikebridge.pipeline.events import framing_kernel as kernel

    left, top, right, bottom = box
    counts = np.zeros((2, max(bottom, events.extent[1]), max(right, events.extent[0])), np.int32)  # [P,H,W]
    lengths = bin_lengths(duration_us, time_bins)
    inner = start_us + np.arange(1, time_bins) * lengths[0]
    frames = np.empty((time_bins, 2, size, size), np.float16)

    def finish(step: int) -> None:
        peaks = counts.max(axis=(1, 2), keepdims=True)  # [P,1,1]
        frames[step] = _resize_rates(counts[:, top:bottom, left:right], peaks, int(lengths[step]), size)
        counts[:] = 0

    step = 0
    for chunk in events.columns():
        edges = [0, *np.searchsorted(chunk.t, inner).tolist(), len(chunk)]
        last = int(np.searchsorted(inner, chunk.t[-1], "right"))  # the bin that the next chunk goes on with
        while True:
            part = slice(edges[step], edges[step + 1])
            kernel.count_pixels(chunk.x[part], chunk.y[part], chunk.p[part], counts)
            if step == last:
                break
            finish(step)
            step += 1
    for empty in range(step, time_bins):
        finish(empty)
    return frames


def bin_lengths(duration_us: int, time_bins: int) -> NDArray[np.int64]:
    """Return the microseconds by which the counts of each bin are divided, [T]; only the last differs."""
    length = duration_us // time_bins
    lengths = np.full(time_bins, length, np.int64)
    lengths[-1] += duration_us % time_bins
    return lengths


def relative_rates(counts: NDArray[np.int32], peaks: NDArray[np.int32], length_us: int) -> NDArray[np.float16]:
    """Compute counts [P,...] per microsecond in float16, divided by the largest of the frame, `peaks` [P,1,1].

    The peaks are the largest counts of each polarity in the whole frame.
    """
    largest = np.finfo(np.float16).max
    rates: NDArray[np.float16] = np.minimum(counts / length_us, largest).astype(np.float16)
    peak_rates: NDArray[np.float16] = np.minimum(peaks / length_us, largest).astype(np.float16)
    return np.divide(rates, np.maximum(peak_rates, SMALLEST_RATE), dtype=np.float16)


def _resize_rates(
    counts: NDArray[np.int32], peaks: NDArray[np.int32], length_us: int, size: int
) -> NDArray[np.float32]:
    """Compute relative rates of counts [P,H,W], resized to [P,S,S], at the pixels that the resize reads alone."""
    rows, next_rows, down = centred_samples(counts.shape[1], size)
    columns, next_columns, across = centred_samples(counts.shape[2], size)
    lines = []
    for row in (rows, next_rows):
        left, right = (
            relative_rates(counts[:, row[:, None], column], peaks, length_us).astype(np.float32)  # [P,S,S]
            for column in (columns, next_columns)
        )
        lines.append((1 - across) * left + across * right)
    return (1 - down[:, None]) * lines[0] + down[:, None] * lines[1]
