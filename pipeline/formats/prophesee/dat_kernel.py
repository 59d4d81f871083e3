"""The compiled loops of `pipeline.formats.prophesee.dat`.

Axes: N records of two words: time stamp, and event.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

WRAP = np.int64(1) << 31
"""A time that falls by more than this has wrapped."""
_1, _11, _12, _24, _32, _46, _60, _0X3FFF, _0XFFFFFFFF = (
    np.uint64(number) for number in (1, 11, 12, 24, 32, 46, 60, 0x3FFF, 0xFFFFFFFF)
)
USED, X1, Y1, X2, Y2, P2 = range(6)
"""Places in what `survey` finds: all bits in use, largest x and y of layout 1, largest x, y and p of layout 2."""


@njit(cache=True, nogil=True)
def survey(words: NDArray[np.uint32], found: NDArray[np.uint32]) -> None:
    """Fill `found[6]` from a block of words [2N], with what the blocks before had."""
    used, x1, y1, x2, y2, p2 = found[0], found[1], found[2], found[3], found[4], found[5]
    for i in range(words.size // 2):
        word = words[2 * i + 1]
        used |= word
        x1 = max(x1, word & np.uint32(0x1FF))
        y1 = max(y1, word >> np.uint32(9) & np.uint32(0xFF))
        x2 = max(x2, word & np.uint32(0x3FFF))
        y2 = max(y2, word >> np.uint32(14) & np.uint32(0x3FFF))
        p2 = max(p2, word >> np.uint32(28))
    found[0], found[1], found[2], found[3], found[4], found[5] = used, x1, y1, x2, y2, p2


@njit(cache=True, nogil=True)
def fits(
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    latest: int,
    width: int,
    height: int,
) -> bool:
    """Return whether events lie on a sensor, polarities are 0 and 1, and no time wraps, from `latest` on."""
    back = t[0] + WRAP < latest
    for i in range(1, t.size):
        back |= t[i] + WRAP < t[i - 1]
    right, bottom, sign = x[0], y[0], p[0]
    for i in range(t.size):
        right = max(right, x[i])
        bottom = max(bottom, y[i])
        sign = max(sign, p[i])
    return right < width and bottom < height and sign <= 1 and not back


@njit(cache=True, nogil=True)
def decode(
    words: NDArray[np.uint32],
    layout: int,
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
) -> int:
    """Fill the columns from a block of words [2N]; returns the number of events."""
    count = words.size // 2
    if layout == 1:
        for i in range(count):
            word = words[2 * i + 1]
            t[i] = words[2 * i]
            x[i] = word & np.uint32(0x1FF)
            y[i] = word >> np.uint32(9) & np.uint32(0xFF)
            p[i] = word >> np.uint32(17) & np.uint32(1)
    else:
        for i in range(count):
            word = words[2 * i + 1]
            t[i] = words[2 * i]
            x[i] = word & np.uint32(0x3FFF)
            y[i] = word >> np.uint32(14) & np.uint32(0x3FFF)
            p[i] = word >> np.uint32(28)
    return count


@njit(cache=True, nogil=True)
def pack(records: NDArray[np.uint64], words: NDArray[np.int64], origin: int) -> bool:
    """Pack records [N] of layout 2, the time in the lower half; returns whether all of them have room in a word.

    Their times count from `origin`; of words whose times are before it, the number is negative.
    """
    beyond, since = np.uint64(0), np.uint64(origin)
    for i in range(records.size):
        record = records[i]
        x, y, p = record >> _32 & _0X3FFF, record >> _46 & _0X3FFF, record >> _60
        beyond |= x >> _12 | y >> _11 | p >> _1
        words[i] = np.int64((record & _0XFFFFFFFF) - since << _24 | x << _12 | y << _1 | p)
    return beyond == 0
