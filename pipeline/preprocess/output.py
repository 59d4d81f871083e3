"""The output folder of a conversion: what is already there, who holds it, and what may be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileLock
from spikebridge.pipeline.base.foreign_json import Sha256, parse_json
from spikebridge.pipeline.base.sealed_json import read_sealed, write_sealed
from spikebridge.pipeline.preprocess.tasks import Reject
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import Manifest
from spikebridge.pipeline.shards.settings import describe_difference

PLAN = "plan.json"
"""In the work folder: the fingerprint of the conversion that is going on."""
_CHOICES = "Use another folder with --out, the same settings as before, or --overwrite to replace it."


class SetSource(Protocol):
    """What a shard set is made from: raw data, or another set."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Return settings and listing_sha256, which whatever continues or repeats the work must share."""


class Plan(TypedDict):
    """The file `plan.json`."""

    settings: dict[str, Any]
    listing_sha256: Sha256


def read_plan(out: Path) -> dict[str, Any]:
    """Read the fingerprint of the conversion that is going on in `out`.

    Raises:
        FileNotFoundError: none is.
        ShardSetError: the file is damaged.
    """
    remedy = "Begin again, in another folder with --out or with --overwrite."
    return dict(read_sealed(out / manifests.WORK_FOLDER / PLAN, Plan, error=ShardSetError, remedy=remedy))


@dataclass(frozen=True)
class ConversionResult:
    """A complete shard set, and what was dropped on the way."""

    manifest: Manifest
    rejects: tuple[Reject, ...]
    """Every recording or image that was dropped."""
    up_to_date: bool = False
    """True when the set was already there and nothing was done."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """Closing lines on its recordings, by their heading; none of a set that was already there."""

    @classmethod
    def read(cls, out: Path, manifest: Manifest, *, up_to_date: bool) -> ConversionResult:
        """Return the result of the complete shard set in `out`."""
        return cls(manifest, tuple(read_rejects(out)), up_to_date)


def read_rejects(folder: Path) -> list[Reject]:
    """Read what was dropped when a shard set was made.

    Raises:
        ShardSetError: damaged.
    """
    path, again = folder / manifests.REJECTS, "Convert or copy the shard set again."
    lines = path.read_bytes().splitlines()
    return [parse_json(line, Reject, source=str(path), error=ShardSetError, remedy=again) for line in lines]


def find_existing(conversion: SetSource, out: Path, *, overwrite: bool) -> ConversionResult | None:
    """Check what is in `out` before anything is written there.

    Returns:
        The outcome when the same conversion is already complete there; None when it may begin or continue.

    Raises:
        SettingsError: `out` is a file, holds something that is no shard set, or another conversion and `overwrite` is
            off. With `overwrite` another conversion is deleted; a folder of anything else never is.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise SettingsError(f"{out} is a file; expected a folder for the shard set. Choose another with --out.")
    complete, work = (out / manifests.MANIFEST).exists(), out / manifests.WORK_FOLDER
    unfinished = work.is_dir() and not complete
    if not unfinished and not complete:
        if entries := sorted(entry.name for entry in out.iterdir()):
            raise SettingsError(
                f"{out} is not empty and holds no shard set ({', '.join(entries[:5])}). Choose another with --out."
            )
        return None
    if unfinished and not (work / PLAN).exists():
        return None  # killed before the first byte of work
    fingerprint, manifest, trouble = _read_existing(out, unfinished=unfinished)
    fingerprint = _comparable(fingerprint, conversion)
    if fingerprint == conversion.fingerprint:
        if manifest is None:
            return None
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed at its very end
        return ConversionResult.read(out, manifest, up_to_date=True)
    if not overwrite:
        kind = "an unfinished conversion" if unfinished else "another shard set"
        difference = trouble or _describe_change(fingerprint, conversion.fingerprint)
        raise SettingsError(f"{out} already holds {kind}:\n{difference}\n{_CHOICES}")
    if unfinished:
        with lock(work):  # refuses while somebody is at work there
            _clear(out)
    else:
        _clear(out)
    return None


def _read_existing(out: Path, *, unfinished: bool) -> tuple[dict[str, Any], Manifest | None, str]:
    """Return the fingerprint of what is in `out`, its manifest when complete, and what is wrong with it."""
    try:
        if unfinished:
            return read_plan(out), None, ""
        manifest = manifests.read(out)
        fingerprint = {"settings": manifest["settings"], "listing_sha256": manifest["listing_sha256"]}
        return fingerprint, manifest, ""
    except (ShardSetError, OSError, ValueError, KeyError) as error:
        return {}, None, f"  it is damaged: {error}"


def _comparable(existing: dict[str, Any], conversion: SetSource) -> dict[str, Any]:
    """Return a fingerprint without settings that the conversion leaves for the recordings to decide."""
    if not existing or "dtype" in conversion.fingerprint["settings"]:
        return existing
    return {**existing, "settings": {n: value for n, value in existing["settings"].items() if n != "dtype"}}


def _describe_change(existing: dict[str, Any], requested: dict[str, Any]) -> str:
    lines = describe_difference(existing.get("settings", {}), requested["settings"])
    if existing.get("listing_sha256") != requested["listing_sha256"]:
        lines += ("\n" if lines else "") + "  raw data: the recordings or images found are not the same"
    return lines


def _clear(out: Path) -> None:
    """Delete a shard set, the manifest first, so that a half-deleted one never looks complete."""
    (out / manifests.MANIFEST).unlink(missing_ok=True)
    for entry in out.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def make_work_folder(out: Path) -> Path:
    """Return the folder of unfinished work below `out`, made if it is missing.

    Raises:
        SettingsError: it cannot be made.
    """
    work = out / manifests.WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be made ({error.strerror}). Choose another folder with --out.") from error
    return work


@contextmanager
def lock(work: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the folder for this process; the system lets go when the process ends, however it ends.

    With `shared`, others that are content to share are let in, too.

    Raises:
        SettingsError: another process holds it.
    """
    try:
        held = FileLock(work / "lock", shared=shared, wait=False)
    except BlockingIOError as error:
        raise SettingsError(
            f"{work.parent}: another process is converting into this folder. Wait for it, or choose another --out."
        ) from error
    with held:
        yield


def claim(conversion: SetSource, out: Path) -> dict[str, Any]:
    """Write down what is being made here, and remove what killed processes left; for a sole owner.

    Returns:
        What is written down: of a run that continues another, also what that decided.
    """
    remove_partial_files(out)
    return claim_together(conversion, out)


def record_plan(conversion: SetSource, out: Path) -> None:
    """Write down what is being made here again, now that all is decided."""
    plan = out / manifests.WORK_FOLDER / PLAN
    with FileLock(plan.with_suffix(".lock")):
        write_sealed(plan, conversion.fingerprint)


def remove_partial_files(out: Path) -> None:
    """Remove what killed processes left half-written."""
    for folder in (out, out / manifests.WORK_FOLDER):
        for path in folder.glob(f"*{PARTIAL_SUFFIX}"):
            path.unlink(missing_ok=True)


def claim_together(conversion: SetSource, out: Path) -> dict[str, Any]:
    """Write down what is being made here, or check that the others who share the folder make the same.

    Returns:
        What is written down.

    Raises:
        SettingsError: they make something else.
    """
    plan = out / manifests.WORK_FOLDER / PLAN
    with FileLock(plan.with_suffix(".lock")):
        if not plan.exists():
            write_sealed(plan, conversion.fingerprint)
        existing = read_plan(out)
    comparable = _comparable(existing, conversion)
    if comparable != conversion.fingerprint:
        difference = _describe_change(comparable, conversion.fingerprint)
        raise SettingsError(f"{out}: another process began another conversion here:\n{difference}\n{_CHOICES}")
    return existing
