"""Publishing shard sets and fetching them: `push` and `pull`.

    <folder>/<ID>/...           one set: its files, the manifest last
            current.json        the set that readers of <folder> get, replaced last of all
            README.md           the card of that set

A set's folder is named after its content, so two people who publish at the same time cannot mix their files: both sets
are whole, and the last pointer wins. A folder with a manifest in it, however it was copied there, can be pulled too.
Flat, the files lie in <folder> itself, README.md beside them, as a hub repository takes them. Such a folder holds one
set for good.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypedDict

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError, shorten
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, FileLock, sha256_file, write_bytes
from spikebridge.pipeline.base.foreign_json import Sha256, parse_json
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import CARD, SPLITS, Manifest, checksums
from spikebridge.pipeline.shards.reader import PARTIAL, PULL, ShardSet
from spikebridge.pipeline.sharing import hub
from spikebridge.pipeline.sharing.locations import CURRENT, READ_ONLY, RemoteFolder, is_page, open_folder, reaching
from spikebridge.pipeline.sharing.transfer import OnBytes, fetch

BESIDE = (manifests.CHECKSUMS, *manifests.OUTSIDE, manifests.MANIFEST)
"""Files of a set that its manifest does not list, in the order in which they are published."""
MAX_TRANSFERS = 4
"""Files on their way at a time."""

Bar = Callable[[int, str], OnBytes]
"""Makes a progress bar: (bytes, what)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedSet:
    """A shard set in its published folder."""

    remote: RemoteFolder
    manifest: Manifest
    data: bytes
    """The manifest's bytes as published."""


class _Pointer(TypedDict):
    """The content of current.json, and of the file in a folder that is being filled."""

    id: Sha256


def find_set(remote: RemoteFolder, *, expect: str | None = None) -> PublishedSet:
    """Read which set a folder offers.

    The folder has a `current.json`, or is that of a set; `expect` is the ID that the set must have.

    Raises:
        ShardSetError: nothing published there, an unreachable folder, a damaged manifest, or another set.
    """
    data = remote.read_small(manifests.MANIFEST)
    if data is None and (pointer := remote.read_small(CURRENT)) is not None:
        page = " It is a web page." if is_page(pointer) else ""
        remedy = f"It is not the pointer to a shard set.{page} Is the address right?"
        found = parse_json(pointer, _Pointer, source=f"{remote.shown}/{CURRENT}", error=ShardSetError, remedy=remedy)
        remote = remote.below(found["id"])
        data = remote.read_small(manifests.MANIFEST)
    if data is None:
        raise ShardSetError(
            f"{remote.shown}: neither {manifests.MANIFEST} nor {CURRENT} found; expected a published shard set. "
            f"Publish one with `{command('push')}`."
        )
    source = f"{remote.shown}/{manifests.MANIFEST}"
    if is_page(data):
        raise ShardSetError(
            f"{source}: found (a web page); expected the manifest of a shard set. Is the address right?"
        )
    manifest = manifests.parse(data, source=source)
    if expect is not None and manifest["self_sha256"] != expect:
        raise ShardSetError(f"{remote.shown}: holds shard set {manifest['self_sha256']}; expected {expect}.")
    return PublishedSet(remote, manifest, data)


def pull(
    address: str, out: Path, *, splits: Sequence[str] = (), expect: str | None = None, bar: Bar | None = None
) -> dict[str, Any]:
    """Fetch a published set, or go on where an earlier call was cut off, or add splits to what is there.

    `out` is missing, empty, or holds (a part of) the same set. With `splits`, only their event shards are fetched;
    `expect` is the ID that the set must have.

    Returns:
        out, id, bytes (of all files wanted), splits, address (without credentials, of a hub with the commit).

    Raises:
        ShardSetError: see `find_set` and `transfer.fetch`.
        SettingsError: an unknown split, or a folder with something else in it.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise SettingsError(f"no split is called {', '.join(unknown)}; there are {', '.join(SPLITS)}.")
    published = find_set(open_folder(address), expect=expect)
    set_id = published.manifest["self_sha256"]
    with _claimed(out, set_id):
        before = _splits_here(out, set_id)
        here = tuple(split for split in SPLITS if not splits or split in splits or split in before)
        entries = manifests.files_of(published.manifest, here)
        size = sum(entry["bytes"] for entry in entries)
        on_bytes = bar(size, "pull") if bar else lambda count: None
        transfer_all(
            entries,
            lambda entry, stop: fetch(published.remote, entry, out / entry["name"], stop=stop, on_bytes=on_bytes),
        )
        sums = checksums(published.manifest["files"]).encode()
        write_bytes(out / manifests.CHECKSUMS, sums, sole_writer=True)
        if set(here) == set(SPLITS):
            (out / PARTIAL).unlink(missing_ok=True)
        else:
            write_bytes(out / PARTIAL, _encode({"id": set_id, "splits": list(here)}), sole_writer=True)
        write_bytes(out / manifests.MANIFEST, published.data, sole_writer=True)
        _remove_leavings(out, published.manifest)
    values = {"out": str(out), "id": set_id, "bytes": size, "splits": list(here)}
    return {**values, "address": published.remote.shown}


def _encode(values: dict[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()


def _splits_here(out: Path, set_id: str) -> tuple[str, ...]:
    """Return the splits that an earlier pull of the same set brought."""
    if not (out / manifests.MANIFEST).is_file():
        return ()
    shards = ShardSet(out)
    if shards.id != set_id:
        raise SettingsError(
            f"{out} already holds shard set {shards.id}; the one to be pulled is {set_id}. Choose another folder."
        )
    return shards.present


@contextmanager
def _claimed(out: Path, set_id: str) -> Iterator[None]:
    """Make the folder of a pull, and keep other pulls out of it while the `with` block lasts.

    A pull that was killed leaves `PULL` behind, unlocked, for the next one to go on.

    Raises:
        SettingsError: it is a file, or holds something else, or a part of another set.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file; expected a folder. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    entries = sorted(entry.name for entry in out.iterdir())  # of a pull at work or killed, one of its names is there
    if entries and manifests.MANIFEST not in entries and not any(name.startswith(PULL) for name in entries):
        raise SettingsError(f"{out} is not empty and holds no pulled set ({shorten(entries, most=5)}). Choose another.")
    with _lock(out / PULL):
        if not (out / manifests.MANIFEST).is_file():
            _claim(out / PULL, set_id)
        try:
            yield
        finally:
            if (out / manifests.MANIFEST).is_file():
                (out / PULL).unlink(missing_ok=True)


def _lock(path: Path) -> FileLock:
    """Lock a file, and say so where another process has to end first."""
    try:
        return FileLock(path, wait=False)
    except BlockingIOError:
        log.info("%s: another process is pulling into this folder; waiting for it", path.parent)
        return FileLock(path)


def _claim(path: Path, set_id: str) -> None:
    """Note in the locked file which set is coming, or compare with what an earlier pull noted.

    The file is written in place, for the lock is on this very file.

    Raises:
        SettingsError: an earlier pull began another set.
    """
    begun = path.read_bytes()
    if begun.strip():
        remedy = "Empty this folder, or choose another."
        before = parse_json(begun, _Pointer, source=str(path), error=SettingsError, remedy=remedy)["id"]
        if before != set_id:
            raise SettingsError(
                f"{path.parent}: a pull of shard set {before} was begun there; the address now offers {set_id}. "
                "Choose another folder, or empty this one."
            )
        return
    with open(path, "r+b") as file:
        file.write(_encode({"id": set_id}))
        file.flush()
        os.fsync(file.fileno())


def _remove_leavings(out: Path, manifest: Manifest) -> None:
    """Remove what killed pulls left of this set's files; this process is the only one that writes there."""
    ours = [entry["name"] for entry in manifest["files"]]
    ours += [manifests.MANIFEST, manifests.CHECKSUMS, PARTIAL, PULL]
    for path in out.glob(f"*{PARTIAL_SUFFIX}"):
        if path.name.removeprefix(".").startswith(tuple(ours)):
            path.unlink()


def push(shards_path: Path, address: str, *, flat: bool = False, bar: Bar | None = None) -> dict[str, Any]:
    """Publish a whole set; what is there already is not sent again.

    Every file is checked before anything is sent. With `flat`, the files lie in the folder itself, which must hold no
    other set.

    Returns:
        address (without credentials), id, sent and bytes.

    Raises:
        ShardSetError: the set is partial or damaged, or the folder cannot be reached.
        SettingsError: a folder that cannot be written, or a flat one that holds another set.
    """
    if hub.is_hub(address):
        return _push_to_hub(shards_path, hub.parse_address(address), bar)
    shards, remote = ShardSet(shards_path), open_folder(address)
    if remote.protocol in READ_ONLY:
        raise SettingsError(f"{remote.shown}: http folders are read only; push to a path, s3:// or sftp:// instead.")
    others = _check_whole(shards)
    card = (shards.path / CARD).read_bytes()
    base = remote if flat else remote.below(shards.id)
    if flat:
        _require_free(remote, shards.id)
    size = sum(entry["bytes"] for entry in shards.manifest["files"])
    on_bytes = bar(size, "push") if bar else lambda count: None
    sent: list[str] = []

    def send(entry: FileEntry, stop: Event) -> None:
        if not stop.is_set():
            if not base.holds(entry):
                _put(base, shards.path / entry["name"], entry["name"])
                _require_whole(shards.path, entry)  # it may have been replaced meanwhile
                sent.append(entry["name"])
            on_bytes(entry["bytes"])

    with reaching(remote.shown):
        base.remove_leavings({*BESIDE, *shards.files})
        remote.remove_leavings({CURRENT, CARD})
        transfer_all(shards.manifest["files"], send)
        for name, content in others.items():
            _put(base, content, name)
        if not flat:
            _put(remote, _encode({"schema": 1, "id": shards.id}), CURRENT)
            _put(remote, card, CARD)
    return {"address": remote.shown, "id": shards.id, "sent": len(sent), "bytes": size}


def _check_whole(shards: ShardSet) -> dict[str, bytes]:
    """Check every file of a set that is to be published; return those that its manifest does not list.

    Raises:
        ShardSetError: the set is partial or damaged.
    """
    if shards.partial:
        raise ShardSetError(f"{shards.path}: only a part of the set was pulled; pull all of it before publishing it.")
    for entry in shards.manifest["files"]:
        _require_whole(shards.path, entry)
    sums = checksums(shards.manifest["files"]).encode()
    where = shards.path / manifests.CHECKSUMS
    if where.is_file() and where.read_bytes() != sums:
        raise ShardSetError(f"{where}: not what the manifest says. Run `{command('verify', shards.path)}`.")
    # Known now: what somebody deletes or replaces meanwhile must not be missing from a set that is pointed to.
    outside = {name: shards.path / name for name in manifests.OUTSIDE}
    return {
        manifests.CHECKSUMS: sums,
        **{name: path.read_bytes() for name, path in outside.items() if path.is_file()},
        manifests.MANIFEST: manifests.dump(shards.manifest),
    }


def _push_to_hub(shards_path: Path, repository: hub.Repository, bar: Bar | None) -> dict[str, Any]:
    """Publish a set in one commit, in place of a set that is there; earlier commits keep what they had.

    Raises:
        ShardSetError: see `push`.
        SettingsError: a repository of models.
    """
    if repository.kind != "dataset":
        raise SettingsError(f"{repository.path}: a repository of models; expected hf://datasets/OWNER/NAME for a set.")
    hub.require_writable(repository)
    hub.require_hub()
    shards = ShardSet(shards_path)
    others, before, parent = _check_whole(shards), set[str](), ""
    if hub.exists(repository):
        parent = hub.find_commit(repository)
        there = open_folder(repository.at(parent))
        if (data := there.read_small(manifests.MANIFEST)) is not None:
            listed = manifests.parse(data, source=f"{there.shown}/{manifests.MANIFEST}")["files"]
            here = {name.rpartition("/")[2] for name in there.files.ls(there.path, detail=False)}
            before = here & {*(entry["name"] for entry in listed), *BESIDE}
    size = sum(entry["bytes"] for entry in shards.manifest["files"])
    on_bytes = bar(size, "push") if bar else lambda count: None
    files: dict[str, Path | bytes] = {name: shards.path / name for name in shards.files}
    message = f"Shard set {shards.id[:12]}"
    commit = hub.commit(repository, {**files, **others}, message=message, gone=before, parent=parent)
    on_bytes(size)
    sent = 0 if commit == parent else len(files)
    return {"address": repository.at(commit), "id": shards.id, "sent": sent, "bytes": size}


def _require_whole(folder: Path, entry: FileEntry) -> None:
    """Refuse a file of a set that is not what its manifest says.

    Raises:
        ShardSetError: changed or damaged.
    """
    path = folder / entry["name"]
    if sha256_file(path) != entry["sha256"]:
        raise ShardSetError(f"{path}: changed or damaged. Run `{command('verify', folder)}`.")


def _put(remote: RemoteFolder, source: Path | bytes, name: str) -> None:
    """Write a file, with its name in whatever error comes."""
    with reaching(f"{remote.shown}/{name}"):
        remote.put(source, name)


def _require_free(remote: RemoteFolder, set_id: str) -> None:
    """Check that a flat folder holds no set, or this one.

    Raises:
        SettingsError: it holds another, or several.
    """
    with reaching(remote.shown):
        several = remote.size(CURRENT) is not None
    data = remote.read_small(manifests.MANIFEST)
    if several:
        raise SettingsError(f"{remote.shown}: sets are published there in folders of their own; push without --flat.")
    if data is not None:
        there = manifests.parse(data, source=f"{remote.shown}/{manifests.MANIFEST}")["self_sha256"]
        if there != set_id:
            raise SettingsError(f"{remote.shown}: holds shard set {there}. Choose another folder, or empty this one.")


def transfer_all(entries: Sequence[FileEntry], work: Callable[[FileEntry, Event], None]) -> None:
    """Transfer several files at a time; the first failure, or Ctrl-C, stops all of them between two parts."""
    stop = Event()
    with ThreadPoolExecutor(MAX_TRANSFERS) as pool:
        futures = [pool.submit(work, entry, stop) for entry in entries]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    failed = [error for future in done if not future.cancelled() and (error := future.exception()) is not None]
    if failed:
        raise failed[0]
