"""A raw data set or a shard set at a glance: classes, counts, splits, and the recordings that stand out, worst first.

Axes: n samples, T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.progress import Progress
from spikebridge.pipeline.datasets.endings import count_passed_over, describe_passed_over
from spikebridge.pipeline.datasets.pairs import Listing, PairReader, Recording
from spikebridge.pipeline.formats.recording import is_recording, stem
from spikebridge.pipeline.inspection.facts import (
    JSON_KEYS,
    Facts,
    find_furthest_count,
    find_unusual_counts,
    screen,
    summarize_events,
    summarize_frames,
)
from spikebridge.pipeline.inspection.views import describe_sensor, sensor_of
from spikebridge.pipeline.readers import get_reader, list_readers
from spikebridge.pipeline.readers.folders import BESIDE, Folders
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import BOTH, EVENTS

COUNTS = ("sum", "bilinear", "voxel")
"""Reductions whose cells add up to the events, but for what the edges cut."""
CHUNK_BYTES = 2**22
"""Samples in memory at a time."""
ORDER = ("pool", "train", "validation", "test")
"""Order of roles, splits and subsets, for people; others follow by name."""


@dataclass(frozen=True)
class ClassCounts:
    """A class, and its recordings in each split or subset."""

    name: str
    counts: dict[str, int]


@dataclass
class SetSummary:
    """Content of a set and the anomalies of its recordings."""

    kind: str
    """`raw data set` or `shard set`."""
    name: str
    about: list[str]
    """One line each, for people: ID, settings, pairing, notes."""
    classes: list[ClassCounts]
    """Recordings of each class in each split or subset."""
    inspected: int = 0
    """Recordings that were read; of a raw set larger than the limit, an even sample."""
    total: int = 0
    events: tuple[float, float, float] | None = None
    """Smallest, median and largest number of events."""
    odd: list[Facts] = field(default_factory=list)
    """Those with anomalies, worst first: most anomalies, then fewest events."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Name and message of recordings that cannot be used."""
    simulated: bool = False
    furthest: str = ""
    """Name of the recording whose number of events is furthest from its class's median; empty without."""
    how_far: str = ""
    """Its number of events and that median, in words."""

    def as_dict(self) -> dict[str, object]:
        """Return the summary, JSON-ready."""
        return {
            **{JSON_KEYS.get(name, name): value for name, value in vars(self).items()},
            "classes": [{"class": row.name, **row.counts} for row in self.classes],
            "odd": [facts.as_dict() for facts in self.odd],
            "worst": self.worst[0],
        }

    @property
    def worst(self) -> tuple[str, str]:
        """Return the recording to inspect first, and why; empty texts where none can be used.

        It is the first of those with anomalies, or the one furthest from its class.
        """
        if self.odd:
            return self.odd[0].name, "; ".join(self.odd[0].anomalies)
        return self.furthest, self.how_far


def find_pair(events_root: Path, static_root: Path) -> tuple[PairReader, Listing]:
    """Return the reader whose layout a raw folder has; `folders`, which takes nearly anything, only when no other fits.

    Where none fits but there are recordings, as in a set without its images, lists these alone.

    Raises:
        LayoutError: several fit, or none and there are no recordings.
    """
    fitting: list[tuple[PairReader, Listing]] = []
    for reader in list_readers():
        try:
            fitting.append((reader, reader.list_pair(events_root, static_root)))
        except LayoutError:
            continue
    special = [pair for pair in fitting if pair[0].name != "folders"] or fitting
    if not special and (alone := list_recordings_alone(events_root)).recordings:
        return get_reader("folders"), alone
    if len(special) != 1:
        names = " and ".join(reader.name for reader, _ in special) or "none"
        raise LayoutError(
            f"{events_root}: which data set is this? Layouts that fit: {names}. Name it with --dataset, and its images "
            f"with --static; `{command('datasets', 'NAME')}` shows a layout."
        )
    return special[0]


def list_recordings_alone(root: Path) -> Listing:
    """List every recording below a folder; its class is the folder that holds it."""
    paths = sorted(path for path in root.rglob("*") if is_recording(path))
    classes = tuple(sorted({path.parent.name for path in paths}))
    names = [str(path.relative_to(root).with_name(stem(path))) for path in paths]
    recordings = tuple(
        Recording(name, str(path), classes.index(path.parent.name), None, stem(path), None)
        for name, path in zip(names, paths, strict=True)
    )
    note = "no layout of a known data set with its images fits: recordings alone, the class being their folder"
    return Listing(classes, recordings, (), None, pairing="none", notes=(note,))


def sort_splits(names: Iterable[str]) -> list[str]:
    """Sort names of splits, subsets or roles as people expect them: what training uses first."""
    rank = {name: row for row, name in enumerate(ORDER)}
    return sorted(names, key=lambda name: (rank.get(name.lower(), len(rank)), name))


def summarize_raw(
    reader: PairReader, listing: Listing, *, limit: int, time_bins: int, progress: Progress
) -> SetSummary:
    """Inspect at most `limit` recordings of a raw data set, spread evenly over it."""
    recordings = listing.recordings
    rows = np.unique(np.linspace(0, len(recordings) - 1, min(limit, len(recordings))).round().astype(int))
    subsets = sort_splits({r.subset or "recordings" for r in recordings})
    of_class = Counter((r.label, r.subset or "recordings") for r in recordings)
    classes = [
        ClassCounts(name, {subset: of_class[label, subset] for subset in subsets})
        for label, name in enumerate(listing.classes)
    ]
    sensor = describe_sensor(listing)
    about = [
        f"sensor {sensor}, {len(listing.images):,} static images, pairs known: {listing.pairing}",
        *listing.notes,
        *(describe_passed_over(count_passed_over(listing.files, names=BESIDE)) if isinstance(reader, Folders) else []),
    ]
    summary = SetSummary("raw data set", reader.name, about, classes, total=len(recordings))
    inspected: list[tuple[Facts, int]] = []
    for row in progress(rows, len(rows), "recordings"):
        recording: Recording = recordings[row]
        try:
            events = reader.read_recording(recording, sensor_size=sensor_of(listing, recording))
        except RecordingError as error:
            summary.unreadable.append((recording.name, str(error)))
            continue
        inspected.append((summarize_events(events, name=recording.name, time_bins=time_bins), recording.label))
    every = [facts for facts, _ in inspected]
    counts, labels = [facts.events for facts in every], [label for _, label in inspected]
    odd = {row: facts for row, facts in enumerate(every) if facts.anomalies}
    return _compare_with_classes(summary, counts, labels, odd, facts_of=every.__getitem__)


def summarize_shards(shards: ShardSet, *, progress: Progress) -> SetSummary:
    """Inspect every sample of a shard set.

    Raises:
        ShardSetError: a sample is damaged.
    """
    settings, manifest = shards.settings, shards.manifest
    splits = sort_splits(manifest["splits"])
    classes = [
        ClassCounts(name, {split: manifest["splits"][split]["per_class"][label] for split in splits})
        for label, name in enumerate(shards.classes)
    ]
    counts = manifest["static"]["roles"]
    roles = ", ".join(f"{counts[role]:,} {role}" for role in sort_splits(counts) if counts[role]) or "none"
    about = [
        f"ID {shards.id}",
        f"samples {list(shards.sample_shape)} {shards.dtype.name}, "
        f"{settings['reduction']} over the {settings['extent']}"
        + {EVENTS: ", made of stored events", BOTH: ", stored beside their events"}.get(shards.store, ""),
        *([] if settings["reduction"] in COUNTS else ["events are sums of cells here, which do not count them"]),
        f"static images: {roles}; pairs known: {manifest['pairing']['kind']}, protocol "
        + ("LEAKY" if settings["protocol"] == "leaky" else settings["protocol"]),
        *(
            f"{step['verb']} of {', '.join(one['id'][:12] for one in step['sets'])}"
            for step in manifest.get("made_from", [])
        ),
        *manifest.get("notes", []),
    ]
    total = sum(len(split) for split in shards.splits.values())
    summary = SetSummary("shard set", manifest["dataset"], about, classes, total=total, simulated=shards.simulated)
    events, labels, odd = array("d"), array("q"), dict[int, Facts]()  # of a million samples no more can be kept
    for row, (count, label, facts) in enumerate(progress(_summarize_samples(shards), total, "samples")):
        events.append(count)
        labels.append(label)
        if facts:
            odd[row] = facts
    starts = [0, *accumulate(map(len, shards.splits.values()))]

    def facts_of(row: int) -> Facts:
        at = bisect_right(starts, row) - 1
        split, position = list(shards.splits.values())[at], row - starts[at]
        return summarize_frames(split.read([position])[0], name=split.key(position))

    return _compare_with_classes(summary, events, labels, odd, facts_of=facts_of)


def _summarize_samples(shards: ShardSet) -> Iterator[tuple[float, int, Facts | None]]:
    """Yield of every sample the number of events and the class, and the facts of one with anomalies of its own."""
    for split in shards.splits.values():
        step = max(1, CHUNK_BYTES // (math.prod(split.shape) * split.dtype.itemsize))
        for start in range(0, len(split), step):
            positions = range(start, min(start + step, len(split)))
            samples = split.read(positions)
            events, odd = screen(samples)
            for at, position in enumerate(positions):
                facts = summarize_frames(samples[at], name=split.key(position)) if odd[at] else None
                yield float(events[at]), int(split.labels[position]), facts


def _compare_with_classes(
    summary: SetSummary,
    counts: Sequence[float],
    labels: Sequence[int],
    odd: Mapping[int, Facts],
    *,
    facts_of: Callable[[int], Facts],
) -> SetSummary:
    """Fill in what depends on all recordings together: their numbers of events and classes, by row.

    `odd` are those with anomalies of their own; `facts_of` returns the facts of any.
    """
    summary.inspected = len(counts) + len(summary.unreadable)
    if len(counts):
        row, median = find_furthest_count(counts, labels)
        summary.furthest = facts_of(row).name
        summary.how_far = f"{counts[row]:,.6g} events where the median is {median:,.6g}"
        summary.events = (min(counts), float(np.median(counts)), max(counts))
        unusual = find_unusual_counts(counts, labels)
        more = {row: odd[row] if row in odd else facts_of(row) for row in unusual}
        named = {row: replace(facts, anomalies=(*facts.anomalies, unusual[row])) for row, facts in more.items()}
        summary.odd = sorted(
            {**odd, **named}.values(), key=lambda facts: (-len(facts.anomalies), facts.events, facts.name)
        )
    return summary
