"""A raw data set or a shard set at a glance: classes, counts, splits, and the recordings that stand out, worst first.

Axes: n samples, T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.datasets.pairs import Listing, PairReader, Recording
from spikebridge.pipeline.events.arrays import check_events
from spikebridge.pipeline.formats.recording import FORMATS
from spikebridge.pipeline.inspection.facts import (
    Facts,
    facts_of_events,
    facts_of_frames,
    furthest_count,
    unusual_counts,
)
from spikebridge.pipeline.inspection.views import LARGEST_SENSOR
from spikebridge.pipeline.readers import all_readers, get_reader
from spikebridge.pipeline.shards.reader import ShardSet

CHUNK = 256
"""Samples in memory at a time."""
ORDER = ("pool", "train", "validation", "test")
"""Of roles, splits and subsets, for people; others follow by name."""
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass
class SetFacts:
    """What a set holds and which of its recordings look wrong.

    Args:
        kind: `raw data set` or `shard set`.
        name: data set.
        about: one line each, for people: ID, settings, pairing, notes.
        classes: per class its name and the samples of each split or subset.
        looked: recordings that were looked into; a raw set that is larger than asked for is sampled evenly.
        of: recordings in the set.
        events: smallest, median and largest number of events.
        odd: those with complaints, worst first: most complaints, then fewest events.
        unreadable: name and message of recordings that cannot be used.
        simulated: whether the recordings are simulated.
        furthest: name of the recording whose number of events is furthest from its class's median; empty without.
        how_far: its number of events and that median, for people.
    """

    kind: str
    name: str
    about: list[str]
    classes: list[dict[str, Any]]
    looked: int = 0
    of: int = 0
    events: tuple[float, float, float] | None = None
    odd: list[Facts] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    simulated: bool = False
    furthest: str = ""
    how_far: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "odd": [facts.as_dict() for facts in self.odd], "worst": self.worst[0]}

    @property
    def worst(self) -> tuple[str, str]:
        """The recording to look at first, and why; empty where none can be used.

        The first of those that look wrong, or the one furthest from its class.
        """
        if self.odd:
            return self.odd[0].name, "; ".join(self.odd[0].complaints)
        return self.furthest, self.how_far


def find_pair(events_root: Path, static_root: Path) -> tuple[PairReader, Listing]:
    """The reader whose layout a raw folder has; `folders`, which takes nearly anything, only when no other fits.

    Where none does and there are recordings, as in a set without its images, these are shown alone.

    Raises:
        LayoutError: several fit, or none and there are no recordings.
    """
    fitting: list[tuple[PairReader, Listing]] = []
    for reader in all_readers():
        try:
            fitting.append((reader, reader.list_pair(events_root, static_root)))
        except LayoutError:
            continue
    special = [pair for pair in fitting if pair[0].name != "folders"] or fitting
    if not special and (alone := recordings_alone(events_root)).recordings:
        return get_reader("folders"), alone
    if len(special) != 1:
        found = " and ".join(reader.name for reader, _ in special) or "none"
        raise LayoutError(
            f"{events_root}: which data set is this? Layouts that fit: {found}. Name it with --dataset, and its images "
            "with --static; `spikebridge datasets NAME` shows a layout."
        )
    return special[0]


def recordings_alone(root: Path) -> Listing:
    """Every recording below a folder; its class is the folder that holds it."""
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in FORMATS and not path.name.startswith("."))
    classes = tuple(sorted({path.parent.name for path in paths}))
    names = [str(path.relative_to(root).with_suffix("")) for path in paths]
    recordings = tuple(
        Recording(name, path, classes.index(path.parent.name), None, path.stem, None)
        for name, path in zip(names, paths, strict=True)
    )
    note = "no layout of a known data set with its images fits: recordings alone, the class being their folder"
    return Listing(classes, recordings, (), LARGEST_SENSOR, pairing="none", notes=(note,))


def in_order(names: Iterable[str]) -> list[str]:
    """Names of splits, subsets or roles as people expect them: what training uses first."""
    rank = {name: row for row, name in enumerate(ORDER)}
    return sorted(names, key=lambda name: (rank.get(name.lower(), len(rank)), name))


def facts_of_raw(reader: PairReader, listing: Listing, *, limit: int, time_bins: int, progress: Progress) -> SetFacts:
    """Look into at most `limit` recordings of a raw data set, spread evenly over it."""
    recordings = listing.recordings
    rows = np.unique(np.linspace(0, len(recordings) - 1, min(limit, len(recordings))).round().astype(int))
    subsets = in_order({r.subset or "recordings" for r in recordings})
    counts = Counter((r.label, r.subset or "recordings") for r in recordings)
    classes = [
        {"class": name, **{subset: counts[label, subset] for subset in subsets}}
        for label, name in enumerate(listing.classes)
    ]
    width, height = listing.sensor_size
    sensor = "unknown" if listing.sensor_size == LARGEST_SENSOR else f"{width}x{height} pixels"
    about = [
        f"sensor {sensor}, {len(listing.images):,} static images, pairs known: {listing.pairing}",
        *listing.notes,
    ]
    found = SetFacts("raw data set", reader.name, about, classes, of=len(recordings))
    seen: list[tuple[Facts, int]] = []
    for row in progress(rows, len(rows), "recordings"):
        recording: Recording = recordings[row]
        try:
            events = reader.read_events(recording)
            check_events(events, sensor_size=listing.sensor_size, source=recording.name)
        except RecordingError as error:
            found.unreadable.append((recording.name, str(error)))
            continue
        seen.append((facts_of_events(events, name=recording.name, time_bins=time_bins), recording.label))
    return _judge(found, seen)


def facts_of_shards(shards: ShardSet, *, progress: Progress) -> SetFacts:
    """Look into every sample of a shard set.

    Raises:
        ShardSetError: a sample is damaged.
    """
    settings, manifest = shards.settings, shards.manifest
    splits = in_order(manifest["splits"])
    classes = [
        {"class": name, **{split: manifest["splits"][split]["per_class"][label] for split in splits}}
        for label, name in enumerate(shards.classes)
    ]
    counts = manifest["static"]["roles"]
    roles = ", ".join(f"{counts[role]:,} {role}" for role in in_order(counts) if counts[role]) or "none"
    about = [
        f"ID {shards.id}",
        f"samples {list(shards.sample_shape)} {shards.dtype.name}, "
        f"{settings['reduction']} over the {settings['extent']}",
        f"static images: {roles}; pairs known: {manifest['pairing']['kind']}, protocol "
        + ("LEAKY" if settings["protocol"] == "leaky" else settings["protocol"]),
        *manifest.get("notes", []),
    ]
    total = sum(len(split) for split in shards.splits.values())
    found = SetFacts("shard set", manifest["dataset"], about, classes, of=total, simulated=shards.simulated)
    return _judge(found, list(progress(_samples(shards), total, "samples")))


def _samples(shards: ShardSet) -> Iterator[tuple[Facts, int]]:
    for split in shards.splits.values():
        for start in range(0, len(split), CHUNK):
            positions = range(start, min(start + CHUNK, len(split)))
            for position, frames in zip(positions, split.read(positions), strict=True):
                yield facts_of_frames(frames, name=split.keys[position]), int(split.labels[position])


def _judge(found: SetFacts, seen: Sequence[tuple[Facts, int]]) -> SetFacts:
    """Fill in what depends on all recordings together."""
    found.looked = len(seen) + len(found.unreadable)
    if seen:
        counts = [facts.events for facts, _ in seen]
        labels = [label for _, label in seen]
        row, median = furthest_count(counts, labels)
        found.furthest = seen[row][0].name
        found.how_far = f"{counts[row]:,.6g} events where the median is {median:,.6g}"
        found.events = (min(counts), float(np.median(counts)), max(counts))
        unusual = unusual_counts(counts, labels)
        every = [
            replace(facts, complaints=(*facts.complaints, phrase)) if phrase else facts
            for (facts, _), phrase in zip(seen, unusual, strict=True)
        ]
        odd = [facts for facts in every if facts.complaints]
        found.odd = sorted(odd, key=lambda facts: (-len(facts.complaints), facts.events, facts.name))
    return found
