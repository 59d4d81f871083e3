"""The size of the sensor that recordings come from: stated by the user, a folder or the files, or measured.

Frames stretch the sensor, so its size decides the pixels of every recording: it is never assumed, and recordings of
several sensors are in one set only where each is stretched by its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.datasets.pairs import Listing, Recording
from spikebridge.pipeline.shards.settings import ConversionSettings

Size = tuple[int, int]
"""(W, H) in pixels."""


def settle_sensor(listing: Listing, settings: ConversionSettings, *, own_recordings: bool) -> Listing:
    """Return the listing with the sensor that is known before a recording is read; without one, see `measured_sensor`.

    `own_recordings` says that they are the user's, of any camera; those of a known data set have a known sensor.

    Raises:
        SettingsError: `sensor` is given for a data set whose sensor is known.
        LayoutError: recordings of several sensors.
    """
    if settings.sensor:
        if listing.sensor_size and not own_recordings and listing.sensor_size != settings.sensor:
            raise SettingsError(
                f"--sensor: the recordings of {settings.dataset} have {describe(listing.sensor_size)}, found "
                f"{describe(settings.sensor)}. Leave it out."
            )
        recordings = tuple(replace(r, sensor_size=None) for r in listing.recordings)
        return replace(listing, sensor_size=(settings.sensor[0], settings.sensor[1]), recordings=recordings)
    stated = {recording.sensor_size for recording in listing.recordings} - {None}
    if len(stated) > 1:
        _require_scaling(listing.recordings, settings)
    return listing


def measured_sensor(
    recordings: Sequence[Recording], reach: Size | None, settings: ConversionSettings, *, measured: int
) -> tuple[Size | None, dict[str, Size], str]:
    """Settle the sensor where not all recordings state one, by what the events of the others reach.

    Args:
        recordings: those of the set.
        reach: (W, H) of the events of those that state no size; None where none of these can be read.
        settings: of the conversion.
        measured: how many can be read.

    Returns:
        The sensor of the set, None where nothing is known; by name, those of recordings with their own; and a note,
        empty where there is nothing to say.

    Raises:
        LayoutError: recordings of several sensors.
    """
    stated = Counter(r.sensor_size for r in recordings if r.sensor_size)
    count = f"{measured:,} recording{'s' if measured > 1 else ''}"
    if not stated:
        return reach, {}, f"sensor of {describe(reach)}, measured over {count}: --sensor WxH states it" if reach else ""
    (usual, number), *others = stated.most_common()
    if not others and (reach is None or (reach[0] <= usual[0] and reach[1] <= usual[1])):
        note = f"sensor of {describe(usual)}, stated by {number:,} recordings; the events of {count} fit into it"
        return usual, {}, note if reach else ""
    own = [replace(r, sensor_size=r.sensor_size or reach) for r in recordings]
    _require_scaling(own, settings)
    note = f"recordings of several sensors, each stretched by its own: {count_sizes(recordings)}"
    note += f", and {count} of {describe(reach)} as measured" if reach else ""
    return usual, {r.name: r.sensor_size for r in own if r.sensor_size}, note


def describe(size: Size | tuple[int, ...]) -> str:
    """Return a size in words."""
    return f"{size[0]}x{size[1]} pixels"


def count_sizes(recordings: Iterable[Recording], *, examples: Mapping[Size, str] | None = None) -> str:
    """Return how many recordings have which sensor, the largest number first."""
    counts = Counter(r.sensor_size for r in recordings if r.sensor_size)
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(
        f"{count:,} of {describe(size)}" + (f" (such as {examples[size]})" if examples else "") for size, count in named
    )


def _require_scaling(recordings: Iterable[Recording], settings: ConversionSettings) -> None:
    """Refuse recordings of several sensors, unless each is to be stretched by its own."""
    if settings.mixed_sensors == "scale":
        return
    recordings = list(recordings)
    examples = {r.sensor_size: r.name for r in reversed(recordings) if r.sensor_size}
    raise LayoutError(
        f"recordings of several sensors: {count_sizes(recordings, examples=examples)}. In common frames the smaller "
        "ones would lie in a corner. Convert them apart, or stretch each by its own sensor with --mixed-sensors scale."
    )
