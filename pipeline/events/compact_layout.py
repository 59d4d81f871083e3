"""What the head of a recording's stored bytes means, see `pipeline.events.compact`: sums that numba compiles, too."""

from __future__ import annotations

from typing import Any

from spikebridge.pipeline.events.packing import LARGEST_SENSOR, LONGEST_US

VERSION = 1
HEAD = 10
"""Numbers of the head."""
HEAD_BYTES = 8 * HEAD
OTHER, REFUSED = -1, -2
"""What counting returns instead of a number of events: an extent or a sensor of another kind, or what cannot be."""
WRONG = ("a head that cannot be", "times that cannot be", "{size} bytes, which are not those of {events} events")


def lay_out(head: Any, size: int, wide: bool) -> tuple[int, int, int, int]:
    """Return where places, steps, high bits and polarities begin in stored bytes.

    Of bytes that are no recording's, 0 and what is wrong: a place in `WRONG`.

    Args:
        head: the ten numbers of the head.
        size: of all bytes.
        wide: whether x and y take more than 16 bits together.
    """
    count, long, step_bytes, right, bottom, width, height = (
        head[1], head[2], head[3], head[6], head[7], head[8], head[9]
    )  # fmt: skip
    fits = 1 <= right <= width <= LARGEST_SENSOR[0] and 1 <= bottom <= height <= LARGEST_SENSOR[1]
    if head[0] != VERSION or not fits or not 0 <= long <= count or count < 1 or step_bytes < 1 or step_bytes > 2:
        return 0, 0, 0, 0
    if not 0 <= head[5] <= LONGEST_US or not -(2**62) <= head[4] <= 2**62:
        return 0, 1, 0, 0
    if count > size:  # so that no sum wraps
        return 0, 2, 0, 0
    place = HEAD_BYTES + 8 * long
    step = place + 2 * count
    high = step + step_bytes * count
    polarity = high + (count if wide else 0)
    if size != polarity + (count + 7) // 8:
        return 0, 2, 0, 0
    return place, step, high, polarity


def first_bin(head: Any, span_us: int, fixed: int, of_time: bool, bins: int) -> tuple[int, int]:
    """Return where the first bin of a recording begins, and the length of each; the length is 0 where none can be.

    Args:
        head: the ten numbers of its head.
        span_us: length of a recording that begins at t = 0 whether or not there is an event; -1 counts from the first
            event to the last.
        fixed: length of a bin, in microseconds or events; 0 shares out the recording.
        of_time: whether bins are parts of the time, in microseconds from the first event; else numbers of events.
        bins: T.
    """
    events, start_us, duration_us = head[1], head[4], head[5]
    if span_us >= 0 and (start_us < 0 or start_us + duration_us >= span_us):
        return 0, 0
    shared = (duration_us if span_us < 0 else span_us) if of_time else events
    start = -start_us if span_us >= 0 and of_time else 0
    return start, fixed if fixed else shared // bins
