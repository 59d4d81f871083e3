"""The compiled loops of `pipeline.events.compact`; imported only when frames are made, because numba takes 0.3 s.

Unsigned numbers need no test for indexes counted from the end: 2 times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_1, _3, _7 = (np.uint64(number) for number in (1, 3, 7))
_16 = np.uint32(16)
BLOCK = 256
"""Steps that are summed up at once."""


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
    units: NDArray[Any],
    counts: NDArray[Any],
) -> int:
    """Add 1 to a cell of `counts` [T, frame_cells] (flat) for every event in a bin, up to a limit.

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
        units: 1 and the limit, in the type of the counts.
        counts: where they are added.

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
    places, high, polarity = data[parts[1] : parts[2]].view(np.uint16), data[parts[3] : parts[4]], data[parts[4] :]
    if high.size == 0:
        return _count(places, polarity, bits, cuts, tables, units, counts)
    wide = np.empty(size, np.uint32)
    for i in range(size):
        wide[i] = np.uint32(places[i]) | np.uint32(high[i]) << _16
    return _count(wide, polarity, bits, cuts, tables, units, counts)


@njit(cache=True, nogil=True)
def _count(
    places: NDArray[Any],
    polarity: NDArray[np.uint8],
    bits: tuple[int, int],
    cuts: NDArray[np.int64],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    units: NDArray[Any],
    counts: NDArray[Any],
) -> int:
    """Count events in their cells, those of bin k from cuts[k] to cuts[k + 1]; returns how many were used."""
    columns, rows = tables
    cells, x_bits = np.uint64(counts.size // (cuts.size - 1)), np.uint64(bits[0])
    x_mask, y_mask = (_1 << x_bits) - _1, (_1 << np.uint64(bits[1])) - _1
    one, most = units
    used = 0
    for step in range(cuts.size - 1):
        offset = np.uint64(step) * cells
        for i in range(np.uint64(cuts[step]), np.uint64(cuts[step + 1])):
            place = np.uint64(places[i])
            sign = np.uint64(polarity[i >> _3]) >> (i & _7) & _1
            row = (place >> x_bits & y_mask) << _1 | sign
            cell = np.uint64(columns[place & x_mask]) + np.uint64(rows[row])
            if cell < cells:
                count = counts[offset + cell]
                if count < most:
                    counts[offset + cell] = count + one
                used += 1
    return used


@njit(cache=True, nogil=True)
def _find_cuts(
    steps: NDArray[Any], escape: int, long_steps: NDArray[np.int64], first: int, length: int, cuts: NDArray[np.int64]
) -> bool:
    """Find where bins begin and end among events; returns whether the long steps are as many as the steps ask for.

    A block in which no bin begins or ends is not gone through, but summed up.
    """
    size, last, mark = steps.size, cuts.size - 1, np.uint32(escape)
    t, escaped, edge = (
        np.int64(0),
        np.int64(0),
        0,
    )  # time of the last event before a block, long steps and edges before it
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        total, found = np.uint32(0), np.uint32(0)
        for i in range(begin, end):
            total += np.uint32(steps[i])
            found += np.uint32(steps[i] == mark)
        escapes = np.int64(found)
        if escaped + escapes > long_steps.size:
            return False
        after = t + np.int64(total)
        for j in range(escaped, escaped + escapes):
            after += long_steps[j] - escape
        if edge <= last and after >= first + edge * length:
            for i in range(begin, end):
                gap = np.int64(steps[i])
                if gap == escape:
                    gap = long_steps[escaped]
                    escaped += 1
                t += gap
                while edge <= last and t >= first + edge * length:
                    cuts[edge] = i
                    edge += 1
        else:
            escaped += escapes
        t = after
    for later in range(edge, last + 1):
        cuts[later] = size
    return escaped == long_steps.size
