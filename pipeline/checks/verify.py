"""Proof that a shard set is whole, says what it holds, and leaks nothing.

Three parts: every byte against the manifest; every index, sample and image against each other; and the photographs of
held-out recordings against the static pool, by key, by the hash of the full-size pixels, and by the stored pixels.
Not covered: `environment.json`, which is outside the set's identity and names the tools that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.files import FileEntry, HashedFile
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.pipeline.checks.leaks import (
    Photographs,
    Recordings,
    check_counts,
    check_static,
    leak_notes,
    photograph_leaks,
    recording_leaks,
)
from spikebridge.pipeline.checks.samples import Facts, Layout, check_rows, facts, walk_hdf5, walk_tar
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import checksums
from spikebridge.pipeline.shards.reader import PARTIAL, ShardSet
from spikebridge.pipeline.shards.static_pool import STATIC_FILE
from spikebridge.pipeline.shards.writer import EXTENSION, index_path

THREADS = min(8, usable_processors())
"""Files are hashed and looked at by this many threads: most of that is done by C code that lets the others run."""

DAMAGE = (PipelineError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What a shard or a static file that is not what it should be may raise; most of them are HDF5's."""

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
        progress: shows progress over the files, as in `pipeline.preprocess.run`.

    Raises:
        ShardSetError: there is no manifest that could be checked against.
    """
    shards = ShardSet(path)
    found = Verification(shards.id, leaky=shards.settings["protocol"] == "leaky")
    if absent := [split for split in shards.manifest["splits"] if split not in shards.present]:
        found.notes.append(f"only a part of the set was pulled: {', '.join(absent)} is not here and was not checked")
    recordings = Recordings()
    photographs = _check_files(shards, recordings, found, progress or (lambda items, total, what: items))
    found.problems += _check_listing(path, shards.manifest["files"])
    if photographs is None:
        return found  # what lies in damaged files says nothing
    try:
        static = photographs.static
        found.images = len(static)
        found.problems += check_static(shards, static)
        found.problems += check_counts(shards, recordings)
        twice, shown = list(recording_leaks(recordings)), list(photograph_leaks(recordings, photographs))
        protocol = shards.settings["protocol"]
        found.notes += leak_notes(shards, static, len(shown) + (len(twice) if protocol == "legacy" else 0))
        forbidden = {"strict": twice + shown, "leaky": twice, "legacy": []}[protocol]
        found.problems += [f"leak: {leak}" for leak in forbidden]
    except DAMAGE as error:
        found.problems.append(str(error))
    return found


def _check_files(shards: ShardSet, recordings: Recordings, found: Verification, show: Progress) -> Photographs | None:
    """Hash every file, and look into the shards; returns the static images if every file is what the manifest says."""
    splits = {shard.name: split for split in shards.manifest["splits"] for shard in shards.event_shards(split)}
    absent = {name: _check_presence(shards.path, entry) for name, entry in shards.files.items()}
    damaged: set[str] = set()
    photographs: Photographs | None = None
    pool = ThreadPoolExecutor(THREADS)
    try:
        largest_first = sorted(shards.files, key=lambda name: -shards.files[name]["bytes"])  # threads end together
        jobs = {
            name: pool.submit(_look_at, shards, name, splits.get(name)) for name in largest_first if not absent[name]
        }
        names = sorted(shards.files, key=lambda name: (name in splits, name))  # indexes before shards
        for name in show(names, len(names), "files"):
            problem, (sha256, said) = absent[name], jobs[name].result() if name in jobs else ("", None)
            if not problem and sha256 != shards.files[name]["sha256"]:
                problem = f"{name}: its content was changed or damaged (SHA-256 differs)"
            if problem:
                damaged.add(name)
                found.problems.append(problem)
            elif index_path(Path(name)).name in damaged:
                pass  # what was compared with it says nothing
            elif isinstance(said, str):
                found.problems.append(said)
            elif isinstance(said, Photographs):
                photographs = said
            elif said is not None:
                recordings.add(splits[name], shards.index(name), said)
                found.samples += len(said.static)
            found.files += 1
            found.bytes += shards.files[name]["bytes"]
    finally:
        pool.shutdown(cancel_futures=True)
    if STATIC_FILE not in shards.files:
        found.problems.append(f"{STATIC_FILE}: not in the manifest")
    return None if damaged else photographs


def _check_presence(path: Path, entry: FileEntry) -> str:
    file = path / entry["name"]
    if file.is_symlink() or not file.is_file():
        return f"{entry['name']}: missing"
    size = file.stat().st_size
    return "" if size == entry["bytes"] else f"{entry['name']}: {size} bytes found, {entry['bytes']} expected"


Said = Facts | Photographs | str | None
"""What a file says of samples or images; what is wrong with that; None for a file that says nothing."""


def _look_at(shards: ShardSet, name: str, split: str | None) -> tuple[str, Said]:
    """The hash of a file, and what it says; `split` is given for event shards.

    A tar is read once and looked at while it is hashed; HDF5, which is less robust, opens only what is known to be
    whole.
    """
    path = shards.path / name
    with HashedFile(path) as file:
        tarred = split is not None and path.suffix == EXTENSION["webdataset"]
        if not tarred and (file.sha256() != shards.files[name]["sha256"] or (split is None and name != STATIC_FILE)):
            return file.sha256(), None
        try:
            if split is None:
                return file.sha256(), Photographs.read(path)
            index, layout = shards.index(name), Layout.of(shards)
            check_rows(index, split=split, name=name)
            samples = walk_tar(file, index, layout, name=name) if tarred else walk_hdf5(path, index, layout)
            said: Said = facts(samples, index, name=name)
        except DAMAGE as error:
            said = str(error)
        return file.sha256(), said


def _check_listing(path: Path, entries: list[FileEntry]) -> list[str]:
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
