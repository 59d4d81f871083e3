"""The compiled loop of `pipeline.formats.aedat.aedat3`: packets to events."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spikebridge.pipeline.containers.lz4_kernel import load

HEADER_BYTES, POLARITY, POLARITY_BYTES = 28, 1, 8
INVALID, CAMERA, SEVERAL = range(3)
"""Places in `found`: events marked invalid, the camera of the events (-1 before the first), whether there are several;
behind them the numbers of other packets' items, by kind."""
_32, _0XFFFFFFFF, _0X7FFFFFFF = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(0x7FFFFFFF)
_ONE, _2, _17, _0X7FFF = np.uint32(1), np.uint32(2), np.uint32(17), np.uint32(0x7FFF)
KINDS = 16
"""Kinds that are counted here; a packet of a higher one is left to the caller."""


@njit(cache=True, nogil=True, inline="always")
def _word(data: NDArray[np.uint8], at: np.int64) -> np.int64:
    """Read 32 bits, little endian, with sign."""
    return np.int64(
        np.int32(
            np.uint32(data[at])
            | np.uint32(data[at + 1]) << np.uint32(8)
            | np.uint32(data[at + 2]) << np.uint32(16)
            | np.uint32(data[at + 3]) << np.uint32(24)
        )
    )


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    found: NDArray[np.int64],
) -> tuple[np.int64, np.int64]:
    """Fill the columns from bytes that begin with a packet; stop before one that is not whole or not as it should be.

    Returns:
        The number of events, and the bytes that were used.
    """
    count, at = np.uint64(0), np.int64(0)  # unsigned: no test for places counted from the end
    while at + HEADER_BYTES <= data.size:
        kind = _word(data, at) & 0xFFFF
        camera = _word(data, at) >> 16
        size, overflow = _word(data, at + 4), _word(data, at + 12)
        capacity, number = _word(data, at + 16), _word(data, at + 20)
        start = at + HEADER_BYTES
        if size < 0 or overflow < 0 or capacity < 0 or number < 0 or number > capacity or kind >= KINDS:
            break
        if size * capacity > data.size - start or (kind == POLARITY and size != POLARITY_BYTES):
            break
        if kind == POLARITY:
            if found[CAMERA] >= 0 and found[CAMERA] != camera & 0xFFFF:
                found[SEVERAL] = 1
            found[CAMERA] = camera & 0xFFFF
            upper, before = overflow << 31, count
            for event in range(number):
                record = load(data, start + POLARITY_BYTES * event)  # within the packet, whose end was looked at
                word = np.uint32(record & _0XFFFFFFFF)
                t[count] = np.int64(record >> _32 & _0X7FFFFFFF) | upper
                x[count] = word >> _17
                y[count] = word >> _2 & _0X7FFF
                p[count] = word >> _ONE & _ONE
                count += np.uint64(word & _ONE)  # an invalid one is written over
            found[INVALID] += number - np.int64(count - before)
        else:
            found[3 + kind] += number
        at = start + size * capacity
    return np.int64(count), at
