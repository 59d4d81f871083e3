"""The `frequency` frames of N-Omniglot: event rates, each frame and polarity divided by its largest.

Axes: T time bins, P polarity, H and W pixels of the sensor or of a frame.
The rate of a pixel is rounded to float16 before it is divided by the largest of the whole sensor, also where a crop
cuts out a box later. The resize reads at most four pixels a cell, so only those are turned into rates.

Source: Li et al., "N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse few-shot learning",
Scientific Data 9, 2022, and the frames of its published loader.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.fitting import Box
from spikebridge.pipeline.events.binning import loops
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
    frame: tuple[int, int],
    box: Box,
) -> NDArray[np.float16]:
    """Compute relative rates, resized to a frame with pixel centres aligned and no antialiasing.

    Bins are floor(duration / T) long; the last takes the rest, and its rate is over duration mod T microseconds more.

    T is `time_bins`, `frame` is (W, H); `duration_us` is at least T, `box` is what is resized.

    Returns:
        [T,P,H,W] float16, from 0 to 1.

    Differs: the published resize is torchvision's of its time; which one depends on the version installed, and this is
    the older one, without antialiasing.
    """
    kernel = loops()
    _, _, right, bottom = box
    counts = np.zeros((2, max(bottom, events.extent[1]), max(right, events.extent[0])), np.int32)  # [P,H,W]
    lengths = bin_lengths(duration_us, time_bins)
    inner = start_us + np.arange(1, time_bins) * lengths[0]
    frames = np.empty((time_bins, 2, frame[1], frame[0]), np.float16)

    def finish(step: int) -> None:
        peaks = counts.max(axis=(1, 2), keepdims=True)  # [P,1,1]
        frames[step] = _resize_rates(_cut_out(counts, box), peaks, int(lengths[step]), frame)
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


def _cut_out(counts: NDArray[np.int32], box: Box) -> NDArray[np.int32]:
    """Return a box of counts [P,H,W], with zeros where it reaches beyond them to the left or the top."""
    left, top, right, bottom = box
    inside = counts[:, max(top, 0) : bottom, max(left, 0) : right]
    if left >= 0 and top >= 0:
        return inside
    return np.pad(inside, ((0, 0), (max(-top, 0), 0), (max(-left, 0), 0)))


def _resize_rates(
    counts: NDArray[np.int32], peaks: NDArray[np.int32], length_us: int, frame: tuple[int, int]
) -> NDArray[np.float32]:
    """Compute relative rates of counts [P,H,W], resized to a frame, at the pixels that the resize reads alone."""
    rows, next_rows, down = centred_samples(counts.shape[1], frame[1])
    columns, next_columns, across = centred_samples(counts.shape[2], frame[0])
    lines = []
    for row in (rows, next_rows):
        left, right = (
            relative_rates(counts[:, row[:, None], column], peaks, length_us).astype(np.float32)  # [P,S,S]
            for column in (columns, next_columns)
        )
        lines.append((1 - across) * left + across * right)
    return (1 - down[:, None]) * lines[0] + down[:, None] * lines[1]
