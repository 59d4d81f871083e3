"""The compiled loops of `pipeline.packing`; imported only when recordings are read, because numba takes 0.3 s."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def pack_columns(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    width: int,
    height: int,
    words: NDArray[np.int64],
) -> tuple[bool, int, int]:
    """Pack columns into words; returns whether every check passed, and the largest x and y plus one.

    Checks: at least one event, times in order and within 39 bits, coordinates on the sensor, polarity 0 or 1.
    """
    if t.size == 0:
        return False, 0, 0
    start = t[0]
    latest: Any = start
    right: Any = 0
    bottom: Any = 0
    for i in range(t.size):
        since = t[i] - start
        column = np.int64(x[i])
        row = np.int64(y[i])
        if t[i] < latest or since >> 39 or column < 0 or column >= width or row < 0 or row >= height or p[i] > 1:
            return False, 0, 0
        latest = t[i]
        right = max(right, column)
        bottom = max(bottom, row)
        words[i] = since << 24 | column << 12 | row << 1 | np.int64(p[i])
    return True, right + 1, bottom + 1


@njit(cache=True, nogil=True)
def pack_bin40(
    raw: NDArray[np.uint8], marker_y: int, marker_us: int, words: NDArray[np.int64]
) -> tuple[int, int, int, int, int, int]:
    """Pack the 5-byte records of a `.bin` file.

    A record with y = `marker_y` is no event: what follows is `marker_us` later than it says.

    Returns:
        Number of events, or -1 where times are out of order; time of the first; smallest and largest x and y.
    """
    count = 0
    start: Any = 0
    latest: Any = 0
    later = 0
    left: Any = 255
    right: Any = 0
    top: Any = 255
    bottom: Any = 0
    for i in range(0, raw.size - 4, 5):
        row = np.int64(raw[i + 1])
        if row == marker_y:
            later += marker_us
            continue
        column = np.int64(raw[i])
        high = np.int64(raw[i + 2])
        t = ((high & 0x7F) << 16 | np.int64(raw[i + 3]) << 8 | np.int64(raw[i + 4])) + later
        if count == 0:
            start = t
            latest = t
        if t < latest:
            return -1, 0, 0, 0, 0, 0
        latest = t
        left = min(left, column)
        right = max(right, column)
        top = min(top, row)
        bottom = max(bottom, row)
        words[count] = (t - start) << 24 | column << 12 | row << 1 | high >> 7
        count += 1
    return count, start, left, right, top, bottom
