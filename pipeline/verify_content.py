"""What the files of a shard set say of each other: counts, static images, and leaks between the splits.

Axes: n samples, N static images.
Kept in columns: some 100 bytes a sample or image, no picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.shardset import ShardSet
from pipeline.splits import SPLITS
from pipeline.static_pool import DUPLICATE, POOL, ROLES, STATIC_FILE, StaticImages
from pipeline.verify_shards import Facts


class Recordings:
    """Columns over all samples of a shard set, filled shard by shard."""

    def __init__(self) -> None:
        self._splits = [np.empty(0, np.int8)]
        self._labels = [np.empty(0, np.int32)]
        self._keys: list[NDArray[np.bytes_]] = [np.empty(0, "S1")]
        self._static: list[NDArray[np.bytes_]] = [np.empty(0, "S1")]
        self._events = [np.empty((0, 32), np.uint8)]

    def add(self, split: str, index: NDArray[Any], facts: Facts) -> None:
        """Take the samples of one shard."""
        self._splits.append(np.full(len(index), SPLITS.index(split), np.int8))
        self._labels.append(index["label"].astype(np.int32))
        self._keys.append(index["key"].copy())
        self._static.append(facts.static)
        self._events.append(facts.events_sha256)

    @property
    def splits(self) -> NDArray[np.int8]:
        """[n] position in `SPLITS`."""
        return np.concatenate(self._splits)

    @property
    def labels(self) -> NDArray[np.int32]:
        """[n]."""
        return np.concatenate(self._labels)

    @property
    def keys(self) -> NDArray[np.bytes_]:
        """[n]."""
        return np.concatenate(self._keys)

    @property
    def static(self) -> NDArray[np.bytes_]:
        """[n] key of the photograph, empty where there is none."""
        return np.concatenate(self._static)

    @property
    def events_sha256(self) -> NDArray[np.uint8]:
        """[n,32]."""
        return np.concatenate(self._events)


def check_static(shards: ShardSet, static: StaticImages) -> Iterator[str]:
    """The static images against the manifest, and their order."""
    said = shards.manifest["static"]
    roles = np.array([ROLES.index(role) for role in static.roles], np.int8)
    counts = dict(zip(ROLES, np.bincount(roles, minlength=len(ROLES)).tolist(), strict=True))
    if len(static) != said["images"] or counts != said["roles"] or list(static.images.shape[1:]) != said["shape"]:
        yield f"{STATIC_FILE}: holds {counts} of shape {static.images.shape[1:]}, the manifest says {said}"
    keys = np.array([key.encode() for key in static.keys], np.bytes_)
    pool_labels = static.labels[: counts[POOL]]
    offsets = np.searchsorted(pool_labels, np.arange(len(shards.classes) + 1))
    ordered = np.array_equal(np.lexsort((keys, static.labels, roles)), np.arange(len(static)))
    if not ordered or not np.array_equal(static.class_offsets, offsets):
        yield f"{STATIC_FILE}: rows are not in the order (role, label, key), or class offsets are wrong"
    if len(np.unique(keys)) != len(keys):
        yield f"{STATIC_FILE}: a key stands there twice"


def check_counts(shards: ShardSet, recordings: Recordings) -> Iterator[str]:
    """Samples per split and class against the manifest, and keys that are not unique."""
    splits, labels, keys = recordings.splits, recordings.labels, recordings.keys
    for number, name in enumerate(SPLITS):
        counts = np.bincount(labels[splits == number], minlength=len(shards.classes)).tolist()
        said = shards.manifest["splits"][name]
        if name in shards.present and (counts != said["per_class"] or sum(counts) != said["samples"]):
            yield f"split {name}: {counts} samples per class found, the manifest says {said['per_class']}"
    if len(np.unique(np.char.lower(keys))) != len(keys):
        yield "a sample key stands in the set twice, or twice but for its case"


def leak_notes(shards: ShardSet, static: StaticImages, leaked: int) -> Iterator[str]:
    """What is worth knowing about leaks that are no problem, or cannot be found."""
    if shards.settings["protocol"] == "legacy":
        yield f"protocol legacy: {leaked} leak(s) between the splits, which are part of the published protocol"
    if shards.settings["protocol"] == "leaky":
        yield f"protocol LEAKY: {leaked} photograph(s) leak, on purpose; no accuracy reached with this set is a result"
    if shards.manifest["pairing"]["kind"] != "exact":
        yield (
            "pairs are known by class only: which photograph a recording shows is not known, so no check can prove the "
            "absence of leaks"
        )
    if copies := static.roles.count(DUPLICATE):
        yield f"{copies} image(s) equal a held-out photograph and were kept out of the pool"


def recording_leaks(recordings: Recordings) -> Iterator[str]:
    """Recordings in two splits."""
    keys = recordings.keys
    for one, other in _equal_recordings(recordings.events_sha256, recordings.splits):
        yield f"{keys[one].decode()} and {keys[other].decode()} are one recording in two splits"


def photograph_leaks(recordings: Recordings, static: StaticImages) -> Iterator[str]:
    """Held-out photographs in the pool or behind a training recording."""
    keys, splits = recordings.keys, recordings.splits
    names, rows = _rows_of(recordings.static, static)
    for i in np.flatnonzero(rows == UNKNOWN):
        yield f"{keys[i].decode()} names the photograph {names[i].decode()}, which is not in {STATIC_FILE}"
    pool = np.array([role == POOL for role in static.roles], bool)
    held = ~pool & np.array([role != DUPLICATE for role in static.roles], bool)
    shown_held_out = np.unique(rows[(rows >= 0) & (splits != 0)])
    for row in shown_held_out[pool[shown_held_out]]:
        yield f"{static.keys[row]}, the photograph of a held-out recording, is in the static pool"
    held[shown_held_out] = True
    for i in np.flatnonzero((splits == 0) & (rows >= 0)):
        if held[rows[i]]:
            key, role = static.keys[rows[i]], static.roles[rows[i]]
            yield f"training recording {keys[i].decode()} shows {key}, a held-out photograph (role {role})"
    yield from _twins(static, held, pool & ~held)


UNKNOWN, NONE = -1, -2


def _equal_recordings(digests: NDArray[np.uint8], splits: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Samples with the events of an earlier one of another split, and that one."""
    words = np.ascontiguousarray(digests).view("<u8")  # [n,4]
    order = np.lexsort(words.T)
    new = np.ones(len(order), bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))] if len(order) else order
    for one, other in zip(first.tolist(), order.tolist(), strict=True):
        if splits[one] != splits[other]:
            yield one, other


def _rows_of(names: NDArray[np.bytes_], static: StaticImages) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Row of every photograph by its key, `UNKNOWN` or `NONE`."""
    keys = np.array([key.encode() for key in static.keys], np.bytes_)
    order = np.argsort(keys)
    if not len(keys):
        return names, np.where(names == b"", NONE, UNKNOWN)
    found = order[np.minimum(np.searchsorted(keys, names, sorter=order), len(keys) - 1)]
    return names, np.where(names == b"", NONE, np.where(keys[found] == names, found, UNKNOWN))


def _twins(static: StaticImages, held: NDArray[np.bool_], pool: NDArray[np.bool_]) -> Iterator[str]:
    """Images of the pool that equal a held-out one, full size or as stored."""
    full = static.pixels_sha256
    stored = [hashlib.sha256(image).digest() for block in static.images.blocks() for image in block]
    held_rows = np.flatnonzero(held).tolist()
    by_hash = {full[i].tobytes(): i for i in held_rows}
    by_pixels = {stored[i]: i for i in held_rows}
    for i in np.flatnonzero(pool).tolist():
        if (twin := by_hash.get(full[i].tobytes())) is not None:
            yield f"{static.keys[i]} in the static pool has the pixels of {static.keys[twin]}, a held-out photograph"
        elif (twin := by_pixels.get(stored[i])) is not None:
            yield (
                f"{static.keys[i]} in the static pool is stored with the same pixels as {static.keys[twin]}, a "
                "held-out photograph"
            )
