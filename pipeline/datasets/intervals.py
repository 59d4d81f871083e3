"""Recordings that are a part of their file: an interval of its time or of its events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events

UNITS = {
    "elapsed_us": "Times are microseconds from its first event",
    "file_us": "Times are microseconds as the file states them",
    "events": "The interval counts events",
}
"""What an interval counts, as messages say it."""


def cut(events: Events, name: str, interval: tuple[int, int], *, unit: str) -> Events:
    """Return the events of an interval, with what the whole file passed over and doubted.

    Raises:
        RecordingError: times that go back (`unsorted`), or no events in it (`empty`).
    """
    if len(events) > 1 and bool((events.t[1:] < events.t[:-1]).any()):
        raise RecordingError(f"{name}: time stamps go back; expected them in order. Copy it again.", reason="unsorted")
    start = int(events.t[0]) if unit == "elapsed_us" and len(events) else 0
    first, stop = interval
    if unit != "events":
        first, stop = np.searchsorted(events.t, [start + time for time in interval]).tolist()
    if first >= min(stop, len(events)):
        reach = f"{int(events.t[0]) - start:,} to {int(events.t[-1]) - start:,} us" if len(events) else "nowhere"
        raise RecordingError(
            f"{name}: no events from {interval[0]:,} to {interval[1]:,} {'' if unit == 'events' else 'us'}; the "
            f"{len(events):,} of its file reach from {reach}. {UNITS[unit]}.",
            reason="empty",
        )
    if unit == "events" and stop > len(events):
        raise RecordingError(
            f"{name}: events {first:,} to {stop:,} of {len(events):,}. Are table and recording of one version?",
            reason="truncated",
        )
    return replace(events, **{column: getattr(events, column)[first:stop] for column in "txyp"})
