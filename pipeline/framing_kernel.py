"""The compiled loops of `pipeline.framing`; imported only when frames are made, because numba takes 0.3 s."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def scatter_counts(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    start: int,
    bin_us: int,
    rest: bool,
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Add 1 to `counts[(t - start) // bin_us, p, rows[y], columns[x]]` for every event; returns the events used.

    Expects sorted times from `start` on and coordinates inside `columns` and `rows`. Stops at the end of the last bin,
    or with `rest` puts everything later into it.
    """
    used = 0
    last = counts.shape[0] - 1
    end = bin_us * counts.shape[0]
    for i in range(t.size):
        since = t[i] - start
        if since >= end and not rest:
            break
        counts[min(since // bin_us, last), p[i], rows[y[i]], columns[x[i]]] += 1
        used += 1
    return used


@njit(cache=True, nogil=True)
def scatter_weights(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    start: int,
    bin_us: int,
    x_starts: NDArray[np.int64],
    x_cells: NDArray[np.int64],
    x_weights: NDArray[np.float32],
    y_starts: NDArray[np.int64],
    y_cells: NDArray[np.int64],
    y_weights: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> int:
    """Add every event to the cells that its pixel reaches, times its axis weights; returns the events used."""
    used = 0
    end = bin_us * weights.shape[0]
    for i in range(t.size):
        since = t[i] - start
        if since >= end:
            break
        step = since // bin_us
        for row in range(y_starts[y[i]], y_starts[y[i] + 1]):
            for column in range(x_starts[x[i]], x_starts[x[i] + 1]):
                weights[step, p[i], y_cells[row], x_cells[column]] += y_weights[row] * x_weights[column]
        used += 1
    return used


@njit(cache=True, nogil=True)
def count_pixels(x: NDArray[np.int32], y: NDArray[np.int32], p: NDArray[np.uint8], counts: NDArray[np.int32]) -> None:
    """Add 1 to `counts[p, y, x]` for every event; expects coordinates inside."""
    for i in range(x.size):
        counts[p[i], y[i], x[i]] += 1
