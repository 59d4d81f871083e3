"""Training straight from a published set: its files come into a local cache, ahead of their use.

    $SPIKEBRIDGE_CACHE (by default ~/.cache/spikebridge)/
        <ID>/          a set as `pull` leaves it; named after its content
        <ID>.lock      held (shared) by every process that uses the set; its time is that of the last use
        seen/<hash>    the ID that an address had last, for a machine without network

The size of all sets together stays below SPIKEBRIDGE_CACHE_GB (default 50): sets that nobody uses go, the one that was
used longest ago first. A set that does not fit at all is refused.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, FileLock, sha256_once, write_bytes
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.places import cache_folder
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import SHA256, SPLITS, checksums
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import INDEX_EXTENSION
from spikebridge.pipeline.sharing.locations import RemoteFolder, masked, open_folder
from spikebridge.pipeline.sharing.publish import MAX_TRANSFERS, PublishedSet, find_set
from spikebridge.pipeline.sharing.transfer import fetch, remove_abandoned

LIMIT = "SPIKEBRIDGE_CACHE_GB"
DEFAULT_GB = 50.0

log = logging.getLogger(__name__)


def cache_bytes() -> int:
    """Return how many bytes all cached sets may have together.

    Raises:
        SettingsError: the limit is no positive number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_GB))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise SettingsError(f"{LIMIT} is {text!r}; expected a number of gigabytes, for example 50.")
    return int(limit * 1e9)


class CachedSet(ShardSet):
    """A published set that is fetched while it is used; opening it needs the manifest alone.

    The folder in the cache is named after the set's ID. `published` is None when all files are there; `lock` keeps the
    set from being removed.
    """

    def __init__(self, folder: Path, address: str, published: PublishedSet | None, lock: FileLock) -> None:
        self._lock = lock
        super().__init__(folder, expect=folder.name, wait_for_file=self._wait_for_file)
        self.address = address
        self._stop = threading.Event()
        self._arriving: dict[str, Future[None]] = {}
        if published is None:
            return
        queue: SimpleQueue[tuple[FileEntry, Future[None]]] = SimpleQueue()
        for entry in sorted(published.manifest["files"], key=_order_of_use):
            self._arriving[entry["name"]] = Future()
            queue.put((entry, self._arriving[entry["name"]]))
        for _ in range(MAX_TRANSFERS):  # daemons: a run that ends does not wait for shards that it never read
            threading.Thread(
                target=_fetch_queued, args=(queue, published.remote, folder, self._stop), daemon=True
            ).start()

    def _reopen(self) -> Callable[[], ShardSet]:
        return partial(open_published, self.address, expect=self.id)

    def _wait_for_file(self, name: str) -> None:
        if future := self._arriving.get(name):
            future.result()

    def close(self) -> None:
        """Stop fetching and let the set go; what arrived stays in the cache."""
        self._stop.set()
        self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self.close()


def _order_of_use(entry: FileEntry) -> tuple[int, int, str]:
    """Return the sort key of a file: images, indexes, then shards, those of training before the others."""
    name = entry["name"]
    split = next((i for i, split in enumerate(SPLITS, 1) if name.startswith(f"events-{split}-")), 0)
    return (2 if split and not name.endswith(INDEX_EXTENSION) else min(split, 1)), split, name


def _fetch_queued(
    queue: SimpleQueue[tuple[FileEntry, Future[None]]], remote: RemoteFolder, folder: Path, stop: Event
) -> None:
    """Fetch files until none is left; whoever waits for a file gets its error."""
    while not stop.is_set():
        try:
            entry, future = queue.get_nowait()
        except Empty:
            return
        try:
            fetch(remote, entry, folder / entry["name"], stop=stop, on_bytes=lambda count: None)
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)


def open_published(address: str, *, expect: str | None = None) -> ShardSet:
    """Open a published set for training, through the cache; addresses are those of `pull`, `expect` is an ID.

    Raises:
        ShardSetError: nothing there, unreachable and not in the cache, larger than the cache may be, or another set.
        SettingsError: not an address, or a limit that is no number.
    """
    folder = cache_folder()
    last_id = folder / "seen" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()
    remote = open_folder(address)
    try:
        published = find_set(remote)
    except ShardSetError as error:
        set_id = expect or last_id.read_bytes().decode("ascii", "replace").strip() if last_id.is_file() else ""
        if not SHA256.fullmatch(set_id) or not _is_complete(folder / set_id, set_id):
            raise
        log.warning("%s; continuing with set %s, which it held last and which is in the cache", error, set_id[:12])
        return CachedSet(folder / set_id, address, None, _lock_set(folder, set_id))
    set_id = published.manifest["self_sha256"]
    if expect is not None and set_id != expect:
        raise ShardSetError(
            f"{remote.shown}: holds shard set {set_id}; expected {expect}. Was another set published meanwhile? "
            "Give the address of the set that is meant, or start again with this one."
        )
    target, manifest = folder / set_id, folder / set_id / manifests.MANIFEST
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock_set(folder, set_id)
    try:
        with FileLock(folder / "room.lock"):  # and nobody else writes what names a set
            _make_room(folder, published, shown=masked(address))
            target.mkdir(exist_ok=True)
            ours = manifest.is_file() and manifest.read_bytes() == published.data
            if not ours:  # every file is compared with its hash, too, before it is used
                sums = checksums(published.manifest["files"]).encode()
                write_bytes(target / manifests.CHECKSUMS, sums, sole_writer=True)
                write_bytes(manifest, published.data, sole_writer=True)
            last_id.parent.mkdir(exist_ok=True)
            write_bytes(last_id, set_id.encode(), sole_writer=True)
        complete = ours and _is_complete(target, set_id)
        for left in target.glob(f"*{PARTIAL_SUFFIX}") if complete else ():
            remove_abandoned(left)
        return CachedSet(target, address, None if complete else published, lock)
    except BaseException:
        lock.release()
        raise


def _is_complete(folder: Path, set_id: str) -> bool:
    """Return whether every file of a cached set is there.

    Each was checked when it arrived. What labels and orders the samples is checked again; with that, the samples are
    when they are read.
    """
    if not (folder / manifests.MANIFEST).is_file():
        return False
    manifest = manifests.read(folder)
    if manifest["self_sha256"] != set_id:
        return False
    shards = tuple(f"events-{split}-" for split in SPLITS)
    return all(
        (path := folder / entry["name"]).is_file()
        and path.stat().st_size == entry["bytes"]
        and (
            (path.name.startswith(shards) and not path.name.endswith(INDEX_EXTENSION))
            or sha256_once(path) == entry["sha256"]
        )
        for entry in manifest["files"]
    )


def _lock_set(folder: Path, set_id: str) -> FileLock:
    """Keep a set from being removed until the lock is released."""
    lock = FileLock(folder / f"{set_id}.lock", shared=True)
    os.utime(lock.path)
    return lock


def _make_room(folder: Path, published: PublishedSet, *, shown: str) -> None:
    """Remove sets that nobody uses until this one fits; one process at a time."""
    limit, needed = cache_bytes(), sum(entry["bytes"] for entry in published.manifest["files"])
    if needed > limit:
        raise ShardSetError(
            f"{shown}: the set has {needed / 1e9:.3g} GB, the cache {folder} may have {limit / 1e9:.3g} GB. Raise "
            f"{LIMIT}, or fetch the set with `{command('pull')}` and train from the folder."
        )
    others = [lock for lock in folder.glob("*.lock") if SHA256.fullmatch(lock.stem)]
    others = [lock for lock in others if lock.stem != published.manifest["self_sha256"]]
    sizes = {lock: _folder_bytes(folder / lock.stem) for lock in others}
    for lock in sorted(others, key=lambda path: path.stat().st_mtime):
        if needed + sum(sizes.values()) <= limit:
            return
        if _remove(folder / lock.stem, lock):
            del sizes[lock]
    if needed + sum(sizes.values()) > limit:
        raise ShardSetError(
            f"{shown}: the set has {needed / 1e9:.3g} GB, and sets in use take {sum(sizes.values()) / 1e9:.3g} of "
            f"the {limit / 1e9:.3g} GB of the cache {folder}. Raise {LIMIT}, or wait for the other runs."
        )


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0


def _remove(folder: Path, path: Path) -> bool:
    """Remove a set unless somebody uses it, as far as the file system can tell."""
    try:
        lock = FileLock(path, wait=False)
    except OSError:
        return False
    with lock:
        if lock.held:
            (folder / manifests.MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
        return lock.held
