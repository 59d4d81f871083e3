"""How the numbers of a sample are stored: `raw`, or compressed with DEFLATE (`gzip`).

Why gzip, where Zstandard is faster: the stock webdataset reader unpacks `<key>.frames.npy.gz` by itself, every HDF5
library has the filter built in, and training needs nothing but the standard library. Level 4 is three quarters as slow
again as level 1 and four times as fast as 6, whose files are 10 to 15 % smaller. The bytes are a function of the
numbers and of the zlib that Python is linked with; there is no time and no file name in them.
"""

from __future__ import annotations

import zlib

RAW, GZIP = "raw", "gzip"
LEVEL = 4
MAX_RATIO = 1040
"""DEFLATE cannot shrink anything further."""
PART_BYTES = 2**22
"""Most that is unpacked at a time."""
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""DEFLATE, no name, no time, unknown system."""
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


def gzip(*parts: bytes | memoryview) -> bytes:
    """Return a gzip file of the parts in a row: what a tar member holds."""
    deflate, checksum, size = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS), 0, 0
    packed = [_GZIP_HEADER]
    for part in parts:
        packed.append(deflate.compress(part))
        checksum, size = zlib.crc32(part, checksum), size + len(part)
    ending = checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    return b"".join((*packed, deflate.flush(), ending))


def deflate(data: bytes | memoryview) -> bytes:
    """Return a zlib stream of `data`: what the HDF5 filter `gzip` makes of a chunk."""
    return zlib.compress(data, LEVEL)


def unpack(data: bytes, size: int) -> bytes:
    """Return the content of a gzip file or zlib stream that must hold exactly `size` bytes; never unpacks more.

    Raises:
        ValueError: damaged, cut, of another size, or followed by something.
    """
    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        content = inflate.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != size or not inflate.eof or inflate.unused_data:
        raise ValueError(f"does not hold {size} bytes")
    return content


def unpack_into(data: bytes, target: memoryview, *, header: bytes) -> None:
    """Fill `target` from a gzip file or zlib stream that must hold `header` and exactly as many bytes; never more.

    Besides the memory of the sample it takes a few times `PART_BYTES`.

    Raises:
        ValueError: damaged, cut, of another size or beginning, or followed by something.
    """
    inflate, filled, rest = zlib.decompressobj(_ZLIB_OR_GZIP), -len(header), data
    try:
        while not inflate.eof and filled <= len(target):
            content = inflate.decompress(rest, min(PART_BYTES, len(target) - filled) + 1)
            begin = max(0, -filled)
            if not content.startswith(header[:begin]) or filled + len(content) > len(target) or not content:
                break
            target[filled + begin : filled + len(content)] = memoryview(content)[begin:]
            filled, rest = filled + len(content), inflate.unconsumed_tail
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if filled != len(target) or not inflate.eof or inflate.unused_data:
        raise ValueError(f"does not hold {len(target)} bytes")
