"""The rows of a time window, found by bisection in recordings whose rows can be read anywhere."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise

import numpy as np

SEEKS_FROM = 2**20
"""Events below which a recording is read whole: looking for a window would take as long."""
PROBES = 64
"""Times that are looked at, evenly among the rows, before they are believed to be in order."""


def find_rows(time_at: Callable[[int], int], count: int, window_us: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the first row of a time window, and the one behind its last.

    Args:
        time_at: returns the time of a row in microseconds.
        count: number of rows.
        window_us: (start, stop) counted from the first row, stop exclusive.

    Returns:
        The rows, equal where none lies inside; None where the recording is short, or its times are not in order
        wherever they are looked at: it is read whole then, and whatever is wrong is found.
    """
    if count < SEEKS_FROM:
        return None
    probes = np.linspace(0, count - 1, PROBES).astype(int).tolist()
    times = [time_at(row) for row in probes]
    if any(later < earlier for earlier, later in pairwise(times)):
        return None
    found = []
    for edge in window_us:
        wanted = times[0] + edge
        after = bisect_left(times, wanted)  # the first probe that is not earlier
        low, high = (probes[after - 1] + 1 if after else 0), (probes[after] if after < PROBES else count)
        earliest, latest = times[max(after - 1, 0)], times[min(after, PROBES - 1)]
        while low < high:
            middle = (low + high) // 2
            time = time_at(middle)
            if not earliest <= time <= latest:
                return None
            if time < wanted:
                low, earliest = middle + 1, time
            else:
                high, latest = middle, time
        found.append(low)
    return found[0], found[1]
