"""The compiled loop of `pipeline.formats.aedat.aedat3`: packets to events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload
from numpy.typing import NDArray

from spikebridge.pipeline.containers.lz4_kernel import load
from spikebridge.pipeline.events.loops.sinks import COLUMNS

HEADER_BYTES, POLARITY, POLARITY_BYTES = 28, 1, 8
INVALID, CAMERA, SEVERAL, SINCE, BEYOND, KIND = range(6)
"""Places in `found`: events marked invalid, the camera of the events (-1 before the first), whether there are several,
what times are counted from (-1 for the beginning of the first packet's clock), whether a word had no room for one; from
`KIND` on the numbers of other packets' items, by kind."""
_1, _2, _11, _12, _17, _24, _32, _0X7FFF, _0X7FFFFFFF = (
    np.uint64(number) for number in (1, 2, 11, 12, 17, 24, 32, 0x7FFF, 0x7FFFFFFF)
)
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


def put_packet(sink: Any, count: Any, data: Any, start: Any, number: Any, upper: Any) -> Any:
    """Write the events of a packet whose times begin at `upper`, an invalid one where the next is written over it.

    Returns:
        The number of valid events, and whether words have no room for one.
    """
    raise NotImplementedError("is there in compiled loops only")


@overload(put_packet)
def _put_packet(sink: Any, count: Any, data: Any, start: Any, number: Any, upper: Any) -> Callable[..., Any]:
    def to_columns(sink: Any, count: Any, data: Any, start: Any, number: Any, upper: Any) -> Any:
        at = np.uint64(count)  # unsigned: no test for places counted from the end
        for event in range(number):
            record = load(data, start + POLARITY_BYTES * event)  # within the packet, whose end was looked at
            sink[0][at] = np.int64(record >> _32 & _0X7FFFFFFF) + upper
            sink[1][at] = record >> _17 & _0X7FFF
            sink[2][at] = record >> _2 & _0X7FFF
            sink[3][at] = record >> _1 & _1
            at += record & _1
        return np.int64(at) - count, False

    def to_words(sink: Any, count: Any, data: Any, start: Any, number: Any, upper: Any) -> Any:
        valid, beyond = _1, np.uint64(upper >> 39)
        for event in range(number):  # as if all were valid: several at a time
            record = load(data, start + POLARITY_BYTES * event)
            x, y, t = record >> _17 & _0X7FFF, record >> _2 & _0X7FFF, (record >> _32 & _0X7FFFFFFF) + np.uint64(upper)
            valid &= record
            beyond |= x >> _12 | y >> _11 | t >> np.uint64(39)
            sink[0][count + event] = np.int64(t << _24 | x << _12 | y << _1 | (record >> _1 & _1))
        if valid & _1:
            return number, beyond != 0
        at = count
        for event in range(number):
            sink[0][at] = sink[0][count + event]
            at += np.int64(load(data, start + POLARITY_BYTES * event) & _1)
        return at - count, beyond != 0

    return to_columns if len(sink) == COLUMNS else to_words


@njit(cache=True, nogil=True)
def decode(data: NDArray[np.uint8], sink: Any, found: NDArray[np.int64]) -> tuple[np.int64, np.int64]:
    """Fill a sink from bytes that begin with a packet; stop before one that is not whole or not as it should be.

    Returns:
        The number of events, and the bytes that were used.
    """
    count, at = np.int64(0), np.int64(0)
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
            if found[SINCE] < 0:
                found[SINCE] = overflow << 31
            valid, beyond = put_packet(sink, count, data, start, number, (overflow << 31) - found[SINCE])
            count += valid
            found[BEYOND] |= np.int64(beyond)
            found[INVALID] += number - valid
        else:
            found[KIND + kind] += number
        at = start + size * capacity
    return count, at
