"""The idx files of MNIST: big-endian header (two zero bytes, type code, rank, sizes), then the array; plain or gzip.

Source: Y. LeCun, "The MNIST database", section on file formats.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.containers.packed import allowed

UINT8_CODE = 0x08


def read(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzip or not (told by its first bytes, not by its name).

    Returns:
        The array in the file's own shape.

    Raises:
        LayoutError: not an idx file of unsigned bytes, or shorter or longer than its header says.
    """
    with open(path, "rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        try:
            return _read(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw, path, packed=packed)
        except (OSError, EOFError, zlib.error) as error:
            raise LayoutError(f"{path}: damaged gzip file ({error}). Download it again.") from error


def _read(file: IO[bytes], path: Path, *, packed: bool) -> NDArray[np.uint8]:
    """Read the header, and as many bytes as it says: a gzip file is never unpacked further."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != UINT8_CODE or not 1 <= head[3] <= 4:
        raise LayoutError(
            f"{path}: begins with {head.hex() or 'nothing'}; an idx file of unsigned bytes begins with 0000 08 and "
            "its rank. Is this the right file?"
        )
    rank, on_disk = head[3], path.stat().st_size
    head += file.read(4 * rank)
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
    expected = math.prod(shape)
    if packed and expected > allowed(on_disk):
        raise LayoutError(f"{path}: its header says {shape}, far more than {on_disk:,} bytes unpack to. Is it damaged?")
    data = file.read(min(expected, allowed(on_disk)) + 1)
    if len(head) != 4 + 4 * rank or len(data) != expected:
        found = "more" if len(data) > expected else f"{len(data):,}"
        raise LayoutError(f"{path}: {found} bytes behind its header, which says {shape}. Download it again.")
    try:
        return np.frombuffer(data, np.uint8).reshape(shape)
    except ValueError as error:  # no images, but sizes beyond numpy's
        raise LayoutError(f"{path}: its header says {shape} ({error}). Download it again.") from error


def write(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array as an idx file, gzip with a fixed time stamp when the name ends in .gz."""
    header = bytes([0, 0, UINT8_CODE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = header + np.ascontiguousarray(array, np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
