"""The manifest of a shard set: what it holds, made from what, and the hash that is its ID.

`manifest.json` is written last, so its presence means that the set is complete. It holds no host, user, absolute path
or time of day. `self_sha256` is the hash of everything else in canonical form; it is the set's ID.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import FileEntry, write_bytes
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.shards.settings import CHOICES, SCHEMA_VERSION

MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
ENVIRONMENT = "environment.json"
CARD = "README.md"
REJECTS = "rejects.jsonl"
WORK_FOLDER = ".work"
"""Folder of a conversion that is not finished: plan, results and static parts; removed at the end."""
REQUIRED = ("schema", "dataset", "settings", "classes", "sample", "static", "splits", "files", "pairing", "self_sha256")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
PASSED_OVER, DOUBTFUL = "passed over:", "doubtful:"
"""Beginnings of notes on what the recordings hold besides events, and on those that may be wrong."""
SPLITS = ("train", "validation", "test")
DTYPES = ("|u1", "<u2", "<f2")
"""Types of stored frames."""


class SampleType(TypedDict):
    """What every stored sample is."""

    axes: str
    """`TPHW`."""
    shape: list[int]
    """(T,P,H,W)."""
    dtype: str
    """One of `DTYPES`."""


class SplitCounts(TypedDict):
    """Recordings of a split."""

    samples: int
    per_class: list[int]


class StaticSummary(TypedDict):
    """What the file of static images holds."""

    file: str
    shape: list[int]
    """(C,H,W)."""
    images: int
    roles: dict[str, int]
    """Images by role: pool, held out, ..."""
    classes_without_pool: list[str]


class Pairing(TypedDict):
    """How recordings belong to static images."""

    kind: str
    """`exact` or `class`."""
    protocol: str


class Content(TypedDict):
    """All of a manifest but its own hash."""

    schema: int
    dataset: str
    settings: dict[str, Any]
    """Those of `ConversionSettings.as_dict`."""
    settings_sha256: str
    classes: list[str]
    sensor_size: list[int]
    """(W,H)."""
    shown_fraction: float | None
    sample: SampleType
    splits: dict[str, SplitCounts]
    static: StaticSummary
    events: dict[str, int]
    """Sums over all recordings, see `pipeline.preprocess.tasks.TaskResult.totals`."""
    simulated: bool
    pairing: Pairing
    listing_sha256: str
    """Hash of what the raw folders held."""
    rejected: int
    notes: list[str]
    files: list[FileEntry]


class Manifest(Content):
    """A sealed manifest, as `parse` returns it."""

    self_sha256: str
    """The shard set's ID."""


def seal(content: Content) -> Manifest:
    """Add `self_sha256`, the hash of the content's canonical JSON form, replacing any that is there."""
    body: dict[str, Any] = {name: value for name, value in content.items() if name != "self_sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return cast(Manifest, {**body, "self_sha256": hashlib.sha256(text.encode()).hexdigest()})


def dump(values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest or another JSON file: sorted keys, one value a line."""
    return (json.dumps(values, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def write(folder: Path, manifest: Manifest) -> None:
    """Write a sealed manifest, whole or not at all."""
    write_bytes(folder / MANIFEST, dump(manifest))


def read(folder: Path) -> Manifest:
    """Read and check the manifest of a shard set.

    Raises:
        ShardSetError: no shard set there, an unfinished or damaged one, or one of a newer schema.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ShardSetError(f"{folder}: no such folder; expected a shard set. Make one with `{command('preprocess')}`.")
    if not path.is_file():
        if (folder / WORK_FOLDER).exists():
            raise ShardSetError(f"{folder}: the conversion is not finished. Run the same preprocess command again.")
        raise ShardSetError(f"{folder}: no {MANIFEST}; expected a shard set made by `{command('preprocess')}`.")
    return parse(path.read_bytes(), source=str(path))


def parse(data: bytes, *, source: str) -> Manifest:
    """Check the bytes of a manifest, wherever they come from.

    Raises:
        ShardSetError: damaged, changed, strange, or of a newer schema.
    """
    path = source
    try:
        manifest: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardSetError(f"{path}: damaged, not JSON ({error}). Convert or copy the shard set again.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise ShardSetError(f"{path}: no schema number; this is not the manifest of a shard set.")
    if manifest["schema"] > SCHEMA_VERSION:
        raise ShardSetError(
            f"{path}: schema {manifest['schema']}, but this version reads up to {SCHEMA_VERSION}. Update spikebridge."
        )
    if missing := [name for name in REQUIRED if name not in manifest]:
        raise ShardSetError(f"{path}: damaged, {', '.join(missing)} missing. Convert or copy the shard set again.")
    if seal(cast(Manifest, manifest))["self_sha256"] != manifest["self_sha256"] or dump(manifest) != data:
        raise ShardSetError(
            f"{path}: its content does not match its own hash, so it was changed or damaged. "
            "Convert or copy the shard set again."
        )
    if strange := _strange(manifest):
        raise ShardSetError(f"{path}: it has {strange}, which no shard set has. Do not use it; ask who made it.")
    return cast(Manifest, manifest)


def _strange(manifest: dict[str, Any]) -> str:
    """Name what in a manifest with a valid hash cannot be: a file outside the folder, a number that is none, ..."""
    try:
        files, settings, sample, splits = (manifest[name] for name in ("files", "settings", "sample", "splits"))
        names = [entry["name"] for entry in files]
        checks = (
            ("a file outside its folder", all(FILE_NAME.fullmatch(name) for name in names)),
            ("a file that is listed twice", len({name.casefold() for name in names}) == len(names)),
            ("a file without size", all(_counts(entry["bytes"], entry["samples"]) for entry in files)),
            ("a file without hash", all(SHA256.fullmatch(entry["sha256"]) for entry in files)),
            ("an unknown format or codec", all(settings[name] in CHOICES[name] for name in ("format", "codec"))),
            ("an unknown type of samples", sample["dtype"] in DTYPES and len(sample["shape"]) == 4),
            ("a shape without cells", _counts(*sample["shape"]) and min(sample["shape"]) > 0),
            ("a class without name", all(isinstance(name, str) for name in manifest["classes"])),
            ("an unknown split", tuple(sorted(splits)) == tuple(sorted(SPLITS))),
            ("a split without counts", all(_counts(s["samples"], *s["per_class"]) for s in splits.values())),
            ("no word on simulation", type(manifest["simulated"]) is bool),
            ("no word on pairing", isinstance(manifest["pairing"]["kind"], str)),
        )
    except (TypeError, KeyError, AttributeError) as error:
        return f"something missing or of another kind ({error})"
    return next((what for what, good in checks if not good), "")


def _counts(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 2**53 for value in values)


def files_of(manifest: Manifest, splits: Iterable[str]) -> list[FileEntry]:
    """Return the files of a set, without the event shards of other splits than `splits`."""
    others = tuple(f"events-{split}-" for split in SPLITS if split not in splits)
    return [entry for entry in manifest["files"] if not entry["name"].startswith(others)]


def checksums(files: Sequence[FileEntry]) -> str:
    """Return the text of SHA256SUMS, which `sha256sum -c` checks."""
    return "".join(f"{entry['sha256']}  {entry['name']}\n" for entry in sorted(files, key=lambda entry: entry["name"]))
