"""Files that hold many recordings: decoded and framed once, all of them, and kept in the work folder.

Samples are shuffled before they are cut into shards, so the recordings of one file land in many shards, and their tasks
run anywhere in any order. The first task that needs a file decodes it under a lock; tasks that come meanwhile wait for
it, and all others find the frames. What is kept depends on the file and the settings alone, so shards do not
depend on who was first. The folder goes with the work folder at the end of the conversion.

    <work>/decoded/<hash of the path>.npy  frames of the recordings that can be used, [R,T,P,H,W]
                                   .json   written last: their names and facts, and the errors of the others
                                   .lock   held while the file is decoded
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.files import FileLock, replacing, write_bytes
from spikebridge.pipeline.datasets.pairs import Recording

FOLDER = "decoded"


@dataclass(frozen=True)
class ConvertedRecording:
    """One recording as frames."""

    frames: NDArray[Any]
    """[T,P,H,W]."""
    facts: dict[str, Any]
    """JSON-ready: events, dropped_events, saturated_cells, clipped_events, duration_us, events_sha256."""


@dataclass(frozen=True)
class DecodedFile:
    """The decoded recordings of one file."""

    frames: Path
    """Path of the array."""
    rows: dict[str, tuple[int, dict[str, Any]]]
    """Row in it and facts, by recording."""
    errors: dict[str, tuple[str, str]]
    """Message and reason of the recordings that cannot be used."""


Decode = Callable[[], Iterable[tuple[str, ConvertedRecording | RecordingError]]]
"""Decodes the whole file: name and content of each recording in it."""


def cached_frames(work: Path, recording: Recording, decode: Decode) -> ConvertedRecording:
    """Return one recording of a file, which is decoded first if nobody has done so.

    Raises:
        RecordingError: the recording cannot be used, or is not in the file (`missing`).
    """
    kept = _decode_once(work, recording.path, decode)
    if recording.name in kept.errors:
        message, reason = kept.errors[recording.name]
        raise RecordingError(message, reason=reason)
    if recording.name not in kept.rows:
        raise RecordingError(f"{recording.name}: not found in {recording.path.name}.", reason="missing")
    row, facts = kept.rows[recording.name]
    frames = np.load(kept.frames, mmap_mode="r", allow_pickle=False)
    return ConvertedRecording(np.array(frames[row]), facts)


def _decode_once(work: Path, path: Path, decode: Decode) -> DecodedFile:
    """Decode a file and keep its recordings, unless they are kept already."""
    stem = work / FOLDER / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    if (kept := _load(stem)) is not None:
        return kept
    stem.parent.mkdir(exist_ok=True)
    with FileLock(stem.with_suffix(".lock")):
        if (kept := _load(stem)) is None:
            _write(stem, decode())
            kept = _load(stem)
    assert kept is not None
    return kept


def _load(stem: Path) -> DecodedFile | None:
    try:
        content = json.loads(stem.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return None
    return DecodedFile(stem.with_suffix(".npy"), content["rows"], content["errors"])


def _write(stem: Path, contents: Iterable[tuple[str, ConvertedRecording | RecordingError]]) -> None:
    frames: list[NDArray[Any]] = []
    rows: dict[str, tuple[int, dict[str, Any]]] = {}
    errors: dict[str, tuple[str, str]] = {}
    for name, content in contents:
        if isinstance(content, RecordingError):
            errors[name] = (str(content), content.reason)
        else:
            rows[name] = (len(frames), content.facts)
            frames.append(content.frames)
    with replacing(stem.with_suffix(".npy")) as partial, open(partial, "wb") as file:
        np.lib.format.write_array(file, np.stack(frames) if frames else np.empty(0), allow_pickle=False)
    write_bytes(stem.with_suffix(".json"), json.dumps({"rows": rows, "errors": errors}).encode())
