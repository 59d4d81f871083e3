"""Inspection of a path: recognises what it is, and returns its facts, text and writers of files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.base.progress import Progress
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.inspection import pages, sheets
from spikebridge.pipeline.inspection.sets import (
    SetSummary,
    find_pair,
    list_recordings_alone,
    summarize_raw,
    summarize_shards,
)
from spikebridge.pipeline.inspection.text import format_set, format_view
from spikebridge.pipeline.inspection.views import (
    RecordingView,
    find_recording,
    is_simulated,
    view_file,
    view_recording,
    view_sample,
)
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.manifest import MANIFEST, SPLITS, WORK_FOLDER
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import STATIC_FILE

PART_OF_SET = re.compile(rf"events-({'|'.join(SPLITS)})-\d{{5}}\.(tar|h5|idx\.npy)|{re.escape(STATIC_FILE)}")
"""Name of a file that only a shard set has."""


@dataclass(frozen=True)
class Inspection:
    """Result of inspecting a path."""

    values: dict[str, object]
    """JSON-ready facts."""
    text: str
    write: Callable[[str, Path], str]
    """Writes a file of a kind (`png`, `gif`, `html`); returns what that leaves out, or an empty text."""


def inspect_path(
    path: Path,
    *,
    dataset: str | None,
    static: Path | None,
    sample: str | None,
    only: str | None,
    time_bins: int,
    limit: int,
    progress: Progress,
    **options: Any,
) -> Inspection:
    """Inspect a path - recording, raw data set or shard set - or one sample in it.

    `dataset` names the reader of a raw folder (None tries all), `static` the folder of its static images (None takes
    `path`), `sample` one recording or sample, `only` the one class that a contact sheet shows. Of a raw data set, at
    most `limit` recordings are inspected, in `time_bins` frames each; `options` are those of `TableOptions`.

    Raises:
        RecordingError: a recording cannot be used, or there is none of that name.
        LayoutError: the folder fits no data set, or several.
        ShardSetError: a damaged shard set.
        SettingsError: options that do not go together.
    """
    if path.is_file():
        return _inspect_one(view_file(path, time_bins=time_bins, table=TableOptions(**options)))
    if is_shard_set(path):
        shards = ShardSet(path)
        if sample is not None:
            return _inspect_one(view_sample(shards, sample))
        stored = summarize_shards(shards, progress=progress)
        make_sheet = partial(sheets.make_shard_sheet, shards, stored, only=only)
        return _inspect_set(stored, path, [], make_sheet, partial(view_sample, shards))
    if dataset is not None:
        reader = get_reader(dataset, **options)
        try:
            listing = reader.list_pair(path, static or path)
        except LayoutError as error:
            if not list_recordings_alone(path).recordings:
                raise
            raise LayoutError(f"{error}\nWithout --dataset, the recordings below {path} are shown alone.") from error
    else:
        reader, listing = find_pair(path, static or path)
        reader = get_reader(reader.name, **options)

    def view_by_name(name: str) -> RecordingView:
        recording = find_recording(listing, name)
        return view_recording(reader, listing, recording, root=path, time_bins=time_bins)

    if sample is not None:
        return _inspect_one(view_by_name(sample))
    raw = summarize_raw(reader, listing, limit=limit, time_bins=time_bins, progress=progress)
    raw.simulated = is_simulated(reader, path)
    words = ["--dataset", dataset] if dataset else []
    words += ["--static", str(static)] if static else []
    return _inspect_set(raw, path, words, partial(sheets.make_raw_sheet, reader, listing, raw, only=only), view_by_name)


def is_shard_set(path: Path) -> bool:
    """Return whether a folder is a shard set, or a part of one: without its manifest it is no raw data set either."""
    if (path / MANIFEST).exists() or (path / WORK_FOLDER).exists():
        return True
    return path.is_dir() and any(PART_OF_SET.fullmatch(name) for name in os.listdir(path))


def _inspect_one(view: RecordingView) -> Inspection:
    writers = {"png": pages.write_png, "gif": pages.write_gif, "html": pages.write_page}
    origin = {f"origin_{name}": value for name, value in view.origin.items()}
    values = {**view.facts.as_dict(), **origin, "simulated": view.simulated}

    def write(kind: str, target: Path) -> str:
        writers[kind](view, target)
        return ""

    return Inspection(values, format_view(view), write)


def _inspect_set(
    summary: SetSummary,
    path: Path,
    options: list[str],
    make_sheet: Callable[[], sheets.ContactSheet],
    view_by_name: Callable[[str], RecordingView],
) -> Inspection:
    worst, _ = summary.worst
    words = ["spikebridge", "inspect", str(path), *options, "--sample", worst, "--html", "worst.html"]

    def write(kind: str, target: Path) -> str:
        if kind == "gif":
            raise SettingsError("a GIF shows one recording; name one with --sample.")
        sheet = make_sheet()
        if kind == "png":
            write_bytes(target, sheet.png())
            return sheet.describe_omission(sheets.SHEET_ROWS)
        view = view_by_name(worst) if worst else None
        pages.write_set_page(summary, sheet.page_cells(), view, shlex.join(words), target)
        return sheet.describe_omission(sheets.MOST_CELLS)

    text = format_set(summary)
    if worst:
        text += f"\n  look at it:  {shlex.join(words)}"
    return Inspection(summary.as_dict(), text, write)
