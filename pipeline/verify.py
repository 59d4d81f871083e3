"""Proof that a shard set is whole, says what it holds, and leaks nothing.

Three parts: every byte against the manifest; every index, sample and image against each other; and the photographs of
held-out recordings against the static pool, by key, by the hash of the full-size pixels, and by the stored pixels.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import manifest as manifests
from pipeline.errors import ShardSetError
from pipeline.files import sha256_file
from pipeline.finish import checksums
from pipeline.shards import MEMBERS, index_path, npy_header
from pipeline.shardset import ShardSet, read_index
from pipeline.splits import SPLITS
from pipeline.static_pool import DUPLICATE, POOL, ROLES, STATIC_FILE, StaticImages, read_static


@dataclass
class Verification:
    """What `verify` found.

    Args:
        id: the shard set's ID.
        problems: one line each; empty means that the set is whole and free of leaks.
        notes: what cannot be proved, or is worth knowing.
        files: files checked.
        samples: samples checked.
        images: static images checked.
        bytes: bytes hashed.
    """

    id: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    samples: int = 0
    images: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """True when there is no problem."""
        return not self.problems


def verify(path: Path, *, progress: Callable[[Iterable[Any], int, str], Iterable[Any]] | None = None) -> Verification:
    """Check a whole shard set.

    Args:
        path: its folder.
        progress: shows progress over the files, as in `pipeline.convert`.

    Raises:
        ShardSetError: there is no manifest that could be checked against.
    """
    show = progress or (lambda items, total, what: items)
    shards = ShardSet(path)
    found = Verification(shards.id)
    damaged = set()
    entries = shards.manifest["files"]
    for entry in show(entries, len(entries), "files"):
        problem = _check_file(path, entry)
        if problem:
            damaged.add(entry["name"])
            found.problems.append(problem)
        found.files += 1
        found.bytes += entry["bytes"]
    found.problems += _check_listing(path, entries)
    if damaged:
        return found  # what lies in damaged files says nothing

    try:
        static = read_static(path / STATIC_FILE)
        samples = list(_samples(shards, found))
        _check_static(shards, static, found)
        _check_counts(shards, samples, found)
        _check_leaks(shards, samples, static, found)
    except (ShardSetError, ValueError, KeyError, OSError, tarfile.TarError) as error:
        found.problems.append(str(error))
    return found


def _check_file(path: Path, entry: dict[str, Any]) -> str:
    file = path / entry["name"]
    if file.parent != path or file.is_symlink() or not file.is_file():
        return f"{entry['name']}: missing"
    size = file.stat().st_size
    if size != entry["bytes"]:
        return f"{entry['name']}: {size} bytes found, {entry['bytes']} expected"
    if sha256_file(file) != entry["sha256"]:
        return f"{entry['name']}: its content was changed or damaged (SHA-256 differs)"
    return ""


def _check_listing(path: Path, entries: list[dict[str, Any]]) -> list[str]:
    """Files that nobody listed, and SHA256SUMS against the manifest."""
    problems = []
    known = {entry["name"] for entry in entries}
    known |= {manifests.MANIFEST, manifests.CHECKSUMS, manifests.ENVIRONMENT}
    problems += [
        f"{name}: not part of the shard set" for name in sorted({entry.name for entry in path.iterdir()} - known)
    ]
    sums = path / manifests.CHECKSUMS
    if not sums.is_file() or sums.read_bytes() != checksums(entries).encode():
        problems.append(f"{manifests.CHECKSUMS}: missing, or not what the manifest says")
    return problems


@dataclass(frozen=True)
class _Stored:
    """A sample as found in a shard."""

    split: str
    key: str
    label: int
    crc32: int
    metadata: dict[str, Any]


def _samples(shards: ShardSet, found: Verification) -> Iterator[_Stored]:
    """Every sample of every shard, its container checked against the index."""
    walk = _walk_tar if shards.settings["format"] == "webdataset" else _walk_hdf5
    for split in shards.manifest["splits"]:
        for shard in shards.event_shards(split):
            index = read_index(index_path(shard))
            for row, (key, label, frames, metadata) in zip(index, walk(shard, shards), strict=True):
                expected = (row["key"].decode(), int(row["label"]), int(row["crc32"]), int(row["length"]))
                if (key, label, zlib.crc32(frames), len(frames)) != expected:
                    found.problems.append(f"{shard.name}: sample {key} is not what the index says of {expected[0]}")
                prefix = f"{split}-{label}-"
                if not 0 <= label < len(shards.classes) or not key.startswith(prefix):
                    found.problems.append(f"{shard.name}: key {key} does not begin with {prefix}")
                found.samples += 1
                yield _Stored(split, key, label, zlib.crc32(frames), json.loads(metadata))


def _walk_tar(path: Path, shards: ShardSet) -> Iterator[tuple[str, int, bytes, str]]:
    header = npy_header(shards.sample_shape, shards.dtype)
    with tarfile.open(path, "r:") as tar:
        members = iter(tar)
        for first in members:
            group = [first, *(next(members, first) for _ in MEMBERS[1:])]
            key = first.name.split(".", 1)[0]
            if [m.name for m in group] != [f"{key}.{member}" for member in MEMBERS] or not all(
                m.isreg() for m in group
            ):
                raise ShardSetError(
                    f"{path.name}: expected the members {', '.join(MEMBERS)} of a sample at {first.name}"
                )
            label, frames, metadata = (tar.extractfile(m).read() for m in group)  # type: ignore[union-attr]
            if not frames.startswith(header):
                raise ShardSetError(f"{path.name}: {key}.frames.npy has another shape or type than the manifest says")
            yield key, int(label), frames[len(header) :], metadata.decode()


def _walk_hdf5(path: Path, shards: ShardSet) -> Iterator[tuple[str, int, bytes, str]]:
    import h5py

    with h5py.File(path, "r") as file:
        frames = file["frames"]
        if frames.shape[1:] != shards.sample_shape or frames.dtype != shards.dtype:
            raise ShardSetError(f"{path.name}: frames have another shape or type than the manifest says")
        for i in range(len(frames)):
            yield file["key"][i].decode(), int(file["label"][i]), frames[i].tobytes(), file["json"][i].decode()


def _check_static(shards: ShardSet, static: StaticImages, found: Verification) -> None:
    found.images = len(static)
    said = shards.manifest["static"]
    counts = {role: static.roles.count(role) for role in ROLES}
    if len(static) != said["images"] or counts != said["roles"] or list(static.images.shape[1:]) != said["shape"]:
        found.problems.append(
            f"{STATIC_FILE}: holds {counts} of shape {static.images.shape[1:]}, the manifest says {said}"
        )
    again = StaticImages.sort(
        static.images,
        labels=static.labels.tolist(),
        keys=static.keys,
        roles=static.roles,
        pixels_sha256=static.pixels_sha256,
        num_classes=len(shards.classes),
    )
    if again.keys != static.keys or not np.array_equal(again.class_offsets, static.class_offsets):
        found.problems.append(
            f"{STATIC_FILE}: rows are not in the order (role, label, key), or class offsets are wrong"
        )
    if len(set(static.keys)) != len(static.keys):
        found.problems.append(f"{STATIC_FILE}: a key stands there twice")


def _check_counts(shards: ShardSet, samples: list[_Stored], found: Verification) -> None:
    for split in SPLITS:
        labels = [sample.label for sample in samples if sample.split == split]
        counts = np.bincount(labels, minlength=len(shards.classes)).tolist() if labels else [0] * len(shards.classes)
        said = shards.manifest["splits"][split]
        if counts != said["per_class"] or len(labels) != said["samples"]:
            found.problems.append(
                f"split {split}: {counts} samples per class found, the manifest says {said['per_class']}"
            )
    if len({sample.key for sample in samples}) != len(samples):
        found.problems.append("a sample key stands in the set twice")


def _check_leaks(shards: ShardSet, samples: list[_Stored], static: StaticImages, found: Verification) -> None:
    """No held-out photograph in the pool or behind a training recording, and no recording in two splits."""
    leaks = [*_shared_recordings(samples), *_leaked_images(samples, static)]
    if shards.settings["protocol"] == "legacy":
        found.notes.append(
            f"protocol legacy: {len(leaks)} leak(s) between the splits, which are part of the published protocol"
        )
    else:
        found.problems += [f"leak: {leak}" for leak in leaks]
    if shards.manifest["pairing"]["kind"] != "exact":
        found.notes.append(
            "pairs are known by class only: which photograph a recording shows is not known, so no check can prove the "
            "absence of leaks"
        )
    if copies := static.roles.count(DUPLICATE):
        found.notes.append(f"{copies} image(s) equal a held-out photograph and were kept out of the pool")


def _shared_recordings(samples: list[_Stored]) -> Iterator[str]:
    """Recordings that lie in two splits, by the hash of their events."""
    seen: dict[str, _Stored] = {}
    for sample in samples:
        other = seen.setdefault(sample.metadata["events_sha256"], sample)
        if other.split != sample.split:
            yield f"{other.key} and {sample.key} are one recording in two splits"


def _leaked_images(samples: list[_Stored], static: StaticImages) -> Iterator[str]:
    role = dict(zip(static.keys, static.roles, strict=True))
    row = {key: i for i, key in enumerate(static.keys)}
    held_keys = {key for key in static.keys if role[key] not in (POOL, DUPLICATE)}
    for sample in samples:
        key = sample.metadata["static"]
        if key is None:
            continue
        if key not in role:
            yield f"{sample.key} names the photograph {key}, which is not in {STATIC_FILE}"
        elif sample.split == "train" and key in held_keys:
            yield f"training recording {sample.key} shows {key}, a held-out photograph (role {role[key]})"
        elif sample.split != "train":
            held_keys.add(key)
            if role[key] == POOL:
                yield f"{key}, the photograph of {sample.key}, is in the static pool"
    held_rows = [row[key] for key in held_keys]
    by_hash = {static.pixels_sha256[i].tobytes(): static.keys[i] for i in held_rows}
    by_pixels = {static.images[i].tobytes(): static.keys[i] for i in held_rows}
    for i, key in enumerate(static.keys):
        if role[key] != POOL or key in held_keys:
            continue
        if twin := by_hash.get(static.pixels_sha256[i].tobytes()):
            yield f"{key} in the static pool has the pixels of {twin}, a held-out photograph"
        elif twin := by_pixels.get(static.images[i].tobytes()):
            yield f"{key} in the static pool is stored with the same pixels as {twin}, a held-out photograph"
