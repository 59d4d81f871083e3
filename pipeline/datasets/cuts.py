"""Long recordings cut into samples: parts of one length, with or without overlap, or what lies between pauses.

All samples of a recording are of one group and one split. To cut them, recordings are decoded once when a conversion
is prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.datasets.pairs import Listing, PairReader, Recording
from spikebridge.pipeline.events.packing import LARGEST_SENSOR, CheckedEvents
from spikebridge.pipeline.events.parts import Interval, count_parts, find_runs
from spikebridge.pipeline.shards.settings import ConversionSettings

SHORTEST_RUN_US = 1000
"""Runs between pauses that are shorter are noise, and left out."""


def cut_recordings(
    listing: Listing, split: Mapping[str, str], settings: ConversionSettings, reader: PairReader
) -> tuple[Listing, dict[str, str]]:
    """Cut the recordings that are used; return the listing of the samples, and their splits by name.

    A recording that cannot be read stays as it is, and is rejected when it is converted.

    Raises:
        SettingsError: recordings of this data set cannot be cut.
    """
    if reader.many_per_file or reader.intervals == "events":
        raise SettingsError(f"cut: recordings of {reader.name} are parts of their files already; they cannot be cut.")
    samples, splits, kept, left_out = list[Recording](), dict[str, str](), 0, 0
    for recording in listing.recordings:
        parts = [recording]
        if recording.name in split:
            try:
                parts, lost = cut_recording(recording, settings, reader)
                left_out += lost
            except (RecordingError, OSError):
                pass
            kept += len(parts)
            splits |= dict.fromkeys((part.name for part in parts), split[recording.name])
        samples += parts
    how = (
        f"parts of {settings.cut_us / 1000:,g} ms"
        if settings.cut_us
        else f"what lies between pauses of {settings.pauses_us / 1000:,g} ms"
    )
    how += f" that overlap by {settings.overlap_us / 1000:,g} ms" if settings.overlap_us else ""
    note = f"{len(split):,} recordings cut into {kept:,} samples: {how}; {left_out / 1e6:,.3g} s lie in none"
    return replace(listing, recordings=tuple(samples), notes=(*listing.notes, note)), splits


def cut_recording(
    recording: Recording, settings: ConversionSettings, reader: PairReader
) -> tuple[list[Recording], int]:
    """Return the parts of a recording with events, and the microseconds that lie in none.

    Raises:
        RecordingError: it cannot be read.
    """
    events = reader.read_packed(recording, sensor_size=LARGEST_SENSOR)
    offset = events.start_us if reader.intervals == "file_us" else 0
    start, stop = 0, events.duration_us + 1
    if recording.interval:
        start, stop = max(start, recording.interval[0] - offset), min(stop, recording.interval[1] - offset)
    intervals = _intervals(events, settings, start, stop)
    counts = count_parts(events, intervals).tolist()
    intervals = [interval for interval, count in zip(intervals, counts, strict=True) if count]
    if intervals == [(start, stop)] or not intervals:
        return [recording], 0
    reached, covered = start, 0
    for first, last in intervals:
        covered += max(0, last - max(first, reached))
        reached = max(reached, last)
    group = recording.group or recording.name
    parts = [
        replace(
            recording,
            name=f"{recording.name}@{first}-{last}",
            stem=f"{recording.stem}@{first}-{last}",
            group=group,
            interval=(first + offset, last + offset),
        )
        for first, last in intervals
    ]
    return parts, stop - start - covered


def _intervals(events: CheckedEvents, settings: ConversionSettings, start: int, stop: int) -> list[Interval]:
    """Return the intervals of a recording between two times, in microseconds from its first event.

    A recording that is shorter than a part is one. Of the rest behind the last whole part nothing is taken.
    """
    if settings.pauses_us:
        runs = [(max(first, start), min(last, stop)) for first, last in find_runs(events, settings.pauses_us)]
        return [(first, last) for first, last in runs if last - first >= SHORTEST_RUN_US]
    step = settings.cut_us - settings.overlap_us
    return [(first, first + settings.cut_us) for first in range(start, stop - settings.cut_us + 1, step)] or [
        (start, stop)
    ]
