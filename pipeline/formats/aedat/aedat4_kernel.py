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
) -> int:
    """Fill the columns from events of two words [2N]: the time; x, y (16 bits each) and p (8 bits)."""
    count = words.size // 2
    for i in range(count):
        rest = words[2 * i + 1]
        t[i] = words[2 * i]
        x[i] = rest & 0xFFFF
        y[i] = rest >> 16 & 0xFFFF
        p[i] = (rest >> 32 & 0xFF) != 0
    return count
