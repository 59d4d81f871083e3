"""Writing a set that is made of others: event shards one by one, static images, and the manifest last.

What is finished stays: an interrupted run reads its sources again and continues with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.files import FileEntry, file_entry, real_path, replacing, write_bytes
from spikebridge.pipeline.base.progress import Progress
from spikebridge.pipeline.cards.card import dataset_facts
from spikebridge.pipeline.datasets.splits import rank
from spikebridge.pipeline.derive.join import Joined
from spikebridge.pipeline.preprocess.complete import describe_environment, describe_static, seal_set
from spikebridge.pipeline.preprocess.output import (
    ConversionResult,
    claim,
    find_existing,
    lock,
    make_work_folder,
    read_rejects,
)
from spikebridge.pipeline.preprocess.remarks import warn_of_losses
from spikebridge.pipeline.preprocess.tasks import TOTALS, Reject, TaskResult, add_totals, hash_conversion
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import REJECTS, SPLITS, Content, Derivation, Manifest, SourceSet
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.static_pool import STATIC_FILE, write_static
from spikebridge.pipeline.shards.writer import EXTENSION, FRAMES, Sample, write_shard
from spikebridge.pipeline.ui.paint import preview_png

OF_SET = " (of set "
"""Before the beginning of the ID of the set that a note was made for."""


@dataclass(frozen=True)
class Plan:
    """What is made of which sets."""

    verb: str
    sources: Sequence[ShardSet]
    settings: ConversionSettings
    classes: tuple[str, ...]
    selection: dict[str, Any]
    """What was asked for, as the manifest keeps it."""

    @cached_property
    def made_from(self) -> list[Derivation]:
        """Return the steps behind the set: those of its sources, and this one."""
        steps = list[Derivation]()
        for source in self.sources:
            for step in source.manifest.get("made_from", []):
                known: Derivation = {"gave": source.id, **step}
                steps += [known] if known not in steps else []
        sets: list[SourceSet] = [
            {
                "id": source.id,
                "dataset": source.manifest["dataset"],
                "listing_sha256": source.manifest["listing_sha256"],
                "settings_sha256": source.manifest["settings_sha256"],
                "samples": sum(split["samples"] for split in source.manifest["splits"].values()),
            }
            for source in self.sources
        ]
        last: Derivation = {"verb": self.verb, "sets": sets}  # type: ignore[typeddict-item]
        if self.selection:
            last["selection"] = self.selection
        return [*steps, last]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that continues or repeats this one shares with it."""
        text = json.dumps([self.verb, [source.id for source in self.sources], self.selection], sort_keys=True)
        return {"settings": self.settings.as_dict(), "listing_sha256": hashlib.sha256(text.encode()).hexdigest()}


def derive(
    plan: Plan, out: Path, read: Callable[[Path], Joined], *, overwrite: bool, progress: Progress
) -> ConversionResult:
    """Make the set, or continue, or find that it is there; `read` joins the sources, with a folder for what waits.

    Raises:
        SettingsError: `out` is a source, or holds something else.
        ShardSetError: see `read`.
    """
    if any(real_path(out) == real_path(source.path) for source in plan.sources):
        raise SettingsError(f"{out} is one of the sources. Choose another folder.")
    if done := find_existing(plan, out, overwrite=overwrite):
        return done
    work = make_work_folder(out)
    with lock(work):
        claim(plan, out)
        joined = read(work)
        shards = _plan_shards(plan, joined)
        results = [
            _write_shard(plan, joined, name, rows, out) for name, rows in progress(shards, len(shards), "event shards")
        ]
        manifest = _complete(plan, joined, results, out)
        shutil.rmtree(work)
    return ConversionResult.read(out, manifest, up_to_date=False)


def _plan_shards(plan: Plan, joined: Joined) -> list[tuple[str, list[int]]]:
    """Cut every split into shards, in the seeded order of writing; returns names, and rows of the columns."""
    keys, shards = joined.recordings.keys.tolist(), list[tuple[str, list[int]]]()
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(joined.recordings.splits == number).tolist()
        rows.sort(key=lambda row: rank(plan.settings.seed, "order", keys[row].decode()))
        cut = plan.settings.cut_into_shards(len(rows))
        shards += [(f"events-{split}-{i:05d}", rows[start:stop]) for i, (start, stop) in enumerate(cut)]
    return shards


def _write_shard(plan: Plan, joined: Joined, name: str, rows: Sequence[int], out: Path) -> TaskResult:
    """Write one shard, unless an earlier run has."""
    result = TaskResult(f"derived-{name}", totals=dict.fromkeys(TOTALS, 0))
    made = hash_conversion(plan.settings.as_dict(), plan.fingerprint["listing_sha256"], dtype=True)
    if done := TaskResult.read(out / manifests.WORK_FOLDER, result.name, made):
        return done
    shards, columns = plan.sources[0], joined.recordings
    written = write_shard(
        out / (name + EXTENSION[plan.settings.format]),
        _samples(joined, rows, result),
        shape=shards.sample_shape,
        dtype=shards.dtype,
        key_bytes=columns.keys.itemsize,
        group_bytes=columns.groups.itemsize if (columns.groups != b"").any() else 0,
        codec=plan.settings.codec,
        store=plan.settings.store or FRAMES,
        preview=preview_png if plan.settings.preview else None,
    )
    result.files += written.files
    result.save(out / manifests.WORK_FOLDER, made)
    return result


def _samples(joined: Joined, rows: Sequence[int], result: TaskResult) -> Iterator[Sample]:
    """Yield samples with their new names; totals go into the result."""
    columns = joined.recordings
    for row in rows:
        number, place = joined.places[row].tolist()
        source = joined.sources[number]
        sample = source.take(place)
        metadata, events = sample.metadata, sample.events
        result.most_bytes = max(result.most_bytes, 0 if events is None else events.size)
        add_totals(result.totals, metadata, saturated=sample.saturated)
        for name, count in sample.lost.items():
            result.lost[name] = result.lost.get(name, 0) + count
        static, group = columns.static[row].decode(), columns.groups[row].decode()
        metadata |= {"static": static or None, **({"group": group} if group else {})}
        text = json.dumps(metadata, sort_keys=True)
        yield Sample(columns.keys[row].decode(), int(columns.labels[row]), sample.frames, text, group, events)


def _totals(joined: Joined, results: Sequence[TaskResult]) -> dict[str, int]:
    """Return the sums over all samples; of sources that are here whole and as they were, those of their manifests."""
    whole = len(joined.places) == sum(len(source.rows) for source in joined.sources)
    if whole and not any(source.shards.reframed for source in joined.sources):
        totals = [source.shards.manifest["events"] for source in joined.sources]
    else:
        totals = [result.totals for result in results]
    sums: Counter[str] = Counter()
    for part in totals:
        sums.update(part)
    return {name: int(count) for name, count in sorted(sums.items())}


def _complete(plan: Plan, joined: Joined, results: Sequence[TaskResult], out: Path) -> Manifest:
    """Write static images, rejects, card and manifest."""
    first, columns = plan.sources[0].manifest, joined.recordings
    with replacing(out / STATIC_FILE) as partial:
        write_static(partial, joined.static)
    rejects = sorted((line for source in plan.sources for line in read_rejects(source.path)), key=_order_of_rejects)
    write_bytes(out / REJECTS, "".join(json.dumps(line, sort_keys=True) + "\n" for line in rejects).encode())
    files: list[FileEntry] = [entry for result in results for entry in result.files]
    files += [file_entry(out / STATIC_FILE, len(joined.static)), file_entry(out / REJECTS, len(rejects))]
    counts = {
        split: np.bincount(columns.labels[columns.splits == number], minlength=len(plan.classes)).tolist()
        for number, split in enumerate(SPLITS)
    }
    notes = [_of_set(note, source) for source in plan.sources for note in source.manifest["notes"]]
    notes = list(dict.fromkeys(notes))
    if joined.repeated:
        notes.append(
            f"{joined.repeated:,} recordings stand in several of the sets that this one was made of, and once here"
        )
    framed, totals = plan.sources[0], _totals(joined, results)
    notes += _notes_of_frames(plan, totals, results)
    content: Content = {
        "schema": plan.settings.schema,
        "dataset": plan.settings.dataset,
        "settings": plan.settings.as_dict(),
        "settings_sha256": plan.settings.sha256,
        "classes": list(plan.classes),
        "sensor_size": [max(sizes) for sizes in zip(*(s.manifest["sensor_size"] for s in plan.sources), strict=True)],
        "shown_fraction": first["shown_fraction"],
        "sample": {**first["sample"], "shape": list(framed.sample_shape), "dtype": framed.dtype.str},
        "splits": {split: {"samples": sum(of), "per_class": of} for split, of in counts.items()},
        "static": describe_static(joined.static, plan.classes),
        "events": totals,
        "simulated": any(source.simulated for source in plan.sources),
        "pairing": {
            "kind": "exact" if all(s.manifest["pairing"]["kind"] == "exact" for s in plan.sources) else "class",
            "protocol": plan.settings.protocol,
        },
        "listing_sha256": plan.fingerprint["listing_sha256"],
        "rejected": len(rejects),
        "notes": notes,
        "files": [],
        "made_from": plan.made_from,
    }
    if plan.settings.store:
        most = max((result.most_bytes for result in results), default=0)
        content["stored"] = {**first["stored"], "most_bytes": most}
    facts = dataset_facts(plan.settings.dataset)
    return seal_set(out, content, files, facts, environment=describe_environment())


def _notes_of_frames(plan: Plan, totals: dict[str, int], results: Sequence[TaskResult]) -> list[str]:
    """Return what is to be said of frames that were made anew: what they lack, and where the images come from."""
    source, lost = plan.sources[0], Counter[str]()
    if not source.reframed:
        return []
    for result in results:
        lost.update(result.lost)
    events = max(1, totals["events"])
    late = (totals["dropped_events"] - lost["outside_events"]) / events
    lines = warn_of_losses(plan.settings, clipped=lost["clipped_events"] / events, late=late)
    notes = [f"{manifests.WARNING} {line}" for line in lines]
    height, width = source.manifest["static"]["shape"][1:]
    if (height, width) != plan.settings.frame:
        notes.append(f"static images were resized from {width}x{height} pixels, those of set {source.id[:12]}")
    if source.manifest["shown_fraction"] and plan.settings.extent != source.manifest["settings"]["extent"]:
        notes.append(f"static images show the {source.manifest['settings']['extent']}, as in set {source.id[:12]}")
    return notes


def _of_set(note: str, source: ShardSet) -> str:
    """Return a note of a source for the set made of it; it may hold for the source alone."""
    return note if OF_SET in note else f"{note}{OF_SET}{source.id[:12]})"


def _order_of_rejects(line: Reject) -> tuple[str, str]:
    return line["kind"], line["name"]
