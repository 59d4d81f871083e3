"""Event shards: samples as members of a WebDataset tar or rows of an HDF5 file, and the index beside them.

Axes: a sample is [T,P,H,W] (time, polarity, height, width).
The index holds where every sample lies in its shard and the checksum of its numbers, so both containers are read the
same way: one `pread` and one checksum a sample, without a parser. Bytes depend on the samples alone (no times, owners
or hosts).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.files import FileEntry, file_entry, replacing, reserve, write_bytes
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.codec import GZIP, LEVEL, RAW, deflate, gzip

EXTENSION = {"webdataset": ".tar", "hdf5": ".h5"}
INDEX_EXTENSION = ".idx.npy"
MAX_METADATA = 2**20
"""Longest JSON text of a sample that is read, in bytes; those that are written have some hundreds."""
MEMBERS = {RAW: ("cls", "frames.npy", "json"), GZIP: ("cls", "frames.npy.gz", "json")}
"""Members of a sample in a tar, in their order, by codec."""


@dataclass(frozen=True)
class Sample:
    """One recording as frames, ready to be stored."""

    key: str
    """`<split>-<class index>-<stem>`."""
    label: int
    frames: NDArray[Any]
    """[T,P,H,W]."""
    metadata: str
    """JSON text: source recording, events, duration, static partner."""
    group: str = ""
    """Subject, source video or session, as letters, digits, `_` and `-`; empty for a group of its own."""


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote."""

    index: NDArray[Any]
    """A structured array of `index_dtype`."""
    files: tuple[FileEntry, ...]
    """Shard and index as a manifest lists them, see `pipeline.base.files.file_entry`."""


def index_dtype(key_bytes: int, group_bytes: int = 0) -> np.dtype[Any]:
    """Return the type of an index row: offset and length of the stored bytes; crc32 of the raw numbers; label; key.

    What is stored are the numbers alone, or with the codec gzip the gzip file (tar) or zlib stream (HDF5). The group
    follows where a set has groups (`group_bytes` above 0).
    """
    numbers = [("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4"), ("label", "<i4")]
    group = [("group", f"S{group_bytes}")] if group_bytes else []
    return np.dtype([*numbers, ("key", f"S{max(1, key_bytes)}"), *group])


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header that precedes the raw numbers of an array of this shape in an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_shard(
    path: Path,
    samples: Iterable[Sample],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    key_bytes: int,
    group_bytes: int = 0,
    codec: str = RAW,
) -> WrittenShard:
    """Write one shard and its index, each whole or not at all, the index last; holds one sample at a time.

    The index gets the ending `.idx.npy`. Every sample is of `shape` (T,P,H,W) and of `dtype`, little-endian;
    `key_bytes` is the longest key of the whole set, `group_bytes` its longest group, so that all indexes have one type.

    Raises:
        LayoutError: a key is too long for a tar.
    """
    with replacing(path) as partial:
        write = _write_tar if path.suffix == EXTENSION["webdataset"] else _write_hdf5
        rows, sha256 = write(partial, samples, shape, dtype, codec)
    row_type = index_dtype(key_bytes, group_bytes)
    index = np.array([row[: 6 if group_bytes else 5] for row in rows], dtype=row_type)
    file = io.BytesIO()
    np.lib.format.write_array(file, index, allow_pickle=False)
    write_bytes(index_path(path), file.getvalue())
    entries = (file_entry(path, len(rows), sha256), file_entry(index_path(path), len(rows)))
    return WrittenShard(index, entries)


def index_path(shard: Path) -> Path:
    """Return the index file of a shard file."""
    return shard.with_name(shard.stem + INDEX_EXTENSION)


Rows = list[tuple[int, int, int, int, bytes, bytes]]
"""Rows of an index: offset, length, crc32, label, key, group."""


def _row(sample: Sample, numbers: bytes, offset: int, length: int) -> tuple[int, int, int, int, bytes, bytes]:
    return (offset, length, zlib.crc32(numbers), sample.label, sample.key.encode(), sample.group.encode())


def _write_tar(
    path: Path, samples: Iterable[Sample], shape: tuple[int, ...], dtype: np.dtype[Any], codec: str
) -> tuple[Rows, str]:
    before = npy_header(shape, dtype)
    rows: Rows = []
    digest, position = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for sample in samples:
            numbers = sample.frames.tobytes()
            stored = gzip(before + numbers) if codec == GZIP else before + numbers
            blocks = []
            contents = (str(sample.label).encode(), stored, sample.metadata.encode())
            for member, content in zip(MEMBERS[codec], contents, strict=True):
                head = tar.header(f"{sample.key}.{member}".encode(), len(content))
                blocks += [head, content, tar.padding(len(content))]
            start = position + sum(map(len, blocks[:4]))
            skipped = 0 if codec == GZIP else len(before)
            rows.append(_row(sample, numbers, start + skipped, len(stored) - skipped))
            position = _append(file, digest, blocks, position)
        _append(file, digest, [tar.end(position)], position)
    return rows, digest.hexdigest()


def _append(file: Any, digest: Any, blocks: list[bytes], position: int) -> int:
    """Write and hash blocks; returns the position behind them."""
    data = b"".join(blocks)
    file.write(data)
    digest.update(data)
    return position + len(data)


def _write_hdf5(
    path: Path, samples: Iterable[Sample], shape: tuple[int, ...], dtype: np.dtype[Any], codec: str
) -> tuple[Rows, None]:
    """Write samples, which wait in a nameless file until their number is known: it decides how HDF5 lays them out."""
    rows: Rows = []
    texts: list[bytes] = []
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        for sample in samples:
            numbers = sample.frames.tobytes()
            stored = deflate(numbers) if codec == GZIP else numbers
            spool.write(stored)
            rows.append(_row(sample, numbers, 0, len(stored)))
            texts.append(sample.metadata.encode())
        spool.seek(0)
        places = _fill_hdf5(path, spool, rows, texts, shape, dtype, codec)
    return [(int(places[i, 0]), *row[1:]) for i, row in enumerate(rows)], None


def _fill_hdf5(
    path: Path,
    spool: IO[bytes],
    rows: Rows,
    texts: list[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codec: str,
) -> NDArray[np.int64]:
    """Write the file from its parts; returns where the chunks of the samples lie."""
    import h5py

    count = len(rows)
    columns = {
        "label": np.array([row[3] for row in rows], "<i4"),
        "key": np.array([row[4] for row in rows], "S"),
        "json": np.array(texts, "S"),
    }
    filters = {"fletcher32": True} if codec == RAW else {"compression": GZIP, "compression_opts": LEVEL}
    layout = {"chunks": (1, *shape), **filters} if count else {}  # a zlib stream has a checksum of its own
    reserve(path, hdf5_bound(sum(row[1] for row in rows), *columns.values(), chunks=count))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        frames = file.create_dataset("frames", (count, *shape), dtype, **layout)
        for i, (_, length, *_) in enumerate(rows):
            stored = spool.read(length)
            if codec == RAW:
                frames[i] = np.frombuffer(stored, dtype).reshape(shape)
            else:
                frames.id.write_direct_chunk((i, *[0] * len(shape)), stored)
        for name, values in columns.items():
            if count:
                file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
        file.flush()
        return chunk_places(frames)


def hdf5_bound(data: int, *columns: NDArray[Any], chunks: int) -> int:
    """Return an upper bound of the bytes of an HDF5 file: its numbers, and what the library adds."""
    return data + sum(column.nbytes for column in columns) + 64 * chunks + 2**16


def chunk_places(frames: Any) -> NDArray[np.int64]:
    """Return where each sample's chunk lies in its file: [n,3] first byte, bytes, and mask of the filters left out."""
    places = np.zeros((len(frames), 3), np.int64)

    def note(chunk: Any) -> None:
        places[chunk.chunk_offset[0]] = chunk.byte_offset, chunk.size, chunk.filter_mask

    if len(frames):
        frames.id.chunk_iter(note)
    return places
