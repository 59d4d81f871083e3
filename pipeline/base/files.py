"""Writing files so that a reader sees the whole file or none, and hashing them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written; whoever owns the folder may delete such files when it starts."""

PART_BYTES = 2**18
"""What is read of a file at a time to be hashed: it stays in the cache of a core."""


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
    with HashedFile(path) as file:
        return file.sha256()


class HashedFile:
    """A file that is read once from front to back and hashed on the way.

    Args:
        path: the file; use it in a `with` statement.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed by __exit__)
        self.size = os.fstat(self._file.fileno()).st_size
        self._digest = hashlib.sha256()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(self, target: memoryview) -> int:
        """Read the next bytes; returns how many there were, fewer than asked for at the end of the file."""
        filled = 0
        while count := self._file.readinto(target[filled : filled + PART_BYTES]):
            self._digest.update(target[filled : filled + count])
            filled += count
        return filled

    def sha256(self) -> str:
        """SHA-256 of the whole file, of which the rest is read now."""
        part = memoryview(bytearray(min(PART_BYTES, self.size + 1)))
        while self.fill(part):
            pass
        return self._digest.hexdigest()


def file_entry(path: Path, samples: int, sha256: str | None = None) -> dict[str, Any]:
    """A file of a shard set as its manifest lists it; hashed where its `sha256` is not known."""
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256 or sha256_file(path),
        "samples": samples,
    }
