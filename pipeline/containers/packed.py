"""How much packed data may unpack to, found without unpacking it: a guard before decoders that know no limit.

Source: RFC 8878 (Zstandard); the LZ4 frame format description, version 1.6.4.
"""

from __future__ import annotations

ZSTD, LZ4 = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
"""First bytes of a frame."""
_ZSTD_BLOCK = 2**17
_LZ4_RATIO = 255
FREE_BYTES, FREE_RATIO = 2**28, 64
"""What any file may unpack to, and what a larger one may as a multiple of its own size. Events shrink by 2 to 20."""


def allowed(packed_bytes: int) -> int:
    """Most bytes that a recording of this size on disk may take in memory."""
    return max(FREE_BYTES, FREE_RATIO * packed_bytes)


def unpacked_at_most(data: bytes) -> int:
    """Upper bound of what LZ4 or Zstandard frames unpack to, bytes; of anything else its own length.

    A frame that is cut or damaged counts as far as it goes.
    """
    total, position = 0, 0
    while data[position : position + 4] in (ZSTD, LZ4):
        walk = _zstd if data[position : position + 4] == ZSTD else _lz4
        size, position = walk(data, position + 4)
        total += size
    return total + max(0, len(data) - position)


def _zstd(data: bytes, position: int) -> tuple[int, int]:
    """Bound of one frame, and the position behind it; `position` is behind the magic number."""
    descriptor = data[position] if position < len(data) else 0
    single = descriptor >> 5 & 1
    position += 1 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    total, last = 0, 0
    while not last and position + 3 <= len(data):
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind != 1:
            size = min(size, len(data) - position - 3)
        total += _ZSTD_BLOCK if kind == 2 else size  # 0 stored, 1 one byte repeated, 2 compressed
        position += 3 + (1 if kind == 1 else size)
    return total, position + 4 * (descriptor >> 2 & 1)


def _lz4(data: bytes, position: int) -> tuple[int, int]:
    """Bound of one frame, and the position behind it; `position` is behind the magic number."""
    flags, block_code = (*data[position : position + 2], 0, 0)[:2]
    largest = 2 ** (8 + 2 * max(4, block_code >> 4 & 7))
    position += 3 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
    total = 0
    while position + 4 <= len(data) and (word := int.from_bytes(data[position : position + 4], "little")):
        size = min(word & 0x7FFFFFFF, len(data) - position - 4)
        total += size if word >> 31 else min(largest, _LZ4_RATIO * size)
        position += 4 + size + 4 * (flags >> 4 & 1)
    return total, position + 4 + 4 * (flags >> 2 & 1)
