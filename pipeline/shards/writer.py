"""Event shards: samples as members of a WebDataset tar or rows of an HDF5 file, and the index beside them.

Axes: a sample is frames [T,P,H,W] (time, polarity, height, width), or the bytes of compact events, see
`pipeline.events.compact`.
The index holds where every sample lies in its shard and the checksum of its numbers, so both containers are read the
same way: one `pread` and one checksum a sample, without a parser. Bytes depend on the samples alone (no times, owners
or hosts).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.files import FileEntry, file_entry, replacing, reserve, write_bytes
from spikebridge.pipeline.events.compact import CompactEvents
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.codec import GZIP, LEVEL, RAW, deflate, gzip

EXTENSION = {"webdataset": ".tar", "hdf5": ".h5"}
INDEX_EXTENSION = ".idx.npy"
MAX_METADATA = 2**20
"""Longest JSON text of a sample that is read, in bytes; those that are written have some hundreds."""
FRAMES, EVENTS = "frames", "events"
"""What a set may store of its recordings."""
MEMBERS = {
    (store, codec): ("cls", f"{store}.npy{ending}", "json")
    for store in (FRAMES, EVENTS)
    for codec, ending in ((RAW, ""), (GZIP, ".gz"))
}
"""Members of a sample in a tar, in their order, by what is stored and the codec; a preview may follow."""
PREVIEW = "preview.png"
"""Member with a picture of the sample, for catalogues; readers leave it alone."""
MAX_PREVIEW = 2**23
"""Largest picture that is read, in bytes; those that are written have some thousands."""
OF_EVENTS = [("size", "<u8"), ("events", "<u8"), ("duration_us", "<u8")]
"""Columns of the index of stored events: bytes before they are compressed, events, and time from the first to the last.
"""


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
    events: NDArray[np.uint8] | None = None
    """[bytes] compact events, where these are stored and not the frames."""


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote."""

    index: NDArray[Any]
    """A structured array of `index_dtype`."""
    files: tuple[FileEntry, ...]
    """Shard and index as a manifest lists them, see `pipeline.base.files.file_entry`."""


def index_dtype(key_bytes: int, group_bytes: int = 0, *, store: str = FRAMES, preview: bool = False) -> np.dtype[Any]:
    """Return the type of an index row: offset and length of the stored bytes; crc32 of the raw numbers; label; key.

    What is stored are the numbers alone, or with the codec gzip the gzip file (tar) or zlib stream (HDF5). Of events,
    the columns `OF_EVENTS` stand behind the label; then, with previews, the crc32 of the picture. The group follows
    where a set has groups (`group_bytes` above 0).
    """
    numbers = [("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4"), ("label", "<i4")]
    numbers += OF_EVENTS if store == EVENTS else []
    numbers += [("preview_crc32", "<u4")] if preview else []
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
    store: str = FRAMES,
    preview: Callable[[NDArray[Any]], bytes] | None = None,
) -> WrittenShard:
    """Write one shard and its index, each whole or not at all, the index last; holds one sample at a time.

    The index gets the ending `.idx.npy`. The frames of every sample are of `shape` (T,P,H,W) and of `dtype`,
    little-endian; with `store` events, these are stored and no frames. `key_bytes` is the longest key of the whole set,
    `group_bytes` its longest group, so that all indexes have one type. `preview` makes the picture of a sample of its
    frames, for a tar.

    Raises:
        LayoutError: a key is too long for a tar.
    """
    contents = (Content.of(sample, store, codec, preview) for sample in samples)
    fixed = (shape, dtype) if store == FRAMES else None
    sha256 = None
    with replacing(path) as partial:
        if path.suffix == EXTENSION["webdataset"]:
            rows, sha256 = _write_tar(partial, contents, fixed, MEMBERS[store, codec])
        else:
            rows = _write_hdf5(partial, contents, fixed, codec)
    row_type = index_dtype(key_bytes, group_bytes, store=store, preview=preview is not None)
    columns = len(row_type.names or ())
    index = np.array([row[:columns] for row in rows], dtype=row_type)
    file = io.BytesIO()
    np.lib.format.write_array(file, index, allow_pickle=False)
    write_bytes(index_path(path), file.getvalue())
    entries = (file_entry(path, len(rows), sha256), file_entry(index_path(path), len(rows)))
    return WrittenShard(index, entries)


def index_path(shard: Path) -> Path:
    """Return the index file of a shard file."""
    return shard.with_name(shard.stem + INDEX_EXTENSION)


Fixed = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of all samples of frames; of events, each has its own number of bytes."""
Row = tuple[Any, ...]
"""Row of an index: offset, length, crc32, label, those of `OF_EVENTS` if events are stored, crc32 of a preview if there
is one, key, group."""


@dataclass(frozen=True)
class Content:
    """A sample on its way into a shard."""

    sample: Sample
    numbers: bytes
    """What is stored, before it is compressed."""
    codec: str
    facts: tuple[int, ...]
    """Those of `OF_EVENTS`."""
    preview: bytes | None = None
    """A PNG file."""

    @classmethod
    def of(
        cls, sample: Sample, store: str, codec: str, preview: Callable[[NDArray[Any]], bytes] | None = None
    ) -> Content:
        """Return what is to be stored of a sample."""
        picture = preview(sample.frames) if preview else None
        if store == FRAMES:
            return cls(sample, sample.frames.tobytes(), codec, (), picture)
        assert sample.events is not None
        events = CompactEvents.parse(sample.events)
        facts = (sample.events.size, len(events), events.duration_us)
        return cls(sample, sample.events.tobytes(), codec, facts, picture)

    def row(self, offset: int, length: int) -> Row:
        """Return the row of the index."""
        sample = self.sample
        about = (zlib.crc32(self.numbers), sample.label, *self.facts)
        about += () if self.preview is None else (zlib.crc32(self.preview),)
        return (offset, length, *about, sample.key.encode(), sample.group.encode())


def _write_tar(
    path: Path, contents: Iterable[Content], fixed: Fixed | None, members: tuple[str, ...]
) -> tuple[list[Row], str]:
    rows: list[Row] = []
    digest, position = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for content in contents:
            sample, numbers = content.sample, content.numbers
            before = npy_header(*(fixed or ((len(numbers),), np.dtype("u1"))))
            stored = gzip(before + numbers) if content.codec == GZIP else before + numbers
            blocks = []
            parts = [(members[0], str(sample.label).encode()), (members[1], stored)]
            parts += [(members[2], sample.metadata.encode())]
            parts += [] if content.preview is None else [(PREVIEW, content.preview)]
            for member, part in parts:
                head = tar.header(f"{sample.key}.{member}".encode(), len(part))
                blocks += [head, part, tar.padding(len(part))]
            start = position + sum(map(len, blocks[:4]))
            skipped = 0 if content.codec == GZIP else len(before)
            rows.append(content.row(start + skipped, len(stored) - skipped))
            position = _append(file, digest, blocks, position)
        _append(file, digest, [tar.end(position)], position)
    return rows, digest.hexdigest()


def _append(file: Any, digest: Any, blocks: list[bytes], position: int) -> int:
    """Write and hash blocks; returns the position behind them."""
    data = b"".join(blocks)
    file.write(data)
    digest.update(data)
    return position + len(data)


def _write_hdf5(path: Path, contents: Iterable[Content], fixed: Fixed | None, codec: str) -> list[Row]:
    """Write samples, which wait in a nameless file until their number is known: it decides how HDF5 lays them out."""
    rows: list[Row] = []
    texts: list[bytes] = []
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        for content in contents:
            stored = deflate(content.numbers) if codec == GZIP else content.numbers
            spool.write(stored)
            rows.append(content.row(0, len(stored)))
            texts.append(content.sample.metadata.encode())
        spool.seek(0)
        columns = {
            "label": np.array([row[3] for row in rows], "<i4"),
            "key": np.array([row[-2] for row in rows], "S"),
            "json": np.array(texts, "S"),
        }
        lengths = [row[1] for row in rows]
        if fixed is None:
            places = _fill_events(path, spool, lengths, columns)
        else:
            places = _fill_frames(path, spool, lengths, columns, *fixed, codec)
    return [(int(place), *row[1:]) for place, row in zip(places, rows, strict=True)]


def _fill_frames(
    path: Path,
    spool: IO[bytes],
    lengths: list[int],
    columns: dict[str, NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codec: str,
) -> NDArray[np.int64]:
    """Write a file of frames, one chunk a sample; returns where the chunks lie."""
    import h5py

    count = len(lengths)
    filters = {"fletcher32": True} if codec == RAW else {"compression": GZIP, "compression_opts": LEVEL}
    layout = {"chunks": (1, *shape), **filters} if count else {}  # a zlib stream has a checksum of its own
    reserve(path, hdf5_bound(sum(lengths), *columns.values(), chunks=count))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        frames = file.create_dataset("frames", (count, *shape), dtype, **layout)
        for i, length in enumerate(lengths):
            stored = spool.read(length)
            if codec == RAW:
                frames[i] = np.frombuffer(stored, dtype).reshape(shape)
            else:
                frames.id.write_direct_chunk((i, *[0] * len(shape)), stored)
        _add_columns(file, columns)
        file.flush()
        return chunk_places(frames)[:, 0]


def _fill_events(
    path: Path, spool: IO[bytes], lengths: list[int], columns: dict[str, NDArray[Any]]
) -> NDArray[np.int64]:
    """Write a file of compact events, one after the other in one array; returns where they lie."""
    import h5py

    starts = np.cumsum([0, *lengths])
    total = int(starts[-1])
    reserve(path, hdf5_bound(total, *columns.values(), starts, chunks=1))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        if not total:
            return np.empty(0, np.int64)
        low = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        low.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        low.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        low.set_obj_track_times(False)
        space = h5py.h5s.create_simple((total,))
        events = h5py.Dataset(h5py.h5d.create(file.id, b"events", h5py.h5t.STD_U8LE, space, low))
        for start, length in zip(starts.tolist(), lengths, strict=False):
            events[start : start + length] = np.frombuffer(spool.read(length), np.uint8)
        _add_columns(file, {"start": starts, **columns})
        file.flush()
        return starts[:-1] + events.id.get_offset()


def _add_columns(file: Any, columns: dict[str, NDArray[Any]]) -> None:
    for name, values in columns.items():
        if len(values):
            file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)


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
