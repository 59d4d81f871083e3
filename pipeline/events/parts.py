"""Parts of a recording as recordings of their own, all of them in one pass; and where a recording can be parted.

Axes: N events. Intervals are (start, stop), stop exclusive, in microseconds from the first event or in numbers of
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.packing import (
    TIME_SHIFT,
    X_MASK,
    X_SHIFT,
    Y_MASK,
    Y_SHIFT,
    CheckedEvents,
    PackedEvents,
)

Interval = tuple[int, int]


def parts_of(
    events: CheckedEvents, intervals: Sequence[Interval], *, of_time: bool = True
) -> Iterator[tuple[int, PackedEvents | None]]:
    """Yield the number of each interval and its events (None for none), in the order of their starts.

    In memory lie the events from the start of one interval to its stop. What is known of the whole file - what was
    passed over, what is doubtful - goes with the first part that holds events.
    """
    order = sorted(range(len(intervals)), key=lambda i: intervals[i])
    chunks, held = events.chunks(), list[NDArray[np.int64]]()
    before, read = 0, 0  # events before those that are held, and those read
    about = (events.overflow_markers, events.passed_over, events.doubts, 0, events.choices)
    for number in order:
        start, stop = intervals[number]
        while not held or (_last_us(held[-1]) < stop if of_time else read < stop):
            chunk = next((chunk for chunk in chunks if len(chunk)), None)
            if chunk is None:
                break
            held.append(chunk.copy())
            read += len(chunk)
        while held and (_last_us(held[0]) < start if of_time else before + len(held[0]) <= start):
            before += len(held.pop(0))
        pieces, at = [], before
        for words in held:
            edges = (
                np.searchsorted(words, np.array((start, stop)) << TIME_SHIFT) if of_time else (start - at, stop - at)
            )
            pieces.append(words[max(0, int(edges[0])) : max(0, int(edges[1]))])
            at += len(words)
        words = np.concatenate([np.empty(0, np.int64), *pieces])
        if not len(words):
            yield number, None
            continue
        since = int(words[0]) >> TIME_SHIFT
        extent = (int((words >> X_SHIFT & X_MASK).max()) + 1, int((words >> Y_SHIFT & Y_MASK).max()) + 1)
        yield number, PackedEvents(words - (since << TIME_SHIFT), events.start_us + since, extent, *about)
        about = (0, (), (), 0, ())


def _last_us(words: NDArray[np.int64]) -> int:
    return int(words[-1]) >> TIME_SHIFT


def count_parts(events: CheckedEvents, intervals: Sequence[Interval]) -> NDArray[np.int64]:
    """Return the number of events in each interval of time."""
    edges = np.array(intervals, np.int64).reshape(-1, 2) << TIME_SHIFT
    counts = np.zeros(len(edges), np.int64)
    for words in events.chunks():
        first, stop = (np.searchsorted(words, edges[:, side]) for side in (0, 1))
        counts += stop - first
    return counts


def find_runs(events: CheckedEvents, pause_us: int) -> list[Interval]:
    """Return the times between pauses: runs of events no two of which in a row are further apart than `pause_us`."""
    starts, stops, latest = [0], list[int](), 0
    for words in events.chunks():
        t = words >> TIME_SHIFT
        gaps = np.flatnonzero(np.diff(t, prepend=latest) > pause_us)
        starts += t[gaps].tolist()
        stops += (np.where(gaps > 0, t[gaps - 1], latest) + 1).tolist()
        latest = int(t[-1])
    return list(zip(starts, [*stops, latest + 1], strict=True))
