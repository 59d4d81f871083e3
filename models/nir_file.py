"""A file of NIR (HDF5), read as plain values that lie in the file itself and take no more memory than they say.

The library behind HDF5 follows links into other files and unpacks a chunk to whatever it holds. So only hard links are
followed, and chunks are unpacked here, to the size that the shape of their data set gives them and not a byte beyond.
"""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spikebridge.models.errors import ExportError

MOST_BYTES = 2**31
"""Of all data sets together; the largest network here has 2**28."""
MOST_NODES, DEEPEST = 20_000, 16
"""Groups and data sets of a file, and groups inside each other."""
DEFLATE = 1
"""Number of the filter in the HDF5 format."""


def read_values(path: Path) -> dict[str, Any]:
    """Read the group `node` of a file as dicts of arrays, numbers and texts.

    Raises:
        ExportError: links, data that lies elsewhere or is packed otherwise than `nir.write` does, or too much of it.
        OSError, KeyError, ValueError, RuntimeError: damaged, from the library.
    """
    with h5py.File(path, "r") as file:
        return _Reader().group(_member(file, "node"), "node", DEEPEST)


class _Reader:
    """Reads a file and counts what it has taken."""

    def __init__(self) -> None:
        self.bytes = self.nodes = 0

    def group(self, group: Any, place: str, depth: int) -> dict[str, Any]:
        """Read a group, and the groups in it."""
        if not isinstance(group, h5py.Group):
            raise ExportError(f"{place} is no group")
        if not depth:
            raise ExportError(f"{place} is nested too deeply; expected {DEEPEST} groups at most")
        values: dict[str, Any] = {}
        for name in group:
            self.nodes += 1
            if self.nodes > MOST_NODES:
                raise ExportError(f"more than {MOST_NODES:,} groups and data sets")
            item, below = _member(group, name), f"{place}/{name}"
            if isinstance(item, h5py.Group):
                values[name] = self.group(item, below, depth - 1)
            elif isinstance(item, h5py.Dataset):
                values[name] = self.dataset(item, below)
        return values

    def dataset(self, data: Any, place: str) -> Any:
        """Read a data set: numbers, or texts."""
        self.bytes += data.nbytes
        if self.bytes > MOST_BYTES:
            raise ExportError(f"{place}: the file claims more than {MOST_BYTES:,} bytes of numbers")
        if data.is_virtual or data.external:
            raise ExportError(f"{place} lies in another file")
        if data.chunks is not None:
            return _unpack(data, place)
        if data.dtype.kind not in "iufb" and h5py.check_string_dtype(data.dtype) is None:
            raise ExportError(f"{place} is of type {data.dtype}; expected numbers or texts")
        if data.size and data.id.get_storage_size() < data.nbytes:
            raise ExportError(
                f"{place} claims {data.nbytes:,} bytes, of which {data.id.get_storage_size():,} are there"
            )
        value = data[()]
        return value.decode() if isinstance(value, bytes) else value


def _member(group: Any, name: str) -> Any:
    """Return what a group holds under a name, but for links to other places."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ExportError(f"{name} is missing, or a link to something else")
    return group[name]


def _unpack(data: Any, place: str) -> Any:
    """Put the chunks of a data set together."""
    plan = data.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if data.dtype.kind not in "iufb" or filters not in ([], [DEFLATE]):
        raise ExportError(f"{place} is of type {data.dtype} with filters {filters}; expected numbers in gzip at most")
    sides = [range(0, side, step) for side, step in zip(data.shape, data.chunks, strict=True)]
    expected = int(np.prod([len(side) for side in sides]))
    if data.id.get_num_chunks() != expected:
        raise ExportError(f"{place} claims {expected:,} chunks, of which {data.id.get_num_chunks():,} are there")
    size = int(np.prod(data.chunks)) * data.dtype.itemsize
    if size > MOST_BYTES:
        raise ExportError(f"{place}: a chunk claims {size:,} bytes")
    values = np.empty(data.shape, data.dtype)
    for corner in itertools.product(*sides):
        mask, packed = data.id.read_direct_chunk(corner)
        if filters and not mask:
            unpacker = zlib.decompressobj()
            packed = unpacker.decompress(packed, size)
            if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
                raise ExportError(f"{place}: a chunk unpacks to more than {size:,} bytes")
            if not unpacker.eof:
                raise ExportError(f"{place}: a chunk is damaged")
        if len(packed) != size:
            raise ExportError(f"{place}: a chunk holds {len(packed):,} bytes; expected {size:,}")
        part = np.frombuffer(packed, data.dtype).reshape(data.chunks)
        target = values[tuple(slice(start, start + step) for start, step in zip(corner, data.chunks, strict=True))]
        target[...] = part[tuple(slice(side) for side in target.shape)]
    return values
