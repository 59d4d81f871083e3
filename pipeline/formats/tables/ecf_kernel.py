"""The compiled loop of `pipeline.formats.tables.ecf`: a chunk of Prophesee's ECF to columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

HEADER_BYTES = 12
"""Number of events and kind of packing (32 bits), and the time to begin with (64 bits)."""
BAD = -1


@njit(cache=True, nogil=True)
def _number(data: NDArray[np.uint8], at: Any, width: int) -> Any:
    """Read a little-endian number of `width` bytes; 0 where the data ends before."""
    value = np.int64(0)
    if at + width > data.size:
        return value
    for i in range(width):
        value |= np.int64(data[at + i]) << (8 * i)
    return value


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
) -> Any:
    """Fill the columns from one chunk, which says how many events it holds; `BAD` where it is damaged.

    Times come first, then rows, columns and polarities: each packed alone, or columns with polarities (12 bits), or all
    three together (24 bits), four events in three numbers.
    """
    if data.size < HEADER_BYTES:
        return BAD
    word = _number(data, 0, 4)
    count = word >> 2
    if count > t.size:
        return BAD
    at = _times(data, count, t)
    if at < 0:
        return BAD
    if word >> 1 & 1:
        at = _fours(data, at, count, 24, 12, x, y, p)
    else:
        at = _rows(data, at, count, y)
        if at >= 0 and word & 1:
            at = _fours(data, at, count, 12, 0, x, y, p)
        elif at >= 0:
            at = _masked_columns(data, at, count, x)
            if at >= 0:
                at = _polarities(data, at, count, p)
    return count if 0 <= at <= data.size else BAD


@njit(cache=True, nogil=True)
def _times(data: NDArray[np.uint8], count: int, t: NDArray[np.int64]) -> Any:
    """Unpack runs of equal times: a byte of the step (4 bits) and the length (4 bits; 15: 16 bits follow).

    Steps of 15 and more come before it, 4 bits a byte, the lowest first, each with 15 in its upper half.
    """
    time = _number(data, 4, 8)
    at, i, step, shift = np.int64(HEADER_BYTES), np.int64(0), np.int64(0), 0
    while i < count:
        if at >= data.size:
            return np.int64(BAD)
        high, low = np.int64(data[at] >> 4), np.int64(data[at] & 15)
        at += 1
        if high == 15:
            if shift > 60:
                return np.int64(BAD)
            step |= low << shift
            shift += 4
            continue
        time += step + high
        step, shift = np.int64(0), 0
        if low == 15:
            low = _number(data, at, 2)
            at += 2
        if i + low > count:
            return np.int64(BAD)
        t[i : i + low] = time
        i += low
    return at


@njit(cache=True, nogil=True)
def _rows(data: NDArray[np.uint8], at: Any, count: int, y: NDArray[np.int32]) -> Any:
    """Unpack runs of equal rows: 16 bits of the row (11) and the length (5; 31: 16 bits follow)."""
    i = np.int64(0)
    while i < count:
        if at + 2 > data.size:
            return np.int64(BAD)
        word = _number(data, at, 2)
        at += 2
        length = word & 31
        if length == 31:
            length = _number(data, at, 2)
            at += 2
        if i + length > count:
            return np.int64(BAD)
        y[i : i + length] = word >> 5
        i += length
    return at


@njit(cache=True, nogil=True)
def _masked_columns(data: NDArray[np.uint8], at: Any, count: int, x: NDArray[np.int32]) -> Any:
    """Unpack groups of columns: 16 bits of the first (11) and a mask of the five behind it, the nearest highest."""
    i = np.int64(0)
    while i < count:
        if at + 2 > data.size:
            return np.int64(BAD)
        word = _number(data, at, 2)
        at += 2
        x[i] = word >> 5
        i += 1
        for bit in range(5):
            if word >> (4 - bit) & 1:
                if i >= count:
                    break  # the encoder looks one event beyond the last
                x[i] = (word >> 5) + bit + 1
                i += 1
    return at


@njit(cache=True, nogil=True)
def _polarities(data: NDArray[np.uint8], at: Any, count: int, p: NDArray[np.uint8]) -> Any:
    """Unpack runs of equal polarities: a byte of the polarity (1 bit) and the length (7; 127: 16 bits follow)."""
    i = np.int64(0)
    while i < count:
        if at >= data.size:
            return np.int64(BAD)
        byte = np.int64(data[at])
        at += 1
        length = byte & 127
        if length == 127:
            length = _number(data, at, 2)
            at += 2
        if i + length > count:
            return np.int64(BAD)
        p[i : i + length] = byte >> 7
        i += length
    return at


@njit(cache=True, nogil=True)
def _fours(
    data: NDArray[np.uint8],
    at: Any,
    count: int,
    bits: int,
    row_bit: int,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
) -> Any:
    """Unpack events of `bits` bits (12 or 24), four in three numbers of 4/3 of that; rows from `row_bit` on, 0: none.

    A number holds the next event from the top, and in its lowest bits the lowest ones of the event after.
    """
    part = bits // 3
    width = bits // 6  # bytes of a number
    low = (np.int64(1) << part) - 1
    for i in range(0, count, 4):
        if at + 3 * width > data.size:
            return np.int64(BAD)
        first = _number(data, at, width)
        second = _number(data, at + width, width)
        third = _number(data, at + 2 * width, width)
        at += 3 * width
        for j in range(min(4, count - i)):
            if j == 0:
                value = first >> part
            elif j == 1:
                value = first & low | second >> (2 * part) << part
            elif j == 2:
                value = second & (low << part | low) | third >> (3 * part) << (2 * part)
            else:
                value = third & ((np.int64(1) << bits) - 1)
            x[i + j] = value >> 1 & 0x7FF
            p[i + j] = value & 1
            if row_bit:
                y[i + j] = value >> row_bit & 0x7FF
    return at
