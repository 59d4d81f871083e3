"""One file from a published folder to this machine: in parts, resumed where it was cut off, checked on arrival."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from spikebridge.pipeline.base.errors import PipelineError, ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, FileLock, sha256_file
from spikebridge.pipeline.sharing.locations import RemoteFolder, TransferStopped, is_page, persist, unreachable

POLL_S = 0.1
"""Between two looks whether the process that receives the same file is done."""

OnBytes = Callable[[int], None]
"""Told how many bytes have arrived."""


def fetch(remote: RemoteFolder, entry: FileEntry, target: Path, *, stop: Event, on_bytes: OnBytes) -> None:
    """Fetch a file of a shard set, unless it is there already.

    What arrives is kept beside the target until it is whole, so that another call goes on where this one was cut off.
    Of several calls for one target, in any processes of this machine, one receives it and the others wait.

    `stop` ends all transfers between two parts; `on_bytes` is told of every part, and of what was there before.

    Raises:
        ShardSetError: it is missing, cannot be reached, or is not what the manifest says.
        TransferStopped: `stop` was set.
    """
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    if _is_whole(target, entry):
        remove_abandoned(partial)
        return on_bytes(entry["bytes"])
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


def remove_abandoned(partial: Path) -> None:
    """Remove what a process that was killed received of a file that is whole by now."""
    if partial.exists():
        with suppress(BlockingIOError), FileLock(partial, wait=False):  # else a live one has it, and removes it
            partial.unlink(missing_ok=True)


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
    """Append to the partial file until it has as many bytes as it should.

    Raises:
        ShardSetError: something else comes, or nothing.
        PipelineError: this disk does not take it.
        TransferStopped: `stop` was set.
    """
    size, name, shown = entry["bytes"], entry["name"], f"{remote.shown}/{entry['name']}"
    if partial.stat().st_size > size:
        os.truncate(partial, 0)
    with open(partial, "ab", buffering=0) as file:
        on_bytes(file.tell())

        def receive() -> None:
            for part in remote.stream(name, file.tell(), size) if file.tell() < size else ():
                if stop.is_set():
                    raise TransferStopped
                if not file.tell() and is_page(part):
                    raise ShardSetError(f"{shown}: a web page came back. Is this the address of a published shard set?")
                with _writing(partial):
                    rest = memoryview(part)
                    while rest := rest[file.write(rest) :]:  # a disk that is nearly full takes the beginning
                        pass
                on_bytes(len(part))
            if file.tell() < size:
                raise EOFError(f"ended after {file.tell():,} of {size:,} bytes")

        try:
            persist(receive, shown, stop=stop, progress=file.tell)
        except FileNotFoundError as error:
            raise unreachable(shown, error) from error
        with _writing(partial):
            os.fsync(file.fileno())


@contextmanager
def _writing(partial: Path) -> Iterator[None]:
    """Tell what this disk refuses from what the network does."""
    try:
        yield
    except OSError as error:
        target = partial.with_name(partial.name.removesuffix(PARTIAL_SUFFIX))
        raise PipelineError(
            f"{target}: {error.strerror}. What arrived is kept; once that is mended, the same command continues."
        ) from error
