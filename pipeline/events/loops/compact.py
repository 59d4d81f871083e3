"""The compiled loops of `pipeline.events.compact`; imported only when frames are made, because numba takes 0.3 s.

Unsigned numbers need no test for indexes counted from the end: 2 times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_1, _7 = np.uint64(1), np.uint64(7)
_EACH, _OWN_BIT, _BELOW = (np.uint64(n) for n in (0x0101010101010101, 0x8040201008040201, 0x7F7F7F7F7F7F7F7F))
_16 = np.uint32(16)
BLOCK, PART = 256, 32
"""Steps that are summed up at once, and of those among which a bin begins or ends."""
TOGETHER = 1024
"""Events whose cells are found together."""


@njit(cache=True, nogil=True)
def count_events(
    data: NDArray[np.uint8],
    parts: tuple[int, int, int, int, int],
    size: int,
    bits: tuple[int, int],
    first: int,
    length: int,
    of_time: bool,
    rest: bool,
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    bins: int,
    limit: int,
    counts: NDArray[Any],
) -> int:
    """Write into `counts` [T, frame_cells] (flat) how many events of a bin lie in a cell, up to a limit.

    Args:
        data: [bytes] of a recording, whose head has been checked.
        parts: where long steps, places, steps, high bits and polarities begin.
        size: N.
        bits: of x and of y in a place; whatever else a place says is left out, so that no table is overrun.
        first: where the first bin begins: microseconds from the first event, or number of an event.
        length: of a bin, likewise.
        of_time: whether these are times.
        rest: the last bin takes all that comes after it.
        tables: columns [2**bits] and rows [2 * 2**(bits of y)], as in `pipeline.events.loops.framing.scatter_counts`.
        bins: T.
        limit: 1, or the largest number that the type of the counts holds.
        counts: where that is written.

    Returns:
        The events used; -1 where the long steps are not as many as the steps ask for.
    """
    cuts = np.empty(bins + 1, np.int64)
    if of_time:
        long_steps = data[parts[0] : parts[1]].view(np.int64)
        if parts[3] - parts[2] == size:
            fine = _find_cuts(data[parts[2] : parts[3]], 255, long_steps, first, length, cuts)
        else:
            fine = _find_cuts(data[parts[2] : parts[3]].view(np.uint16), 65535, long_steps, first, length, cuts)
        if not fine:
            return -1
    else:
        for k in range(bins + 1):
            cuts[k] = min(first + k * length, size)
    if rest:
        cuts[bins] = size
    places, high = data[parts[1] : parts[2]].view(np.uint16), data[parts[3] : parts[4]]
    signs = _spread(data[parts[4] :])
    if high.size == 0:
        return _count(places, signs, bits, cuts, tables, limit, counts)
    wide = np.empty(size, np.uint32)
    for i in range(size):
        wide[i] = np.uint32(places[i]) | np.uint32(high[i]) << _16
    return _count(wide, signs, bits, cuts, tables, limit, counts)


@njit(cache=True, nogil=True)
def _spread(polarity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bits of bytes as a byte each, the lowest first, eight at a time."""
    spread = np.empty(polarity.size, np.uint64)
    for i in range(polarity.size):
        spread[i] = ((np.uint64(polarity[i]) * _EACH & _OWN_BIT) + _BELOW) >> _7 & _EACH
    return spread.view(np.uint8)


@njit(cache=True, nogil=True)
def _count(
    places: NDArray[Any],
    signs: NDArray[np.uint8],
    bits: tuple[int, int],
    cuts: NDArray[np.int64],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    limit: int,
    counts: NDArray[Any],
) -> int:
    """Count events in their cells, those of bin k from cuts[k] to cuts[k + 1]; returns how many were used."""
    cells, most = counts.size // (cuts.size - 1), np.uint64(limit)
    place_cells = np.empty(TOGETHER, np.uint32)
    used = 0
    for step in range(cuts.size - 1):
        first, last, frame = cuts[step], cuts[step + 1], counts[step * cells : (step + 1) * cells]
        frame[:] = 0
        found, largest = _add(places[first:last], signs[first:last], bits, tables, most, place_cells, most == 1, frame)
        if largest > most:  # a count went beyond its limit, or around: again, with a look at each
            frame[:] = 0
            _add(places[first:last], signs[first:last], bits, tables, most, place_cells, True, frame)
        used += found
    return used


@njit(cache=True, nogil=True)
def _add(
    places: NDArray[Any],
    signs: NDArray[np.uint8],
    bits: tuple[int, int],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    most: np.uint64,
    place_cells: NDArray[np.uint32],
    careful: bool,
    frame: NDArray[Any],
) -> tuple[int, np.uint64]:
    """Add events to the cells of a frame, up to the limit if `careful`; returns those used, and the largest count.

    Cells are found for some events together, which takes vectors of them, and then added to.
    """
    columns, rows = tables
    x_bits, cells = np.uint32(bits[0]), np.uint32(frame.size)
    x_mask, y_mask = (np.uint32(1) << x_bits) - np.uint32(1), (np.uint32(1) << np.uint32(bits[1])) - np.uint32(1)
    used, largest = 0, np.uint64(0)
    for begin in range(0, places.size, TOGETHER):
        size = min(TOGETHER, places.size - begin)
        some, of_some = places[begin : begin + size], signs[begin : begin + size]
        for i in range(np.uint64(size)):
            place = np.uint32(some[i])
            row = (place >> x_bits & y_mask) << np.uint32(1) | np.uint32(of_some[i])
            place_cells[i] = columns[place & x_mask] + rows[row]
        for i in range(np.uint64(size)):
            cell = np.uint64(place_cells[i])
            if cell < cells:
                count = np.uint64(frame[cell]) + _1
                if not careful:
                    frame[cell] = count
                    largest = max(largest, count)
                elif count <= most:
                    frame[cell] = count
                used += 1
    return used, largest


@njit(cache=True, nogil=True)
def _find_cuts(
    steps: NDArray[Any], escape: int, long_steps: NDArray[np.int64], first: int, length: int, cuts: NDArray[np.int64]
) -> bool:
    """Find where bins begin and end among events; returns whether the long steps are as many as the steps ask for.

    A block in which no bin begins or ends is not gone through, but summed up, and in others likewise a part.
    """
    size, last = steps.size, cuts.size - 1
    t, escaped, edge = np.int64(0), np.int64(0), 0  # time of the last event so far, long steps and edges before it
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        after, escapes = _sum_up(steps[begin:end], escape, long_steps, escaped)
        if escapes < 0:
            return False
        if edge > last or t + after < first + edge * length:
            t, escaped = t + after, escaped + escapes
            continue
        for start in range(begin, end, PART):
            stop = min(start + PART, end)
            after, escapes = _sum_up(steps[start:stop], escape, long_steps, escaped)
            if edge > last or t + after < first + edge * length:
                t, escaped = t + after, escaped + escapes
                continue
            for i in range(start, stop):
                gap = np.int64(steps[i])
                if gap == escape:
                    gap = long_steps[escaped]
                    escaped += 1
                t += gap
                while edge <= last and t >= first + edge * length:
                    cuts[edge] = i
                    edge += 1
    for later in range(edge, last + 1):
        cuts[later] = size
    return escaped == long_steps.size


@njit(cache=True, nogil=True)
def _sum_up(
    steps: NDArray[Any], escape: int, long_steps: NDArray[np.int64], escaped: np.int64
) -> tuple[np.int64, np.int64]:
    """Return the time that steps take, and how many of them are long, `escaped` being those before; -1 of too many."""
    total, found, mark = np.uint32(0), np.uint32(0), np.uint32(escape)
    for i in range(steps.size):
        total += np.uint32(steps[i])
        found += np.uint32(steps[i] == mark)
    escapes, after = np.int64(found), np.int64(total)
    if escaped + escapes > long_steps.size:
        return after, np.int64(-1)
    for j in range(escaped, escaped + escapes):
        after += long_steps[j] - escape
    return after, escapes
