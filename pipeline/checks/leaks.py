"""What the files of a shard set say of each other: counts, static images, and leaks between the splits.

Axes: n samples, N static images.
Kept in columns: some 100 bytes a sample or image, no pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.checks.samples import SampleMetadata, index_groups
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import DUPLICATE, POOL, ROLES, STATIC_FILE, StaticImages, read_static


class Recordings(NamedTuple):
    """Columns over samples."""

    splits: NDArray[np.int8]
    """[n] position in `SPLITS`."""
    labels: NDArray[np.int32]
    """[n]."""
    keys: NDArray[np.bytes_]
    """[n]."""
    static: NDArray[np.bytes_]
    """[n] key of the static image, empty where there is none."""
    events_sha256: NDArray[np.uint8]
    """[n,32]."""
    groups: NDArray[np.bytes_]
    """[n] subject, source video or session, empty for a group of its own."""

    @classmethod
    def of_shard(cls, split: str, index: NDArray[Any], metadata: SampleMetadata) -> Recordings:
        """Return the samples of one shard."""
        splits = np.full(len(index), SPLITS.index(split), np.int8)
        labels, keys, groups = index["label"].astype(np.int32), index["key"].copy(), index_groups(index).copy()
        return cls(splits, labels, keys, metadata.static, metadata.events_sha256, groups)

    @classmethod
    def join(cls, shards: Iterable[Recordings]) -> Recordings:
        """Return the samples of all shards; empty columns without any."""
        text, digests = np.empty(0, "S1"), np.empty((0, 32), np.uint8)
        empty = (np.empty(0, np.int8), np.empty(0, np.int32), text, text, digests, text)
        return cls(*map(np.concatenate, zip(empty, *shards, strict=True)))


class StaticContent(NamedTuple):
    """The static images of a set, and the hashes by which equal ones are found."""

    static: StaticImages
    """The images, which stay in their file."""
    stored_crc32: NDArray[np.uint32]
    """[N] checksums of the pixels as stored: images that differ here are not equal."""

    @classmethod
    def read(cls, path: Path) -> StaticContent:
        """Read and hash every image of a file.

        Raises:
            ShardSetError: as `pipeline.shards.static_pool.read_static`.
        """
        static = read_static(path, resident=False)
        checksums = (crc32(image) for block in static.images.blocks() for image in block)
        return cls(static, np.fromiter(checksums, np.uint32, len(static)))


def check_static(shards: ShardSet, static: StaticImages) -> Iterator[str]:
    """Compare the static images with the manifest, and check their order."""
    summary = shards.manifest["static"]
    roles = _roles(static)
    counts = dict(zip(ROLES, np.bincount(roles, minlength=len(ROLES)).tolist(), strict=True))
    if (
        len(static) != summary["images"]
        or counts != summary["roles"]
        or list(static.images.shape[1:]) != summary["shape"]
    ):
        yield f"{STATIC_FILE}: holds {counts} of shape {static.images.shape[1:]}, the manifest says {summary}"
    pool_labels = static.labels[: counts[POOL]]
    offsets = np.searchsorted(pool_labels, np.arange(len(shards.classes) + 1))
    ordered: Any = True
    columns: tuple[NDArray[Any], ...] = (_keys(static), static.labels, roles)
    for column in columns:  # the last decides first
        ordered = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & ordered)
    if not np.all(ordered) or not np.array_equal(static.class_offsets, offsets):
        yield f"{STATIC_FILE}: rows are not in the order (role, label, key), or class offsets are wrong"
    if len(set(static.keys)) != len(static):
        yield f"{STATIC_FILE}: a key stands there twice"


def check_counts(shards: ShardSet, recordings: Recordings) -> Iterator[str]:
    """Compare the samples per split and class with the manifest; name keys that are not unique."""
    splits, labels, keys = recordings.splits, recordings.labels, recordings.keys
    for number, name in enumerate(SPLITS):
        counts = np.bincount(labels[splits == number], minlength=len(shards.classes)).tolist()
        summary = shards.manifest["splits"][name]
        if name in shards.present and (counts != summary["per_class"] or sum(counts) != summary["samples"]):
            yield f"split {name}: {counts} samples per class found, the manifest says {summary['per_class']}"
    if len({key.lower() for key in keys.tolist()}) != len(keys):
        yield "a sample key stands in the set twice, or twice but for its case"


def leak_notes(shards: ShardSet, static: StaticImages, leaked: int) -> Iterator[str]:
    """Return what is worth knowing about leaks that are no problem, or cannot be found."""
    if shards.settings["protocol"] == "legacy":
        yield f"protocol legacy: {leaked} leak(s) between the splits, which are part of the published protocol"
    if shards.settings["protocol"] == "leaky":
        yield f"protocol LEAKY: {leaked} static image(s) leak, on purpose; no accuracy of this set is a result"
    if shards.manifest["pairing"]["kind"] != "exact":
        yield (
            "pairs are known by class only: which static image a recording shows is not known, so no check can prove "
            "the absence of leaks"
        )
    if copies := static.roles.count(DUPLICATE):
        yield f"{copies} image(s) equal a held-out static image and were kept out of the pool"


def recording_leaks(recordings: Recordings) -> Iterator[str]:
    """Yield recordings in two splits."""
    keys = recordings.keys
    for one, other in _equal_recordings(recordings.events_sha256, recordings.splits):
        yield f"{keys[one].decode()} and {keys[other].decode()} are one recording in two splits"


def group_leaks(recordings: Recordings) -> Iterator[str]:
    """Yield groups (subjects, source videos, sessions) with recordings in two splits."""
    grouped = np.flatnonzero(recordings.groups != b"")
    groups, numbers = np.unique(recordings.groups[grouped], return_inverse=True)
    present = np.zeros((len(groups), len(SPLITS)), bool)
    present[numbers, recordings.splits[grouped]] = True
    for number in np.flatnonzero(present.sum(axis=1) > 1):
        splits = " and ".join(name for name, there in zip(SPLITS, present[number], strict=True) if there)
        yield f"group {groups[number].decode('ascii', 'backslashreplace')} has recordings in {splits}"


def static_leaks(recordings: Recordings, static_content: StaticContent) -> Iterator[str]:
    """Yield held-out static images in the pool or behind a training recording."""
    static = static_content.static
    keys, splits = recordings.keys, recordings.splits
    names, rows = recordings.static, _rows_of(recordings.static, static)
    for i in np.flatnonzero(rows == UNKNOWN):
        yield f"{keys[i].decode()} names the static image {show(names[i].decode())}, which is not in {STATIC_FILE}"
    roles = _roles(static)
    pool, held = roles == ROLES.index(POOL), (roles != ROLES.index(POOL)) & (roles != ROLES.index(DUPLICATE))
    shown_held_out = np.unique(rows[(rows >= 0) & (splits != 0)])
    for row in shown_held_out[pool[shown_held_out]]:
        yield f"{show(static.keys[row])}, the static image of a held-out recording, is in the static pool"
    held[shown_held_out] = True
    training = np.flatnonzero((splits == 0) & (rows >= 0))
    for i in training[held[rows[training]]]:
        key, role = static.keys[rows[i]], static.roles[rows[i]]
        yield f"training recording {keys[i].decode()} shows {show(key)}, a held-out static image (role {role})"
    yield from _twins(static_content, held, pool & ~held)


def find_leaks(recordings: Recordings, static_content: StaticContent) -> tuple[list[str], list[str]]:
    """Return recordings and groups in two splits, and held-out static images that training sees; one line each."""
    copies = [*recording_leaks(recordings), *group_leaks(recordings)]
    return copies, list(static_leaks(recordings, static_content))


def forbidden_leaks(protocol: str, copies: list[str], shown: list[str]) -> list[str]:
    """Return which of the two lists of `find_leaks` a protocol forbids."""
    return {"strict": copies + shown, "leaky": copies, "legacy": []}[protocol]


UNKNOWN, NONE = -1, -2


def _roles(static: StaticImages) -> NDArray[np.int8]:
    """Return the position [N] of each image's role in `ROLES`."""
    numbers = {role: number for number, role in enumerate(ROLES)}
    return np.fromiter(map(numbers.__getitem__, static.roles), np.int8, len(static))


def _keys(static: StaticImages) -> NDArray[np.bytes_]:
    return np.array([key.encode() for key in static.keys], np.bytes_)


def _equal_recordings(digests: NDArray[np.uint8], splits: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Return samples with the events of an earlier one of another split, and that one."""
    words = np.ascontiguousarray(digests).view("<u8")  # [n,4]
    by_first = np.argsort(words[:, 0], kind="stable")
    again = np.flatnonzero(words[by_first[1:], 0] == words[by_first[:-1], 0])
    alike = np.union1d(by_first[again], by_first[again + 1])  # [m], few or none
    order = alike[np.lexsort(words[alike].T)]
    new = np.ones(len(order), bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))] if len(order) else order
    for one, other in zip(first.tolist(), order.tolist(), strict=True):
        if splits[one] != splits[other]:
            yield one, other


def _rows_of(names: NDArray[np.bytes_], static: StaticImages) -> NDArray[np.int64]:
    """Return the row of every static image by its key, `UNKNOWN` or `NONE`."""
    row_of = {key: row for row, key in enumerate(static.keys)} | {"": NONE}
    rows = (row_of.get(name.decode("ascii", "backslashreplace"), UNKNOWN) for name in names.tolist())
    return np.fromiter(rows, np.int64, len(names))


def _twins(static_content: StaticContent, held: NDArray[np.bool_], pool: NDArray[np.bool_]) -> Iterator[str]:
    """Return images of the pool that equal a held-out one, full size or as stored."""
    static, stored = static_content
    held_rows = np.flatnonzero(held)
    full = np.ascontiguousarray(static.pixels_sha256)
    begins = full.view("<u8")[:, 0]  # [N]; whole hashes and images are compared where these or checksums are equal
    suspects = pool & (np.isin(begins, begins[held_rows]) | np.isin(stored, stored[held_rows]))
    for i in np.flatnonzero(suspects).tolist():
        image = static.images[i]
        for twin in held_rows[(begins[held_rows] == begins[i]) | (stored[held_rows] == stored[i])].tolist():
            one, other = show(static.keys[i]), show(static.keys[twin])
            if np.array_equal(full[i], full[twin]):
                yield f"{one} in the static pool has the pixels of {other}, a held-out static image"
                break
            if np.array_equal(image, static.images[twin]):
                yield f"{one} in the static pool is stored with the same pixels as {other}, a held-out static image"
                break
