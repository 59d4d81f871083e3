"""The compiled loops of `pipeline.formats.prophesee.evt`: words to events, everything else counted.

A loop takes a block of words, returns the number of its events, and adds to `passed[5]`: triggers, words of other
kinds, padding, reserved words, and events before the first time stamp. What holds for the words of the next block is in
`state[6]`: upper half of the time (-1 before the first), wraps of the clock, and of EVT 3.0 lower half, row (-1 before
the first), base and polarity of the next vector.

Source: Prophesee, "EVT 2.0 Format", "EVT 2.1 Format" and "EVT 3.0 Format", docs.prophesee.ai.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

TRIGGERS, OTHERS, PADDING, RESERVED, TIMELESS = range(5)
"""Places in `passed`."""
BEGINNING = (-1, 0, 0, -1, 0, 0)
"""State before the first word."""
MOST_EVENTS = {"2.0": 1, "2.1": 32, "3.0": 12}
"""Of a word, by version."""
_1, _11, _22, _28, _0X3F, _0X7FF, _0XFFFFFFF = (np.uint32(number) for number in (1, 11, 22, 28, 0x3F, 0x7FF, 0xFFFFFFF))
_ONE = np.uint64(1)
PADDING_EVT3 = 0x9999
"""Word with which some cameras fill their packets."""


@njit(cache=True, nogil=True)
def decode_evt2(
    words: NDArray[np.uint32],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    state: NDArray[np.int64],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 2.0.

    Types (upper 4 bits): 0 and 1 an event, 8 the upper 28 bits of the time, 10 a trigger, 14 and 15 others.
    """
    count = np.uint64(0)  # unsigned: no test for indexes counted from the end
    high, wraps = state[0], state[1]
    upper = (wraps << 28 | high) << 6 if high >= 0 else np.int64(-1)
    for i in range(words.size):
        word = words[i]
        kind = word >> _28
        if kind <= _1:
            if upper >= 0:
                t[count] = upper | np.int64(word >> _22 & _0X3F)
                x[count] = word >> _11 & _0X7FF
                y[count] = word & _0X7FF
                p[count] = kind
                count += _ONE
            else:
                passed[TIMELESS] += 1
        elif kind == 8:
            new = np.int64(word & _0XFFFFFFF)
            if new + (1 << 27) < high:
                wraps += 1
            high = new
            upper = (wraps << 28 | high) << 6
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind >= 14:
            passed[OTHERS] += 1
        else:
            passed[RESERVED] += 1
    state[0], state[1] = high, wraps
    return int(count)


@njit(cache=True, nogil=True)
def decode_evt21(
    words: NDArray[np.uint64],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    state: NDArray[np.int64],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 2.1: the words of EVT 2.0 above a mask of 32 pixels, the first at bit 0."""
    count = 0
    high, wraps = state[0], state[1]
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
    state[0], state[1] = high, wraps
    return count


@njit(cache=True, nogil=True)
def decode_evt3(
    words: NDArray[np.uint16],
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    state: NDArray[np.int64],
    passed: NDArray[np.int64],
) -> int:
    """Fill the columns from EVT 3.0.

    Types (upper 4 bits): 0 row, 2 one event, 3 base of a vector, 4 and 5 a vector of 12 and 8 pixels, 6 and 8 the lower
    and upper 12 bits of the time, 10 a trigger, 7, 14 and 15 others. The time's 24 bits wrap after 16.8 s.
    """
    count = 0
    high, wraps, low, row, base, polarity = state[0], state[1], state[2], state[3], state[4], state[5]
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
    state[0], state[1], state[2], state[3], state[4], state[5] = high, wraps, low, row, base, polarity
    return count
