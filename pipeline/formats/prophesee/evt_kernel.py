"""The compiled loops of `pipeline.formats.prophesee.evt`: words to events, everything else counted.

A loop returns the number of events and fills `passed[6]`: triggers, words of other kinds, padding, reserved words,
events before the first time stamp, and steps where the clock wrapped.

Source: Prophesee, "EVT 2.0 Format", "EVT 2.1 Format" and "EVT 3.0 Format", docs.prophesee.ai.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

TRIGGERS, OTHERS, PADDING, RESERVED, TIMELESS, WRAPS = range(6)
"""Places in `passed`."""
PADDING_EVT3 = 0x9999
"""Word with which some cameras fill their packets."""


@njit(cache=True, nogil=True)
def decode_evt2(
    words: NDArray[np.uint32],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 2.0.

    Types (upper 4 bits): 0 and 1 an event, 8 the upper 28 bits of the time, 10 a trigger, 14 and 15 others.
    """
    count = 0
    high = np.int64(-1)
    wraps = np.int64(0)
    for i in range(words.size):
        word = np.int64(words[i])
        kind = word >> 28
        if kind <= 1:
            if high >= 0:
                t[count] = ((wraps << 28 | high) << 6) | (word >> 22 & 0x3F)
                x[count] = word >> 11 & 0x7FF
                y[count] = word & 0x7FF
                p[count] = kind
                count += 1
            else:
                passed[TIMELESS] += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            if new + (1 << 27) < high:
                wraps += 1
            high = new
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind >= 14:
            passed[OTHERS] += 1
        else:
            passed[RESERVED] += 1
    passed[WRAPS] = wraps
    return count


@njit(cache=True, nogil=True)
def count_evt21(words: NDArray[np.uint64]) -> int:
    """Return the most events that the words can hold."""
    count = 0
    for i in range(words.size):
        if words[i] >> np.uint64(60) <= 1:
            bits = words[i] & np.uint64(0xFFFFFFFF)
            while bits:
                count += 1
                bits &= bits - np.uint64(1)
    return count


@njit(cache=True, nogil=True)
def decode_evt21(
    words: NDArray[np.uint64],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 2.1: the words of EVT 2.0 above a mask of 32 pixels, the first at bit 0."""
    count = 0
    high = np.int64(-1)
    wraps = np.int64(0)
    for i in range(words.size):
        word = np.int64(words[i] >> np.uint64(32))
        mask = np.int64(words[i] & np.uint64(0xFFFFFFFF))
        kind = word >> 28
        if kind <= 1:
            time = ((wraps << 28 | high) << 6) | (word >> 22 & 0x3F)
            base = word >> 11 & 0x7FF
            for bit in range(32):
                if mask >> bit & 1:
                    if high >= 0:
                        t[count] = time
                        x[count] = base + bit
                        y[count] = word & 0x7FF
                        p[count] = kind
                        count += 1
                    else:
                        passed[TIMELESS] += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            if new + (1 << 27) < high:
                wraps += 1
            high = new
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind >= 14:
            passed[OTHERS] += 1
        else:
            passed[RESERVED] += 1
    passed[WRAPS] = wraps
    return count


@njit(cache=True, nogil=True)
def count_evt3(words: NDArray[np.uint16]) -> int:
    """Return the most events that the words can hold."""
    count = 0
    for i in range(words.size):
        kind = words[i] >> 12
        if kind == 2:
            count += 1
        elif kind in (4, 5):
            bits = words[i] & (0xFFF if kind == 4 else 0xFF)
            while bits:
                count += 1
                bits &= bits - 1
    return count


@njit(cache=True, nogil=True)
def decode_evt3(
    words: NDArray[np.uint16],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 3.0.

    Types (upper 4 bits): 0 row, 2 one event, 3 base of a vector, 4 and 5 a vector of 12 and 8 pixels, 6 and 8 the lower
    and upper 12 bits of the time, 10 a trigger, 7, 14 and 15 others. The time's 24 bits wrap after 16.8 s.
    """
    count = 0
    high = np.int64(-1)
    low = np.int64(0)
    wraps = np.int64(0)
    row = np.int64(-1)
    base = np.int64(0)
    polarity = np.int64(0)
    for i in range(words.size):
        word = np.int64(words[i])
        kind = word >> 12
        if kind == 0:
            row = word & 0x7FF
        elif kind == 2:
            if high >= 0 and row >= 0:  # an event before the first time and row has none
                t[count] = (wraps << 24) | (high << 12) | low
                x[count] = word & 0x7FF
                y[count] = row
                p[count] = word >> 11 & 1
                count += 1
            else:
                passed[TIMELESS] += 1
        elif kind == 3:
            base = word & 0x7FF
            polarity = word >> 11 & 1
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            for bit in range(width):
                if word >> bit & 1:
                    if high >= 0 and row >= 0:
                        t[count] = (wraps << 24) | (high << 12) | low
                        x[count] = base + bit
                        y[count] = row
                        p[count] = polarity
                        count += 1
                    else:
                        passed[TIMELESS] += 1
            base += width
        elif kind == 6:
            low = word & 0xFFF
        elif kind == 8:
            new = word & 0xFFF
            if new + (1 << 11) < high:
                wraps += 1
            if new != high:
                low = np.int64(0)
            high = new
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind in (7, 14, 15):
            passed[OTHERS] += 1
        elif word == PADDING_EVT3:
            passed[PADDING] += 1
        else:
            passed[RESERVED] += 1
    passed[WRAPS] = wraps
    return count
