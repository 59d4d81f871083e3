"""What recordings say together and a conversion must know before it stores the first: found by tasks, once per set.

The result is the same for any number of workers: facts are maxima and sums over items that the listing and the settings
choose.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.datasets.pairs import StaticImage
from spikebridge.pipeline.datasets.sensor import measured_sensor
from spikebridge.pipeline.datasets.splits import rank
from spikebridge.pipeline.images.decode import DEEP_EXTENSIONS, bits_in_use
from spikebridge.pipeline.preprocess.plan import EventShard, PlannedSample, Survey, plan_survey
from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.preprocess.tasks import TaskResult
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.settings import DTYPES, ConversionSettings

MOST_CLIPPED = 0.01
"""Share of a set's events that may be clipped before a wider type is taken."""
FEWEST_LOOKED_AT, MOST_LOOKED_AT, BYTES_LOOKED_AT = 4, 256, 2**28
"""Recordings, and bytes of their files, that are looked at to choose the type of a set."""
ROOM = 16
"""Bits of the pixels in the files that are looked at."""
RunSurvey = Callable[[Sequence[Survey]], Sequence[TaskResult]]
"""Does tasks, or finds that they are done; returns their results."""


def measure_sensor(conversion: Conversion, run: RunSurvey) -> Conversion:
    """Return the conversion with the size of its sensor, measured over all recordings that can be read.

    Where all recordings state theirs, none is read.

    Raises:
        LayoutError: recordings of several sensors.
    """
    if conversion.sensor_size:
        return conversion
    silent = {r.file: PlannedSample(r.name, r, None) for r in conversion.used if r.sensor_size is None}
    found = _find("extent", list(silent.values()), run)
    reach = (_most("width", found), _most("height", found)) if found else None
    size, own, note = measured_sensor(
        conversion.used, reach, conversion.settings, measured=sum(totals["recordings"] for totals in found)
    )
    recordings = tuple(replace(r, sensor_size=own.get(r.name)) for r in conversion.listing.recordings)
    return replace(
        conversion,
        listing=replace(conversion.listing, recordings=recordings),
        sensor_size=size,
        notes=(*conversion.notes, *([note] if note else [])),
    )


def measure_depth(conversion: Conversion, run: RunSurvey) -> Conversion:
    """Return the conversion with the bits of its static images' pixels, where their files leave it open.

    Files of PNG and TIFF have room for 16 bits and rarely say how many a camera filled: the least that holds the
    largest value of all images counts, so that images stay comparable. Images of a known data set are of one kind: the
    first says whether any need be looked at.
    """
    images = [image for image in conversion.listing.images if image.file.lower().endswith(DEEP_EXTENSIONS)]
    if conversion.image_bits or not images or not (conversion.own_images or _is_deep(images[0])):
        return conversion
    found = _find("depth", images, run)
    if not found:
        return conversion
    bits, count = _most("bits", found), sum(totals["images"] for totals in found)
    note = (
        f"{manifests.WARNING} {count:,} static images have room for 16 bits and hold none above {bits}: taken for "
        f"{bits} bits; --image-bits states it"
    )
    return replace(conversion, image_bits=bits, notes=(*conversion.notes, *([note] if bits < ROOM else [])))


def _is_deep(image: StaticImage) -> bool:
    """Return whether the pixels of an image need a depth; one that cannot be read is rejected later."""
    try:
        return bits_in_use(image.path.read_bytes(), source=image.name) > 0
    except (RecordingError, OSError):
        return False


def choose_dtype(conversion: Conversion, shards: Sequence[EventShard], run: RunSurvey) -> Conversion:
    """Return the conversion with the type of its frames, where the settings leave it open.

    It is the type that takes the least room, unless that would clip more than `MOST_CLIPPED` of the events. Of a large
    set a sample is looked at, drawn by hash.
    """
    settings = conversion.settings
    if not settings.dtype_open:
        return conversion
    narrowest, *wider = DTYPES[settings.reduction]
    if wider:
        found = _find("clipping", _draw([sample for shard in shards for sample in shard.samples], settings), run)
        events, clipped = (sum(totals[name] for totals in found) for name in ("events", "clipped"))
        narrowest = wider[-1] if clipped > MOST_CLIPPED * events else narrowest
    return replace(conversion, settings=replace(settings, dtype=narrowest, dtype_open=False))


def _draw(samples: Sequence[PlannedSample], settings: ConversionSettings) -> list[PlannedSample]:
    """Draw samples by hash until there are `MOST_LOOKED_AT`, or their files hold `BYTES_LOOKED_AT` together."""
    drawn: list[PlannedSample] = []
    held = 0
    for sample in sorted(samples, key=lambda sample: rank(settings.seed, "clipping", sample.key)):
        if len(drawn) >= MOST_LOOKED_AT or (len(drawn) >= FEWEST_LOOKED_AT and held >= BYTES_LOOKED_AT):
            break
        drawn.append(sample)
        held += os.stat(sample.recording.file).st_size
    return drawn


def _find(fact: str, items: Sequence[PlannedSample | StaticImage], run: RunSurvey) -> list[dict[str, int]]:
    """Return the totals of the tasks that found something."""
    return [result.totals for result in run(plan_survey(fact, items)) if result.totals] if items else []


def _most(name: str, found: Sequence[dict[str, int]]) -> int:
    return max(totals[name] for totals in found)
