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
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import FileLock, write_bytes
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import SPLITS, checksums
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import INDEX_EXTENSION
from spikebridge.pipeline.sharing.locations import Place, masked, open_place
from spikebridge.pipeline.sharing.publish import AT_ONCE, ID, Found, find
from spikebridge.pipeline.sharing.transfer import fetch

FOLDER, LIMIT = "SPIKEBRIDGE_CACHE", "SPIKEBRIDGE_CACHE_GB"
DEFAULT_GB = 50.0

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where cached sets lie."""
    if chosen := os.environ.get(FOLDER):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spikebridge"


def cache_bytes() -> int:
    """How many bytes all cached sets may have together.

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

    Args:
        folder: of the set in the cache, with its manifest.
        found: where the files are; None when all of them are here.
        lock: keeps the set from being removed.
    """

    def __init__(self, folder: Path, found: Found | None, lock: FileLock) -> None:
        self._lock = lock
        super().__init__(folder, need=self._wait)
        self._stop = threading.Event()
        self._coming: dict[str, Future[None]] = {}
        if found is None:
            return
        queue: SimpleQueue[tuple[dict[str, Any], Future[None]]] = SimpleQueue()
        for entry in sorted(found.manifest["files"], key=_when_needed):
            self._coming[entry["name"]] = Future()
            queue.put((entry, self._coming[entry["name"]]))
        for _ in range(AT_ONCE):  # daemons: a run that ends does not wait for shards that it never read
            threading.Thread(target=_work, args=(queue, found.place, folder, self._stop), daemon=True).start()

    def _wait(self, name: str) -> None:
        if future := self._coming.get(name):
            future.result()

    def close(self) -> None:
        """Stop fetching and let the set go; what arrived stays in the cache."""
        self._stop.set()
        self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self.close()


def _when_needed(entry: dict[str, Any]) -> tuple[int, int, str]:
    """What every run reads first comes first: images, indexes, then shards, the training ones before the others."""
    name = entry["name"]
    split = next((i for i, split in enumerate(SPLITS, 1) if name.startswith(f"events-{split}-")), 0)
    return (2 if split and not name.endswith(INDEX_EXTENSION) else min(split, 1)), split, name


def _work(queue: SimpleQueue[tuple[dict[str, Any], Future[None]]], place: Place, folder: Path, stop: Event) -> None:
    """Fetch files until none is left; an error is told to whoever needs the file."""
    while not stop.is_set():
        try:
            entry, future = queue.get_nowait()
        except Empty:
            return
        try:
            fetch(place, entry, folder / entry["name"], stop=stop, moved=lambda count: None)
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)


def open_published(address: str) -> ShardSet:
    """Open a published set for training, through the cache.

    Args:
        address: as for `pull`.

    Raises:
        ShardSetError: nothing there, unreachable and not in the cache, or larger than the cache may be.
        SettingsError: not an address, or a limit that is no number.
    """
    folder = cache_folder()
    seen = folder / "seen" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()
    place = open_place(address)
    try:
        found = find(place)
    except ShardSetError as error:
        chosen = seen.read_text().strip() if seen.is_file() else ""
        if not ID.fullmatch(chosen) or not _is_whole(folder / chosen):
            raise
        log.warning("%s; continuing with set %s, which it held last and which is in the cache", error, chosen[:12])
        return CachedSet(folder / chosen, None, _hold(folder, chosen))
    chosen = found.manifest["self_sha256"]
    target = folder / chosen
    target.mkdir(parents=True, exist_ok=True)
    lock = _hold(folder, chosen)
    try:
        _make_room(folder, found, shown=masked(address))
    except BaseException:
        lock.release()
        raise
    if not (target / manifests.MANIFEST).is_file():
        write_bytes(target / manifests.CHECKSUMS, checksums(found.manifest["files"]).encode())
        write_bytes(target / manifests.MANIFEST, found.data)
    seen.parent.mkdir(exist_ok=True)
    write_bytes(seen, chosen.encode())
    return CachedSet(target, None if _is_whole(target) else found, lock)


def _is_whole(folder: Path) -> bool:
    """Whether every file of a cached set is there; each was checked when it arrived."""
    if not (folder / manifests.MANIFEST).is_file():
        return False
    files = manifests.read(folder)["files"]
    return all((p := folder / e["name"]).is_file() and p.stat().st_size == e["bytes"] for e in files)


def _hold(folder: Path, chosen: str) -> FileLock:
    """Keep a set from being removed until the lock is released."""
    lock = FileLock(folder / f"{chosen}.lock", shared=True)
    os.utime(lock.path)
    return lock


def _make_room(folder: Path, found: Found, *, shown: str) -> None:
    """Remove sets that nobody uses until this one fits."""
    limit, wanted = cache_bytes(), sum(entry["bytes"] for entry in found.manifest["files"])
    if wanted > limit:
        raise ShardSetError(
            f"{shown}: the set has {wanted / 1e9:.3g} GB, the cache {folder} may have {limit / 1e9:.3g} GB. Raise "
            f"{LIMIT}, or fetch the set with `{command('pull')}` and train from the folder."
        )
    with FileLock(folder / "room.lock"):
        others = [lock for lock in folder.glob("*.lock") if ID.fullmatch(lock.stem)]
        others = [lock for lock in others if lock.stem != found.manifest["self_sha256"]]
        sizes = {lock: _size(folder / lock.stem) for lock in others}
        for lock in sorted(others, key=lambda path: path.stat().st_mtime):
            if wanted + sum(sizes.values()) <= limit:
                return
            if _remove(folder / lock.stem, lock):
                del sizes[lock]
        if wanted + sum(sizes.values()) > limit:
            raise ShardSetError(
                f"{shown}: the set has {wanted / 1e9:.3g} GB, and sets in use take {sum(sizes.values()) / 1e9:.3g} of "
                f"the {limit / 1e9:.3g} GB of the cache {folder}. Raise {LIMIT}, or wait for the other runs."
            )


def _size(folder: Path) -> int:
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
