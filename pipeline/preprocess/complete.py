"""The last step of a conversion: static pool, rejects, card, checksums, and the manifest that makes it complete."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.files import FileEntry, file_entry, replacing, write_bytes
from spikebridge.pipeline.base.installation import find_version
from spikebridge.pipeline.cards.card import dataset_card
from spikebridge.pipeline.cards.croissant import describe_set
from spikebridge.pipeline.datasets.pairs import DatasetCard
from spikebridge.pipeline.events.compact import VERSION
from spikebridge.pipeline.formats.bin40 import OVERFLOW_US
from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.preprocess.remarks import Remarks, list_warnings, notes_of_recordings
from spikebridge.pipeline.preprocess.tasks import Job, Reject, TaskResult
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import SPLITS, Content, Manifest, StaticSummary
from spikebridge.pipeline.shards.static_pool import ROLES, STATIC_FILE, StaticImages, write_static

TOOLS = ("spikebridge", "numpy", "numba", "h5py", "pillow")


def finish(
    job: Job,
    conversion: Conversion,
    *,
    results: Sequence[TaskResult],
    rejects: Sequence[Reject],
    static: StaticImages,
    strict: bool = False,
) -> tuple[Manifest, Remarks]:
    """Write everything that is not an event shard, the manifest last; returns it, and the closing remarks.

    Raises:
        PipelineError: one recording lies in two splits under different names (any protocol but legacy), or there are
            warnings and `strict`.
    """
    notes = list(conversion.notes)
    copies = _find_copies(results)
    if copies and job.settings.protocol != "legacy":
        raise PipelineError(
            f"{len(copies)} recording(s) are in two splits under different names: {copies[0][0]} and {copies[0][1]} "
            "hold the same events. Remove one of each, or say which is which with --splits."
        )
    notes += [f"{one} and {other} hold the same events" for one, other in copies]
    notes += notes_of_recordings(results)
    remarks = Remarks.collect(conversion, results=results, rejects=rejects)
    notes += [f"{manifests.WARNING} {line}" for line in remarks.warnings()]
    with replacing(job.out / STATIC_FILE) as partial:
        write_static(partial, static)
    lines = sorted(rejects, key=lambda line: (line["kind"], line["name"]))
    text = "".join(json.dumps(line, sort_keys=True, ensure_ascii=True) + "\n" for line in lines)
    write_bytes(job.out / manifests.REJECTS, text.encode())

    content = _describe_content(conversion, results, static)
    content["rejected"], content["notes"] = len(rejects), notes
    if strict:
        refuse_warnings(content)
    if markers := content["events"].get("overflow_markers"):
        notes.append(
            f"{markers:,} overflow markers of the recorder were found; events after one are {OVERFLOW_US:,} us later"
        )
    files = [entry for result in results for entry in result.files]
    for name, samples in ((STATIC_FILE, len(static)), (manifests.REJECTS, len(rejects))):
        files.append(file_entry(job.out / name, samples))
    return seal_set(job.out, content, files, conversion.reader.card, environment=describe_environment()), remarks


def describe_environment() -> bytes:
    """Return the content of environment.json: the tools of this machine, by version."""
    tools = {name: find_version(name) or "not installed" for name in TOOLS} | {"python": platform.python_version()}
    return manifests.dump(tools)


def seal_set(
    out: Path, content: Content, files: Sequence[FileEntry], facts: DatasetCard, *, environment: bytes | None
) -> Manifest:
    """Write cards, checksums, environment.json (unless it is None), and the manifest that makes the set complete.

    `files` are all others of the set.
    """
    write_bytes(out / manifests.CARD, dataset_card(content, facts).encode("utf-8", "backslashreplace"))
    content["files"] = sorted([*files, file_entry(out / manifests.CARD, 0)], key=lambda entry: entry["name"])
    write_bytes(out / manifests.CHECKSUMS, manifests.checksums(content["files"]).encode())
    if environment is not None:
        write_bytes(out / manifests.ENVIRONMENT, environment)
    manifest = manifests.seal(content)
    write_bytes(out / manifests.CROISSANT, manifests.dump(describe_set(manifest, facts)))
    manifests.write(out, manifest)
    return manifest


def refuse_warnings(content: Content) -> None:
    """Refuse a set with warnings.

    Raises:
        PipelineError: names all of them.
    """
    if warnings := list_warnings(content):
        listed = "\n".join(f"  {line}" for line in warnings)
        raise PipelineError(
            f"{len(warnings)} warning(s), and --strict:\n{listed}\nCure them, or complete the set as it is without "
            "--strict: what is converted is kept."
        )


def _describe_content(conversion: Conversion, results: Sequence[TaskResult], static: StaticImages) -> Content:
    """Return the manifest's content; files, rejects and notes are filled in by `finish`."""
    settings, listing = conversion.settings, conversion.listing
    per_class = {name: [0] * len(listing.classes) for name in SPLITS}
    totals: Counter[str] = Counter()
    for result in results:
        totals.update(result.totals)
        for key, _, _ in result.samples:
            split, label, _ = key.split("-", 2)
            per_class[split][int(label)] += 1
    content: Content = {
        "schema": settings.schema,
        "dataset": settings.dataset,
        "settings": settings.as_dict(),
        "settings_sha256": settings.sha256,
        "classes": list(listing.classes),
        "sensor_size": list(conversion.sensor_size or (0, 0)),
        "shown_fraction": listing.shown_fraction,
        "sample": {
            "axes": "TPHW",
            "shape": [settings.time_bins, 2, *settings.frame],
            "dtype": np.dtype(settings.dtype).newbyteorder("<").str,
        },
        "splits": {name: {"samples": sum(counts), "per_class": counts} for name, counts in per_class.items()},
        "static": describe_static(static, listing.classes),
        "events": {name: int(value) for name, value in sorted(totals.items())},
        "simulated": conversion.simulated,
        "pairing": {"kind": listing.pairing, "protocol": settings.protocol},
        "listing_sha256": conversion.fingerprint["listing_sha256"],
        "rejected": 0,
        "notes": [],
        "files": [],
    }
    if settings.store:
        crop, span_us = conversion.reader.crop, conversion.reader.span_us
        content["stored"] = {
            "layout": VERSION,
            "most_bytes": max((result.most_bytes for result in results), default=0),
            "crop": list(crop) if crop else None,
            "span_us": span_us,
        }
    return content


def describe_static(static: StaticImages, classes: Sequence[str]) -> StaticSummary:
    """Return what the manifest says of the static images."""
    roles, pool_sizes = Counter(static.roles), np.diff(static.class_offsets)
    return {
        "file": STATIC_FILE,
        "shape": list(static.images.shape[1:]),
        "images": len(static),
        "roles": {role: roles[role] for role in ROLES},
        "classes_without_pool": [name for name, size in zip(classes, pool_sizes, strict=True) if not size],
    }


def _find_copies(results: Sequence[TaskResult]) -> list[tuple[str, str]]:
    """Return pairs of recordings with equal events in different splits."""
    beginnings = (int(digest[:16], 16) for result in results for _, _, digest in result.samples)
    values, counts = np.unique(np.fromiter(beginnings, np.uint64), return_counts=True)
    several = set(values[counts > 1].tolist())
    first_of: dict[str, tuple[str, str]] = {}
    copies = []
    for key, name, digest in (sample for result in results if several for sample in result.samples):
        if int(digest[:16], 16) in several:
            split = key.split("-", 1)[0]
            other_split, other = first_of.setdefault(digest, (split, name))
            if other_split != split:
                copies.append((other, name))
    return copies
