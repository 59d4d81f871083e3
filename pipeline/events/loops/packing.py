"""Compiled loops of `pipeline.events.packing`; imported only when recordings are read, because numba takes 0.3 s."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_0, _1, _2, _3, _4, _5, _7, _8, _12, _16, _24, _127, _255 = (
    np.uint64(number) for number in (0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 127, 255)
)
BLOCK = np.uint64(2048)
"""Words that the nearest cache holds."""


@njit(cache=True, nogil=True)
def pack_columns(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    width: int,
    height: int,
    start: int,
    latest: int,
    words: NDArray[np.int64],
) -> tuple[bool, int, int]:
    """Pack columns into words; returns whether every check passed, and the largest x and y plus one.

    Checks: times not before `latest`, in order, within 39 bits of `start`; coordinates on the sensor; polarity 0 or 1.
    Without a branch: twice as fast.
    """
    size = t.size
    if size == 0:
        return True, 0, 0
    wrong = t[0] < latest
    for i in range(1, size):
        wrong |= t[i] < t[i - 1]
    right = x[0]
    bottom = y[0]
    left = x[0]
    top = y[0]
    sign = p[0]
    for i in range(size):
        right = max(right, x[i])
        left = min(left, x[i])
        bottom = max(bottom, y[i])
        top = min(top, y[i])
        sign |= p[i]
    wrong |= left < 0 or right >= width or top < 0 or bottom >= height or sign > 1 or (t[size - 1] - start) >> 39 != 0
    if wrong:
        return False, 0, 0
    for i in range(size):
        words[i] = (t[i] - start) << 24 | np.int64(x[i]) << 12 | np.int64(y[i]) << 1 | np.int64(p[i])
    return True, int(right) + 1, int(bottom) + 1


@njit(cache=True, nogil=True)
def look(words: NDArray[np.int64]) -> tuple[Any, ...]:
    """Return whether the times of words [N] are in order, and the largest x and y plus one; (True, 0, 0) for none.

    One pass for each, block by block, is faster than one for all: the compiler makes each of them wide.
    """
    back, right, bottom = np.int64(0), np.int64(-1), np.int64(-1)
    size: Any = np.uint64(words.size)
    for begin in range(_0, size, BLOCK):
        first: Any = max(begin, _1)
        end: Any = min(begin + BLOCK, size)
        for i in range(first, end):
            back |= (words[i] | 0xFFFFFF) - (words[i - _1] | 0xFFFFFF)  # negative where time falls
        for i in range(begin, end):
            right = max(right, words[i] & 0xFFF000)
        for i in range(begin, end):
            bottom = max(bottom, words[i] & 0xFFE)
    return back >= 0, (right >> 12) + 1, (bottom >> 1) + 1


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
