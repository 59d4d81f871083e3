"""Splits of the recordings, and the roles of the static images beside them.

Every choice is a rank by a hash of (seed, purpose, class, name): it does not depend on the order of a listing, and a
recording that is added or removed moves no more than the others' ranks. Recordings of a group (a subject, a source
video, a session) are drawn together: no split parts them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError, shorten
from spikebridge.pipeline.datasets.pairs import UNUSED, Listing, Recording, StaticImage
from spikebridge.pipeline.datasets.tables import read_csv, refuse_lines
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.static_pool import DUPLICATE, POOL

TEST_SHARE = 0.2
"""Share of a class that is tested where the data set has no official test subset."""
VALIDATION_SHARE = 0.1
"""Share of a class's training recordings that is carved out for choosing the checkpoint."""
CLASS_SIZE_FOR_VALIDATION = 3
"""A class with at least this many training recordings gives at least one of them to the validation split."""
FEWEST_GROUPS = {"test": 2, "validation": 3}
"""With at least so many groups, one of them is drawn even where it is far larger than the share."""


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
    of the training recordings of each class validate, at least one where the class has three, unless the data set has
    an official validation subset.
    `legacy`: the official subsets, or those of `PairReader.apply_published_split`, without a validation split (the
    published code chooses its checkpoint on the test set). A recording of the subset `unused` gets no split.
    `leaky`: as `strict`.

    Groups are drawn whole, in the order of their ranks, each where it brings the classes closer to these numbers.
    """
    used = [r for r in recordings if r.subset != UNUSED]
    validation = {r.name for r in used if r.subset == "validation"}
    tested = {r.name for r in used if r.subset == "test"}
    with_tested = {r.group for r in used if r.group and r.subset == "test"}
    tested |= {r.name for r in used if r.subset is None and r.group in with_tested}
    drawable = [r for r in used if r.subset is None and r.name not in tested]
    tested |= _draw_groups(drawable, lambda count: round(TEST_SHARE * count), seed, "test")
    training = [r for r in used if r.name not in tested]
    drawn = _draw_groups(training, _validation_count, seed, "validation") if protocol != "legacy" else set()
    validating, names = validation or drawn, (r.name for r in used)
    return {name: "test" if name in tested else "validation" if name in validating else "train" for name in names}


def _validation_count(training: int) -> int:
    """Return how many of the training recordings of a class validate."""
    count = round(VALIDATION_SHARE * training)
    return max(1, count) if training >= CLASS_SIZE_FOR_VALIDATION else count


def _draw_groups(recordings: Sequence[Recording], share: Callable[[int], int], seed: int, purpose: str) -> set[str]:
    """Draw recordings, those of a group together; `share` returns the number for a class of so many."""
    missing = {label: share(count) for label, count in Counter(r.label for r in recordings).items()}
    groups: dict[bytes, list[Recording]] = defaultdict(list)
    for recording in recordings:
        names = ("group", "", recording.group) if recording.group else (str(recording.label), recording.name)
        groups[rank(seed, purpose, *names)].append(recording)

    def gain(members: list[Recording]) -> int:
        """Return by how many recordings the classes come closer to their shares."""
        counts = Counter(r.label for r in members)
        return sum(abs(missing[label]) - abs(missing[label] - count) for label, count in counts.items())

    drawn: set[str] = set()
    for _, members in sorted(groups.items()):
        if gain(members) > 0:
            drawn |= {r.name for r in members}
            for r in members:
                missing[r.label] -= 1
    if not drawn and any(missing.values()) and len(groups) >= FEWEST_GROUPS[purpose]:
        drawn = {r.name for r in max((members for _, members in sorted(groups.items())), key=gain)}
    return drawn


def leave_out_shared_groups(listing: Listing) -> Listing:
    """Take recordings out of official subsets that share a group with a later one (train, validation, test); say so."""
    last: dict[str, int] = {}
    for recording in listing.recordings:
        if recording.group and recording.subset in SPLITS:
            last[recording.group] = max(last.get(recording.group, 0), SPLITS.index(recording.subset))
    shared = {
        r.name: r.group
        for r in listing.recordings
        if r.group and r.subset in SPLITS and SPLITS.index(r.subset) < last[r.group]
    }
    if not shared:
        return listing
    recordings = tuple(replace(r, subset=UNUSED) if r.name in shared else r for r in listing.recordings)
    groups = shorten(sorted(set(shared.values())))
    note = (
        f"{len(shared):,} recordings are not used: others of their groups ({groups}) are in the official test or "
        "validation subset, too"
    )
    return replace(listing, recordings=recordings, notes=(*listing.notes, note))


def parted_groups(recordings: Iterable[Recording], split: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the groups that lie in more than one split, and these splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        if recording.group and recording.name in split:
            splits[recording.group].add(split[recording.name])
    return {group: names for group, names in splits.items() if len(names) > 1}


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
    known, split, problems = {recording.name for recording in recordings}, dict[str, str](), list[str]()
    for line, row in enumerate(read_csv(path, ("recording", "split")), start=2):
        name, value = row["recording"] or "", row["split"] or ""
        if name not in known:
            problems.append(f"line {line}: no recording {name!r}")
        elif name in split:
            problems.append(f"line {line}: {name} is listed twice")
        elif value not in (*SPLITS, UNUSED):
            problems.append(f"line {line}: split {value!r}, expected {', '.join(SPLITS)} or unused")
        else:
            split[name] = value
    refuse_lines(path, problems)
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
    recordings, or of others of their group; `duplicate` are all others that share a fingerprint with a held-out one.
    `legacy`: every image of the training subset is in the pool, whatever recordings show it. `leaky`: every image is in
    the pool.

    Recordings without a split are not used. The fingerprints of an image are the hashes of its decoded full-size pixels
    and of the stored ones. `official` is
    off where a CSV of splits replaces the official subsets.
    """
    if protocol == "leaky":
        return dict.fromkeys((image.name for image in images), POOL)
    held_out_subsets = ("validation", "test") if official else ()
    roles = {i.name: i.subset if i.subset and i.subset in held_out_subsets else POOL for i in images}
    if protocol == "legacy":
        return roles
    recordings = list(recordings)
    of_group = {r.group: split[r.name] for r in recordings if r.group and split.get(r.name, "train") != "train"}
    split_of = {r.name: split.get(r.name) or of_group.get(r.group, "train") for r in recordings}
    for recording in sorted(recordings, key=lambda r: split_of[r.name] == "test"):
        if recording.image in roles and split_of[recording.name] != "train":
            roles[recording.image] = split_of[recording.name]
    roles |= {i.name: of_group[i.group] for i in images if i.group in of_group and roles[i.name] == POOL}
    held_out = {digest for name, role in roles.items() if role != POOL for digest in fingerprints[name]}
    for name, role in roles.items():
        if role == POOL and not held_out.isdisjoint(fingerprints[name]):
            roles[name] = DUPLICATE
    return roles


def count_splits(split: Mapping[str, str]) -> dict[str, int]:
    """Count recordings per split, in the order train, validation, test."""
    counts = Counter(split.values())
    return {name: counts[name] for name in SPLITS}
