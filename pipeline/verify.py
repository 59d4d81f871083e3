"""Proof that a shard set is whole, says what it holds, and leaks nothing.

Three parts: every byte against the manifest; every index, sample and image against each other; and the photographs of
held-out recordings against the static pool, by key, by the hash of the full-size pixels, and by the stored pixels.
Not covered: `environment.json`, which is outside the set's identity and names the tools that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import manifest as manifests
from pipeline.errors import PipelineError
from pipeline.files import SMALL_BYTES, HashedReader, sha256_file
from pipeline.finish import checksums
from pipeline.shards import EXTENSION, index_path
from pipeline.shardset import PARTIAL, ShardSet
from pipeline.static_pool import STATIC_FILE, read_static
from pipeline.verify_content import (
    Recordings,
    check_counts,
    check_static,
    leak_notes,
    photograph_leaks,
    recording_leaks,
)
from pipeline.verify_shards import Facts, Layout, check_rows, facts, walk_hdf5, walk_tar

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


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
        leaky: the set says of itself that held-out photographs are in its pool (protocol `leaky`).
    """

    id: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    samples: int = 0
    images: int = 0
    bytes: int = 0
    leaky: bool = False

    @property
    def ok(self) -> bool:
        """True when there is no problem."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """In three words at most."""
        leaks = "LEAKY as declared" if self.leaky else "no leaks"
        return f"whole, {leaks}" if self.ok else "NOT GOOD"


def verify(path: Path, *, progress: Progress | None = None) -> Verification:
    """Check a whole shard set; holds one part of one file at a time, and some 100 bytes a sample.

    Args:
        path: its folder.
        progress: shows progress over the files, as in `pipeline.convert`.

    Raises:
        ShardSetError: there is no manifest that could be checked against.
    """
    shards = ShardSet(path)
    found = Verification(shards.id, leaky=shards.settings["protocol"] == "leaky")
    if absent := [split for split in shards.manifest["splits"] if split not in shards.present]:
        found.notes.append(f"only a part of the set was pulled: {', '.join(absent)} is not here and was not checked")
    recordings = Recordings()
    damaged = _check_files(shards, recordings, found, progress or (lambda items, total, what: items))
    found.problems += _check_listing(path, shards.manifest["files"])
    if damaged:
        return found  # what lies in damaged files says nothing
    try:
        static = read_static(path / STATIC_FILE, resident=False)
        found.images = len(static)
        found.problems += check_static(shards, static)
        found.problems += check_counts(shards, recordings)
        twice, shown = list(recording_leaks(recordings)), list(photograph_leaks(recordings, static))
        protocol = shards.settings["protocol"]
        found.notes += leak_notes(shards, static, len(shown) + (len(twice) if protocol == "legacy" else 0))
        forbidden = {"strict": twice + shown, "leaky": twice, "legacy": []}[protocol]
        found.problems += [f"leak: {leak}" for leak in forbidden]
    except (PipelineError, ValueError, KeyError, TypeError, OSError) as error:
        found.problems.append(str(error))
    return found


def _check_files(shards: ShardSet, recordings: Recordings, found: Verification, show: Progress) -> bool:
    """Hash every file, and look into the event shards; returns whether a file is not what the manifest says."""
    splits = {shard.name: split for split in shards.manifest["splits"] for shard in shards.event_shards(split)}
    names = sorted(shards.files, key=lambda name: (name in splits, name))  # indexes before shards
    damaged: set[str] = set()
    with ThreadPoolExecutor(1) as ahead:
        absent = {name: _check_presence(shards.path, shards.files[name]) for name in names}
        hashes = {  # large files, while others are looked at
            name: ahead.submit(sha256_file, shards.path / name)
            for name in names
            if not absent[name] and shards.files[name]["bytes"] >= SMALL_BYTES and not _read_once(name, splits)
        }
        for name in show(names, len(names), "files"):
            split = splits.get(name) if index_path(Path(name)).name not in damaged else None
            problem = absent[name]
            said: Facts | str | None = None
            if not problem:
                hashed = hashes[name].result() if name in hashes else None
                if hashed is None and not _read_once(name, splits):
                    hashed = sha256_file(shards.path / name)
                sha256, said = _look_at(shards, name, split, hashed)
                if sha256 != shards.files[name]["sha256"]:
                    problem = f"{name}: its content was changed or damaged (SHA-256 differs)"
            if problem:
                damaged.add(name)
                found.problems.append(problem)
            elif isinstance(said, str):
                found.problems.append(said)
            elif said is not None and split is not None:
                recordings.add(split, shards.index(name), said)
                found.samples += len(said.static)
            found.files += 1
            found.bytes += shards.files[name]["bytes"]
    return bool(damaged)


def _read_once(name: str, splits: Mapping[str, str]) -> bool:
    """Whether a file is hashed while it is looked at: the tars of the splits."""
    return name in splits and name.endswith(EXTENSION["webdataset"])


def _check_presence(path: Path, entry: dict[str, Any]) -> str:
    file = path / entry["name"]
    if file.is_symlink() or not file.is_file():
        return f"{entry['name']}: missing"
    size = file.stat().st_size
    return "" if size == entry["bytes"] else f"{entry['name']}: {size} bytes found, {entry['bytes']} expected"


def _look_at(shards: ShardSet, name: str, split: str | None, sha256: str | None) -> tuple[str, Facts | str | None]:
    """SHA-256 of a file; for an event shard (`split` given) also what its samples say, or what is wrong with them.

    A tar is hashed while it is looked at; HDF5, which is less robust, opens only what is known to be whole.
    """
    layout = Layout.of(shards)
    path = shards.path / name
    with HashedReader(path) if sha256 is None else nullcontext() as file:
        said: Facts | str | None = None
        if split is not None and (file is not None or sha256 == shards.files[name]["sha256"]):
            try:
                index = shards.index(name)
                check_rows(index, split=split, name=name)
                samples = walk_tar(file, index, layout, name=name) if file else walk_hdf5(path, index, layout)
                said = facts(samples, index, name=name)
            except (PipelineError, OSError, ValueError, KeyError, TypeError) as error:
                said = str(error)
        return sha256 or (file.sha256() if file else ""), said


def _check_listing(path: Path, entries: list[dict[str, Any]]) -> list[str]:
    """Files that nobody listed, and SHA256SUMS against the manifest."""
    problems = []
    known = {entry["name"] for entry in entries}
    known |= {manifests.MANIFEST, manifests.CHECKSUMS, manifests.ENVIRONMENT, PARTIAL}
    problems += [
        f"{name}: not part of the shard set" for name in sorted({entry.name for entry in path.iterdir()} - known)
    ]
    sums = path / manifests.CHECKSUMS
    if not sums.is_file() or sums.read_bytes() != checksums(entries).encode():
        problems.append(f"{manifests.CHECKSUMS}: missing, or not what the manifest says")
    return problems
