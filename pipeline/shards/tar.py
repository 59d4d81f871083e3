"""Tar archives of plain members, built block by block: what a shard needs of the USTAR format and nothing else.

Every header is a function of name and size alone (mode 0444, owner 0, time 0), so an archive can be checked by building
its headers again instead of parsing them: a link, a path or an extension is then simply another header. The bytes are
those of the standard library's `tarfile` with USTAR_FORMAT, without its 20 microseconds a member.

Source: POSIX.1-1988, "ustar Interchange Format".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError

BLOCK, RECORD = 512, 20 * 512
"""Members are padded to whole blocks, archives to whole records."""
MAX_NAME, MAX_SIZE = 100, 8**11 - 1
"""Longest name without a slash, and largest member, in bytes."""
SIZE_AT = slice(124, 135)
"""Where a header holds the size of its member, in octal digits."""
_CHECKSUM_AT = slice(148, 154)
"""Where it holds the sum of its bytes, in octal digits."""
_BLOCK_OF_ZEROS = bytes(BLOCK)
_OWNER = b"0000444\0" + 2 * b"0000000\0"
_TIME, _NO_CHECKSUM = b"00000000000\0", b" " * 8
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(BLOCK - 265)
_CONSTANT_SUM = sum(_OWNER + _TIME + _NO_CHECKSUM + _REST)


def header(name: bytes, size: int) -> bytes:
    """Return the block before a member of `size` bytes; its name is ASCII, without a slash.

    Raises:
        LayoutError: the format cannot hold the name or the size.
    """
    if len(name) > MAX_NAME or size > MAX_SIZE:
        raise LayoutError(
            f"{name.decode()}: a name of {len(name)} characters and {size:,} bytes; a tar holds names of {MAX_NAME} "
            f"and members of {MAX_SIZE:,} bytes. Shorten the recording's file name, or use --format hdf5."
        )
    middle, total = _of_size(size)
    return b"%b%b%06o\0 %b" % (name.ljust(100, b"\0"), middle, total + sum(name), _REST)


def headers(names: NDArray[np.bytes_], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the blocks [n,512] before many members, each as `header` gives it, from names [n] and sizes [n].

    Raises:
        LayoutError: the format cannot hold a name or a size.
    """
    if names.itemsize > MAX_NAME or (sizes > MAX_SIZE).any():
        for i in np.flatnonzero((np.char.str_len(names) > MAX_NAME) | (sizes > MAX_SIZE))[:1]:
            header(names[i], int(sizes[i]))
    blocks = np.empty((len(names), BLOCK), np.uint8)
    blocks[:] = np.frombuffer(header(b"", 0), np.uint8)
    letters = names.astype(f"S{MAX_NAME}").view(np.uint8).reshape(-1, MAX_NAME)
    digits = _octal(sizes, 11)
    blocks[:, :MAX_NAME], blocks[:, SIZE_AT] = letters, digits
    total = _CONSTANT_SUM + letters.sum(axis=1, dtype=np.uint16) + digits.sum(axis=1)
    blocks[:, _CHECKSUM_AT] = _octal(total, 6)
    return blocks


def sizes(blocks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the sizes [n] of the members after the headers [n,512]; any number where a field holds something else."""
    digits = blocks[:, SIZE_AT].astype(np.int64) & 7  # of "0" to "7"
    return (digits << np.arange(30, -1, -3)).sum(axis=1)


def _octal(values: NDArray[Any], digits: int) -> NDArray[np.int64]:
    """Return the ASCII digits [n,digits] of numbers [n]."""
    return (values.astype(np.int64)[:, None] >> np.arange(3 * digits - 3, -1, -3) & 7) + ord("0")


@lru_cache(maxsize=1024)
def _of_size(size: int) -> tuple[bytes, int]:
    """Return the fields between name and checksum, and the sum of all bytes but the name's; a shard has few sizes."""
    digits = b"%011o\0" % size
    return _OWNER + digits + _TIME, _CONSTANT_SUM + sum(digits)


def padding(size: int) -> bytes:
    """Return zeros from the end of a member of this size to the next whole block."""
    return _BLOCK_OF_ZEROS[: -size % BLOCK]


def end(size: int) -> bytes:
    """Return what closes an archive whose members take `size` bytes: two empty blocks, and zeros to a whole record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)
