"""Compiled loops of `pipeline.events.packing`; imported only when recordings are read, because numba takes 0.3 s."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_0, _1, _2, _3, _4, _5, _7, _8, _12, _16, _24, _127, _255 = (
    np.uint64(number) for number in (0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 127, 255)
)


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
def pack_bin40(raw: NDArray[np.uint8], words: NDArray[np.int64]) -> tuple[Any, ...]:
    """Pack the 5-byte records of a `.bin` file, at least one; overflow markers are packed like any other record.

    Without a branch, and with unsigned numbers, which need no test for indexes counted from the end: 2.5 times as fast.

    Returns:
        Whether times are in order; time of the first; smallest and largest x; smallest and largest y.
    """
    ordered = True
    start = _read_time(raw, _0)
    latest: Any = start
    left: Any = _255
    right: Any = _0
    top: Any = _255
    bottom: Any = _0
    at: Any = _0
    for i in range(raw.size // 5):
        column = np.uint64(raw[at])
        row = np.uint64(raw[at + _1])
        t = _read_time(raw, at)
        ordered &= t >= latest
        latest = t
        left = min(left, column)
        right = max(right, column)
        top = min(top, row)
        bottom = max(bottom, row)
        polarity = np.uint64(raw[at + _2]) >> _7
        words[i] = np.int64((t - start) << _24 | column << _12 | row << _1 | polarity)
        at += _5
    return ordered, start, left, right, top, bottom


@njit(cache=True, nogil=True, inline="always")
def _read_time(raw: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """Read the time stamp of the record at a byte: 23 bits, the highest first."""
    high = np.uint64(raw[at + _2]) & _127
    return high << _16 | np.uint64(raw[at + _3]) << _8 | np.uint64(raw[at + _4])
