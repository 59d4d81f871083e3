"""The compiled loops of `pipeline.formats.prophesee.evt`: words to events, everything else counted.

A loop takes a block of words, writes its events to a sink, see `pipeline.events.loops.sinks`, returns their number, and
adds to `passed[5]`: triggers, words of other kinds, padding, reserved words, and events before the first time stamp.
What holds for the words of the next block is in `state[7]`: upper half of the time (-1 before the first), wraps of the
clock, and of EVT 3.0 lower half, row (-1 before the first), base and polarity of the next vector, and the largest x
that vectors may have reached.

Source: Prophesee, "EVT 2.0 Format", "EVT 2.1 Format" and "EVT 3.0 Format", docs.prophesee.ai.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spikebridge.pipeline.events.loops.sinks import put, put_word

TRIGGERS, OTHERS, PADDING, RESERVED, TIMELESS = range(5)
"""Places in `passed`."""
HIGH, WRAPS, LOW, ROW, BASE, POLARITY, REACHED = range(7)
"""Places in `state`."""
BEGINNING = (-1, 0, 0, -1, 0, 0, 0)
"""State before the first word."""
MOST_EVENTS = {"2.0": 1, "2.1": 32, "3.0": 12}
"""Of a word, by version."""
TIME_BITS = {"2.0": 34, "2.1": 34, "3.0": 24}
"""Of the clock, by version."""
_1, _2, _11, _12, _22, _24, _28, _0X3F, _0X7FF, _0XFFF, _0X3FF800 = (
    np.uint64(number) for number in (1, 2, 11, 12, 22, 24, 28, 0x3F, 0x7FF, 0xFFF, 0x3FF800)
)
_FIRST_OTHER = np.uint32(2 << 28)
"""Words of EVT 2.0 from here on are no events."""
_ROW_AND_TIME = np.array([0xFFE, 0, 0, 0, 0, 0, 0xFFF000000] + 9 * [0], np.uint64)
"""Bits of a packed event that a word of EVT 3.0 sets, by its type."""
_EVENTS = np.array([0, 0, 1] + 13 * [0], np.uint64)
"""Whether it is an event, likewise."""
_PLAIN = np.uint64(0b1000101)
"""Types of most words: row, event, lower half of the time."""
PADDING_EVT3 = 0x9999
"""Word with which some cameras fill their packets."""


@njit(cache=True, nogil=True)
def decode_evt2(words: NDArray[np.uint32], sink: Any, state: NDArray[np.int64], passed: NDArray[np.int64]) -> int:
    """Decode EVT 2.0.

    Types (upper 4 bits): 0 and 1 an event, 8 the upper 28 bits of the time, 10 a trigger, 14 and 15 others. The events
    between two other words are found first, and written in a loop of their own, which has no branch.
    """
    count, begin, size = np.uint64(0), np.uint64(0), np.uint64(words.size)  # unsigned: no test for places from the end
    high, wraps = state[0], state[1]
    while True:
        end = begin
        while end < size and words[end] < _FIRST_OTHER:
            end += _1
        if high >= 0:
            since = (wraps << 28 | high) << 6
            for i in range(end - begin):
                word = np.uint64(words[begin + i])
                place = (word & _0X3FF800) << _1 | (word & _0X7FF) << _1 | word >> _28
                put_word(sink, count + i, since, np.int64((word >> _22 & _0X3F) << _24 | place))
            count += end - begin
        else:
            passed[TIMELESS] += np.int64(end - begin)
        if end == size:
            break
        kind = np.int64(words[end]) >> 28
        if kind == 8:
            new = np.int64(words[end]) & 0xFFFFFFF
            if new + (1 << 27) < high:
                wraps += 1
            high = new
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind >= 14:
            passed[OTHERS] += 1
        else:
            passed[RESERVED] += 1
        begin = end + _1
    state[0], state[1] = high, wraps
    return int(count)


@njit(cache=True, nogil=True)
def decode_evt21(words: NDArray[np.uint64], sink: Any, state: NDArray[np.int64], passed: NDArray[np.int64]) -> int:
    """Decode EVT 2.1: the words of EVT 2.0 above a mask of 32 pixels, the first at bit 0."""
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
                        put(sink, count, time, base + bit, word & 0x7FF, kind)
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
def decode_evt3(words: NDArray[np.uint16], sink: Any, state: NDArray[np.int64], passed: NDArray[np.int64]) -> int:
    """Decode EVT 3.0.

    Types (upper 4 bits): 0 row, 2 one event, 3 base of a vector, 4 and 5 a vector of 12 and 8 pixels, 6 and 8 the lower
    and upper 12 bits of the time, 10 a trigger, 7, 14 and 15 others. The time's 24 bits wrap after 16.8 s.

    Which of row, event and lower time comes next nothing foretells, so that they take the same way without a branch:
    each sets its bits of the next event, and what is no event is written over by the next word.
    """
    count = np.uint64(0)
    high, wraps, base, polarity, reached = state[0], state[1], state[4], state[5], state[6]
    ready = high >= 0 and state[3] >= 0  # an event before the first time and row has none
    has_row = state[3] >= 0
    since = wraps << 24 | high << 12
    common = np.uint64(state[2]) << _24 | np.uint64(max(state[3], 0)) << _1  # of the next event: lower time, row
    for i in range(np.uint64(words.size)):
        word = np.uint64(words[i])
        kind, value = word >> _12, word & _0XFFF
        if _PLAIN >> kind & _1 and ready:
            taken = _ROW_AND_TIME[kind]
            common = common & ~taken | (value << _24 | (value & _0X7FF) << _1) & taken
            put_word(sink, count, since, np.int64(common | (value & _0X7FF) << _12 | value >> _11))
            count += _EVENTS[kind]
        elif kind in (0, 6):
            taken = _ROW_AND_TIME[kind]
            common = common & ~taken | (value << _24 | (value & _0X7FF) << _1) & taken
            has_row |= kind == 0
            ready = high >= 0 and has_row
        elif kind == 2:
            passed[TIMELESS] += 1
        elif kind == 3:
            base = np.int64(value & _0X7FF)
            polarity = np.int64(value >> _11)
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            t, row = since + np.int64(common >> _24), np.int64(common >> _1 & _0X7FF)
            for bit in range(width):
                if word >> np.uint64(bit) & _1:
                    if ready:
                        put(sink, count, t, base + bit, row, polarity)
                        count += _1
                    else:
                        passed[TIMELESS] += 1
            base += width
            reached = max(reached, base)
        elif kind == 8:
            new = np.int64(value)
            if new + (1 << 11) < high:
                wraps += 1
            if new != high:
                common &= _0XFFF  # the lower half is 0
            high = new
            since = wraps << 24 | high << 12
            ready = has_row
        elif kind == 10:
            passed[TRIGGERS] += 1
        elif kind == 7 or kind >= 14:
            passed[OTHERS] += 1
        elif word == PADDING_EVT3:
            passed[PADDING] += 1
        else:
            passed[RESERVED] += 1
    state[0], state[1], state[2], state[4], state[5], state[6] = high, wraps, common >> _24, base, polarity, reached
    state[3] = np.int64(common >> _1 & _0X7FF) if has_row else -1
    return int(count)
