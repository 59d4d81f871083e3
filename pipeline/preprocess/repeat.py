"""A conversion of raw folders, and the same command again, which finds folders as they were without listing them.

What was found is kept in the user's cache folder, for every folder of shards: the set that is there, and a stamp of all
that decided it. The stamp covers the name, the size and both times of every file, which only this machine can compare;
where it differs, or is missing, the raw folders are listed, and the listing decides.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from spikebridge.pipeline.base.errors import PipelineError, ShardSetError
from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.base.installation import find_version
from spikebridge.pipeline.base.places import cache_folder
from spikebridge.pipeline.base.sealed_json import read_sealed, write_sealed
from spikebridge.pipeline.datasets.pairs import SIMULATION_NOTE
from spikebridge.pipeline.preprocess.array_jobs import Sources
from spikebridge.pipeline.preprocess.output import ConversionResult
from spikebridge.pipeline.preprocess.run import check_dropped, convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.settings import ConversionSettings

MOST_ENTRIES = 2**22
"""Files below the raw folders that are stamped; with more a command lists them each time."""


WRITTEN_SINCE = (
    "raw files were written since the set was made. Their names and sizes are those of then, so it stays as it is; "
    "their contents were not compared. If they changed, delete the set, or convert into another folder"
)


class Stamp(NamedTuple):
    """Hashes of what decides a conversion, as far as it can be told without opening recordings."""

    choices: str
    """The settings, the tables, the program and its reader."""
    files: str
    """Name, size and times of every file below the raw folders."""


class Found(TypedDict):
    """What is kept of a conversion."""

    choices: str
    """This and the following: see `Stamp`."""
    files: str
    set_id: str
    report: list[str]
    """Lines that `Conversion.report` gave, and `WRITTEN_SINCE` where that is so."""


def convert_sources(
    sources: Sources, settings: ConversionSettings, out: Path, *, say: Callable[[str], object], **options: Any
) -> ConversionResult:
    """Convert raw folders into `out`, see `pipeline.preprocess.run.convert` and its options, or find that it is done.

    `say` is told what `Conversion.report` says.

    Raises:
        PipelineError: as `pipeline.preprocess.prepare.prepare` and `convert`.
    """
    stamp, kept = take_stamp(sources, settings), _kept_for(out)
    found = _read(kept)
    same = found is not None and stamp is not None and found["choices"] == stamp.choices
    if found and stamp and same and found["files"] == stamp.files and (done := _find_set(out, found["set_id"])):
        for line in found["report"]:
            say(line)
        return check_dropped(done, options.get("max_bad", 0), out, strict=options.get("strict", False))
    conversion = sources.prepare(settings)
    report = list(conversion.report())
    for line in report:
        say(line)
    outcome = convert(conversion, out, **options)
    set_id = outcome.manifest["self_sha256"]
    if same and outcome.up_to_date and found and found["set_id"] == set_id:
        report.append(WRITTEN_SINCE)
        say(WRITTEN_SINCE)
    if stamp:
        values: Found = {"choices": stamp.choices, "files": stamp.files, "set_id": set_id, "report": report}
        with suppress(OSError):  # a full disk: the next command lists the folders again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(kept, values)
    return outcome


def take_stamp(sources: Sources, settings: ConversionSettings) -> Stamp | None:
    """Return the stamp of a conversion; None where a folder cannot be read, or holds more than `MOST_ENTRIES`."""
    reader = inspect.getsourcefile(type(get_reader(settings.dataset)))
    digest = hashlib.sha256()
    left = MOST_ENTRIES
    try:
        tables = [path and sha256_file(path) for path in sources.tables.values()]
        program = [find_version("spikebridge"), reader and sha256_file(Path(reader))]
        decided = [settings.as_dict(), settings.dtype_open, tables, program]
        for root in (sources.events, sources.static):
            digest.update(_note_above(root).encode())
            for lines in _describe_folders(root):
                left -= len(lines)
                if left < 0:
                    return None
                digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    choices = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
    return Stamp(choices.hexdigest(), digest.hexdigest())


def _note_above(root: Path) -> str:
    """Return the state of the simulator's note, which may lie above the recordings."""
    note = root.absolute().parent / SIMULATION_NOTE
    return _describe(os.stat(note)) if note.exists() else "no note"


def _describe_folders(root: Path) -> Iterator[list[str]]:
    """Yield the lines of a root and of each folder below it, one for each file; links count as what they lead to."""
    waiting, seen = [(os.fspath(root), "")], set[tuple[int, int]]()
    while waiting:
        folder, below = waiting.pop()
        lines, inner = [f"\0{below}"], list[str]()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    inner.append(entry.name)
                else:
                    lines.append(f"{entry.name}\0{_describe(_status(entry))}")
        yield sorted(lines)
        for name in sorted(inner, reverse=True):
            path = os.path.join(folder, name)
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in seen:  # a link may lead back up
                seen.add((status.st_dev, status.st_ino))
                waiting.append((path, f"{below}/{name}"))


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of a file, of a link that leads nowhere its own."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def _describe(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _kept_for(out: Path) -> Path:
    """Return the file in which is kept what was found for a folder of shards."""
    name = hashlib.sha256(os.fsencode(out.absolute())).hexdigest()[:32]
    return cache_folder() / "conversions" / f"{name}.json"


def _read(kept: Path) -> Found | None:
    """Return what is kept, unless it is missing or damaged: then the folders are listed."""
    try:
        return read_sealed(kept, Found, error=PipelineError, remedy="The raw folders are listed again.")
    except (OSError, PipelineError):
        return None


def _find_set(out: Path, set_id: str) -> ConversionResult | None:
    """Return the complete shard set of this ID in a folder, or None where anything else is."""
    if (out / manifests.WORK_FOLDER).exists():
        return None
    try:
        manifest = manifests.read(out)
        return ConversionResult.read(out, manifest, up_to_date=True) if manifest["self_sha256"] == set_id else None
    except (ShardSetError, OSError):
        return None
