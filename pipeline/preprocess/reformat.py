"""A shard set in another container or codec, or with its events as frames, made from the set alone.

They are the very bytes that `preprocess` would make. Shard by shard, one sample at a time; every file of the source is
checked against its manifest while it is read. What is finished stays: an interrupted run continues with the shards that
are missing, and the manifest is written last. The cut into shards is kept, because where recordings were dropped the
set does not say how it would have been cut otherwise.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import FileEntry, HashedFile, real_path, replacing, sha256_file
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.cards.card import dataset_facts
from spikebridge.pipeline.checks.samples import Layout, check_rows, index_groups, walk_hdf5, walk_tar
from spikebridge.pipeline.preprocess.complete import seal_set
from spikebridge.pipeline.preprocess.output import ConversionResult, claim, find_existing, lock, make_work_folder
from spikebridge.pipeline.preprocess.tasks import TaskResult, hash_conversion
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import REJECTS, SPLITS, Content, Manifest
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.static_pool import ROLES, STATIC_FILE
from spikebridge.pipeline.shards.writer import EVENTS, EXTENSION, FRAMES, Sample, index_path, write_shard
from spikebridge.pipeline.ui.paint import preview_png


@dataclass(frozen=True)
class Reformat:
    """A source set, and the settings of the set that is made of it."""

    source: ShardSet
    settings: ConversionSettings
    """Those of the source but for format, codec, store and preview."""

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Return that of a conversion of the raw data with these settings, which would make the same set."""
        return {"settings": self.settings.as_dict(), "listing_sha256": self.source.manifest["listing_sha256"]}


def reformat(
    source: Path,
    out: Path,
    *,
    format_: str | None = None,
    codec: str | None = None,
    store: str | None = None,
    preview: bool | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Write a shard set again in another container or codec, or with stored events as the set's frames.

    `out` is missing, empty, or holds the same set, finished or not; `overwrite` replaces another shard set there.
    Without `format_`, `codec`, `store` or `preview`, the source's is kept; only tars keep previews.

    Raises:
        SettingsError: `out` is the source, or holds something else; or the source has no events to store.
        ShardSetError: the source is damaged, or was made by another version.
    """
    shards = ShardSet(source)
    if real_path(out) == real_path(source):
        raise SettingsError(f"{out} is the source itself. Choose another folder with --out.")
    settings = settings_of(shards)
    settings = stored_as(shards, settings, format_=format_, codec=codec, store=store, preview=preview)
    work = Reformat(shards, settings)
    if done := find_existing(work, out, overwrite=overwrite):
        return done
    folder = make_work_folder(out)
    with lock(folder):
        claim(work, out)
        paths = [(split, path) for split in SPLITS for path in shards.event_shards(split)]
        files = []
        for split, path in progress(paths, len(paths), "event shards"):
            files += _reformat_shard(work, split, path, out)
        for name in (STATIC_FILE, REJECTS):
            _copy(shards, name, out)
            files.append(shards.files[name])
        manifest = _finish(work, files, out)
        shutil.rmtree(folder)
    return ConversionResult.read(out, manifest, up_to_date=False)


def stored_as(
    shards: ShardSet,
    settings: ConversionSettings,
    *,
    format_: str | None,
    codec: str | None,
    store: str | None,
    preview: bool | None,
) -> ConversionSettings:
    """Return settings with another container, codec or store, for a set that is made of `shards`; see `reformat`.

    Raises:
        SettingsError: the set has no events to store, or HDF5 files shall hold previews.
    """
    if store not in (None, FRAMES) and EVENTS not in shards.arrays:
        raise SettingsError(
            f"{shards.path}: stores frames, and events cannot be made of those. Preprocess the raw data with --store "
            "events."
        )
    stored = settings.store if store is None else store if store != FRAMES else ""
    container = format_ or settings.format
    if preview is None:
        preview = settings.preview and container == "webdataset"
    return replace(settings, format=container, codec=codec or settings.codec, store=stored, preview=preview)


def settings_of(shards: ShardSet) -> ConversionSettings:
    """Return the settings that made a set, for a set that is made of it.

    Raises:
        ShardSetError: they are not those of this version.
    """
    try:
        settings = ConversionSettings.from_dict(shards.settings)
        if settings.sha256 == shards.manifest["settings_sha256"]:
            return settings
    except (SettingsError, KeyError):
        pass
    raise ShardSetError(
        f"{shards.path}: its settings are not those that this version writes. Convert it with the version that made "
        "it, or preprocess the raw data again."
    )


def _reformat_shard(work: Reformat, split: str, path: Path, out: Path) -> list[FileEntry]:
    """Write one shard, unless an earlier run has; returns its files as the manifest lists them."""
    result = TaskResult(f"rewritten-{path.stem}")
    shards, settings = work.source, work.settings
    conversion = hash_conversion(settings.as_dict(), shards.id, dtype=True)
    if done := TaskResult.read(out / manifests.WORK_FOLDER, result.name, conversion):
        return done.files
    if sha256_file(index_path(path)) != shards.files[index_path(path).name]["sha256"]:
        raise damaged(index_path(path))
    index = shards.index(path.name)
    check_rows(index, split=split, name=path.name)
    written = write_shard(
        out / (path.stem + EXTENSION[settings.format]),
        read_samples(shards, path, index, framed=settings.preview or settings.store != EVENTS),
        shape=shards.sample_shape,
        dtype=shards.dtype,
        key_bytes=index.dtype["key"].itemsize,
        group_bytes=index.dtype["group"].itemsize if "group" in (index.dtype.names or ()) else 0,
        codec=settings.codec,
        store=settings.store or FRAMES,
        preview=preview_png if settings.preview else None,
    )
    result.files += written.files
    result.save(out / manifests.WORK_FOLDER, conversion)
    return result.files


def read_samples(shards: ShardSet, path: Path, index: NDArray[Any], *, framed: bool) -> Iterator[Sample]:
    """Yield the samples of a shard, which is known to be whole when the last one has been taken.

    With `framed`, frames are made of stored events.
    """
    layout, expected = Layout.of(shards), shards.files[path.name]["sha256"]
    if path.suffix == EXTENSION["webdataset"]:
        with HashedFile(path) as file:
            yield from _as_samples(shards, walk_tar(file, index, layout, name=path.name), index, framed=framed)
            if file.sha256() != expected:
                raise damaged(path)
    else:
        if sha256_file(path) != expected:
            raise damaged(path)
        yield from _as_samples(shards, walk_hdf5(path, index, layout), index, framed=framed)


def _as_samples(shards: ShardSet, walk: Iterable[Any], index: NDArray[Any], *, framed: bool) -> Iterator[Sample]:
    for row, group, stored in zip(index, index_groups(index), walk, strict=True):
        key, frames, events = row["key"].decode(), np.empty(0, shards.dtype), None
        if EVENTS in stored.arrays:
            events = np.frombuffer(bytes(stored.arrays[EVENTS]), np.uint8)
        if shards.as_stored:
            frames = np.frombuffer(stored.arrays[FRAMES], shards.dtype).reshape(shards.sample_shape)
        elif framed:
            assert events is not None
            frames = np.empty(shards.sample_shape, shards.dtype)
            shards.framing.frames_into(frames, events, source=key)
        yield Sample(key, int(row["label"]), frames, stored.metadata.decode(), group.decode(), events)


def _copy(shards: ShardSet, name: str, out: Path) -> None:
    """Copy a file that depends on neither container nor codec."""
    digest = hashlib.sha256()
    with replacing(out / name) as partial:
        with open(shards.path / name, "rb") as source, open(partial, "wb") as target:
            while part := source.read(2**20):
                digest.update(part)
                target.write(part)
        if digest.hexdigest() != shards.files[name]["sha256"]:
            raise damaged(shards.path / name)


def _finish(work: Reformat, files: list[FileEntry], out: Path) -> Manifest:
    """Write card, checksums, and the manifest that makes the set complete."""
    content: Content = work.source.manifest.copy()  # `seal` replaces its hash
    content["schema"] = work.settings.schema
    if not work.settings.store:
        content.pop("stored", None)
    content["settings"], content["settings_sha256"] = work.settings.as_dict(), work.settings.sha256
    content["splits"] = {name: content["splits"][name] for name in SPLITS}  # the card shows them in this order
    static = content["static"]
    content["static"] = {**static, "roles": {role: static["roles"][role] for role in ROLES}}
    tools = work.source.path / manifests.ENVIRONMENT
    return seal_set(
        out,
        content,
        files,
        dataset_facts(work.settings.dataset),
        environment=tools.read_bytes() if tools.is_file() else None,
    )


def damaged(path: Path) -> ShardSetError:
    """Return the error of a file of a source that is not what its manifest says."""
    return ShardSetError(
        f"{path}: its content was changed or damaged (SHA-256 differs). Run `{command('verify', path.parent)}`, then "
        "copy or preprocess it again."
    )
