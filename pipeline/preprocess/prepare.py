"""What is to be converted: the raw data as found, the settings, and who is in which split."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError
from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.datasets.cuts import cut_recordings
from spikebridge.pipeline.datasets.endings import RECORDINGS, count_passed_over, describe_passed_over
from spikebridge.pipeline.datasets.matched import apply_pairs
from spikebridge.pipeline.datasets.pairs import (
    UNUSED,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    find_simulation_note,
)
from spikebridge.pipeline.datasets.published import PUBLISHED, assign_published
from spikebridge.pipeline.datasets.sensor import describe, settle_sensor
from spikebridge.pipeline.datasets.splits import (
    assign_splits,
    count_splits,
    leave_out_shared_groups,
    parted_groups,
    read_splits,
    select,
)
from spikebridge.pipeline.datasets.tables import FolderOptions
from spikebridge.pipeline.images.colour import ENCODING_CHANNELS
from spikebridge.pipeline.preprocess.tasks import Attempt, Job, Reject, name_first, reject, try_image, try_recording
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.readers.folders import BESIDE, Folders
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.writer import EVENTS

TRIED = 8
"""Recordings and images that are converted to guess how long all will take, besides the first of each class."""
LONGEST_TRIAL_S = 60.0
Item = TypeVar("Item", Recording, StaticImage)
UNMEASURED = "not stated by all recordings: will be measured; --sensor WxH states it"


@dataclass(frozen=True)
class Conversion:
    """Everything that decides a conversion: the raw data as found, and the settings."""

    settings: ConversionSettings
    reader: PairReader
    listing: Listing
    """Recordings and images, already cut down to the wanted classes and number."""
    rejects: tuple[Reject, ...]
    """Recordings whose static image is missing."""
    split: Mapping[str, str]
    """Split by recording name; recordings that are not in it are not used."""
    simulated: bool
    image_bits: int = 0
    """Bits of the pixels of static images of more than 8; 0 before they are looked at, and where there are none."""
    sensor_size: tuple[int, int] | None = None
    """(W, H) in pixels of the sensor; None until the recordings are measured, which do not state it."""
    notes: tuple[str, ...] = ()
    """One line each on what is missing or assumed, for the manifest."""
    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Files that are neither recordings nor images, by side (`events`, `static`) and ending."""

    @property
    def used(self) -> list[Recording]:
        """Return the recordings that will be converted."""
        return [r for r in self.listing.recordings if r.name in self.split]

    def lost(self, undecodable_images: Collection[str]) -> dict[str, str]:
        """Return the recordings whose static image is one of these, and that image."""
        return {r.name: r.image for r in self.used if r.image is not None and r.image in undecodable_images}

    @property
    def own_images(self) -> bool:
        """Return whether the static images are the user's, of any camera."""
        return isinstance(self.reader, Folders)

    @property
    def sensor_source(self) -> str:
        """Return where the sensor's size comes from, in words."""
        if self.settings.sensor:
            return "given with --sensor"
        if self.listing.sensor_size:
            return "stated by their folder, or by all recordings" if self.own_images else f"known of {self.reader.name}"
        return "the commonest of several" if any(r.sensor_size for r in self.used) else "by what recordings reach"

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Return what a conversion that continues or repeats another must share with it.

        A dtype that the recordings decide is not in it before they have.
        """
        settings = self.settings.as_dict()
        if self.settings.dtype_open:
            del settings["dtype"]
        return {"settings": settings, "listing_sha256": self.listing.sha256()}

    def settled(self, found: dict[str, Any]) -> Conversion:
        """Return the conversion with what an earlier run decided; `found` are the settings of its fingerprint."""
        if not self.settings.dtype_open or "dtype" not in found:
            return self
        return replace(self, settings=replace(self.settings, dtype=found["dtype"], dtype_open=False))

    def report(self) -> Iterator[str]:
        """Yield lines for a person: what was found, what a whole data set holds, what is missing."""
        yield from self.missing()
        yield from self.notes
        if self.rejects:
            chance = (
                "; where names agree by chance alone, use --pairing class" if self.settings.dataset == "folders" else ""
            )
            yield f"{len(self.rejects)} recordings have no static image{chance}"

    def missing(self) -> list[str]:
        """Return what the whole data set holds and was not found, one phrase each."""
        counts = Counter(r.subset or "unsplit" for r in self.listing.recordings)
        counts["unsplit"] = len(self.listing.recordings)  # without official subsets: a published split is not one
        return [
            f"found {counts[subset]:,} of {expected:,} {subset} recordings"
            for subset, expected in self.reader.card.expected.items()
            if counts[subset] != expected
        ]

    def summary(self, *, workers: int) -> dict[str, Any]:
        """Return what would be made, and about how long that would take: for `--dry-run`."""
        settings = self.settings
        image_bytes = ENCODING_CHANNELS[settings.encoding] * math.prod(settings.frame)
        splits, trial = count_splits(self.split), self.try_some()
        sample_bytes = trial.beside_frames
        if settings.store != EVENTS:
            sample_bytes += settings.time_bins * 2 * math.prod(settings.frame) * np.dtype(settings.dtype).itemsize
        return {
            "dataset": settings.dataset,
            "simulated": self.simulated,
            "classes": len(self.listing.classes),
            "recordings": len(self.listing.recordings),
            "static_images": len(self.listing.images),
            "no_static_image": len(self.rejects),
            **splits,
            "shards": sum(len(settings.cut_into_shards(count)) for count in splits.values()),
            "output_bytes": round(sum(splits.values()) * sample_bytes) + len(self.listing.images) * image_bytes,
            "missing": self.missing(),
            "tried": {"recordings": trial.recordings, "images": trial.images},
            "unusable": list(trial.unusable),
            "sensor": f"{describe(self.sensor_size)}, {self.sensor_source}" if self.sensor_size else UNMEASURED,
            "passed_over": describe_passed_over(self.passed_over),
            "about_seconds": round(trial.seconds / workers, 1),
            "settings_hash": settings.sha256[:12],
        }

    def try_some(self) -> Trial:
        """Convert a recording and an image of every class now, storing nothing, and some more to see how long it takes.

        Of very many classes, as many as can be tried in `LONGEST_TRIAL_S`.
        """
        job = Job(Path(), self.settings, self.sensor_size, self.listing.shown_fraction, self.image_bits)
        recordings, images = self.used, self.listing.images
        parts = Counter(r.file for r in recordings if r.interval)  # decoded once a file
        tries: dict[str, list[tuple[str, int, Callable[[], Attempt]]]] = {
            "recordings": [
                (r.name, parts[r.file], partial(try_recording, job, r)) for r in _some_of_each_class(recordings)
            ],
            "images": [(image.name, 1, partial(try_image, job, image)) for image in _some_of_each_class(images)],
        }
        counts, unusable, seconds, sizes = dict[str, int](), list[str](), 0.0, list[int]()
        began = time.perf_counter()
        for what, whole in (("recordings", len(recordings)), ("images", len(images))):
            times = list[float]()
            for name, together, attempt in tries[what]:
                started = time.perf_counter()
                if times and started - began > LONGEST_TRIAL_S:
                    break
                done, error, beside_frames = attempt()
                sizes += beside_frames
                times.append((time.perf_counter() - started) / max(done, together))
                unusable += [name_first(name, str(error))] if error else []
            counts[what] = len(times)
            # The first one also loads and compiles; storing takes about as long as half of the rest.
            seconds += 1.5 * float(np.median(times[1:] or times)) * whole if times else 0.0
        return Trial(
            counts["recordings"], counts["images"], tuple(unusable), seconds, float(np.mean(sizes)) if sizes else 0.0
        )


@dataclass(frozen=True)
class Trial:
    """What converting a few recordings and images showed."""

    recordings: int
    """How many were tried."""
    images: int
    unusable: tuple[str, ...]
    """What is wrong with those that cannot be used, one message each."""
    seconds: float
    """Estimate of the work of one process for the whole set."""
    beside_frames: float
    """Mean bytes of a recording's compact events and picture; 0 where neither is stored."""


def _some_of_each_class(items: Sequence[Item]) -> list[Item]:
    """Return the first item of every class, and a few that are spread evenly, in their order."""
    first: dict[int, int] = {}
    for row, item in enumerate(items):
        first.setdefault(item.label, row)
    spread: list[int] = np.linspace(0, len(items) - 1, min(len(items), TRIED + 1)).round().astype(int).tolist()
    return [items[row] for row in sorted({*first.values(), *spread})]


def prepare(
    settings: ConversionSettings,
    *,
    events_root: Path,
    static_root: Path,
    splits: Path | None = None,
    labels: Path | None = None,
    class_map: Path | None = None,
    pairs: Path | None = None,
) -> Conversion:
    """List the raw folders and decide who is in which split; decodes nothing, but recordings that are cut.

    `splits` is a CSV that replaces the splits, see `pipeline.datasets.splits.read_splits`; `labels` and `class_map` are
    those of `pipeline.datasets.tables.FolderOptions`; `pairs` names the static images, see `apply_pairs`.

    Raises:
        LayoutError: a folder does not hold what it should.
        SettingsError: an unknown data set or class, a bad CSV, or one that parts a group.
    """
    options = FolderOptions(labels, class_map, settings.group_by, settings.pairing)
    reader = get_reader(settings.dataset, folders=options, **settings.table_options)
    listing = reader.list_pair(events_root.absolute(), static_root.absolute())  # tasks run in other folders, too
    if pairs is not None:
        if settings.pairing:
            raise SettingsError(f"a table of pairs, and pairing {settings.pairing}: expected one of them.")
        listing = apply_pairs(listing, pairs)
    if settings.published:
        listing, settings = _apply_published(listing, settings, splits)
    elif settings.protocol == "legacy" and splits is None:
        listing = reader.apply_published_split(listing, seed=settings.seed)
    whole = listing
    listing = select(listing, classes=settings.classes, limit=settings.limit)
    if settings.protocol != "legacy" and splits is None:
        listing = leave_out_shared_groups(listing)
    tables = {"splits_sha256": splits, "labels_sha256": labels, "class_map_sha256": class_map, "pairs_sha256": pairs}
    hashes: dict[str, Any] = {name: sha256_file(path) for name, path in tables.items() if path is not None}
    settings = replace(settings, **hashes)
    passed_over = (
        _count_passed_over(whole, (labels, class_map, splits, pairs), labelled=labels is not None)
        if isinstance(reader, Folders)
        else {}
    )
    images = {image.name for image in listing.images}
    candidates = [r for r in listing.recordings if r.subset != UNUSED]
    orphans = [r for r in candidates if r.image is not None and r.image not in images]
    lost = {r.name for r in orphans}
    usable = [r for r in listing.recordings if r.name not in lost]
    listing = settle_sensor(listing, settings, own_recordings=isinstance(reader, Folders))
    if splits is None:
        split = assign_splits(usable, seed=settings.seed, protocol=settings.protocol)
    else:
        listed = read_splits(splits, listing.recordings)
        orphans = [r for r in orphans if r.name in listed]
        split = {name: part for name, part in listed.items() if name not in lost}
        if settings.protocol != "legacy" and (parted := parted_groups(listing.recordings, split)):
            group, names = min(parted.items())
            raise SettingsError(
                f"{splits}: {len(parted)} group(s) lie in more than one split; the first is {group}, in "
                f"{' and '.join(sorted(names))}. Put each into one, or use --protocol legacy where a published list "
                "does so."
            )
    if settings.cut_us or settings.pauses_us:
        listing, split = cut_recordings(listing, split, settings, reader)
    if groups := {r.group for r in listing.recordings if r.group and r.name in split}:
        parted = parted_groups(listing.recordings, split)
        how = f"{len(parted):,} lie in more than one split" if parted else "no split parts one"
        used = [r for r in listing.recordings if r.name in split]
        if splits is None and len(used) > 1 and len({r.group for r in used}) == 1 and not any(r.subset for r in used):
            raise LayoutError(
                f"all {len(used):,} recordings are of one group ({show(min(groups))}), which no split may part, so "
                f"that nothing could be tested; groups are {reader.card.groups or 'as given'}."
            )
        note = f"{len(groups):,} groups of recordings ({reader.card.groups or 'as given'}); {how}"
        listing = replace(listing, notes=(*listing.notes, note))
    if not split:
        raise LayoutError(
            f"none of the {len(listing.recordings)} recordings below {events_root} has an image below {static_root}; "
            f"expected {reader.card.static_layout}. Is this the static side of the same data set?"
        )
    below = Path(os.path.relpath(listing.recordings[0].path, events_root)).parents
    simulated = reader.card.simulated or any(find_simulation_note(events_root / folder) for folder in below)
    rejects = tuple(reject("recording", r.name, no_static_image(r.name, f"expected image {r.image}")) for r in orphans)
    return Conversion(
        settings,
        reader,
        listing,
        rejects,
        split,
        simulated,
        image_bits=settings.image_bits,
        sensor_size=listing.sensor_size,
        notes=listing.notes,
        passed_over=passed_over,
    )


def _apply_published(
    listing: Listing, settings: ConversionSettings, splits: Path | None
) -> tuple[Listing, ConversionSettings]:
    """Give the recordings the subsets of a published split, and the settings the hash of its list.

    Raises:
        SettingsError: there is a CSV of splits, too, or see `pipeline.datasets.published.assign_published`.
    """
    if splits is not None:
        raise SettingsError(f"published split {settings.published} and {splits}: expected one of them.")
    split, sha256 = assign_published(settings.published, listing, dataset=settings.dataset, seed=settings.seed)
    recordings = tuple(replace(r, subset=split.get(r.name, UNUSED)) for r in listing.recordings)
    note = f"split {settings.published}: {PUBLISHED[settings.published].rule}"
    listing = replace(listing, recordings=recordings, notes=(*listing.notes, note))
    return listing, replace(settings, splits_sha256=sha256)


def _count_passed_over(
    listing: Listing, tables: Collection[Path | None], *, labelled: bool
) -> dict[str, dict[str, int]]:
    """Count the files in class folders that are neither recordings nor images nor tables, by side and ending.

    Recordings without a row in a table of labels are not among them: a note says how many there are.
    """
    counts = count_passed_over(listing.files, but=[str(path.absolute()) for path in tables if path], names=BESIDE)
    if labelled and "events" in counts:
        counts["events"] = {ending: n for ending, n in counts["events"].items() if ending not in RECORDINGS}
    return counts


def no_static_image(name: str, detail: str) -> RecordingError:
    """Return the error of a recording whose static image is not there."""
    return RecordingError(f"{name}: no static image ({detail}).", reason="no_static_image")
