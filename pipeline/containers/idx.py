"""The idx files of MNIST: big-endian header (two zero bytes, type code, rank, sizes), then the array; plain or gzip.

Source: Y. LeCun, "The MNIST database", section on file formats.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

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
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(allowed(len(data)))
                if file.read(1):
                    raise LayoutError(f"{path}: unpacks to far more than images take. Download it again.")
        except (OSError, EOFError, zlib.error) as error:
            raise LayoutError(f"{path}: damaged gzip file ({error}). Download it again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UINT8_CODE or not 1 <= data[3] <= 4:
        raise LayoutError(
            f"{path}: begins with {data[:4].hex() or 'nothing'}; an idx file of unsigned bytes begins with 0000 08 and "
            "its rank. Is this the right file?"
        )
    rank = data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * rank, 4))
    expected = 4 + 4 * rank + math.prod(shape)
    if len(data) != expected:
        raise LayoutError(
            f"{path}: {len(data)} bytes (unpacked); its header (shape {shape}) says {expected}. Download it again."
        )
    try:
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except ValueError as error:  # no images, but sizes beyond numpy's
        raise LayoutError(f"{path}: its header says {shape} ({error}). Download it again.") from error


def write(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array as an idx file, gzip with a fixed time stamp when the name ends in .gz."""
    header = bytes([0, 0, UINT8_CODE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = header + np.ascontiguousarray(array, np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
