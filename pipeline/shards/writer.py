"""Event shards: samples as members of a WebDataset tar or rows of an HDF5 file, and the index beside them.

Axes: a sample is frames [T,P,H,W] (time, polarity, height, width), or the bytes of compact events, see
`pipeline.events.compact`, or both.
The index holds where every sample lies in its shard and the checksum of its numbers, so both containers are read the
same way: one `pread` and one checksum a sample, without a parser. Bytes depend on the samples alone (no times, owners
or hosts).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.files import FileEntry, file_entry, replacing, reserve, write_bytes
from spikebridge.pipeline.events.compact import CompactEvents
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.codec import GZIP, LEVEL, PART_BYTES, RAW, deflate, gzip

EXTENSION = {"webdataset": ".tar", "hdf5": ".h5"}
INDEX_EXTENSION = ".idx.npy"
MAX_METADATA = 2**20
"""Longest JSON text of a sample that is read, in bytes; those that are written have some hundreds."""
FRAMES, EVENTS, BOTH = "frames", "events", "both"
"""What a set may store of its recordings."""
ARRAYS = {FRAMES: (FRAMES,), EVENTS: (EVENTS,), BOTH: (FRAMES, EVENTS)}
"""The arrays of a sample by what a set stores, the first one first."""


def _members(first: str, *more: str, ending: str) -> tuple[str, ...]:
    return ("cls", f"{first}.npy{ending}", "json", *(f"{array}.npy{ending}" for array in more))


MEMBERS = {
    (store, codec): _members(*arrays, ending=ending)
    for store, arrays in ARRAYS.items()
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
PLACE = (("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4"))
"""Columns of the index that say where the first array of a sample lies; of another they begin with its name."""


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
    """[bytes] compact events, where these are stored."""


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
    the columns `OF_EVENTS` stand behind the label, then the place of an array behind the first; then, with previews,
    the crc32 of the picture. The group follows where a set has groups (`group_bytes` above 0).
    """
    numbers = [*PLACE, ("label", "<i4")]
    numbers += OF_EVENTS if EVENTS in ARRAYS[store] else []
    for array in ARRAYS[store][1:]:
        numbers += [(name, kind) for name, (_, kind) in zip(place_columns(store, array), PLACE, strict=True)]
    numbers += [("preview_crc32", "<u4")] if preview else []
    group = [("group", f"S{group_bytes}")] if group_bytes else []
    return np.dtype([*numbers, ("key", f"S{max(1, key_bytes)}"), *group])


def place_columns(store: str, array: str) -> tuple[str, ...]:
    """Return the columns of an index with offset, length and crc32 of one of the arrays of a set."""
    prefix = "" if array == ARRAYS[store][0] else f"{array}_"
    return tuple(f"{prefix}{name}" for name, _ in PLACE)


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
    little-endian; `store` says whether these are stored, or events, or both. `key_bytes` is the longest key of the
    whole set, `group_bytes` its longest group, so that all indexes have one type. `preview` makes the picture of a
    sample of its frames, for a tar.

    Raises:
        LayoutError: a key is too long for a tar.
    """
    contents = (Content.of(sample, store, codec, preview) for sample in samples)
    sha256 = None
    with replacing(path) as partial:
        if path.suffix == EXTENSION["webdataset"]:
            rows, sha256 = _write_tar(partial, contents, (shape, dtype), store, codec)
        else:
            rows = _write_hdf5(partial, contents, (shape, dtype), store, codec)
    row_type = index_dtype(key_bytes, group_bytes, store=store, preview=preview is not None)
    index = np.array([tuple(row[name] for name in row_type.names or ()) for row in rows], dtype=row_type)
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
Row = dict[str, Any]
"""Row of an index, by column; of the places only the checksums until all is written."""


@dataclass(frozen=True)
class Content:
    """A sample on its way into a shard."""

    sample: Sample
    arrays: dict[str, memoryview]
    """The bytes that are stored by name, before they are compressed."""
    row: Row
    codec: str
    preview: bytes | None = None
    """A PNG file."""

    @classmethod
    def of(
        cls, sample: Sample, store: str, codec: str, preview: Callable[[NDArray[Any]], bytes] | None = None
    ) -> Content:
        """Return what is to be stored of a sample."""
        picture = preview(sample.frames) if preview else None
        row: Row = {"label": sample.label, "key": sample.key.encode(), "group": sample.group.encode()}
        row |= {"preview_crc32": zlib.crc32(picture)} if picture else {}
        arrays = dict.fromkeys(ARRAYS[store], memoryview(b""))
        if FRAMES in arrays:
            arrays[FRAMES] = np.ascontiguousarray(sample.frames).reshape(-1).view(np.uint8).data
        if EVENTS in arrays:
            assert sample.events is not None
            events = CompactEvents.parse(sample.events)
            arrays[EVENTS] = np.ascontiguousarray(sample.events).data
            row |= {"size": sample.events.size, "events": len(events), "duration_us": events.duration_us}
        row |= {place_columns(store, name)[2]: zlib.crc32(array) for name, array in arrays.items()}
        return cls(sample, arrays, row, codec, picture)


def _write_tar(path: Path, contents: Iterable[Content], fixed: Fixed, store: str, codec: str) -> tuple[list[Row], str]:
    rows: list[Row] = []
    label, first, about, *others = MEMBERS[store, codec]
    digest, position = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for content in contents:
            sample, row = content.sample, content.row
            members: dict[str, tuple[bytes | memoryview, ...]] = {
                label: (str(sample.label).encode(),),
                first: (),
                about: (sample.metadata.encode(),),
            }
            skipped: dict[str, tuple[str, str, int]] = {}
            for member, (name, array) in zip((first, *others), content.arrays.items(), strict=True):
                before = npy_header(*(fixed if name == FRAMES else ((len(array),), np.dtype("u1"))))
                members[member] = (gzip(before, array),) if codec == GZIP else (before, array)
                offset, length, _ = place_columns(store, name)
                skipped[member] = offset, length, 0 if codec == GZIP else len(before)
            members |= {} if content.preview is None else {PREVIEW: (content.preview,)}
            blocks, start = list[bytes | memoryview](), position
            for member, parts in members.items():
                size = sum(map(len, parts))
                block = [tar.header(f"{sample.key}.{member}".encode(), size), *parts, tar.padding(size)]
                if member in skipped:
                    offset, length, lead = skipped[member]
                    row |= {offset: start + tar.BLOCK + lead, length: size - lead}
                start += sum(map(len, block))
                blocks += block
            rows.append(row)
            position = _append(file, digest, blocks, position)
        _append(file, digest, [tar.end(position)], position)
    return rows, digest.hexdigest()


def _append(file: Any, digest: Any, blocks: Sequence[bytes | memoryview], position: int) -> int:
    """Write and hash blocks; returns the position behind them."""
    for block in blocks:
        file.write(block)
        digest.update(block)
    return position + sum(map(len, blocks))


def _write_hdf5(path: Path, contents: Iterable[Content], fixed: Fixed, store: str, codec: str) -> list[Row]:
    """Write samples, which wait in nameless files until their number is known: it decides how HDF5 lays them out."""
    import h5py

    rows: list[Row] = []
    texts: list[bytes] = []
    with ExitStack() as stack:
        spools = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in ARRAYS[store]}
        for content in contents:
            for name, array in content.arrays.items():
                stored = deflate(array) if codec == GZIP else array
                spools[name].write(stored)
                content.row[place_columns(store, name)[1]] = len(stored)
            rows.append(content.row)
            texts.append(content.sample.metadata.encode())
        columns = {
            "label": np.array([row["label"] for row in rows], "<i4"),
            "key": np.array([row["key"] for row in rows], "S"),
            "json": np.array(texts, "S"),
        }
        lengths = {name: [row[place_columns(store, name)[1]] for row in rows] for name in spools}
        if EVENTS in spools and rows:
            columns = {"start": np.cumsum([0, *lengths[EVENTS]]), **columns}
        reserve(path, hdf5_bound(sum(map(sum, lengths.values())), *columns.values(), chunks=len(rows) + 1))
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            data = {}  # open to the end: one that is closed before the columns are added lies elsewhere
            for name, spool in spools.items():
                spool.seek(0)
                if name == FRAMES:
                    data[name] = _add_frames(file, spool, lengths[name], *fixed, codec)
                elif rows:
                    data[name] = _add_events(file, spool, columns["start"])
            _add_columns(file, columns)
            file.flush()
            for name, array in data.items():
                found = chunk_places(array)[:, 0] if name == FRAMES else columns["start"][:-1] + array.id.get_offset()
                for row, place in zip(rows, found.tolist(), strict=True):
                    row[place_columns(store, name)[0]] = place
    return rows


def _add_frames(
    file: Any, spool: IO[bytes], lengths: Sequence[int], shape: tuple[int, ...], dtype: np.dtype[Any], codec: str
) -> Any:
    """Add frames to a file, one chunk a sample; return the data set."""
    count = len(lengths)
    filters = {"fletcher32": True} if codec == RAW else {"compression": GZIP, "compression_opts": LEVEL}
    layout = {"chunks": (1, *shape), **filters} if count else {}  # a zlib stream has a checksum of its own
    frames = file.create_dataset(FRAMES, (count, *shape), dtype, **layout)
    for i, length in enumerate(lengths):
        stored = spool.read(length)
        if codec == RAW:
            frames[i] = np.frombuffer(stored, dtype).reshape(shape)
        else:
            frames.id.write_direct_chunk((i, *[0] * len(shape)), stored)
    return frames


def _add_events(file: Any, spool: IO[bytes], starts: NDArray[np.int64]) -> Any:
    """Add compact events to a file, one recording after the other in one array; return it."""
    import h5py

    low = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    low.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    low.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    low.set_obj_track_times(False)
    space = h5py.h5s.create_simple((int(starts[-1]),))
    events = h5py.Dataset(h5py.h5d.create(file.id, EVENTS.encode(), h5py.h5t.STD_U8LE, space, low))
    for first in range(0, int(starts[-1]), PART_BYTES):
        part = spool.read(PART_BYTES)
        events[first : first + len(part)] = np.frombuffer(part, np.uint8)
    return events


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
