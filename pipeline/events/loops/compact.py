"""The compiled loops of `pipeline.events.compact`; imported only when frames are made, because numba takes 0.3 s.

Unsigned numbers need no test for indexes counted from the end: 2 times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spikebridge.pipeline.events.compact_layout import HEAD_BYTES, OTHER, REFUSED, first_bin, lay_out

_1, _3, _7 = (np.uint64(number) for number in (1, 3, 7))
_16 = np.uint32(16)
BLOCK = np.uint64(64)
"""Steps that are summed up at once."""

_lay_out, _first_bin = njit(lay_out), njit(first_bin)


@njit(cache=True, nogil=True)
def count_stored(
    data: NDArray[np.uint8],
    rule: NDArray[np.int64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    counts: NDArray[Any],
) -> int:
    """Write into `counts` [T,P,H,W] how many events of a bin lie in a cell, up to a limit.

    Args:
        data: stored bytes, which begin at a multiple of 8 in memory.
        rule: what the extent is above, and up to [W, H each]; (W, H) of the sensor; bits of x in a place; whether there
            are high bits; span, length, of time, as in `pipeline.events.compact_layout.first_bin`; whether the last bin
            takes all that comes after it; the limit of a count.
        columns: see `count_events`.
        rows: see there.
        counts: where that is written.

    Returns:
        The events used; OTHER where extent and sensor are not those of the rule; REFUSED where the head, the bins or
        the long steps cannot be.
    """
    if data.size < HEAD_BYTES:
        return REFUSED
    head = data[:HEAD_BYTES].view(np.int64)
    for axis in range(2):
        if not rule[axis] < head[6 + axis] <= rule[2 + axis] or head[8 + axis] != rule[4 + axis]:
            return OTHER
    place, step, high, polarity = _lay_out(head, data.size, rule[7] != 0)
    bins, of_time = counts.shape[0], rule[10] != 0
    first, length = _first_bin(head, rule[8], rule[9], of_time, bins)
    if place == 0 or length == 0:
        return REFUSED
    parts = (HEAD_BYTES, place, step, high, polarity)
    return count_events(
        data, parts, head[1], rule[6], first, length, of_time, rule[11] != 0, (columns, rows), bins, rule[12],
        counts.reshape(-1),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def count_events(
    data: NDArray[np.uint8],
    parts: tuple[int, int, int, int, int],
    size: int,
    x_bits: int,
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
        x_bits: of x in a place; the rest is y, for all that its bits can say, so that no table is overrun.
        first: where the first bin begins: microseconds from the first event, or number of an event.
        length: of a bin, likewise.
        of_time: whether these are times.
        rest: the last bin takes all that comes after it.
        tables: columns [2**x_bits] and rows [2 * 2**(other bits)], as in
            `pipeline.events.loops.framing.scatter_counts`.
        bins: T.
        limit: 1, or the largest number that the type of the counts holds.
        counts: where that is written.

    Returns:
        The events used; REFUSED where the long steps are not as many as the steps ask for.
    """
    cuts = np.empty(bins + 1, np.int64)
    if of_time:
        long_steps = data[parts[0] : parts[1]].view(np.int64)
        if parts[3] - parts[2] == size:
            fine = _find_cuts(data[parts[2] : parts[3]], 255, long_steps, first, length, cuts)
        else:
            fine = _find_cuts(data[parts[2] : parts[3]].view(np.uint16), 65535, long_steps, first, length, cuts)
        if not fine:
            return REFUSED
    else:
        for k in range(bins + 1):
            cuts[k] = min(first + k * length, size)
    if rest:
        cuts[bins] = size
    places, high = data[parts[1] : parts[2]].view(np.uint16), data[parts[3] : parts[4]]
    polarity = data[parts[4] :]
    if high.size == 0:
        return _count(places, polarity, np.uint64(x_bits), cuts, tables, limit, counts)
    wide = np.empty(size, np.uint32)
    for i in range(size):
        wide[i] = np.uint32(places[i]) | np.uint32(high[i]) << _16
    return _count(wide, polarity, np.uint64(x_bits), cuts, tables, limit, counts)


@njit(cache=True, nogil=True)
def _count(
    places: NDArray[Any],
    polarity: NDArray[np.uint8],
    x_bits: np.uint64,
    cuts: NDArray[np.int64],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    limit: int,
    counts: NDArray[Any],
) -> int:
    """Count events in their cells, those of bin k from cuts[k] to cuts[k + 1]; returns how many were used.

    A byte of polarities is read for eight events; a full count gets 0 more, in place of a branch.
    """
    columns, rows = tables
    cells, x_mask = np.uint64(counts.size // (cuts.size - 1)), (_1 << x_bits) - _1
    most = counts.dtype.type(limit)
    used = 0
    for step in range(cuts.size - 1):
        frame = counts[np.uint64(step) * cells : (np.uint64(step) + _1) * cells]
        frame[:] = 0
        i, end = np.uint64(cuts[step]), np.uint64(cuts[step + 1])
        while i < end:
            signs = np.uint64(polarity[i >> _3]) >> (i & _7)
            stop = min(end, (i | _7) + _1)
            while i < stop:
                place = np.uint64(places[i])
                cell = np.uint64(columns[place & x_mask]) + np.uint64(rows[place >> x_bits << _1 | signs & _1])
                if cell < cells:
                    count = frame[cell]
                    frame[cell] = count + counts.dtype.type(count < most)
                    used += 1
                signs >>= _1
                i += _1
    return used


@njit(cache=True, nogil=True)
def _find_cuts(
    steps: NDArray[Any], escape: int, long_steps: NDArray[np.int64], first: int, length: int, cuts: NDArray[np.int64]
) -> bool:
    """Find where bins begin and end among events; returns whether the long steps are as many as the steps ask for.

    A block in which no bin begins or ends is not gone through, but summed up.
    """
    size, last, mark = np.uint64(steps.size), cuts.size - 1, steps.dtype.type(escape)
    t, escaped, edge, due = np.int64(0), np.int64(0), 0, first  # time and long steps so far, the next edge and its time
    begin = np.uint64(0)
    while begin < size:
        end = min(begin + BLOCK, size)
        total, found = np.uint32(0), np.uint32(0)
        for i in range(begin, end):
            total += np.uint32(steps[i])
            found += np.uint32(steps[i] == mark)
        after, escapes = np.int64(total), np.int64(found)
        if escaped + escapes > long_steps.size:
            return False
        for j in range(escaped, escaped + escapes):
            after += long_steps[j] - escape
        if edge > last or t + after < due:
            t, escaped = t + after, escaped + escapes
        else:
            for i in range(begin, end):
                gap = np.int64(steps[i])
                if gap == escape:
                    gap = long_steps[escaped]
                    escaped += 1
                t += gap
                while edge <= last and t >= due:
                    cuts[edge] = i
                    edge, due = edge + 1, due + length
        begin = end
    for later in range(edge, last + 1):
        cuts[later] = size
    return escaped == long_steps.size
