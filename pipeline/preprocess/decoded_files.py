"""Files that hold many recordings: decoded and framed once, all of them, and kept in the work folder.

Samples are shuffled before they are cut into shards, so the recordings of one file land in many shards, and their tasks
run anywhere in any order. The first task that needs a file decodes it under a lock; tasks that come meanwhile wait for
it, and all others find the frames. What is kept depends on the file and the settings alone, so shards do not
depend on who was first. What is kept and damaged is decoded again. The folder goes with the work folder at the end of
the conversion.

    <work>/decoded/<hash of the path>.npy  frames of the recordings that can be used, [R,T,P,H,W]
                                   .events where a set stores them: their compact events, one after the other
                                   .json   written last: their names, checksums and facts, and the errors of the others
                                   .lock   held while the file is decoded
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import PipelineError, RecordingError
from spikebridge.pipeline.base.files import FileLock, replacing
from spikebridge.pipeline.base.foreign_json import Count, Sha256
from spikebridge.pipeline.base.sealed_json import read_sealed, write_sealed
from spikebridge.pipeline.datasets.pairs import Recording

FOLDER = "decoded"
EVENTS = ".events"
log = logging.getLogger(__name__)


class Facts(TypedDict):
    """What is known of a converted recording, besides its frames."""

    events: Count
    dropped_events: Count
    saturated_cells: Count
    clipped_events: Count
    outside_events: Count
    duration_us: Count
    events_sha256: Sha256
    overflow_markers: NotRequired[Count]
    filtered_events: NotRequired[dict[str, Count]]
    passed_over: NotRequired[dict[str, Count]]
    doubts: NotRequired[list[str]]
    choices: NotRequired[list[str]]


class StoredFile(TypedDict):
    """The file that says what was decoded."""

    conversion: Sha256
    """See `pipeline.preprocess.tasks.Job.conversion_of`."""
    rows: dict[str, tuple[Count, Count, Facts]]
    """Row of the array, crc32 of its frames and events, and facts, by recording."""
    ends: list[Count]
    """Where the compact events of each row end in the file beside it; empty where none are stored."""
    errors: dict[str, tuple[str, str, dict[str, Count]]]
    """Message, reason and counts of the recordings that cannot be used."""


@dataclass(frozen=True)
class ConvertedRecording:
    """One recording as frames."""

    frames: NDArray[Any]
    """[T,P,H,W]."""
    facts: dict[str, Any]
    """Those of `Facts`."""
    events: NDArray[np.uint8] | None = None
    """[bytes] compact, where a set stores events."""


Decode = Callable[[], Iterable[tuple[str, ConvertedRecording | RecordingError]]]
"""Decodes the whole file: name and content of each recording in it."""


def cached_frames(work: Path, recording: Recording, conversion: str, decode: Decode) -> ConvertedRecording:
    """Return one recording of a file, which is decoded first if nobody has done so for this `conversion`.

    Raises:
        RecordingError: the recording cannot be used, or is not in the file (`missing`).
        PipelineError: what is written cannot be read back.
    """
    stem = work / FOLDER / hashlib.sha256(os.fsencode(recording.file)).hexdigest()[:32]
    for _ in range(2):
        kept = _decode_once(stem, conversion, decode)
        if recording.name in kept["errors"]:
            message, reason, counts = kept["errors"][recording.name]
            raise RecordingError(message, reason=reason, counts=counts)
        if recording.name not in kept["rows"]:
            raise RecordingError(f"{recording.name}: not found in {recording.path.name}.", reason="missing")
        row, checksum, facts = kept["rows"][recording.name]
        frames, events = _read_row(stem.with_suffix(".npy"), row), _read_events(stem, kept["ends"], row)
        if frames is not None and _checksum(frames, events) == checksum:
            return ConvertedRecording(frames, dict(facts), events)
        _discard(stem, f"{stem.with_suffix('.npy')}: damaged (checksum differs). The file is decoded again.")
    raise PipelineError(f"{stem.with_suffix('.npy')}: holds something else than was written. Is the disk sound?")


def _decode_once(stem: Path, conversion: str, decode: Decode) -> StoredFile:
    """Decode a file and keep its recordings, unless they are kept already."""
    if (kept := _load(stem, conversion)) is not None:
        return kept
    stem.parent.mkdir(exist_ok=True)
    with FileLock(stem.with_suffix(".lock")):
        if (kept := _load(stem, conversion)) is None:
            kept = _write(stem, conversion, decode())
    return kept


def _load(stem: Path, conversion: str) -> StoredFile | None:
    """Read what was decoded; None where nothing was, or what is there is damaged or of another conversion."""
    path, again = stem.with_suffix(".json"), "The file is decoded again."
    try:
        kept = read_sealed(path, StoredFile, error=PipelineError, remedy=again)
        if kept["conversion"] == conversion:
            return kept
        _discard(stem, f"{path}: of another conversion. {again}")
    except FileNotFoundError:
        pass
    except PipelineError as error:
        _discard(stem, str(error))
    return None


def _discard(stem: Path, why: str) -> None:
    log.warning("%s", why)
    with suppress(OSError):
        stem.with_suffix(".json").unlink(missing_ok=True)


def _read_row(path: Path, row: int) -> NDArray[Any] | None:
    """Read the frames [T,P,H,W] of a recording; None where the array is damaged."""
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[row])
    except Exception:  # of a damaged header numpy lets through whatever Python's parser raises
        return None


def _read_events(stem: Path, ends: Sequence[int], row: int) -> NDArray[np.uint8] | None:
    """Read the compact events of a recording; None where none are stored, or they are gone."""
    if row >= len(ends):
        return None
    begin = ends[row - 1] if row else 0
    with suppress(OSError):
        return np.fromfile(stem.with_suffix(EVENTS), np.uint8, ends[row] - begin, offset=begin)
    return None


def _checksum(frames: NDArray[Any], events: NDArray[np.uint8] | None) -> int:
    return zlib.crc32(b"" if events is None else events.data, zlib.crc32(np.ascontiguousarray(frames).data))


def _write(
    stem: Path, conversion: str, contents: Iterable[tuple[str, ConvertedRecording | RecordingError]]
) -> StoredFile:
    """Keep the recordings of a file; returns what is then there."""
    frames: list[NDArray[Any]] = []
    rows: dict[str, Any] = {}
    errors: dict[str, tuple[str, str, dict[str, int]]] = {}
    ends: list[int] = []
    with replacing(stem.with_suffix(EVENTS)) as partial, open(partial, "wb") as file:
        for name, content in contents:
            if isinstance(content, RecordingError):
                errors[name] = (str(content), content.reason, content.counts)
                continue
            rows[name] = (len(frames), _checksum(content.frames, content.events), content.facts)
            frames.append(content.frames)
            if content.events is not None:
                file.write(content.events.data)
                ends.append(file.tell())
    with replacing(stem.with_suffix(".npy")) as partial, open(partial, "wb") as file:
        np.lib.format.write_array(file, np.stack(frames) if frames else np.empty(0), allow_pickle=False)
    kept: StoredFile = {"conversion": conversion, "rows": rows, "ends": ends, "errors": errors}
    write_sealed(stem.with_suffix(".json"), kept)
    return kept
