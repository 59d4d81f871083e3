"""Tar archives of plain members, built block by block: what a shard needs of the USTAR format and nothing else.

Every header is a function of name and size alone (mode 0444, owner 0, time 0), so an archive can be checked by building
its headers again instead of parsing them: a link, a path or an extension is then simply another header. The bytes are
those of the standard library's `tarfile` with USTAR_FORMAT, without its 20 microseconds a member.

Source: POSIX.1-1988, "ustar Interchange Format".
"""

from __future__ import annotations

from functools import lru_cache

from pipeline.errors import LayoutError

BLOCK, RECORD = 512, 20 * 512
"""Members are padded to whole blocks, archives to whole records."""
MAX_NAME, MAX_SIZE = 100, 8**11 - 1
"""Longest name without a slash, and largest member, in bytes."""
SIZE_AT = slice(124, 135)
"""Where a header holds the size of its member, in octal digits."""
_BLOCK_OF_ZEROS = bytes(BLOCK)
_OWNER = b"0000444\0" + 2 * b"0000000\0"
_TIME, _NO_CHECKSUM = b"00000000000\0", b" " * 8
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(BLOCK - 265)
_CONSTANT_SUM = sum(_OWNER + _TIME + _NO_CHECKSUM + _REST)


def header(name: bytes, size: int) -> bytes:
    """The block before a member.

    Args:
        name: ASCII, without a slash.
        size: of the member, bytes.

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


@lru_cache(maxsize=1024)
def _of_size(size: int) -> tuple[bytes, int]:
    """The fields between name and checksum, and the sum of all bytes but the name's; the sizes of a shard are few."""
    digits = b"%011o\0" % size
    return _OWNER + digits + _TIME, _CONSTANT_SUM + sum(digits)


def padding(size: int) -> bytes:
    """Zeros from the end of a member of this size to the next whole block."""
    return _BLOCK_OF_ZEROS[: -size % BLOCK]


def end(size: int) -> bytes:
    """What closes an archive whose members take `size` bytes: two empty blocks, and zeros to a whole record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)
