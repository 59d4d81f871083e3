"""The proof of one event shard: every sample is what the index says, and nothing else is in the file.

A tar is not parsed. Its headers follow from index and manifest, so they are built again and compared; whatever else
could stand there (a link, a path, an extension, another order) is a difference. An HDF5 file is read through HDF5, and
where its chunks lie is compared with the index.
"""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import tar
from pipeline.codec import GZIP, RAW, unpack
from pipeline.errors import ShardSetError
from pipeline.files import PART_BYTES, HashedReader
from pipeline.hdf5 import DEFLATE, FLETCHER32, plain_dataset
from pipeline.shards import MEMBERS, chunk_places, npy_header
from pipeline.shardset import ShardSet

KEY = re.compile(rb"[A-Za-z0-9_-]+")
_ENDINGS = {codec: tuple(f".{member}".encode() for member in members) for codec, members in MEMBERS.items()}
MAX_METADATA = 2**20
"""Longest JSON text of a sample, in bytes; those that are written have some hundreds."""


@dataclass(frozen=True)
class Layout:
    """What the manifest says of every sample.

    Args:
        shape: (T,P,H,W).
        dtype: stored type.
        codec: `raw` or `gzip`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str

    @classmethod
    def of(cls, shards: ShardSet) -> Layout:
        """The layout that a shard set's manifest gives."""
        return cls(shards.sample_shape, shards.dtype, shards.codec)

    @cached_property
    def bytes(self) -> int:
        """Of the numbers of a sample."""
        return math.prod(self.shape) * self.dtype.itemsize


class Stored(NamedTuple):
    """A sample as found in its shard: its raw numbers, and its metadata as JSON."""

    numbers: memoryview | bytes
    metadata: bytes


class Facts(NamedTuple):
    """What the metadata of a shard's samples say.

    Args:
        events_sha256: [n,32] uint8.
        static: keys of the photographs, empty where there is none.
    """

    events_sha256: NDArray[np.uint8]
    static: NDArray[np.bytes_]


def check_rows(index: NDArray[Any], *, split: str, name: str) -> None:
    """Check the keys of an index: plain letters, and the split and class that they name.

    Raises:
        ShardSetError: a key that is something else.
    """
    for key, label in zip(index["key"].tolist(), index["label"].tolist(), strict=True):
        if not KEY.fullmatch(key) or not key.startswith(f"{split}-{label}-".encode()):
            raise ShardSetError(f"{name}: key {key!r} is no plain name, or does not begin with {split}-{label}-")


def walk_tar(file: HashedReader, index: NDArray[Any], layout: Layout, *, name: str) -> Iterator[Stored]:
    """Read a whole tar and compare it with what its index and the manifest say must be there.

    Args:
        file: at its beginning; at its end afterwards, if all is well.
        index: of the shard, its keys checked.
        layout: of the samples.
        name: of the shard, for messages.

    Yields:
        The samples in order, each valid until the next.

    Raises:
        ShardSetError: any difference.
        LayoutError: a key that no tar can hold.
    """
    before = npy_header(layout.shape, layout.dtype)
    lead = 3 * tar.BLOCK + (len(before) if layout.codec == RAW else 0)  # from a sample's first byte to its numbers
    starts = index["offset"].astype(np.int64) - lead
    sizes = np.diff(np.append(starts, file.size))  # [n], the last with the end of the archive
    most = lead + index["length"].astype(np.int64) + MAX_METADATA + 3 * tar.BLOCK + 2 * tar.RECORD
    if (starts[:1] != 0).any() or (sizes <= 0).any() or (sizes > most).any():
        raise ShardSetError(f"{name}: its samples are not what the index says: they do not follow one another")
    rest = file.read(0 if len(index) else 2 * tar.RECORD)
    for first, last in _parts(sizes):
        part = file.read(int(sizes[first:last].sum()))
        used = 0
        for row, size in zip(index[first:last].tolist(), sizes[first:last].tolist(), strict=True):
            sample, taken = _check_sample(part[used : used + size], row, layout, before, name)
            yield sample
            used += taken
            if taken != size and row[0] != index["offset"][-1]:
                raise _differs(name, row[4], "something follows it")
        rest = part[used:]
    if bytes(rest) != tar.end(file.size - len(rest)):
        raise ShardSetError(f"{name}: its end is cut, or something follows the last sample of the index")


def _parts(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows (first, behind the last) of samples that are read together."""
    first, filled = 0, 0
    for i, size in enumerate(sizes.tolist()):
        if filled and filled + size > PART_BYTES:
            yield first, i
            first, filled = i, 0
        filled += size
    if filled:
        yield first, len(sizes)


def _check_sample(
    sample: memoryview, row: tuple[Any, ...], layout: Layout, before: bytes, name: str
) -> tuple[Stored, int]:
    """Compare the members of a sample; returns it and the bytes that it takes."""
    _, length, crc32, label, key = row
    text = b"%d" % label
    cls, frames, json_ = (key + ending for ending in _ENDINGS[layout.codec])
    lead = before if layout.codec == RAW else b""
    stored = length + len(lead)
    head = b"".join((tar.header(cls, len(text)), text, tar.padding(len(text)), tar.header(frames, stored), lead))
    at = len(head)
    if bytes(sample[:at]) != head:
        raise _differs(name, key, "another name, class, shape or type")
    numbers = _check_numbers(sample[at : at + length], crc32, layout, before, name=name, key=key)
    at += length
    tail = bytes(sample[at:])
    start = -stored % tar.BLOCK + tar.BLOCK
    try:
        size = int(tail[start - tar.BLOCK : start][tar.SIZE_AT], 8)
    except ValueError:
        size = 0
    end = start + size
    metadata = tail[start:end]
    taken = end + -size % tar.BLOCK
    if tail[:start] != tar.padding(stored) + tar.header(json_, len(metadata)) or tail[end:taken] != tar.padding(size):
        raise _differs(name, key, f"expected {json_.decode()} behind its frames")
    return Stored(numbers, metadata), at + taken


def _check_numbers(
    stored: memoryview | bytes, crc32: int, layout: Layout, before: bytes, *, name: str, key: bytes
) -> memoryview | bytes:
    """The numbers of a sample, unpacked where they are packed, their checksum compared with that of the index."""
    numbers: memoryview | bytes = stored
    if layout.codec == GZIP:
        try:
            content = unpack(bytes(stored), len(before) + layout.bytes)
        except ValueError as error:
            raise _differs(name, key, error) from error
        if not content.startswith(before):
            raise _differs(name, key, "another shape or type")
        numbers = memoryview(content)[len(before) :]
    if len(numbers) != layout.bytes or zlib.crc32(numbers) != crc32:
        raise _differs(name, key, "another checksum")
    return numbers


def walk_hdf5(path: Path, index: NDArray[Any], layout: Layout) -> Iterator[Stored]:
    """Compare an HDF5 shard, whose bytes have been checked, with its index and the manifest.

    Yields:
        The samples in order, each valid until the next.

    Raises:
        ShardSetError: any difference.
    """
    import h5py

    name = path.name
    count, filters = len(index), (FLETCHER32,) if layout.codec == RAW else (DEFLATE,)
    with h5py.File(path, "r") as file:
        if not count and set(file) == {"frames"} and file["frames"].shape == (0, *layout.shape):
            return
        if set(file) != {"frames", "label", "key", "json"}:
            raise ShardSetError(f"{name}: holds {sorted(file)}; expected frames, label, key and json")
        frames = plain_dataset(file, "frames", path, dtype=layout.dtype, filters=filters)
        if frames.shape != (count, *layout.shape) or frames.chunks != (1, *layout.shape):
            raise ShardSetError(
                f"{name}: frames {frames.shape} in chunks of {frames.chunks} are not what the index says"
            )
        columns = {}
        for column, dtype in (("label", np.dtype("<i4")), ("key", np.bytes_), ("json", np.bytes_)):
            columns[column] = plain_dataset(file, column, path, dtype=dtype)[()]
        trailer = 4 if layout.codec == RAW else 0  # HDF5's own checksum
        expected = np.stack([index["offset"], index["length"] + np.uint64(trailer), index["offset"] * 0], axis=1)
        wrong = (chunk_places(frames) != expected.astype(np.int64)).any(axis=1)
        for column in ("label", "key"):
            if columns[column].shape != (count,):
                raise ShardSetError(f"{name}: column {column} is not as long as the index")
            wrong |= columns[column] != index[column]
        if columns["json"].shape != (count,) or wrong.any():
            raise _differs(name, index["key"][int(np.argmax(wrong))], "another place, class or key")
        for i, stored in enumerate(_chunks(path, frames, index, layout)):
            key = index["key"][i]
            numbers = _check_numbers(stored, int(index["crc32"][i]), layout, b"", name=name, key=key)
            yield Stored(numbers, columns["json"][i])


def _chunks(path: Path, frames: Any, index: NDArray[Any], layout: Layout) -> Iterator[memoryview | bytes]:
    """Samples as stored: raw ones through HDF5, which checks them; packed ones as they lie in the file."""
    if layout.codec == GZIP:
        with open(path, "rb", buffering=0) as file:
            for row in index:
                yield os.pread(file.fileno(), int(row["length"]), int(row["offset"]))
        return
    together = max(1, PART_BYTES // 8 // layout.bytes)
    part = np.empty((together, *layout.shape), layout.dtype)
    for first in range(0, len(index), together):
        count = min(together, len(index) - first)
        frames.read_direct(part, np.s_[first : first + count], np.s_[:count])
        samples = part.reshape(-1).view(np.uint8).data
        yield from (samples[i * layout.bytes : (i + 1) * layout.bytes] for i in range(count))


def facts(samples: Iterable[Stored], index: NDArray[Any], *, name: str) -> Facts:
    """What the metadata of a shard's samples say, 32 bytes and a key a sample.

    Raises:
        ShardSetError: metadata that is no JSON or lacks something, or whatever ends `samples`.
    """
    events = bytearray()
    static: list[bytes] = []
    decode = json.JSONDecoder().decode
    for key, sample in zip(index["key"].tolist(), samples, strict=True):
        try:
            metadata = decode(str(sample.metadata, "utf-8"))
            digest, photograph = bytes.fromhex(metadata["events_sha256"]), metadata["static"] or ""
            if len(digest) != 32:
                raise ValueError("events_sha256 is no SHA-256")
            static.append(photograph.encode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _differs(name, key, f"its metadata: {error}") from error
        events += digest
    return Facts(np.frombuffer(bytes(events), np.uint8).reshape(-1, 32), np.array(static, np.bytes_))


def _differs(name: str, key: bytes, error: object) -> ShardSetError:
    return ShardSetError(f"{name}: sample {key.decode()} is not what the index says ({error})")
