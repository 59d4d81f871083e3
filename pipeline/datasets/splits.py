"""Splits of the recordings, and the roles of the static images beside them.

Every choice is a rank by a hash of (seed, purpose, class, name): it does not depend on the order of a listing, and a
recording that is added or removed moves no more than the others' ranks.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError, shorten
from spikebridge.pipeline.datasets.pairs import Listing, Recording, StaticImage
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.static_pool import DUPLICATE, POOL

UNUSED = "unused"
"""Subset of the recordings that a published split leaves out."""
TEST_SHARE = 0.2
"""Share of a class that is tested where the data set has no official test subset."""
VALIDATION_SHARE = 0.1
"""Share of a class's training recordings that is carved out for choosing the checkpoint."""
CLASS_SIZE_FOR_VALIDATION = 3
"""A class with at least this many training recordings gives at least one of them to the validation split."""


def rank(seed: int, purpose: str, *names: str) -> bytes:
    """Return a hash that orders names at random, the same on every machine."""
    return hashlib.sha256("\0".join((str(seed), purpose, *names)).encode("utf-8", "surrogateescape")).digest()


def select(listing: Listing, *, classes: Sequence[str], limit: int) -> Listing:
    """Keep the named classes (labels renumbered) and at most `limit` recordings, taken class by class in turn.

    Raises:
        SettingsError: a class that the data set does not have.
    """
    if unknown := [name for name in classes if name not in listing.classes]:
        raise SettingsError(f"no class is called {shorten(unknown)}; known: {shorten(listing.classes)}.")
    recordings, images, names = listing.recordings, listing.images, listing.classes
    if classes:
        names = tuple(name for name in names if name in set(classes))
        new = {listing.classes.index(name): i for i, name in enumerate(names)}
        recordings = tuple(replace(r, label=new[r.label]) for r in recordings if r.label in new)
        images = tuple(replace(i, label=new[i.label]) for i in images if i.label in new)
    if limit:
        groups: dict[tuple[str, int], list[Recording]] = defaultdict(list)
        for recording in recordings:
            if recording.subset != UNUSED:
                groups[recording.subset or "", recording.label].append(recording)
        turns = sorted((turn, group, r.name) for group, rs in groups.items() for turn, r in enumerate(rs))
        kept = {name for _, _, name in turns[:limit]}
        recordings = tuple(r for r in recordings if r.name in kept)
    return replace(listing, classes=names, recordings=recordings, images=images)


def assign_splits(recordings: Iterable[Recording], *, seed: int, protocol: str) -> dict[str, str]:
    """Assign a split to every recording, by name.

    `strict`: the official test subset is kept, or round(.2 n) of each class is drawn where there is none; round(.1 n)
    of the training recordings of each class validate, at least one where the class has three.
    `legacy`: the official subsets, or those of `PairReader.apply_published_split`, without a validation split (the
    published code chooses its checkpoint on the test set). A recording of the subset `unused` gets no split.
    `leaky`: as `strict`.
    """
    by_class: dict[int, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.subset != UNUSED:
            by_class[recording.label].append(recording)
    split: dict[str, str] = {}
    for label, members in by_class.items():
        without_subset = [r.name for r in members if r.subset is None]
        tested = set(_draw(without_subset, round(TEST_SHARE * len(without_subset)), seed, "test", label))
        tested |= {r.name for r in members if r.subset == "test"}
        training = [r.name for r in members if r.name not in tested]
        count = round(VALIDATION_SHARE * len(training))
        if len(training) >= CLASS_SIZE_FOR_VALIDATION:
            count = max(1, count)
        validating = set(_draw(training, count, seed, "validation", label)) if protocol != "legacy" else set()
        for recording in members:
            name = recording.name
            split[name] = "test" if name in tested else "validation" if name in validating else "train"
    return split


def split_by_first_share(recordings: Iterable[Recording], share: float, *, seed: int) -> tuple[Recording, ...]:
    """Give recordings the published subsets "the first `share` of each class trains, the rest tests".

    The published code takes the first round(share * n), half to even, in the order in which the file system lists them.
    Differs: that order cannot be known, so a seeded permutation of each class stands for it.
    """
    recordings = tuple(recordings)
    by_class: dict[int, list[str]] = defaultdict(list)
    for recording in recordings:
        by_class[recording.label].append(recording.name)
    training = {
        name
        for label, names in by_class.items()
        for name in _draw(names, round(share * len(names)), seed, "published", label)
    }
    return tuple(replace(r, subset="train" if r.name in training else "test") for r in recordings)


def _draw(names: Sequence[str], count: int, seed: int, purpose: str, label: int) -> list[str]:
    return sorted(names, key=lambda name: rank(seed, purpose, str(label), name))[:count]


def read_splits(path: Path, recordings: Sequence[Recording]) -> dict[str, str]:
    """Read a CSV with the columns `recording` and `split` that replaces the rules above.

    `recording` is the path below the events root without the ending, `split` one of train, validation, test, unused.
    Recordings that the file does not list are not used.

    Raises:
        SettingsError: unreadable, other columns, an unknown recording or split, or a recording listed twice.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: cannot be read as a CSV file ({error}).") from error
    if not rows or {"recording", "split"} - set(rows[0]):
        raise SettingsError(f"{path}: expected a header with the columns recording and split, and at least one row.")
    known, split, problems = {recording.name for recording in recordings}, {}, []
    for line, row in enumerate(rows, start=2):
        name, value = row["recording"] or "", row["split"] or ""
        if name not in known:
            problems.append(f"line {line}: no recording {name!r}")
        elif name in split:
            problems.append(f"line {line}: {name} is listed twice")
        elif value not in (*SPLITS, UNUSED):
            problems.append(f"line {line}: split {value!r}, expected {', '.join(SPLITS)} or unused")
        else:
            split[name] = value
    if problems:
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise SettingsError(f"{path}:\n  " + "\n  ".join(problems[:5]) + more)
    return {name: value for name, value in split.items() if value != UNUSED}


def assign_image_roles(
    images: Sequence[StaticImage],
    fingerprints: Mapping[str, Collection[bytes]],
    *,
    recordings: Iterable[Recording],
    split: Mapping[str, str],
    protocol: str,
    official: bool = True,
) -> dict[str, str]:
    """Assign a role to every image, by name: `pool`, `validation`, `test`, or `duplicate`.

    `strict`: held out are the images of the official test subset and the source images of validation and test
    recordings; `duplicate` are all others that share a fingerprint with a held-out one. `legacy`: every image of the
    training subset is in the pool, whatever recordings show it. `leaky`: every image is in the pool.

    The fingerprints of an image are the hashes of its decoded full-size pixels and of the stored ones. `official` is
    off where a CSV of splits replaces the official subsets.
    """
    if protocol == "leaky":
        return dict.fromkeys((image.name for image in images), POOL)
    roles = {image.name: "test" if official and image.subset == "test" else POOL for image in images}
    if protocol == "legacy":
        return roles
    for recording in sorted(recordings, key=lambda r: split[r.name] == "test"):
        if recording.image in roles and split[recording.name] != "train":
            roles[recording.image] = split[recording.name]
    held_out = {digest for name, role in roles.items() if role != POOL for digest in fingerprints[name]}
    for name, role in roles.items():
        if role == POOL and not held_out.isdisjoint(fingerprints[name]):
            roles[name] = DUPLICATE
    return roles


def count_splits(split: Mapping[str, str]) -> dict[str, int]:
    """Count recordings per split, in the order train, validation, test."""
    counts = Counter(split.values())
    return {name: counts[name] for name in SPLITS}
