"""The manifest of a shard set: what it holds, made from what, and the hash that is its ID.

`manifest.json` is written last, so its presence means that the set is complete. It holds no host, user, absolute path
or time of day. `self_sha256` is the hash of everything else in canonical form; it is the set's ID.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import FileEntry, write_bytes
from spikebridge.pipeline.base.foreign_json import MAX_BYTES, Count, Pattern, Range, Sha256, check_json, parse_json
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.settings import field_problems
from spikebridge.pipeline.shards.codec import MAX_RATIO, RAW
from spikebridge.pipeline.shards.settings import SCHEMA_VERSION, ConversionSettings

MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
ENVIRONMENT = "environment.json"
CARD = "README.md"
CROISSANT = "croissant.json"
"""The set for catalogues, a rendering of its manifest."""
OUTSIDE = (ENVIRONMENT, CROISSANT)
"""Files beside a set that its ID does not cover."""
REJECTS = "rejects.jsonl"
WORK_FOLDER = ".work"
"""Folder of a conversion that is not finished: plan, results and static parts; removed at the end."""
SHA256 = re.compile(r"[0-9a-f]{64}")
PASSED_OVER, DOUBTFUL, WARNING = "passed over:", "doubtful:", "warning:"
"""Beginnings of notes on what the recordings hold besides events, on those that may be wrong, and on all together."""
SPLITS = ("train", "validation", "test")
MOST_SAMPLE_BYTES = 2**32
"""Largest sample that is read, decoded; the settings allow none beyond."""
Length = Annotated[int, Range(1, 2**16)]
"""Of an axis."""


class SampleType(TypedDict):
    """What every stored sample is."""

    axes: str
    """`TPHW`."""
    shape: list[Length]
    """(T,P,H,W)."""
    dtype: Annotated[str, Pattern(r"\|u1|<u2|<f2", "one of |u1, <u2, <f2")]


class SplitCounts(TypedDict):
    """Recordings of a split."""

    samples: Count
    per_class: list[Count]


class StaticSummary(TypedDict):
    """What the file of static images holds."""

    file: str
    shape: list[Length]
    """(C,H,W)."""
    images: Count
    roles: dict[str, Count]
    """Images by role: pool, held out, ..."""
    classes_without_pool: list[str]


class Pairing(TypedDict):
    """How recordings belong to static images."""

    kind: str
    """`exact` or `class`."""
    protocol: str


class SourceSet(TypedDict):
    """A shard set that another one was made of."""

    id: Sha256
    dataset: str
    listing_sha256: str
    settings_sha256: str
    samples: Count


class Derivation(TypedDict):
    """One step by which a set was made of others."""

    verb: Literal["combine", "subset", "convert"]
    sets: list[SourceSet]
    selection: NotRequired[dict[str, Any]]
    """What `subset` kept, as it was asked for; settings of the frames that `convert` made anew."""
    gave: NotRequired[Sha256]
    """ID of the set that the step made; absent from the last step, whose set this is."""


class StoredEvents(TypedDict):
    """How a set stores events, and what of its recordings becomes frames."""

    layout: Annotated[int, Range(1)]
    """Version of `pipeline.events.compact`."""
    most_bytes: Count
    """Of the largest sample, before it is compressed."""
    crop: list[Count] | None
    """What is shown of the sensor: left, top, right, bottom; None for all of it."""
    span_us: Count | None
    """Length of every recording, from t = 0 on; None for each from its first event to its last."""


class Content(TypedDict):
    """All of a manifest but its own hash."""

    schema: Annotated[int, Range(1)]
    dataset: str
    settings: dict[str, Any]
    """Those of `ConversionSettings.as_dict`."""
    settings_sha256: str
    classes: list[str]
    sensor_size: list[Count]
    """(W,H)."""
    shown_fraction: float | None
    sample: SampleType
    """Frames, as stored or as made with the settings of the set."""
    stored: NotRequired[StoredEvents]
    """Of a set that stores events."""
    splits: dict[str, SplitCounts]
    static: StaticSummary
    events: dict[str, int]
    """Sums over all recordings, see `pipeline.preprocess.tasks.TaskResult.totals`."""
    simulated: bool
    pairing: Pairing
    listing_sha256: str
    """Hash of what the raw folders held."""
    rejected: Count
    notes: list[str]
    files: list[FileEntry]
    made_from: NotRequired[list[Derivation]]
    """Of a set made of other sets: the steps, the oldest first."""


class Manifest(Content):
    """A sealed manifest, as `parse` returns it."""

    self_sha256: Sha256
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
    with open(path, "rb") as file:
        return parse(file.read(MAX_BYTES + 1), source=str(path))


def parse(data: bytes, *, source: str) -> Manifest:
    """Check the bytes of a manifest, wherever they come from.

    Raises:
        ShardSetError: damaged, changed, strange, or of a newer schema.
    """
    again = "Convert or copy the shard set again."
    manifest: Any = parse_json(data, dict[str, Any], source=source, error=ShardSetError, remedy=again)
    if type(manifest.get("schema")) is not int:
        raise ShardSetError(f"{source}: no schema number; this is not the manifest of a shard set.")
    if manifest["schema"] > SCHEMA_VERSION:
        raise ShardSetError(
            f"{source}: schema {show(str(manifest['schema']))}, but this version reads up to {SCHEMA_VERSION}. Update "
            "spikebridge."
        )
    if seal(cast(Manifest, manifest))["self_sha256"] != manifest.get("self_sha256") or dump(manifest) != data:
        raise ShardSetError(f"{source}: its content does not match its own hash, so it was changed or damaged. {again}")
    ask = "No shard set has that: do not use it, and ask who made it."
    checked: Manifest = check_json(manifest, Manifest, source=source, error=ShardSetError, remedy=ask)
    if problem := _find_contradiction(checked):
        raise ShardSetError(f"{source}: {problem}. {ask}")
    return checked


def _find_contradiction(manifest: Manifest) -> str:
    """Return what cannot be in a manifest whose hash and types are right; an empty text where there is nothing."""
    names = [entry["name"].casefold() for entry in manifest["files"]]
    shape, classes, splits = manifest["sample"]["shape"], manifest["classes"], manifest["splits"]
    sample_bytes = math.prod(shape) * int(manifest["sample"]["dtype"][2])
    settings = field_problems(ConversionSettings, manifest["settings"])
    settings += [f"{name}: missing" for name in ("codec", "format", "protocol") if name not in manifest["settings"]]
    small = _find_small_shard(manifest, sample_bytes)
    checks = (
        ("a file is listed twice", len(set(names)) == len(names)),
        ("its settings cannot be: " + show("; ".join(settings), most=300), not settings),
        ("a sample has not four axes, or is too large", len(shape) == 4 and sample_bytes <= MOST_SAMPLE_BYTES),
        (small, not small),
        ("a static image has not three axes", len(manifest["static"]["shape"]) == 3),
        ("the number of static images in the pool is missing", "pool" in manifest["static"]["roles"]),
        (f"its splits are not {', '.join(SPLITS)}", sorted(splits) == sorted(SPLITS)),
        ("a split does not count every class", all(len(s["per_class"]) == len(classes) for s in splits.values())),
        ("it stores events and does not say how", ("stored" in manifest) == ("store" in manifest["settings"])),
        ("its events are stored in a way that this version does not know", _known_events(manifest.get("stored"))),
        ("its sensor has not two sizes", len(manifest["sensor_size"]) == 2),
    )
    return next((problem for problem, good in checks if not good), "")


def _find_small_shard(manifest: Manifest, sample_bytes: int) -> str:
    """Return which shard has too few bytes for its samples; an empty text where none has.

    Raw samples take as many bytes as they have, and DEFLATE cannot shrink them beyond `MAX_RATIO`: so the memory that a
    set asks for is bounded by its files, whatever shape it declares. Of stored events, which differ in size,
    the largest has to fit into a shard.
    """
    ratio = 1 if manifest["settings"].get("codec") == RAW else MAX_RATIO
    for entry in manifest["files"]:
        is_shard = entry["name"].startswith("events-") and not entry["name"].endswith(".npy")
        if "stored" not in manifest and is_shard and entry["samples"] * sample_bytes > entry["bytes"] * ratio:
            return f"{entry['name']} has {entry['bytes']:,} bytes, too few for {entry['samples']:,} of its samples"
    largest = max((entry["bytes"] for entry in manifest["files"]), default=0)
    if "stored" in manifest and manifest["stored"]["most_bytes"] > largest * ratio:
        return f"no shard has the {manifest['stored']['most_bytes']:,} bytes of its largest sample"
    return ""


def _known_events(stored: StoredEvents | None) -> bool:
    from spikebridge.pipeline.events.compact import VERSION  # not at once: --help needs no numpy

    return stored is None or (
        stored["layout"] == VERSION
        and stored["most_bytes"] <= MOST_SAMPLE_BYTES
        and (stored["crop"] is None or len(stored["crop"]) == 4)
    )


def files_of(manifest: Manifest, splits: Iterable[str]) -> list[FileEntry]:
    """Return the files of a set, without the event shards of other splits than `splits`."""
    others = tuple(f"events-{split}-" for split in SPLITS if split not in splits)
    return [entry for entry in manifest["files"] if not entry["name"].startswith(others)]


def checksums(files: Sequence[FileEntry]) -> str:
    """Return the text of SHA256SUMS, which `sha256sum -c` checks."""
    return "".join(f"{entry['sha256']}  {entry['name']}\n" for entry in sorted(files, key=lambda entry: entry["name"]))
