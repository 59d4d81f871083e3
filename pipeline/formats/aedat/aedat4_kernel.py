"""The compiled loop of `pipeline.formats.aedat.aedat4`."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def split(
    words: NDArray[np.int64],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
) -> None:
    """Fill the columns from events of two words [2N]: the time; x, y (16 bits each) and p (8 bits)."""
    for i in range(words.size // 2):
        rest = words[2 * i + 1]
        t[i] = words[2 * i]
        x[i] = rest & 0xFFFF
        y[i] = rest >> 16 & 0xFFFF
        p[i] = (rest >> 32 & 0xFF) != 0


@njit(cache=True, nogil=True)
def pack(events: NDArray[np.int64], origin: int, words: NDArray[np.int64]) -> bool:
    """Pack events [2N], times counted from `origin`; returns whether all of them have room in a word."""
    beyond = np.int64(0)
    for i in range(events.size // 2):
        t, rest = events[2 * i] - origin, events[2 * i + 1]
        x, y = rest & 0xFFFF, rest >> 16 & 0xFFFF
        beyond |= t >> 39 | x >> 12 | y >> 11
        words[i] = t << 24 | x << 12 | y << 1 | ((rest >> 32 & 0xFF) != 0)
    return beyond == 0
