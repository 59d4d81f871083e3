"""Recordings that are a part of their file: an interval of its time or of its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import check_events
from spikebridge.pipeline.events.packing import LONGEST_US, CheckedEvents, PackedEvents
from spikebridge.pipeline.events.parts import parts_of

UNITS = {
    "elapsed_us": "Times are microseconds from its first event",
    "file_us": "Times are microseconds as the file states them",
    "events": "The interval counts events",
}
"""What an interval counts, as messages say it."""
Interval = tuple[int, int]


def cut(
    whole: CheckedEvents, intervals: Mapping[str, Interval], *, unit: str, sensor_size: tuple[int, int]
) -> Iterator[tuple[str, PackedEvents | RecordingError]]:
    """Yield the parts of a file by name, in one pass: their events, or why they cannot be used.

    What the whole file passed over and doubted goes with the first part.

    Args:
        whole: all of the file, checked against any sensor.
        intervals: (start, stop), stop exclusive, by name.
        unit: what they count, a key of `UNITS`.
        sensor_size: (W, H) in pixels.

    The errors: no events in an interval (`empty`), a file of fewer events (`truncated`), or events beyond the sensor
    (`out_of_range`).
    """
    names = list(intervals)
    offset = whole.start_us if unit == "file_us" else 0
    within = [(_bounded(intervals[name][0] - offset), _bounded(intervals[name][1] - offset)) for name in names]
    for number, part in parts_of(whole, within, of_time=unit != "events"):
        name = names[number]
        try:
            yield name, _require(part, whole, name, intervals[name], unit, sensor_size)
        except RecordingError as error:
            yield name, error


def _bounded(time: int) -> int:
    """Return a time as far as a word has room for it, or one before the beginning."""
    return min(max(time, -1), LONGEST_US)


def _require(
    part: PackedEvents | None,
    whole: CheckedEvents,
    name: str,
    interval: Interval,
    unit: str,
    sensor_size: tuple[int, int],
) -> PackedEvents:
    if part is None:
        start = whole.start_us if unit == "file_us" else 0
        raise RecordingError(
            f"{name}: no events from {interval[0]:,} to {interval[1]:,} {'' if unit == 'events' else 'us'}; the "
            f"{len(whole):,} of its file reach from {start:,} to {start + whole.duration_us:,} us. {UNITS[unit]}.",
            reason="empty",
        )
    if unit == "events" and interval[1] > len(whole):
        raise RecordingError(
            f"{name}: events {interval[0]:,} to {interval[1]:,} of {len(whole):,}. Are table and recording of one "
            "version?",
            reason="truncated",
        )
    if part.extent[0] > sensor_size[0] or part.extent[1] > sensor_size[1]:
        check_events(part.unpack(), sensor_size=sensor_size, source=name)
    return part
