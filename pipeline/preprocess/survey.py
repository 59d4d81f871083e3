"""What recordings say together and a conversion must know before it stores the first: found by tasks, once per set.

The result is the same for any number of workers: facts are maxima and sums over items that the listing and the settings
choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spikebridge.pipeline.datasets.pairs import StaticImage
from spikebridge.pipeline.preprocess.plan import PlannedSample, Survey, plan_survey
from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.preprocess.sensor import measured_sensor
from spikebridge.pipeline.preprocess.tasks import TaskResult

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
    silent = [PlannedSample(r.name, r, None) for r in conversion.used if r.sensor_size is None]
    found = _find("extent", silent, run)
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


def _find(fact: str, items: Sequence[PlannedSample | StaticImage], run: RunSurvey) -> list[dict[str, int]]:
    """Return the totals of the tasks that found something."""
    return [result.totals for result in run(plan_survey(fact, items)) if result.totals] if items else []


def _most(name: str, found: Sequence[dict[str, int]]) -> int:
    return max(totals[name] for totals in found)
