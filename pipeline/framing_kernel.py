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
    bin_us: int,
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Add 1 to `counts[t // bin_us, p, rows[y], columns[x]]` for every event; returns the events used.

    Expects sorted times and coordinates inside `columns` and `rows`; stops at the end of the last bin.
    """
    used = 0
    end = bin_us * counts.shape[0]
    first = t[0]
    for i in range(t.size):
        since = t[i] - first
        if since >= end:
            break
        counts[since // bin_us, p[i], rows[y[i]], columns[x[i]]] += 1
        used += 1
    return used


@njit(cache=True, nogil=True)
def scatter_weights(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
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
    first = t[0]
    for i in range(t.size):
        since = t[i] - first
        if since >= end:
            break
        step = since // bin_us
        for row in range(y_starts[y[i]], y_starts[y[i] + 1]):
            for column in range(x_starts[x[i]], x_starts[x[i] + 1]):
                weights[step, p[i], y_cells[row], x_cells[column]] += y_weights[row] * x_weights[column]
        used += 1
    return used
