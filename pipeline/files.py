"""Writing files so that a reader sees the whole file or none, and hashing them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written; whoever owns the folder may delete such files when it starts."""

PART_BYTES = 2**22
"""What is read of a file at a time."""
SMALL_BYTES = 2**17
"""What is hashed faster than another thread takes it over."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file aside, then move it into place, flushed to the disk.

    Yields:
        The path to write to, in the same folder. On an exception it is deleted and `path` stays as it was.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")  # several machines may write it
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def reserve(path: Path, size: int) -> None:
    """Make sure that the disk has room for a file before a library writes it.

    The library behind HDF5 does not survive a disk that is full when it writes: the process ends with a segmentation
    fault when what it could not close is collected. What is claimed here is given back when the library opens the file.

    Args:
        path: of the file, which is made, or emptied.
        size: an upper bound of its bytes.

    Raises:
        OSError: there is no room, or a file may not be as large.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(1, size))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest, part = hashlib.sha256(), bytearray(min(PART_BYTES, max(1, path.stat().st_size)))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(part):
            digest.update(memoryview(part)[:count])
    return digest.hexdigest()


class HashedReader:
    """A file read once from front to back: another thread hashes each part while the caller looks at it.

    Args:
        path: the file; use it in a `with` statement.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed by __exit__)
        self.size = os.fstat(self._file.fileno()).st_size
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._buffers: list[tuple[bytearray, Future[None] | None]] = [(bytearray(), None), (bytearray(), None)]

    def __enter__(self) -> HashedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._file.close()

    def read(self, size: int) -> memoryview:
        """The next `size` bytes, fewer at the end of the file; valid until the call after the next."""
        buffer, busy = self._buffers.pop(0)
        if busy is not None:
            busy.result()
        if len(buffer) < size:
            buffer = bytearray(size)
        view = memoryview(buffer)[:size]
        filled = 0
        while filled < size and (count := self._file.readinto(view[filled:])):
            filled += count
        view = view[:filled].toreadonly()
        self._buffers.append((buffer, self._hash(view)))
        return view

    def _hash(self, view: memoryview) -> Future[None] | None:
        """Hash a part behind those before it; a small one at once, which costs less than to wake a thread."""
        before = self._buffers[0][1]
        if len(view) >= SMALL_BYTES or not (before is None or before.done()):
            return self._thread.submit(self._digest.update, view)
        self._digest.update(view)
        return None

    def sha256(self) -> str:
        """SHA-256 of the whole file, of which the rest is read now."""
        while len(self.read(min(PART_BYTES, self.size - self._file.tell() + 1))):
            pass
        self._thread.shutdown()
        return self._digest.hexdigest()


def file_entry(path: Path, samples: int, sha256: str | None = None) -> dict[str, Any]:
    """A file of a shard set as its manifest lists it; hashed where its `sha256` is not known."""
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256 or sha256_file(path),
        "samples": samples,
    }
