"""The compiled loops of `pipeline.events.framing`; imported only when frames are made, because numba takes 0.3 s.

Events come as words, see `pipeline.events.packing`: x is word >> 12 & 0xFFF, y is word >> 1 & 0x7FF, p is word & 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_12, _0XFFF, _ONE = np.uint64(12), np.uint64(0xFFF), np.uint32(1)


@njit(cache=True, nogil=True)
def scatter_counts(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    frame_cells: int,
) -> int:
    """Add 1 to a cell of `counts` [T, frame_cells] (flat) for every event in a bin; returns the events used.

    The cell in a frame is columns[x] + rows[y * 2 + p]; events of `frame_cells` or more are left out. Unsigned numbers
    need no test for indexes counted from the end: 2 times as fast.
    """
    used = 0
    cells = np.uint64(frame_cells)
    for step in range(cuts.size - 1):
        first = np.uint64(step) * cells
        for i in range(np.uint64(cuts[step]), np.uint64(cuts[step + 1])):
            word = np.uint64(words[i])
            cell = np.uint64(columns[word >> _12 & _0XFFF]) + np.uint64(rows[word & _0XFFF])
            if cell < cells:
                counts[first + cell] += _ONE
                used += 1
    return used


@njit(cache=True, nogil=True)
def saturate(counts: NDArray[np.uint32], limit: int, out: NDArray[np.unsignedinteger]) -> int:
    """Write min(count, limit) into `out`; returns how many counts were above the limit."""
    above = 0
    most = np.uint32(limit)
    for i in range(counts.size):
        count = counts[i]
        above += count > most
        out[i] = min(count, most)
    return above


@njit(cache=True, nogil=True)
def scatter_weights(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    left: int,
    top: int,
    x_starts: NDArray[np.int64],
    x_cells: NDArray[np.int64],
    x_weights: NDArray[np.float32],
    y_starts: NDArray[np.int64],
    y_cells: NDArray[np.int64],
    y_weights: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> int:
    """Add every event to the cells that its pixel reaches, times its axis weights; returns the events used.

    Pixels are counted from (left, top); those outside the axes are left out.
    """
    used = 0
    width = x_starts.size - 1
    height = y_starts.size - 1
    for step in range(cuts.size - 1):
        for i in range(cuts[step], cuts[step + 1]):
            word = words[i]
            x = (word >> 12 & 0xFFF) - left
            y = (word >> 1 & 0x7FF) - top
            if x < 0 or x >= width or y < 0 or y >= height:
                continue
            p = word & 1
            for row in range(y_starts[y], y_starts[y + 1]):
                for column in range(x_starts[x], x_starts[x + 1]):
                    weights[step, p, y_cells[row], x_cells[column]] += y_weights[row] * x_weights[column]
            used += 1
    return used


@njit(cache=True, nogil=True)
def scatter_shares(
    words: NDArray[np.int64],
    places: NDArray[np.float64],
    values: NDArray[np.float64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    sums: NDArray[np.float32],
) -> int:
    """Share the value of every event between the steps of `sums` [T, cells] on both sides of its place.

    A place k + s gives the share 1 - s to step k and s to the next; cells are those of `scatter_counts`. Events behind
    the last step are left out. Returns the events used.
    """
    used = 0
    steps, cells = sums.shape
    for i in range(words.size):
        step = int(places[i])
        cell = np.int64(columns[words[i] >> 12 & 0xFFF]) + np.int64(rows[words[i] & 0xFFF])
        if step >= steps or cell >= cells:
            continue
        share = places[i] - step
        sums[step, cell] += np.float32(values[i] * (1 - share))
        if step + 1 < steps:
            sums[step + 1, cell] += np.float32(values[i] * share)
        used += 1
    return used


@njit(cache=True, nogil=True)
def keep_latest(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    latest: NDArray[np.int64],
) -> int:
    """Write the times of the latest events of every bin and cell into `latest` [T, cells, K], the last one first.

    Returns the events used.
    """
    used = 0
    cells, depth = latest.shape[1:]
    for step in range(cuts.size - 1):
        for i in range(cuts[step], cuts[step + 1]):
            cell = np.int64(columns[words[i] >> 12 & 0xFFF]) + np.int64(rows[words[i] & 0xFFF])
            if cell < cells:
                for k in range(depth - 1, 0, -1):
                    latest[step, cell, k] = latest[step, cell, k - 1]
                latest[step, cell, 0] = words[i] >> 24
                used += 1
    return used


@njit(cache=True, nogil=True)
def count_pixels(x: NDArray[np.int32], y: NDArray[np.int32], p: NDArray[np.uint8], counts: NDArray[np.int32]) -> None:
    """Add 1 to `counts[p, y, x]` for every event; expects coordinates inside."""
    for i in range(x.size):
        counts[p[i], y[i], x[i]] += 1
