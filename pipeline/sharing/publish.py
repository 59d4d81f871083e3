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
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import FileEntry, sha256_file, write_bytes
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import CARD, SHA256, SPLITS, Manifest, checksums
from spikebridge.pipeline.shards.reader import PARTIAL, ShardSet
from spikebridge.pipeline.sharing.locations import CURRENT, READ_ONLY, RemoteFolder, is_page, open_folder, reaching
from spikebridge.pipeline.sharing.transfer import OnBytes, fetch

PULL = ".pull.json"
"""In a folder that is being filled: the ID of the set that is coming."""
MAX_TRANSFERS = 4
"""Files on their way at a time."""
MOST_BYTES = 2**26
"""Largest manifest that is read: some 500,000 files."""

Bar = Callable[[int, str], OnBytes]
"""Makes a progress bar: (bytes, what)."""


@dataclass(frozen=True)
class PublishedSet:
    """A shard set in its published folder."""

    remote: RemoteFolder
    manifest: Manifest
    data: bytes
    """The manifest's bytes as published."""


def find_set(remote: RemoteFolder, *, expect: str | None = None) -> PublishedSet:
    """Read which set a folder offers.

    The folder has a `current.json`, or is that of a set; `expect` is the ID that the set must have.

    Raises:
        ShardSetError: nothing published there, an unreachable folder, a damaged manifest, or another set.
    """
    data = _read_small(remote, manifests.MANIFEST)
    if data is None and (pointer := _read_small(remote, CURRENT)) is not None:
        try:
            set_id = json.loads(pointer)["id"]
            remote = remote.below(set_id if SHA256.fullmatch(set_id) else "")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ShardSetError(
                f"{remote.shown}/{CURRENT}: not the pointer to a shard set{_describe_page(pointer)}. Is the "
                "address right?"
            ) from error
        data = _read_small(remote, manifests.MANIFEST)
    if data is None:
        raise ShardSetError(
            f"{remote.shown}: neither {manifests.MANIFEST} nor {CURRENT} found; expected a published shard set. "
            f"Publish one with `{command('push')}`."
        )
    source = f"{remote.shown}/{manifests.MANIFEST}"
    if page := _describe_page(data):
        raise ShardSetError(f"{source}: found{page}; expected the manifest of a shard set. Is the address right?")
    manifest = manifests.parse(data, source=source)
    if expect is not None and manifest["self_sha256"] != expect:
        raise ShardSetError(f"{remote.shown}: holds shard set {manifest['self_sha256']}; expected {expect}.")
    return PublishedSet(remote, manifest, data)


def _read_small(remote: RemoteFolder, name: str) -> bytes | None:
    with reaching(f"{remote.shown}/{name}"):
        try:
            data = remote.read(name, 0, MOST_BYTES)
        except FileNotFoundError:
            return None
    if len(data) >= MOST_BYTES:
        raise ShardSetError(f"{remote.shown}/{name}: larger than any manifest. Is the address right?")
    return data


def _describe_page(data: bytes) -> str:
    return " (a web page)" if is_page(data) else ""


def pull(
    address: str, out: Path, *, splits: Sequence[str] = (), expect: str | None = None, bar: Bar | None = None
) -> dict[str, Any]:
    """Fetch a published set, or go on where an earlier call was cut off, or add splits to what is there.

    `out` is missing, empty, or holds (a part of) the same set. With `splits`, only their event shards are fetched;
    `expect` is the ID that the set must have.

    Returns:
        out, id, bytes (of all files wanted), splits.

    Raises:
        ShardSetError: see `find_set` and `transfer.fetch`.
        SettingsError: an unknown split, or a folder with something else in it.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise SettingsError(f"no split is called {', '.join(unknown)}; there are {', '.join(SPLITS)}.")
    published = find_set(open_folder(address), expect=expect)
    before = _splits_here(out, published.manifest)
    here = tuple(split for split in SPLITS if not splits or split in splits or split in before)
    _claim_folder(out, published.manifest["self_sha256"])
    entries = manifests.files_of(published.manifest, here)
    size = sum(entry["bytes"] for entry in entries)
    on_bytes = bar(size, "pull") if bar else lambda count: None
    transfer_all(
        entries, lambda entry, stop: fetch(published.remote, entry, out / entry["name"], stop=stop, on_bytes=on_bytes)
    )
    write_bytes(out / manifests.CHECKSUMS, checksums(published.manifest["files"]).encode())
    if set(here) == set(SPLITS):
        (out / PARTIAL).unlink(missing_ok=True)
    else:
        write_bytes(
            out / PARTIAL, (json.dumps({"id": published.manifest["self_sha256"], "splits": list(here)}) + "\n").encode()
        )
    write_bytes(out / manifests.MANIFEST, published.data)
    (out / PULL).unlink(missing_ok=True)
    return {"out": str(out), "id": published.manifest["self_sha256"], "bytes": size, "splits": list(here)}


def _splits_here(out: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the splits that an earlier pull of the same set brought."""
    if not (out / manifests.MANIFEST).is_file():
        return ()
    shards = ShardSet(out)
    if shards.id != manifest["self_sha256"]:
        raise SettingsError(
            f"{out} already holds shard set {shards.id}; the one to be pulled is {manifest['self_sha256']}. "
            "Choose another folder."
        )
    return shards.present


def _claim_folder(out: Path, set_id: str) -> None:
    """Make the folder, or check that this pull began it."""
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file; expected a folder. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    if (out / manifests.MANIFEST).is_file():
        return
    entries = sorted(entry.name for entry in out.iterdir())
    if entries and not (out / PULL).is_file():
        raise SettingsError(f"{out} is not empty and holds no pulled set ({', '.join(entries[:5])}). Choose another.")
    if entries and (before := json.loads((out / PULL).read_bytes()).get("id")) != set_id:
        raise SettingsError(
            f"{out}: a pull of shard set {before} was begun there; the address now offers {set_id}. "
            "Choose another folder, or empty this one."
        )
    write_bytes(out / PULL, (json.dumps({"id": set_id}) + "\n").encode())


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
    shards, remote = ShardSet(shards_path), open_folder(address)
    if remote.protocol in READ_ONLY:
        raise SettingsError(f"{remote.shown}: http folders are read only; push to a path, s3:// or sftp:// instead.")
    if shards.partial:
        raise ShardSetError(f"{shards.path}: only a part of the set was pulled; pull all of it before publishing it.")
    for entry in shards.manifest["files"]:
        path = shards.path / entry["name"]
        if sha256_file(path) != entry["sha256"]:
            raise ShardSetError(f"{path}: changed or damaged. Run `{command('verify', shards.path)}`.")
    base = remote if flat else remote.below(shards.id)
    if flat:
        _require_free(remote, shards.id)
    size = sum(entry["bytes"] for entry in shards.manifest["files"])
    on_bytes = bar(size, "push") if bar else lambda count: None
    sent: list[str] = []

    def send(entry: FileEntry, stop: Event) -> None:
        if not stop.is_set():
            if base.size(entry["name"]) != entry["bytes"] or (
                flat and entry["name"] == CARD
            ):  # a hub begins with a card, too
                base.put(shards.path / entry["name"], entry["name"])
                sent.append(entry["name"])
            on_bytes(entry["bytes"])

    with reaching(remote.shown):
        transfer_all(shards.manifest["files"], send)
        for name in (manifests.CHECKSUMS, manifests.ENVIRONMENT, manifests.MANIFEST):
            if (shards.path / name).is_file():
                base.put(shards.path / name, name)
        if not flat:
            remote.put((json.dumps({"schema": 1, "id": shards.id}) + "\n").encode(), CURRENT)
            remote.put(shards.path / CARD, CARD)
    return {"address": remote.shown, "id": shards.id, "sent": len(sent), "bytes": size}


def _require_free(remote: RemoteFolder, set_id: str) -> None:
    """Check that a flat folder holds no set, or this one.

    Raises:
        SettingsError: it holds another, or several.
    """
    with reaching(remote.shown):
        several = remote.size(CURRENT) is not None
    data = _read_small(remote, manifests.MANIFEST)
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
