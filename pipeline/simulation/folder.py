"""Folders of simulated raw data: their owner, their settings, and the resumption of an interrupted run.

The header (settings, seed, source) stands in `PARTIAL` while files are written and in `COMPLETE`, with counts, when all
are there. Every file is written aside and renamed, so that a file under its final name is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileLock, write_bytes
from spikebridge.pipeline.base.foreign_json import Count, read_json
from spikebridge.pipeline.shards.settings import describe_difference

COMPLETE = "simulated.json"
PARTIAL = "simulated.partial.json"
LOCK = "simulated.lock"
"""File that is there, and held, while a call writes; a killed one leaves it."""


class _BegunHeader(TypedDict):
    """What is read of `PARTIAL`."""

    settings: dict[str, Any]
    clearing: bool
    """Files of another run are being removed."""


class _Counts(TypedDict):
    recordings: Count
    events: Count


class _CompleteHeader(TypedDict):
    """What is read of `COMPLETE`."""

    settings: dict[str, Any]
    counts: _Counts


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is missing, so that no other call writes it.

    Raises:
        SettingsError: another call holds it, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file; expected a folder to write into.")
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(out / LOCK, wait=False)
    except BlockingIOError:
        raise SettingsError(
            f"{out}: another simulate is writing this folder; wait until it is done, or choose another one."
        ) from None
    with held:
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)


def prepare(out: Path, header: dict[str, Any], *, overwrite: bool) -> None:
    """Prepare the folder: write the header of this run into `PARTIAL`, and keep files of an interrupted equal run.

    Raises:
        SettingsError: the folder, which is there, holds something else, or data with other settings.
    """
    partial = read_header(out / PARTIAL)
    complete = (out / COMPLETE).exists()
    # A run killed at its very first file leaves that file's temporary form.
    begun = (p.name for p in out.iterdir() if not (p.name.startswith(PARTIAL) and p.name.endswith(PARTIAL_SUFFIX)))
    others = [name for name in begun if name != LOCK]
    if others and partial is None and not complete:
        raise SettingsError(
            f"{out}: not empty ({', '.join(sorted(others)[:3])}) and without {COMPLETE}, so not written by this "
            "command. Choose another folder."
        )
    if partial is not None and not complete:
        clearing = partial.pop("clearing")
        if not overwrite:
            refuse_difference(out, partial, header)
        if _comparable(partial) == _comparable(header) and not clearing:
            return
    # Old files must never pass for files of this run, whenever it is killed: the header says that they are being
    # cleared until they are gone, and the old header goes before them.
    write_bytes(out / PARTIAL, _encode({**header, "clearing": True}))
    (out / COMPLETE).unlink(missing_ok=True)
    for name in ("events", "static"):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for leftover in out.glob(f"*{PARTIAL_SUFFIX}"):
        leftover.unlink()
    write_bytes(out / PARTIAL, _encode({**header, "clearing": False}))


def complete_folder(out: Path, header: dict[str, Any], counts: dict[str, Any]) -> None:
    """Mark the folder as complete, with the counts of its files."""
    write_bytes(out / COMPLETE, _encode({**header, "counts": counts}))
    (out / PARTIAL).unlink()


def read_header(path: Path) -> dict[str, Any] | None:
    """Read a header file; return None where there is none.

    Raises:
        SettingsError: it is not one of ours.
    """
    if not path.is_file():
        return None
    form: Any = _CompleteHeader if path.name == COMPLETE else _BegunHeader
    remedy = "It is not what this command writes. Choose another folder."
    header: dict[str, Any] = read_json(path, form, error=SettingsError, remedy=remedy)
    return header


def refuse_difference(out: Path, present: dict[str, Any], header: dict[str, Any]) -> None:
    """Compare two headers, counts and generator aside.

    Raises:
        SettingsError: with the settings that differ.
    """
    difference = describe_difference(_comparable(present), _comparable(header))
    if difference:
        raise SettingsError(
            f"{out}: holds simulated data with other settings. Choose another folder, or overwrite it.\n{difference}"
        )


def _comparable(header: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the recordings: not the counts, and not the generator, whose name versions change."""
    return _flatten({name: value for name, value in header.items() if name not in ("counts", "generator")})


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts and lists into one dict with dotted names."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for name, inner in value.items():
        out |= _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    return out


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def is_filled(path: Path) -> bool:
    """Return whether a file is there and not empty: a power cut can leave an empty one under a final name."""
    return path.is_file() and path.stat().st_size > 0
