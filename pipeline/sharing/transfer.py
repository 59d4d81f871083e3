"""One file from a published folder to this machine: in parts, resumed where it was cut off, checked on arrival."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, FileLock, sha256_file
from spikebridge.pipeline.sharing.locations import RemoteFolder, is_page, unreachable

PART_BYTES = 8 * 2**20
TRIES = 5
"""Failures in a row, without a byte in between, after which a transfer is given up."""
FIRST_PAUSE_S = 0.2
"""Pause after the first failure; each further one doubles it."""

POLL_S = 0.1
"""Between two looks whether the process that receives the same file is done."""

OnBytes = Callable[[int], None]
"""Told how many bytes have arrived."""


class TransferStopped(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A transfer was asked to stop; what arrived is kept."""


def fetch(remote: RemoteFolder, entry: FileEntry, target: Path, *, stop: Event, on_bytes: OnBytes) -> None:
    """Fetch a file of a shard set, unless it is there already.

    What arrives is kept beside the target until it is whole, so that another call goes on where this one was cut off.
    Of several calls for one target, in any processes of this machine, one receives it and the others wait.

    `stop` ends all transfers between two parts; `on_bytes` is told of every part, and of what was there before.

    Raises:
        ShardSetError: it is missing, cannot be reached, or is not what the manifest says.
        TransferStopped: `stop` was set.
    """
    if _is_whole(target, entry):
        return on_bytes(entry["bytes"])
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    with _lock(partial, stop):
        if _is_whole(target, entry):  # another process, or thread, brought it meanwhile
            partial.unlink()
            return on_bytes(entry["bytes"])
        resumed = 0 < partial.stat().st_size <= entry["bytes"]
        for again in (resumed, False):
            _receive(remote, entry, partial, stop=stop, on_bytes=on_bytes)
            if sha256_file(partial) == entry["sha256"]:
                os.replace(partial, target)
                return None
            on_bytes(-partial.stat().st_size)
            os.truncate(partial, 0)  # not removed: whoever waits for it has it open
            if not again:  # else what was kept did not fit what came now: once more, from the start
                break
        partial.unlink()
    raise ShardSetError(
        f"{remote.shown}/{entry['name']}: not the file that the manifest names (SHA-256 differs), so it was changed or "
        "damaged there. Nothing of it was kept. Tell whoever published it."
    )


def _is_whole(target: Path, entry: FileEntry) -> bool:
    return target.is_file() and target.stat().st_size == entry["bytes"] and sha256_file(target) == entry["sha256"]


def _lock(partial: Path, stop: Event) -> FileLock:
    """Make the partial file and lock it, so that one process at a time writes it; the others wait.

    Raises:
        TransferStopped: `stop` was set meanwhile.
    """
    while True:
        try:
            return FileLock(partial, wait=False)
        except BlockingIOError:
            if stop.wait(POLL_S):
                raise TransferStopped from None


def _receive(remote: RemoteFolder, entry: FileEntry, partial: Path, *, stop: Event, on_bytes: OnBytes) -> None:
    """Append to the partial file until it has as many bytes as it should."""
    size, name = int(entry["bytes"]), str(entry["name"])
    if partial.stat().st_size > size:
        os.truncate(partial, 0)
    failures = 0
    with open(partial, "ab") as file:
        position = file.tell()
        on_bytes(position)
        while position < size:
            if stop.is_set():
                raise TransferStopped
            try:
                part = _read_part(remote, name, position, min(position + PART_BYTES, size), size)
            except (FileNotFoundError, PermissionError, ShardSetError) as error:
                raise (
                    error if isinstance(error, ShardSetError) else unreachable(f"{remote.shown}/{name}", error)
                ) from error
            except Exception as error:  # each protocol has errors of its own
                failures += 1
                if failures == TRIES:
                    raise unreachable(f"{remote.shown}/{name}", error) from error
                stop.wait(FIRST_PAUSE_S * 2**failures)
                continue
            failures = 0
            file.write(part)
            file.flush()
            position += len(part)
            on_bytes(len(part))
        os.fsync(file.fileno())


def _read_part(remote: RemoteFolder, name: str, start: int, stop: int, size: int) -> bytes:
    """Read bytes `start` to `stop`, or to the end where the server gives all of a file or nothing."""
    data = remote.read(name, start, stop)
    if len(data) == stop - start:
        return data
    if len(data) == size:  # a server without ranges
        return data[start:]
    kind = "a web page" if is_page(data) else f"{len(data):,} bytes"
    raise ShardSetError(
        f"{remote.shown}/{name}: {kind} came back for bytes {start:,} to {stop:,} of {size:,}. Is this the address of "
        "a published shard set?"
    )
