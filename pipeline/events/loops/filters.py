"""Compiled loops of `pipeline.events.filters`; `latest_us` [H+2,W+2]: each pixel's last event time, with a margin."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def refractory(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    period_us: int,
    latest_us: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> None:
    """Keep events that come more than `period_us` after the last event of their pixel."""
    for i in range(t.size):
        row = y[i] + 1
        column = x[i] + 1
        kept[i] = t[i] - latest_us[row, column] > period_us
        latest_us[row, column] = t[i]


@njit(cache=True, nogil=True)
def background(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    within_us: int,
    latest_us: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> None:
    """Keep events with an event of one of the four pixels beside theirs less than `within_us` before."""
    for i in range(t.size):
        row = y[i] + 1
        column = x[i] + 1
        latest = max(
            latest_us[row - 1, column],
            latest_us[row + 1, column],
            latest_us[row, column - 1],
            latest_us[row, column + 1],
        )
        kept[i] = t[i] - latest < within_us
        latest_us[row, column] = t[i]
