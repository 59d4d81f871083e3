"""One look at a path: what it is, and how to show that."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.inspection import pages, sheets
from spikebridge.pipeline.inspection.sets import (
    Progress,
    SetFacts,
    facts_of_raw,
    facts_of_shards,
    find_pair,
    recordings_alone,
)
from spikebridge.pipeline.inspection.text import text_of_one, text_of_set
from spikebridge.pipeline.inspection.views import (
    One,
    find_recording,
    is_simulated,
    recording_of_file,
    recording_of_set,
    sample_of_set,
)
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.manifest import MANIFEST, WORK_FOLDER
from spikebridge.pipeline.shards.reader import ShardSet


@dataclass(frozen=True)
class Seen:
    """What was found at a path.

    Args:
        values: JSON-ready.
        text: for the terminal.
        write: writes a picture of a kind (`png`, `gif`, `html`) to a file; returns what that leaves out, or nothing.
    """

    values: dict[str, Any]
    text: str
    write: Callable[[str, Path], str]


def look(
    path: Path,
    *,
    dataset: str | None,
    static: Path | None,
    sample: str | None,
    only: str | None,
    time_bins: int,
    limit: int,
    progress: Progress,
) -> Seen:
    """Find out what a path is - recording, raw data set or shard set - and look at it, or at one sample in it.

    Args:
        path: a recording file, the folder of a raw data set, or the folder of a shard set.
        dataset: reader of a raw folder; None tries all.
        static: folder of its static images; None takes `path`.
        sample: name of one recording, or key of one sample.
        only: the one class that a contact sheet shows.
        time_bins: frames of a raw recording.
        limit: recordings of a raw data set that are looked into.
        progress: shows progress.

    Raises:
        RecordingError: a recording cannot be used, or there is none of that name.
        LayoutError: the folder fits no data set, or several.
        ShardSetError: a damaged shard set.
        SettingsError: options that do not go together.
    """
    if path.is_file():
        return _one(recording_of_file(path, time_bins=time_bins))
    if (path / MANIFEST).exists() or (path / WORK_FOLDER).exists():
        shards = ShardSet(path)
        if sample is not None:
            return _one(sample_of_set(shards, sample))
        stored = facts_of_shards(shards, progress=progress)
        return _set(
            stored,
            path,
            [],
            lambda: sheets.sheet_of_shards(shards, stored, only=only),
            lambda key: sample_of_set(shards, key),
            only,
        )
    if dataset is not None:
        reader = get_reader(dataset)
        try:
            listing = reader.list_pair(path, static or path)
        except LayoutError as error:
            if not recordings_alone(path).recordings:
                raise
            raise LayoutError(f"{error}\nWithout --dataset, the recordings below {path} are shown alone.") from error
    else:
        reader, listing = find_pair(path, static or path)

    def one_of_raw(name: str) -> One:
        recording = find_recording(listing, name)
        return recording_of_set(reader, listing, recording, root=path, time_bins=time_bins)

    if sample is not None:
        return _one(one_of_raw(sample))
    raw = facts_of_raw(reader, listing, limit=limit, time_bins=time_bins, progress=progress)
    raw.simulated = is_simulated(reader, path)
    options = ["--dataset", dataset] if dataset else []
    options += ["--static", str(static)] if static else []
    return _set(raw, path, options, lambda: sheets.sheet_of_raw(reader, listing, raw, only=only), one_of_raw, only)


def _one(one: One) -> Seen:
    writers = {"png": pages.png_of_one, "gif": pages.gif_of_one, "html": pages.html_of_one}
    values = {**one.facts.as_dict(), **{f"origin_{name}": value for name, value in one.origin.items()}}
    values["simulated"] = one.simulated

    def write(kind: str, target: Path) -> str:
        writers[kind](one, target)
        return ""

    return Seen(values, text_of_one(one), write)


def _set(
    found: SetFacts,
    path: Path,
    options: list[str],
    sheet: Callable[[], sheets.Sheet],
    open_one: Callable[[str], One],
    only: str | None,
) -> Seen:
    worst, _ = found.worst
    words = ["spikebridge", "inspect", str(path), *options, "--sample", worst, "--html", "worst.html"]

    def write(kind: str, target: Path) -> str:
        if kind == "gif":
            raise SettingsError("a GIF shows one recording; name one with --sample.")
        if kind == "png":
            write_bytes(target, sheet().png())
            return sheets.left_out(found, sheets.SHEET_ROWS, only)
        cells = sheet().page_cells()
        pages.html_of_set(found, cells, open_one(worst) if worst else None, shlex.join(words), target)
        return sheets.left_out(found, sheets.MOST_CELLS, only)

    text = text_of_set(found)
    if worst:
        text += f"\n  look at it:  {shlex.join(words)}"
    return Seen(found.as_dict(), text, write)
