"""The proof of one event shard: every sample is what the index says, and nothing else is in the file.

A tar is not parsed. Its headers follow from index and manifest, so they are built again and compared; whatever else
could stand there (a link, a path, an extension, another order) is a difference. An HDF5 file is read through HDF5, and
where its chunks lie is compared with the index.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import HashedFile
from spikebridge.pipeline.containers.hdf5 import DEFLATE, FLETCHER32, plain_dataset
from spikebridge.pipeline.events.compact import CompactEvents
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.codec import GZIP, RAW, unpack
from spikebridge.pipeline.shards.reader import STORED_EVENTS, ShardSet
from spikebridge.pipeline.shards.writer import (
    ARRAYS,
    BOTH,
    EVENTS,
    FRAMES,
    MAX_METADATA,
    MAX_PREVIEW,
    MEMBERS,
    PREVIEW,
    chunk_places,
    npy_header,
    place_columns,
)

PART_BYTES = 2**22
"""What is read of a shard at a time."""
_LETTERS = np.isin(
    np.arange(256), np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", "u1")
)
"""[256] characters of a key."""
_PADDING = -np.triu(np.ones((tar.BLOCK, tar.BLOCK), np.uint8)) * (np.arange(tar.BLOCK) > 0)[:, None]
"""[512,512] by size of a member modulo 512: 255 where its last block holds padding."""
_ENDINGS = {kind: tuple(f".{member}".encode() for member in members) for kind, members in MEMBERS.items()}
_ARRAY_OF = {f".{array}.npy{ending}".encode(): array for array in ARRAYS[BOTH] for ending in ("", ".gz")}
"""Array that a member of a tar holds, by its ending."""
_PREVIEW = f".{PREVIEW}".encode()


@dataclass(frozen=True)
class Layout:
    """What the manifest says of every sample."""

    shape: tuple[int, ...]
    """(T,P,H,W) of frames."""
    dtype: np.dtype[Any]
    """Of frames as stored."""
    codec: str
    """`raw` or `gzip`."""
    store: str = FRAMES
    """`frames`, `events` or `both`."""
    preview: bool = False
    """Whether a picture follows every sample in a tar."""

    @classmethod
    def of(cls, shards: ShardSet) -> Layout:
        """Return the layout that a shard set's manifest gives."""
        sample = shards.manifest["sample"]
        return cls(tuple(sample["shape"]), np.dtype(sample["dtype"]), shards.codec, shards.store, shards.preview)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Return what is stored of every sample, the first array first."""
        return ARRAYS[self.store]

    @property
    def endings(self) -> tuple[bytes, ...]:
        """Return what the names of a sample's members in a tar end in, in their order."""
        return (*_ENDINGS[self.store, self.codec], *([_PREVIEW] if self.preview else []))

    def headers(self, array: str, sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return what precedes the numbers in a tar, before they are compressed: [n,bytes] by sizes [n] of samples."""
        if array == FRAMES:
            rows = np.frombuffer(npy_header(self.shape, self.dtype), np.uint8)[None]
        else:
            rows = np.stack([np.frombuffer(npy_header((size,), STORED_EVENTS), np.uint8) for size in sizes.tolist()])
        return np.broadcast_to(rows, (len(sizes), rows.shape[1]))

    def lead(self, array: str) -> int:
        """Return the bytes that precede in a member what the index points at."""
        return self.headers(array, np.zeros(1, np.int64)).shape[1] if self.codec == RAW else 0

    def sizes(self, array: str, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Return the bytes of the numbers of samples, by their rows of the index."""
        if array == EVENTS:
            return rows["size"].astype(np.int64)
        return np.full(len(rows), math.prod(self.shape) * self.dtype.itemsize)

    def places(self, array: str, rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return offsets and lengths of what is stored of samples, by their rows of the index."""
        offset, length, _ = place_columns(self.store, array)
        return rows[offset].astype(np.int64), rows[length].astype(np.int64)


class Stored(NamedTuple):
    """A sample as found in its shard."""

    arrays: dict[str, memoryview | bytes]
    """Raw numbers of each of its arrays, by name."""
    metadata: bytes
    """JSON."""


class SampleMetadata(NamedTuple):
    """What the metadata of a shard's samples say."""

    events_sha256: NDArray[np.uint8]
    """[n,32] uint8."""
    static: NDArray[np.bytes_]
    """Keys of the static images, empty where there is none."""
    source: tuple[str, ...]
    """Names of the recordings."""


def check_rows(index: NDArray[Any], *, split: str, name: str) -> None:
    """Check the keys of an index: plain letters, and the split and class that they name.

    Raises:
        ShardSetError: a key that is something else.
    """
    keys = index["key"]
    if not len(keys):
        return
    characters = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), -1)
    plain = (_LETTERS[characters] | (np.arange(characters.shape[1]) >= np.char.str_len(keys)[:, None])).all(axis=1)
    classes = np.array([f"{split}-{label}-".encode() for label in range(int(index["label"].max()) + 1)])
    wrong = ~(plain & np.char.startswith(keys, classes[index["label"]]))
    for i in np.flatnonzero(wrong)[:1]:
        beginning = f"{split}-{index['label'][i]}-"
        raise ShardSetError(f"{name}: key {show(repr(keys[i]))} is no plain name, or does not begin with {beginning}")


def walk_tar(file: HashedFile, index: NDArray[Any], layout: Layout, *, name: str) -> Iterator[Stored]:
    """Read a whole tar and compare it with what its index and the manifest say must be there.

    `file` is at its beginning, and at its end afterwards if all is well; the keys of the index have been checked.

    Yields:
        The samples in order, each valid until the next.

    Raises:
        ShardSetError: any difference.
        LayoutError: a key that no tar can hold.
    """
    first, *more = layout.arrays
    lead = 3 * tar.BLOCK + layout.lead(first)  # from a sample's first byte to what the index points at
    offsets, lengths = layout.places(first, index)
    starts = offsets - lead
    sizes = np.diff(np.append(starts, file.size))  # [n], the last with the end of the archive
    least = _whole_blocks(lead + lengths) + tar.BLOCK
    for array in more:
        least += tar.BLOCK + _whole_blocks(layout.lead(array) + layout.places(array, index)[1])
    most = least + _whole_blocks(MAX_METADATA) + 2 * tar.RECORD
    if layout.preview:
        least, most = least + tar.BLOCK, most + tar.BLOCK + MAX_PREVIEW
    if (starts[:1] != 0).any() or (starts % tar.BLOCK).any() or (sizes < least).any() or (sizes > most).any():
        raise ShardSetError(f"{name}: its samples are not what the index says: they do not follow one another")
    parts = list(_parts(sizes))
    buffer = memoryview(bytearray(max((int(sizes[rows].sum()) for rows in parts), default=2 * tar.RECORD)))
    rest = buffer[: file.fill(buffer)] if not parts else buffer[:0]
    for rows in parts:
        part = buffer[: int(sizes[rows].sum())]
        if file.fill(part) != len(part):
            raise ShardSetError(f"{name}: it ended while it was read")
        samples, used = _check_part(part, index[rows], sizes[rows], layout, name)
        yield from samples
        rest = part[used:]
        if len(rest) and rows.stop != len(index):
            raise _differs(name, index["key"][rows.stop - 1], "something follows it")
    if bytes(rest) != tar.end(file.size - len(rest)):
        raise ShardSetError(f"{name}: its end is cut, or something follows the last sample of the index")


def _whole_blocks(sizes: Any) -> Any:
    """Return sizes with what pads them to whole blocks of a tar."""
    return -(-sizes // tar.BLOCK) * tar.BLOCK


def _parts(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Yield the rows of samples that are read together."""
    first, filled = 0, 0
    for i, size in enumerate(sizes.tolist()):
        if filled and filled + size > PART_BYTES:
            yield slice(first, i)
            first, filled = i, 0
        filled += size
    if filled:
        yield slice(first, len(sizes))


def _check_part(
    part: memoryview, rows: NDArray[Any], sizes: NDArray[np.int64], layout: Layout, name: str
) -> tuple[Iterator[Stored], int]:
    """Compare what surrounds the numbers of consecutive samples with what must be there, all samples at once.

    `part` holds the bytes of n samples; sizes [n] are the bytes from each to the next, the last with whatever follows
    it.

    Returns:
        The samples, whose numbers are compared as they are taken; and the bytes that all of them take.
    """
    count = len(rows)
    blocks = np.frombuffer(part, np.uint8, len(part) // tar.BLOCK * tar.BLOCK).reshape(-1, tar.BLOCK)
    first = (np.cumsum(sizes) - sizes) // tar.BLOCK  # [n] number of a sample's first block
    unpacked = {array: layout.sizes(array, rows) for array in layout.arrays}
    befores = {array: layout.headers(array, size) for array, size in unpacked.items()}  # each [n,bytes]

    def refuse(wrong: Any, what: str) -> None:
        if wrong.any():
            raise _differs(name, rows["key"][int(np.argmax(wrong))], what)

    members, taken = _find_members(blocks, first, sizes, rows, layout, refuse)
    text = rows["label"].astype(np.bytes_)
    endings, heads = [layout.endings[0], *members], [first, *(member.head for member in members.values())]
    lengths = np.concatenate([np.char.str_len(text), *(member.length for member in members.values())])
    names = [np.char.add(rows["key"], ending) for ending in endings]
    headers = tar.headers(np.concatenate(names), lengths)
    content = text.astype(f"S{tar.BLOCK}").view(np.uint8).reshape(-1, tar.BLOCK)
    expected = np.concatenate([headers, content])  # [4n,512] or more
    differs = (blocks[np.concatenate([*heads, first + 1])] != expected).any(axis=1)
    refuse(differs.reshape(-1, count).any(axis=0), "another name, class or size")
    arrays = {array: members[ending] for ending in members if (array := _ARRAY_OF.get(ending))}
    for array, member in arrays.items():
        lead = layout.lead(array)
        refuse((blocks[member.head + 1, :lead] != befores[array][:, :lead]).any(axis=1), "another shape or type")
    padding = _PADDING[lengths[count:] % tar.BLOCK]
    filled = blocks[np.concatenate([member.last for member in members.values()])] & padding
    refuse(filled.any(axis=1).reshape(-1, count).any(axis=0), "its padding is not empty")
    if layout.preview:
        found = np.array([zlib.crc32(part[begin:end]) for begin, end in members[_PREVIEW].spans()])
        refuse(found != rows["preview_crc32"], "another checksum of its preview")
    refuse((taken != sizes)[:-1], "something follows it")

    def samples() -> Iterator[Stored]:
        spans = {array: member.spans(layout.lead(array)) for array, member in arrays.items()}
        for i, (row, (begin, end)) in enumerate(zip(rows, members[layout.endings[2]].spans(), strict=True)):
            numbers = {}
            for array, places in spans.items():
                stored, size = part[slice(*places[i])], int(unpacked[array][i])
                before = befores[array][i].tobytes()
                numbers[array] = _check_numbers(array, stored, row, layout, before, size, name=name)
            yield Stored(numbers, bytes(part[begin:end]))

    return samples(), int(sizes[:-1].sum() + taken[-1])


class _Member(NamedTuple):
    """Where a member of each of n samples lies in the part of a tar."""

    head: NDArray[np.int64]
    """[n] number of the block with its header."""
    length: NDArray[np.int64]
    """[n] its bytes."""

    @property
    def last(self) -> NDArray[np.int64]:
        """Return the number of its last block, [n]."""
        return self.head - (-self.length // tar.BLOCK)

    def spans(self, lead: int = 0) -> list[list[int]]:
        """Return first byte and end of its content, n times; without `lead` bytes at the beginning."""
        begin = (self.head + 1) * tar.BLOCK
        places: list[list[int]] = np.stack([begin + lead, begin + self.length], axis=1).tolist()
        return places


def _find_members(
    blocks: NDArray[np.uint8],
    first: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[Any],
    layout: Layout,
    refuse: Callable[[Any, str], None],
) -> tuple[dict[bytes, _Member], NDArray[np.int64]]:
    """Find the members behind the class index, each behind the other: arrays as long as the index says.

    Returns:
        The members by ending; and the bytes that each sample takes, [n].
    """
    members: dict[bytes, _Member] = {}
    behind = first + 2
    for ending in layout.endings[1:]:
        longer = f"its {ending.decode()[1:]} is longer than its place"
        refuse((behind + 1 - first) * tar.BLOCK > sizes, longer)
        if (array := _ARRAY_OF.get(ending)) is None:
            length = tar.sizes(blocks[behind])
        else:
            length = layout.places(array, rows)[1] + layout.lead(array)
        members[ending] = _Member(behind, length)
        behind = members[ending].last + 1
        refuse((behind - first) * tar.BLOCK > sizes, longer)
    return members, (behind - first) * tar.BLOCK


def _check_numbers(
    array: str, stored: memoryview | bytes, row: Any, layout: Layout, before: bytes, size: int, *, name: str
) -> memoryview | bytes:
    """Return the numbers of an array, `size` bytes, unpacked where they are packed; compare them with their row."""
    numbers: memoryview | bytes = stored
    if layout.codec == GZIP:
        try:
            content = unpack(bytes(stored), len(before) + size)
        except ValueError as error:
            raise _differs(name, row["key"], error) from error
        if not content.startswith(before):
            raise _differs(name, row["key"], "another shape or type")
        numbers = memoryview(content)[len(before) :]
    if len(numbers) != size or zlib.crc32(numbers) != row[place_columns(layout.store, array)[2]]:
        raise _differs(name, row["key"], "another checksum")
    if array == EVENTS:
        _check_events(np.frombuffer(bytes(numbers), np.uint8), row, name=name)
    return numbers


def _check_events(data: NDArray[np.uint8], row: Any, *, name: str) -> None:
    """Compare compact events with their row."""
    try:
        events = CompactEvents.parse(data)
        events.packed  # noqa: B018  (raises where they are not what their head says)
    except ValueError as error:
        raise _differs(name, row["key"], error) from error
    if (len(events), events.duration_us) != (row["events"], row["duration_us"]):
        raise _differs(name, row["key"], "another number of events, or another duration")


def walk_hdf5(path: Path, index: NDArray[Any], layout: Layout) -> Iterator[Stored]:
    """Compare an HDF5 shard, whose bytes have been checked, with its index and the manifest.

    Yields:
        The samples in order, each valid until the next.

    Raises:
        ShardSetError: any difference.
    """
    import h5py

    name, count = path.name, len(index)
    arrays = layout.arrays
    expected = {*arrays, "label", "key", "json"} | ({"start"} if EVENTS in arrays else set())
    with h5py.File(path, "r") as file:
        empty = {FRAMES: (0, *layout.shape)} if FRAMES in arrays else {}
        if not count and {array: file[array].shape for array in file} == empty:
            return
        if set(file) != expected:
            raise ShardSetError(f"{name}: holds {sorted(file)}; expected {', '.join(sorted(expected))}")
        columns = {}
        for column, dtype in (("label", np.dtype("<i4")), ("key", np.bytes_), ("json", np.bytes_)):
            columns[column] = plain_dataset(file, column, path, dtype=dtype)[()]
            if columns[column].shape != (count,):
                raise ShardSetError(f"{name}: column {column} is not as long as the index")
        wrong = np.zeros(count, np.bool_)
        for array in arrays:
            wrong |= (_event_places if array == EVENTS else _frame_places)(file, path, index, layout)
        for column in ("label", "key"):
            wrong |= columns[column] != index[column]
        if wrong.any():
            raise _differs(name, index["key"][int(np.argmax(wrong))], "another place, class or key")
        readers = [
            _read_frames(file[FRAMES], count, layout)
            if array == FRAMES and layout.codec == RAW
            else _read_pieces(path, *layout.places(array, index))
            for array in arrays
        ]
        sizes = [layout.sizes(array, index).tolist() for array in arrays]
        for row, text, stored, size in zip(
            index, columns["json"], zip(*readers, strict=True), zip(*sizes, strict=True), strict=True
        ):
            numbers = {
                array: _check_numbers(array, one, row, layout, b"", bytes_, name=name)
                for array, one, bytes_ in zip(arrays, stored, size, strict=True)
            }
            yield Stored(numbers, text)


def _frame_places(file: Any, path: Path, index: NDArray[Any], layout: Layout) -> NDArray[np.bool_]:
    """Return for which rows of an index the chunks of frames lie elsewhere, [n]."""
    filters = (FLETCHER32,) if layout.codec == RAW else (DEFLATE,)
    frames = plain_dataset(file, FRAMES, path, dtype=layout.dtype, filters=filters)
    if frames.shape != (len(index), *layout.shape) or frames.chunks != (1, *layout.shape):
        raise ShardSetError(
            f"{path.name}: frames {frames.shape} in chunks of {frames.chunks} are not what the index says"
        )
    trailer = 4 if layout.codec == RAW else 0  # HDF5's own checksum
    offsets, lengths = layout.places(FRAMES, index)
    expected = np.stack([offsets, lengths + trailer, offsets * 0], axis=1)
    differs: NDArray[np.bool_] = (chunk_places(frames) != expected).any(axis=1)
    return differs


def _event_places(file: Any, path: Path, index: NDArray[Any], layout: Layout) -> NDArray[np.bool_]:
    """Return for which rows of an index the compact events lie elsewhere, [n]."""
    events = plain_dataset(file, EVENTS, path, dtype=STORED_EVENTS, filters=())
    starts = plain_dataset(file, "start", path, dtype=np.dtype("<i8"))[()]
    offsets, lengths = layout.places(EVENTS, index)
    ends = np.cumsum(lengths)
    if starts.shape != (len(index) + 1,) or events.chunks is not None or events.shape != (ends[-1],) or starts[0]:
        raise ShardSetError(
            f"{path.name}: events {events.shape} from {starts.shape} starts are not what the index says"
        )
    differs: NDArray[np.bool_] = (starts[1:] != ends) | (starts[:-1] + events.id.get_offset() != offsets)
    return differs


def _read_pieces(path: Path, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[memoryview | bytes]:
    """Yield samples as they lie in the file."""
    with open(path, "rb", buffering=0) as file:
        for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
            yield os.pread(file.fileno(), length, offset)


def _read_frames(frames: Any, count: int, layout: Layout) -> Iterator[memoryview | bytes]:
    """Yield raw frames through HDF5, which checks them."""
    size = math.prod(layout.shape) * layout.dtype.itemsize
    together = max(1, PART_BYTES // 8 // size)
    part = np.empty((together, *layout.shape), layout.dtype)
    samples = part.reshape(-1).view(np.uint8).data
    for first in range(0, count, together):
        here = min(together, count - first)
        frames.read_direct(part, np.s_[first : first + here], np.s_[:here])
        yield from (samples[i * size : (i + 1) * size] for i in range(here))


def index_groups(index: NDArray[Any]) -> NDArray[np.bytes_]:
    """Return the groups of an index, [n]; empty where it has none."""
    return index["group"] if "group" in (index.dtype.names or ()) else np.zeros(len(index), "S1")


def read_metadata(samples: Iterable[Stored], index: NDArray[Any], *, name: str) -> SampleMetadata:
    """Read the metadata of a shard's samples: 32 bytes and a key a sample.

    Raises:
        ShardSetError: metadata that is no JSON or lacks something, or whatever ends `samples`.
    """
    events = bytearray()
    static: list[bytes] = []
    source = list[str]()
    decode = json.JSONDecoder().raw_decode
    for key, group, sample in zip(index["key"].tolist(), index_groups(index).tolist(), samples, strict=True):
        try:
            text = str(sample.metadata, "utf-8")
            metadata, end = decode(text)
            if end != len(text):
                raise ValueError("something follows it")
            digest, image = bytes.fromhex(metadata["events_sha256"]), metadata["static"] or ""
            if len(digest) != 32:
                raise ValueError("events_sha256 is no SHA-256")
            if metadata.get("group", "").encode() != group:
                raise ValueError("another group")
            static.append(image.encode())
            source.append(str(metadata.get("source", "")))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _differs(name, key, f"its metadata: {error}") from error
        events += digest
    return SampleMetadata(
        np.frombuffer(bytes(events), np.uint8).reshape(-1, 32), np.array(static, np.bytes_), tuple(source)
    )


def _differs(name: str, key: bytes, error: object) -> ShardSetError:
    shown = show(key.decode("ascii", "backslashreplace"))
    return ShardSetError(f"{name}: sample {shown} is not what the index says ({show(str(error), most=400)})")
