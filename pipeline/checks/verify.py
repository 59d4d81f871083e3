"""Proof that a shard set is whole, says what it holds, and leaks nothing.

Four parts: every byte against the manifest; every index, sample and image against each other; the static images of
held-out recordings against the static pool, by key, by the hash of the full-size pixels, and by the stored pixels; and
the groups (subjects, source videos, sessions), none of which may lie in two splits.
Not covered: `environment.json` and `croissant.json`, which are outside the set's identity: the tools that made it, and
a rendering of its manifest. Of them, only the form is checked, and that the latter names the set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import PipelineError, ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, HashedFile, sha256_file
from spikebridge.pipeline.base.foreign_json import read_json
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.checks.audit import Matched, audit_matched
from spikebridge.pipeline.checks.leaks import (
    Recordings,
    StaticContent,
    check_counts,
    check_static,
    find_leaks,
    forbidden_leaks,
    leak_notes,
)
from spikebridge.pipeline.checks.samples import Layout, SampleMetadata, check_rows, read_metadata, walk_hdf5, walk_tar
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import checksums
from spikebridge.pipeline.shards.reader import PARTIAL, PULL, ShardSet
from spikebridge.pipeline.shards.static_pool import STATIC_FILE
from spikebridge.pipeline.shards.writer import EXTENSION, index_path

THREADS = min(8, usable_processors())
"""Files are hashed and looked at by this many threads: most of that is done by C code that lets the others run."""

DAMAGE = (PipelineError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What a shard or a static file that is not what it should be may raise; most of them are HDF5's."""

MOST_ENVIRONMENT_BYTES = 2**16


@dataclass
class Verification:
    """The findings of `verify`."""

    id: str
    problems: list[str] = field(default_factory=list)
    """One line each; empty means that the set is whole and free of leaks."""
    notes: list[str] = field(default_factory=list)
    """What cannot be proved, or is worth knowing."""
    possible_leaks: list[str] = field(default_factory=list)
    """One line for each held-out recording that may show what training sees; neither proved nor ruled out."""
    files: int = 0
    samples: int = 0
    images: int = 0
    bytes: int = 0
    unchecked: list[str] = field(default_factory=list)
    """Files that are here and that no hash covers."""
    partial: bool = False
    """Only some splits were pulled; the others were not checked."""
    leaky: bool = False
    """The set says of itself that held-out static images are in its pool (protocol `leaky`)."""

    @property
    def ok(self) -> bool:
        """Return whether there is no problem."""
        return not self.problems

    @property
    def state(self) -> str:
        """Return `whole`, `partial` (no problem in what was pulled) or `failed`."""
        return ("partial" if self.partial else "whole") if self.ok else "failed"

    @property
    def verdict(self) -> str:
        """Return the verdict, in four words at most."""
        possible = f"{len(self.possible_leaks):,} possible leaks" if self.possible_leaks else "no leaks"
        leaks = "LEAKY as declared" if self.leaky else possible
        return f"{self.state}, {leaks}" if self.ok else "FAILED"


def verify(
    path: Path, *, matched: Mapping[str, Matched] | None = None, progress: Progress = no_progress
) -> Verification:
    """Check a whole shard set; holds one part of one file at a time, and some 100 bytes a sample.

    `matched` holds the static images that recordings were found to show, by the recordings' names; a held-out recording
    of several, some of which training sees, is a possible leak, which is no problem.

    Raises:
        ShardSetError: there is no manifest that could be checked against, or nothing of `matched` is in the set.
    """
    shards = ShardSet(path)
    report = Verification(shards.id, partial=shards.partial, leaky=shards.settings["protocol"] == "leaky")
    if absent := [split for split in shards.manifest["splits"] if split not in shards.present]:
        report.notes.append(f"only a part of the set was pulled: {', '.join(absent)} is not here and was not checked")
    shard_recordings: list[Recordings] = []
    sources = dict[str, str]()
    static_content = _check_files(shards, shard_recordings, sources, report, progress)
    if matched is not None and matched.keys().isdisjoint(sources.values()):
        like = show(min(sources.values(), default="none"))
        raise ShardSetError(
            f"no recording of the table is in the set, whose recordings are named like {like}. "
            "Match them in the folders, and with the --dataset, that the conversion had."
        )
    report.problems += _check_absent(shards)
    report.problems += _check_listing(path, shards.manifest["files"])
    if os.path.lexists(path / manifests.ENVIRONMENT):
        report.unchecked.append(manifests.ENVIRONMENT)
        report.problems += _check_environment(path / manifests.ENVIRONMENT)
    if os.path.lexists(path / manifests.CROISSANT):
        report.unchecked.append(manifests.CROISSANT)
        report.problems += _check_croissant(path / manifests.CROISSANT, shards.id)
    if static_content is None:
        return report  # what lies in damaged files says nothing
    try:
        static, recordings = static_content.static, Recordings.join(shard_recordings)
        report.images = len(static)
        report.problems += check_static(shards, static)
        report.problems += check_counts(shards, recordings)
        copies, leaked = find_leaks(recordings, static_content)
        protocol = shards.settings["protocol"]
        report.notes += leak_notes(shards, static, len(leaked) + (len(copies) if protocol == "legacy" else 0))
        report.problems += [f"leak: {leak}" for leak in forbidden_leaks(protocol, copies, leaked)]
        if matched is not None:
            audit = audit_matched(recordings, sources, static, matched)
            report.notes += audit.notes
            report.possible_leaks += audit.possible
            found = [f"leak by content: {leak}" for leak in audit.leaks]
            (report.problems if protocol == "strict" else report.notes).extend(found)
    except DAMAGE as error:
        report.problems.append(str(error))
    return report


def _check_files(
    shards: ShardSet,
    recordings: list[Recordings],
    sources: dict[str, str],
    report: Verification,
    progress: Progress,
) -> StaticContent | None:
    """Hash every file and check the shards; return the static images if every file is what the manifest says."""
    splits = {shard.name: split for split in shards.manifest["splits"] for shard in shards.event_shards(split)}
    absent = {name: _check_presence(shards.path, entry) for name, entry in shards.files.items()}
    damaged: set[str] = set()
    static_content: StaticContent | None = None
    pool = ThreadPoolExecutor(THREADS)
    try:
        largest_first = sorted(shards.files, key=lambda name: -shards.files[name]["bytes"])  # threads end together
        jobs = {
            name: pool.submit(_check_file, shards, name, splits.get(name)) for name in largest_first if not absent[name]
        }
        names = sorted(shards.files, key=lambda name: (name in splits, name))  # indexes before shards
        for name in progress(names, len(names), "files"):
            problem, (sha256, content) = absent[name], jobs[name].result() if name in jobs else ("", None)
            if not problem and sha256 != shards.files[name]["sha256"]:
                problem = f"{name}: its content was changed or damaged (SHA-256 differs)"
            if problem:
                damaged.add(name)
                report.problems.append(problem)
            elif index_path(Path(name)).name in damaged:
                pass  # what was compared with it says nothing
            elif isinstance(content, str):
                report.problems.append(content)
            elif isinstance(content, StaticContent):
                static_content = content
            elif content is not None:
                recordings.append(Recordings.of_shard(splits[name], shards.index(name), content))
                keys = (key.decode("ascii", "backslashreplace") for key in recordings[-1].keys.tolist())
                sources |= dict(zip(keys, content.source, strict=True))
                report.samples += len(content.static)
            report.files += 1
            report.bytes += shards.files[name]["bytes"]
    finally:
        pool.shutdown(cancel_futures=True)
    if STATIC_FILE not in shards.files:
        report.problems.append(f"{STATIC_FILE}: not in the manifest")
    return None if damaged else static_content


def _check_absent(shards: ShardSet) -> list[str]:
    """Compare the files that are here of splits that were not pulled: naming a part hides no damage."""
    here = (
        entry
        for entry in shards.manifest["files"]
        if entry["name"] not in shards.files and os.path.lexists(shards.path / entry["name"])
    )
    return [
        _check_presence(shards.path, entry) or f"{entry['name']}: its content was changed or damaged (SHA-256 differs)"
        for entry in here
        if _check_presence(shards.path, entry) or sha256_file(shards.path / entry["name"]) != entry["sha256"]
    ]


def _check_environment(path: Path) -> list[str]:
    """Check that a file names versions of tools; which ones, nothing can tell."""
    if path.is_symlink() or not path.is_file():
        return [f"{path.name}: no plain file"]
    expected = "It lists tools and their versions, and nothing else."
    try:
        read_json(path, dict[str, str], error=ShardSetError, remedy=expected, most_bytes=MOST_ENVIRONMENT_BYTES)
    except ShardSetError as error:
        return [str(error).removeprefix(f"{path.parent}/")]
    return []


def _check_croissant(path: Path, set_id: str) -> list[str]:
    """Check that a file describes this set; what it says of it, another version may word otherwise."""
    if path.is_symlink() or not path.is_file():
        return [f"{path.name}: no plain file"]
    expected = "It describes this set to catalogues; delete it, or copy the set again."
    try:
        found = read_json(path, dict[str, Any], error=ShardSetError, remedy=expected)
    except ShardSetError as error:
        return [str(error).removeprefix(f"{path.parent}/")]
    return [] if found.get("identifier") == set_id else [f"{path.name}: describes another set. {expected}"]


def _check_presence(path: Path, entry: FileEntry) -> str:
    file = path / entry["name"]
    if file.is_symlink() or not file.is_file():
        return f"{entry['name']}: missing"
    size = file.stat().st_size
    return "" if size == entry["bytes"] else f"{entry['name']}: {size} bytes found, {entry['bytes']} expected"


FileContent = SampleMetadata | StaticContent | str | None
"""What a file holds of samples or images; what is wrong with that; None for any other file."""


def _check_file(shards: ShardSet, name: str, split: str | None) -> tuple[str, FileContent]:
    """Return the hash of a file, and its content; `split` is given for event shards.

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
                return file.sha256(), StaticContent.read(path)
            index, layout = shards.index(name), Layout.of(shards)
            check_rows(index, split=split, name=name)
            samples = walk_tar(file, index, layout, name=name) if tarred else walk_hdf5(path, index, layout)
            content: FileContent = read_metadata(samples, index, name=name)
        except DAMAGE as error:
            content = str(error)
        return file.sha256(), content


def _check_listing(path: Path, entries: list[FileEntry]) -> list[str]:
    """Compare the folder and SHA256SUMS with the manifest."""
    problems = []
    known = {entry["name"] for entry in entries}
    known |= {manifests.MANIFEST, manifests.CHECKSUMS, *manifests.OUTSIDE, PARTIAL}
    for name in sorted({entry.name for entry in path.iterdir()} - known):
        cut = name.endswith(PARTIAL_SUFFIX) or name == PULL
        problems.append(f"{name}: " + ("of an interrupted pull; run it again" if cut else "not part of the shard set"))
    sums = path / manifests.CHECKSUMS
    if not sums.is_file() or sums.read_bytes() != checksums(entries).encode():
        problems.append(f"{manifests.CHECKSUMS}: missing, or not what the manifest says")
    return problems
