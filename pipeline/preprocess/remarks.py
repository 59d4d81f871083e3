"""What a careful person would want to know of a set before training: closing lines, and notes on what is doubtful.

Notes stand in the manifest, so they are part of a set's ID: they are written only where there is something to say, and
a set without has the ID that it had before these remarks were made. Each names the option that cures it.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import group_alike, shorten, without_numbers
from spikebridge.pipeline.datasets.endings import describe_passed_over
from spikebridge.pipeline.datasets.sensor import describe
from spikebridge.pipeline.events.arrays import OUTSIDE
from spikebridge.pipeline.images.decode import aspect_of
from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.preprocess.tasks import BEYOND_UINT8, FILTERED, PASSED_OVER, Reject, TaskResult
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import Content
from spikebridge.pipeline.shards.settings import ConversionSettings

MOST_CLIPPED, MOST_DROPPED, MOST_FILTERED = 0.01, 0.1, 0.5
"""Shares of a set's events above which clipping, dropping and filtering are warnings."""
FEW_CELLS = 0.02
"""Share of a frame's cells, or of as many cells as there are events; a recording that uses less is suspicious."""
UNEQUAL = 5.0
"""Ratio of the longest recording to the shortest above which equal numbers of bins are a warning."""
OWN = "folders"
"""Data set whose frames nobody published."""
MOST_SHAPES = 100
"""Static images whose shape is looked at, at most."""
ALIKE, MOST_UNLIKE = 1.05, 0.05
"""Ratio of two aspects up to which they are one; share of the images that may have another than the sensor."""
MOST_DECIDED = 12
"""Choices that are named."""
LACKING = (
    *("no recordings of the image classes", "no recordings in the folders", "class names that are nearly the same"),
    *("pictures beyond the first", "columns of the table of labels that are not used", "left out beside"),
)
"""Beginnings of a reader's notes that are warnings, too."""


def pool_words(manifest: manifests.Manifest) -> str:
    """Return how many static images a set trains from, and why not from all."""
    pool, images = manifest["static"]["roles"]["pool"], manifest["static"]["images"]
    kept_out = "" if pool == images else ": the others were held out, or look like one that was"
    leaky = " (LEAKY: with those of held-out recordings)" if manifest["settings"]["protocol"] == "leaky" else ""
    return f"{pool:,} of {images:,} static images{leaky}{kept_out}" + ("" if pool else "; only event_only can train")


@dataclass(frozen=True)
class Remarks:
    """Facts about all samples of a set, summed up."""

    conversion: Conversion
    totals: Counter[str]
    """Those of the manifest, and those that it does not hold: clipped_events, outside_events."""
    durations: list[int]
    """Microseconds, ascending; after filtering."""
    sound_durations: list[int]
    """The same without recordings that are doubtful on their own, as those whose times seem to be in another unit."""
    one_polarity: list[str]
    """Names of recordings with events of one polarity."""
    few_cells: list[tuple[float, str]]
    """Share of the cells that could be in use and name, ascending, of recordings with few."""
    choices: Counter[str]
    """What was decided where files left it open, and in how many recordings."""
    outside: Sequence[Mapping[str, int]]
    """Counts of the recordings that were rejected for events outside the sensor."""

    @classmethod
    def collect(
        cls,
        conversion: Conversion,
        *,
        results: Sequence[TaskResult],
        rejects: Sequence[Reject],
    ) -> Remarks:
        """Sum up what the tasks found."""
        settings = conversion.settings
        totals: Counter[str] = Counter()
        choices: Counter[str] = Counter()
        durations, sound, one_polarity, few = list[int](), list[int](), list[str](), list[tuple[float, str]]()
        for result in results:
            doubted = {name for name, _ in result.doubts}
            totals.update({**result.totals, **result.lost})
            choices.update(result.choices)
            shapes = zip(result.samples, np.asarray(result.shapes).tolist(), strict=True)
            for (_, name, _), (duration_us, polarities, cells, events) in shapes:
                durations.append(duration_us)
                sound += [duration_us] if name not in doubted else []
                share = cells / min(events, math.prod(settings.frame))
                few += [(share, name)] if share < FEW_CELLS else []
                one_polarity += [name] if polarities < 2 else []
        return cls(
            conversion,
            totals,
            sorted(durations),
            sorted(sound),
            sorted(one_polarity),
            sorted(few),
            choices,
            [counts for line in rejects if OUTSIDE in (counts := line.get("counts", {}))],
        )

    def share(self, name: str) -> float:
        """Return a total as a share of all events read."""
        return self.totals[name] / max(1, self.totals["events"])

    def warnings(self) -> list[str]:
        """Return one sentence each on what may be wrong, with the option that cures it."""
        late = self.share("dropped_events") - self.share("outside_events")
        lines = warn_of_losses(self.conversion.settings, clipped=self.share("clipped_events"), late=late)
        for name in self._filters():
            if (share := self.share(f"{FILTERED}{name}")) > MOST_FILTERED:
                option = "--time-window" if name == "time_window" else f"--{name.replace('_', '-')}"
                option += "-us" if name in ("refractory", "background") else ""
                lines.append(f"{_percent(share)} of the events are left out by {option}: a milder one keeps more")
        if self.outside:
            outside, events = (sum(counts[name] for counts in self.outside) for name in (OUTSIDE, "events"))
            lines.append(
                f"{len(self.outside):,} recordings reach outside the sensor of "
                f"{describe(self.conversion.sensor_size or (0, 0))}, with {outside:,} of their {events:,} events "
                f"({_percent(outside / events)}), and are rejected: --sensor WxH states a larger one"
            )
        if self.one_polarity:
            lines.append(
                f"{len(self.one_polarity):,} recordings have events of one polarity ({_first(self.one_polarity)}): "
                "--columns names the polarity; --splits leaves recordings out"
            )
        if self.few_cells:
            names = [f"{name} {_percent(share)}" for share, name in self.few_cells]
            lines.append(
                f"{len(names):,} recordings use less than {FEW_CELLS:.0%} of the cells that they could "
                f"({_first(names)}): --sensor WxH states a smaller sensor, --extent recording stretches what a "
                "recording reaches"
            )
        if self._unequal():
            least, most = self.sound_durations[0], self.sound_durations[-1]
            lines.append(
                f"the longest recording lasts {most / max(1, least):,.1f} times the shortest ({_seconds(least)} to "
                f"{_seconds(most)}), and so do its bins: --binning window makes them equal, --time-window cuts"
            )
        lines += describe_passed_over(self.conversion.passed_over)
        return lines

    def lines(self) -> dict[str, str]:
        """Return the closing lines by their heading, for people: what there is, doubtful or not."""
        settings, conversion = self.conversion.settings, self.conversion
        parts = [f"{self.totals['events']:,} read"]
        for what, share in (
            ("after the last bin", self.share("dropped_events") - self.share("outside_events")),
            ("outside the crop", self.share("outside_events")),
            (f"clipped by {settings.dtype}", self.share("clipped_events")),
            *((f"left out by {name.replace('_', ' ')}", self.share(f"{FILTERED}{name}")) for name in self._filters()),
        ):
            parts += [f"{_percent(share)} {what}"] if share > 0 else []
        if settings.dtype == "uint16":
            parts += [f"stored as uint16 (uint8 would clip {_percent(self.share(BEYOND_UINT8))})"]
        found = {"events": ", ".join(parts)}
        if conversion.sensor_size:
            found = {"sensor": f"{describe(conversion.sensor_size)}, {conversion.sensor_source}", **found}
        if self.durations:
            least, middle, most = self.durations[0], statistics.median(self.durations), self.durations[-1]
            found["durations"] = f"{_seconds(least)} least, {_seconds(middle)} median, {_seconds(most)} most"
        if shapes := self._shapes():
            found["shapes"] = shapes
        listed, used = len(conversion.listing.recordings), len(conversion.used)
        if used < listed:
            found["recordings"] = f"{used:,} of {listed:,} used; the others are in no split"
        if self.choices:
            found["decided"] = _count_alike(self.choices)
        return found

    def _shapes(self) -> str:
        """Return by how much frames stretch static images otherwise than the sensor; empty where they do not."""
        conversion, sensor = self.conversion, self.conversion.sensor_size
        images = conversion.listing.images[:: len(conversion.listing.images) // MOST_SHAPES + 1]
        known = conversion.listing.shown_fraction or conversion.settings.dataset != OWN
        if known or conversion.settings.fit or not sensor:
            return ""
        aspects = sorted(found for image in images if (found := aspect_of(image.path)))
        own = sensor[0] / sensor[1]
        unlike = sum(max(each / own, own / each) >= ALIKE for each in aspects)
        if unlike <= MOST_UNLIKE * len(aspects):
            return ""
        least, most = aspects[0], aspects[-1]
        wide = f"{least:.4g} to {most:.4g}" if most >= ALIKE * least else f"{least:.4g}"
        return (
            f"static images are {wide} times as wide as high, the sensor {own:.4g}; frames squash each on its own: "
            "--fit pad keeps both"
        )

    def _filters(self) -> list[str]:
        return sorted(name.removeprefix(FILTERED) for name in self.totals if name.startswith(FILTERED))

    def _unequal(self) -> bool:
        by_length = self.conversion.settings.binning == "bins" and self.conversion.reader.span_us is None
        durations = self.sound_durations
        return by_length and len(durations) > 1 and durations[-1] > UNEQUAL * max(1, durations[0])


def _count_alike(choices: Counter[str]) -> str:
    """Return what was decided and in how many recordings, the most frequent first; what differs in numbers is one."""
    alike: dict[str, Counter[str]] = {}
    for choice, count in choices.items():
        alike.setdefault(without_numbers(choice), Counter())[choice] += count
    groups = sorted(alike.values(), key=lambda group: (-group.total(), min(group)))
    named = [
        f"{min(group)}{' and the like' if len(group) > 1 else ''} ({group.total():,})"
        for group in groups[:MOST_DECIDED]
    ]
    more = f"; {len(groups) - MOST_DECIDED} more, see inspect FILE" if len(groups) > MOST_DECIDED else ""
    return "; ".join(named) + more


def warn_of_losses(settings: ConversionSettings, *, clipped: float, late: float) -> list[str]:
    """Return one sentence each on shares of a set's events that its frames lack: clipped, or after the last bin."""
    lines = []
    if clipped > MOST_CLIPPED:
        cure = "--dtype uint16" if settings.dtype == "uint8" else "more --time-bins or a larger --size"
        lines.append(f"{_percent(clipped)} of the events are clipped by {settings.dtype}: {cure}")
    if late > MOST_DROPPED and settings.binning != "bins":
        cure = "a longer --window-us" if settings.binning == "window" else "larger --events-per-bin"
        lines.append(f"{_percent(late)} of the events come after the last bin: {cure}, or more --time-bins")
    return lines


def notes_of_recordings(results: Sequence[TaskResult]) -> list[str]:
    """Return what was passed over in all recordings together, and what is doubtful about how many of them."""
    totals: Counter[str] = Counter()
    for result in results:
        for name, count in result.totals.items():
            if name.startswith(PASSED_OVER):
                totals[name.removeprefix(PASSED_OVER)] += count
    notes = []
    if totals:
        notes.append(
            f"{manifests.PASSED_OVER} {', '.join(f'{count:,} {what}' for what, count in sorted(totals.items()))}"
        )
    for cases in group_alike(case for result in results for case in result.doubts):
        name, doubt = cases[0]
        more = f" and {len(cases) - 1:,} more recordings" if len(cases) > 1 else ""
        notes.append(f"{manifests.DOUBTFUL} {name}{more}: {doubt}")
    return sorted(notes)


def list_warnings(content: Content) -> list[str]:
    """Return what `--strict` turns into errors, from a manifest."""
    lines = [note for note in content["notes"] if note.startswith((manifests.WARNING, manifests.DOUBTFUL, *LACKING))]
    empty = content["static"]["classes_without_pool"]
    if empty and content["static"]["images"]:  # a set may be without static images altogether
        lines.append(
            f"{manifests.WARNING} no static image in the pool for the classes {shorten(empty)}: add images, choose "
            "--classes, or train with method event_only"
        )
    return lines


def lines_of(content: Content) -> dict[str, str]:
    """Return the closing lines that a manifest alone gives: of a set that was already there."""
    totals, dtype = content["events"], content["settings"]["dtype"]
    crop = " or outside the crop" if content["settings"].get("fit") == "crop" else ""  # a manifest has the sum alone
    named = {"dropped_events": f"after the last bin{crop}"}
    named |= {
        name: f"left out by {name.removeprefix(FILTERED).replace('_', ' ')}" for name in totals if FILTERED in name
    }
    parts = [f"{totals['events']:,} read"]
    parts += [f"{_percent(totals[n] / max(1, totals['events']))} {what}" for n, what in named.items() if totals[n]]
    if cells := totals["saturated_cells"]:
        parts.append(f"{cells:,} cells of {totals['saturated_samples']:,} samples clipped by {dtype}")
    width, height = content["sensor_size"]
    return {"sensor": f"{width}x{height} pixels", "events": ", ".join(parts)}


def _first(names: Sequence[Any]) -> str:
    return f"such as {names[0]}" if len(names) > 1 else str(names[0])


def _percent(share: float) -> str:
    """Return a share in percent, to two digits that say something."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _seconds(us: float) -> str:
    return f"{us / 1e6:.3g} s"
