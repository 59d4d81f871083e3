"""The bytes of a recording, of a file or in memory, read in blocks so that a long one never lies in memory whole."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD_BYTES = 2**16
"""Bytes at the beginning that tell what a file is, and hold its header."""
BLOCK_BYTES = 2**19
"""Bytes of a block: with the columns of its events about what the cache of a core holds."""


@dataclass(frozen=True)
class Source:
    """A file, or its unpacked content.

    Args:
        name: for messages.
        size: in bytes.
        path: of the file, which holds the very bytes; None where `data` does.
        data: the bytes; None for those of the file.
        packed: the file, at `path`, in gzip and known to be whole; the bytes are what it unpacks to.
    """

    name: str
    size: int
    path: Path | None = None
    data: bytes | None = None
    packed: bool = False

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> Source:
        """Return a source of bytes in memory."""
        return cls(name, len(data), data=data)

    @classmethod
    def of_file(cls, path: Path) -> Source:
        """Return a source of a file, which is not read yet."""
        return cls(path.name, path.stat().st_size, path)

    def open(self) -> io.BufferedIOBase:
        """Open the bytes for reading."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        return gzip.open(self.path) if self.packed else open(self.path, "rb")

    def read(self, start: int = 0, count: int = -1) -> bytes:
        """Return `count` bytes from `start` on (all without it), fewer at the end."""
        with self.open() as file:
            file.seek(start)
            return file.read(count)

    @property
    def head(self) -> bytes:
        """Return the first `HEAD_BYTES` bytes."""
        return self.read(0, HEAD_BYTES)

    def blocks(
        self, start: int, dtype: str, *, together: int = 1, size: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[Any]]:
        """Yield the numbers from the byte `start` on, in blocks; the next block takes the place of the last.

        The array has the same layout wherever the bytes lie, so that compiled loops are compiled once. `together` of
        them are never parted; what is less at the end is left out. `size` is that of a block in bytes, where it is not
        the usual one; the bytes from `stop` on are left out.
        """
        item = np.dtype(dtype).itemsize * together
        left = (self.size if stop is None else stop) - start
        buffer = np.empty(max(1, min(size or BLOCK_BYTES, left) // item) * together, dtype)
        raw = buffer.data.cast("B")
        with self.open() as file:
            file.seek(start)
            kept = 0  # bytes of an item whose rest did not come yet
            while count := file.readinto(raw[kept : kept + left]):
                left -= count
                whole, rest = divmod(kept + count, item)
                yield buffer[: whole * together]
                raw[:rest] = raw[whole * item : whole * item + rest]
                kept = rest
