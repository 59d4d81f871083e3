"""Reading a shard set: what training needs and nothing else (numpy, h5py, the standard library).

Axes: n samples, T time bins, P polarity, H and W pixels, K classes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import RecordingError, SettingsError, ShardSetError
from spikebridge.pipeline.base.files import FileEntry, sha256_once
from spikebridge.pipeline.base.fitting import FITS
from spikebridge.pipeline.base.foreign_json import Sha256, read_json
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.containers import npy
from spikebridge.pipeline.events.compact import CompactEvents
from spikebridge.pipeline.events.packing import LONGEST_US
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.codec import GZIP, MAX_RATIO, RAW, unpack_into
from spikebridge.pipeline.shards.framing import Change, Framing
from spikebridge.pipeline.shards.metadata import Metadata, parse_metadata, read_metadata
from spikebridge.pipeline.shards.open_files import MOST_OPEN, OpenFiles
from spikebridge.pipeline.shards.settings import DTYPES, FRAMING, ConversionSettings
from spikebridge.pipeline.shards.static_pool import STATIC_FILE, StaticImages, read_static
from spikebridge.pipeline.shards.writer import (
    ARRAYS,
    EVENTS,
    EXTENSION,
    FRAMES,
    index_dtype,
    index_path,
    npy_header,
    place_columns,
)

RESIDENT_BYTES = 2**29
"""Static images up to this size are kept in memory."""

PARTIAL = "partial.json"
"""Beside the manifest of a set of which only some splits were pulled: names them."""

PULL = ".pull.json"
"""In a folder that is being filled by `pull`: the ID of the set that is coming."""

MOST_PARTIAL_BYTES = 2**12

WaitForFile = Callable[[str], None]
"""Called with the name of a file of the set before it is opened; returns when the file is there."""


STORED_EVENTS = np.dtype("u1")
"""Type of the bytes of compact events."""


def _do_not_wait(_name: str) -> None:
    """Return at once: the files of a set on this machine are there."""


class Split:
    """The samples of one split, read one by one through the index; safe to share between threads.

    Args:
        shards: the event shard files, in order.
        index: one structured array over all of them.
        shard_of: [n] shard number of every sample.
        shape: (T,P,H,W).
        dtype: of the frames.
        store: what is stored, a key of `ARRAYS`.
        codec: `raw`, or `gzip`: each sample is unpacked, never to more than the shape says.
        headers: whether a header precedes the numbers in an unpacked sample.
        wait_for_file: called with the name of a shard before it is read.
        reopen: opens the split again; what a copy of it in another process is made of.
        framing: makes frames of stored events; None where none are stored.
        as_stored: whether frames are read; otherwise they are made of events.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        index: NDArray[Any],
        shard_of: NDArray[np.int64],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        store: str = FRAMES,
        codec: str = RAW,
        headers: bool = False,
        wait_for_file: WaitForFile = _do_not_wait,
        reopen: Callable[[], Split],
        framing: Framing | None = None,
        as_stored: bool = True,
    ) -> None:
        self.shards = tuple(shards)
        self.shape, self.dtype = shape, dtype
        self.framing, self.as_stored = framing, as_stored
        self.shard_of = shard_of
        self.labels: NDArray[np.int64] = index["label"].astype(np.int64)
        self._keys = index["key"]
        self._groups = index["group"] if "group" in (index.dtype.names or ()) else np.zeros(len(index), "S1")
        self._places = {
            array: [np.ascontiguousarray(index[name]) for name in place_columns(store, array)]
            for array in ARRAYS[store]
        }
        self._sizes: NDArray[np.uint64] | None = np.ascontiguousarray(index["size"]) if framing is not None else None
        self._codec, self._headers, self._wait_for_file, self._reopen = codec, headers, wait_for_file, reopen
        self._files = OpenFiles(MOST_OPEN)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Return number, shape and type of the samples."""
        return f"Split({len(self):,} samples [{'x'.join(map(str, self.shape))}] {self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, ()

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Return the key of every sample."""
        return tuple(key.decode("ascii", "backslashreplace") for key in self._keys.tolist())

    def key(self, position: int) -> str:
        """Return the key of one sample; `keys` takes 100 bytes for each of all."""
        key: bytes = self._keys[position]
        return key.decode("ascii", "backslashreplace")

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Return the group (subject, source video, session) of every sample; empty for a group of its own."""
        return tuple(group.decode("ascii", "backslashreplace") for group in self._groups.tolist())

    def read(
        self, positions: Sequence[int] | NDArray[np.integer], *, changes: Sequence[Change] | None = None
    ) -> NDArray[Any]:
        """Read samples by position, each straight into its row and checked there; make frames of stored events.

        Args:
            positions: of the samples.
            changes: for each of them what is done to its events before; for sets that store events, of which frames are
                made then.

        Returns:
            [len(positions),T,P,H,W] in the stored type.

        Raises:
            ShardSetError: a shard is missing or cut, or a sample's checksum is wrong; names the shard and the key.
        """
        rows = np.asarray(positions, dtype=np.int64)
        out = np.empty((len(rows), *self.shape), self.dtype)
        if changes or not self.as_stored:
            for i, data in self._stored(rows):
                self._frame_into(out[i], data, rows[i], changes[i] if changes else None)
            return out
        row = out.nbytes // max(1, len(rows))
        memory = out.reshape(-1).view(np.uint8).data
        header = npy_header(self.shape, self.dtype) if self._headers else b""
        for _ in self._fill(FRAMES, rows, [memory[i * row : (i + 1) * row] for i in range(len(rows))], header):
            pass
        return out

    def read_events(self, positions: Sequence[int] | NDArray[np.integer]) -> Iterator[CompactEvents]:
        """Read the recordings of a set that stores events, by position.

        Raises:
            ShardSetError: the set stores frames; or as `read`.
        """
        for position, data in zip(positions, self.read_compact(positions), strict=True):
            try:
                yield CompactEvents.parse(data)
            except ValueError as error:
                raise self._damaged(int(position), str(error)) from error

    def read_compact(self, positions: Sequence[int] | NDArray[np.integer]) -> Iterator[NDArray[np.uint8]]:
        """Read the recordings of a set that stores events as they are stored [bytes], see `pipeline.events.compact`.

        Raises:
            ShardSetError: as `read_events`.
        """
        rows = np.asarray(positions, dtype=np.int64)
        if self.framing is None:
            where = self.shards[0].parent if self.shards else "this set"
            raise ShardSetError(
                f"{where}: stores frames, and the events are gone. `{command('preprocess')} --store events` keeps them."
            )
        for at in range(len(rows)):
            for _, data in self._stored(rows[at : at + 1]):
                yield data

    def _stored(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield for stored events the number of a row and its bytes, each valid until the next."""
        assert self._sizes is not None
        sizes = self._sizes[rows].astype(np.int64)
        room = np.empty(-(-int(sizes.max(initial=0)) // 8), np.int64).view(np.uint8)
        for i in self._fill(EVENTS, rows, [room[:size].data for size in sizes.tolist()]):
            yield i, room[: int(sizes[i])]

    def _fill(
        self, array: str, rows: NDArray[np.int64], targets: Sequence[memoryview], header: bytes | None = None
    ) -> Iterator[int]:
        """Read an array of samples, each into its target; yield the number of each once it is there and was checked.

        `header` is what precedes the numbers of each unpacked; None stands for those of bytes.
        """
        shard_of = self.shard_of[rows]
        fill = partial(self._unpack, header=header) if self._codec == GZIP else self._copy
        offsets, lengths, checksums = (column[rows].tolist() for column in self._places[array])
        by_shard = np.argsort(shard_of, kind="stable").tolist()
        for shard, of_shard in itertools.groupby(by_shard, key=shard_of.tolist().__getitem__):
            with self._reading(self.shards[shard]) as file:
                for i in of_shard:
                    target = targets[i]
                    if not fill(file, target, offsets[i], lengths[i]) or zlib.crc32(target) != checksums[i]:
                        raise self._damaged(rows[i], "checksum differs")
                    yield i

    def _frame_into(self, out: NDArray[Any], data: NDArray[np.uint8], position: int, change: Change | None) -> None:
        """Make frames of stored events."""
        assert self.framing is not None
        try:
            if change is not None or not self.framing.count_into(out, data):
                self.framing.frames_into(out, data, source=self._name(position), change=change)
        except ValueError as error:
            raise self._damaged(position, str(error)) from error
        except RecordingError as error:
            raise ShardSetError(f"{self.shards[self.shard_of[position]]}: {error}") from error

    def _name(self, position: int) -> str:
        return show(self.key(position))

    def _damaged(self, position: int, what: str) -> ShardSetError:
        path = self.shards[self.shard_of[position]]
        return ShardSetError(
            f"{path}: sample {self._name(position)} is damaged or cut ({what}). "
            f"Run `{command('verify', path.parent)}`, then convert or copy it again."
        )

    def _copy(self, file: int, target: memoryview, offset: int, length: int) -> bool:
        return length == len(target) == os.preadv(file, [target], offset)

    def _unpack(self, file: int, target: memoryview, offset: int, length: int, *, header: bytes | None) -> bool:
        if header is None:
            header = npy_header((len(target),), STORED_EVENTS) if self._headers else b""
        try:
            unpack_into(os.pread(file, length, offset), target, header=header)
        except ValueError:
            return False
        return True

    def read_all(self) -> NDArray[Any]:
        """Read all samples [n,T,P,H,W] in their stored order."""
        return self.read(np.arange(len(self)))

    def durations_us(self, positions: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Read how long the recordings of some samples last, in microseconds [len(positions)], from their metadata.

        Raises:
            ShardSetError: a shard is missing or cut, or metadata is damaged.
        """
        return np.array([metadata["duration_us"] for metadata in self._metadata(positions)], np.int64)

    def static_keys(self, positions: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """Read the keys of the static images that some recordings show, empty where one shows none.

        Raises:
            ShardSetError: as `durations_us`.
        """
        return [metadata.get("static") or "" for metadata in self._metadata(positions)]

    def _metadata(self, positions: Sequence[int] | NDArray[np.integer]) -> Iterator[Metadata]:
        """Read the metadata of some samples."""
        offsets, lengths, _ = next(iter(self._places.values()))  # metadata follow the first array
        rows = np.asarray(positions, dtype=np.int64)
        first = np.searchsorted(self.shard_of, np.arange(len(self.shards)))  # samples lie shard by shard
        for row in rows.tolist():
            path = self.shards[self.shard_of[row]]
            end = int(offsets[row]) + int(lengths[row])
            source = f"{path}, metadata of sample {row}"
            with self._reading(path) as file:
                text = read_metadata(path, file, end=end, row=row - int(first[self.shard_of[row]]), source=source)
            yield parse_metadata(text, source=source)

    @contextmanager
    def _reading(self, path: Path) -> Iterator[int]:
        """Keep a shard open while the `with` block lasts; yields its descriptor."""
        self._wait_for_file(path.name)
        try:
            with self._files.reading(path) as file:
                yield file
        except OSError as error:
            raise ShardSetError(
                f"{path}: cannot be opened or read ({error.strerror}). Convert or copy the set again."
            ) from error


def _reopen_split(reopen: Callable[[], ShardSet], name: str) -> Split:
    return reopen().split(name)


class _PulledPart(TypedDict):
    """The content of partial.json."""

    id: NotRequired[Sha256]
    """Of the whole set; version 0.1.0 did not write it."""
    splits: list[Literal["train", "validation", "test"]]
    """Those that were pulled."""


def _named_splits(path: Path, set_id: str) -> Sequence[str]:
    """Read which splits of a set were pulled; a file of version 0.1.0 does not say of which set.

    Raises:
        ShardSetError: it names something else, or a part of another set.
    """
    again = "Pull the set again."
    found = read_json(path, _PulledPart, error=ShardSetError, remedy=again, most_bytes=MOST_PARTIAL_BYTES)
    splits = found["splits"]
    if not splits or len(set(splits)) < len(splits) or not set(found) <= {"id", "splits"}:
        raise ShardSetError(
            f"{path}: names no splits of a shard set; expected its ID and some of {', '.join(manifests.SPLITS)}. "
            f"{again}"
        )
    if found.get("id", set_id) != set_id:
        raise ShardSetError(f"{path}: names a part of another set than {set_id}. {again}")
    return splits


class ShardSet:
    """A complete shard set, read only; `wait_for_file` is for a set whose files are still coming.

    A copy in another process (of the set, of a split) opens it again by its address, and is refused where another set
    lies there by then. With `expect`, a set of another ID is refused.

    Raises:
        ShardSetError: missing, unfinished, damaged, of a newer schema, or another one than expected.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        expect: str | None = None,
        wait_for_file: WaitForFile = _do_not_wait,
    ) -> None:
        self.path, self.wait_for_file = Path(path), wait_for_file
        self.manifest = manifests.read(self.path)
        self.id = self.manifest["self_sha256"]
        if expect is not None and self.id != expect:
            raise ShardSetError(
                f"{self.path}: holds shard set {self.id}; expected {expect}. Was the folder replaced meanwhile? "
                "Give the set that is meant, or start again with this one."
            )
        self.address: str = str(self.path.absolute())
        """What opens the set in any process, with its ID as `expect`; see `pipeline.sharing.open.open_set`."""
        self.settings: dict[str, Any] = self.manifest["settings"]
        self.store: str = self.settings.get("store", FRAMES)
        """What is stored of the recordings: `frames`, or `events`, of which frames are made at reading, or `both`."""
        self.arrays = ARRAYS[self.store]
        """Names of what that is."""
        self.partial = os.path.lexists(self.path / PARTIAL)
        """Whether only some splits were pulled; such a set is not called whole, whatever lies in its folder."""
        self.present = self._present()
        files = manifests.files_of(self.manifest, self.present)
        self.files: dict[str, FileEntry] = {entry["name"]: entry for entry in files}
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        self.simulated = self.manifest["simulated"]
        self.sample_shape: tuple[int, ...] = tuple(self.manifest["sample"]["shape"])
        self.dtype: np.dtype[Any] = np.dtype(self.manifest["sample"]["dtype"])
        self.codec: str = self.settings["codec"]

    def __repr__(self) -> str:
        """Return folder, data set, samples of each split and ID."""
        counts = ", ".join(f"{self.manifest['splits'][name]['samples']:,} {name}" for name in self.present)
        simulated = ", SIMULATED" if self.simulated else ""
        return f"ShardSet({self.path}: {self.manifest['dataset']!r}, {counts}, ID {self.id[:12]}{simulated})"

    def with_frames(self, **settings: Any) -> ShardSet:
        """Return the same set with frames that are made of its events with other settings; nothing is read for it.

        Args:
            settings: some of `pipeline.shards.settings.FRAMING`. Without `dtype`, the set's is kept, or the widest is
                taken where a cell may fill up more than in the set's own frames.

        Raises:
            ShardSetError: frames are stored, or the events needed are not.
            SettingsError: settings that are no matter of reading, or that contradict each other.
        """
        asked = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if self.settings.get(name, 0) != (list(value) if isinstance(value, tuple) else value)
        }
        if asked and "dtype" in settings:
            asked["dtype"] = settings["dtype"]
        if "binning" in asked:  # what belongs to another binning goes with it
            asked = {"window_us": 0, "events_per_bin": 0, **asked}
        if "reduction" in asked:
            asked = {"tau_us": 0, "latest_events": 0, **asked}
        return _Framed(self, asked) if asked else self

    def _frame_anew(self, asked: Mapping[str, Any]) -> None:
        """Take other settings for the frames."""
        if other := sorted(set(asked) - set(FRAMING)):
            raise SettingsError(f"{', '.join(other)}: fixed when the set was made; {', '.join(FRAMING)} are not.")
        if EVENTS not in self.arrays:
            found = ", ".join(f"{name} {self.settings.get(name, 0)}" for name in asked)
            raise ShardSetError(
                f"{self.path}: stores frames, made with {found}, and the events are gone. "
                f"`{command('preprocess')} --store events` keeps them."
            )
        stored, now = self.framing.stored, self.framing.settings
        new = replace(now, **{"dtype": _dtype_for(stored, now, asked), **asked})
        if stored.time_window_us not in ((), new.time_window_us):
            raise ShardSetError(
                f"{self.path}: holds the events of {stored.time_window_us} microseconds alone; found time_window_us "
                f"{new.time_window_us}. Preprocess without --time-window to choose it at reading."
            )
        self.settings = new.as_dict()
        self.framing = replace(self.framing, settings=new)
        self.sample_shape, self.dtype = self.framing.shape, self.framing.dtype

    @cached_property
    def framing(self) -> Framing:
        """Return what makes frames of the stored events.

        Raises:
            ShardSetError: the set was made with settings that this version does not have.
        """
        stored = self.manifest["stored"]
        try:
            settings = ConversionSettings.from_dict(self.manifest["settings"])
        except SettingsError as error:
            raise ShardSetError(
                f"{self.path}: {error} Update spikebridge, or preprocess the raw data again."
            ) from error
        crop = stored["crop"]
        return Framing(settings, settings, (crop[0], crop[1], crop[2], crop[3]) if crop else None, stored["span_us"])

    @property
    def preview(self) -> bool:
        """Return whether a picture stands beside every sample."""
        return bool(self.manifest["settings"].get("preview"))

    @property
    def reframed(self) -> bool:
        """Return whether the frames have other settings than the set's own."""
        return EVENTS in self.arrays and self.framing.settings != self.framing.stored

    @property
    def as_stored(self) -> bool:
        """Return whether the frames are stored, and not made of events."""
        return FRAMES in self.arrays and not self.reframed

    def _present(self) -> tuple[str, ...]:
        """Return the splits whose shards are here: all, unless only some were pulled."""
        named = _named_splits(self.path / PARTIAL, self.id) if self.partial else manifests.SPLITS
        return tuple(split for split in manifests.SPLITS if split in named)

    def _reopen(self) -> Callable[[], ShardSet]:
        """Return what opens this set again, or refuses what lies there by then; it survives pickling."""
        return partial(ShardSet, self.address, expect=self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen(), ()

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Return every split that is here by name; a split without samples is there, with length 0."""
        return {name: self._open_split(name) for name in self.present}

    def split(self, name: str) -> Split:
        """Return one split.

        Raises:
            ShardSetError: no split of that name.
        """
        if name in self.manifest["splits"] and name not in self.present:
            raise ShardSetError(
                f"{self.path}: split {name} was not pulled, only {', '.join(self.present)}. "
                f"`{command('pull', 'ADDRESS', self.path, '--split', name)}` adds it."
            )
        if name not in self.splits:
            raise ShardSetError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}.")
        return self.splits[name]

    def static_pool(self) -> StaticImages:
        """Return the static images that training may draw from: in memory, or read when needed.

        Raises:
            ShardSetError: as `static_images`.
        """
        static = self.manifest["static"]
        pool = self.static_images(resident=static["images"] * math.prod(static["shape"]) <= RESIDENT_BYTES).pool()
        return self.fitted(pool)

    def fitted(self, pool: StaticImages) -> StaticImages:
        """Return static images of the set in the size of its frames.

        Raises:
            ShardSetError: frames are of another aspect, or fitted otherwise, than the images were.
        """
        if not self.reframed:
            return pool
        stored, now = self.framing.stored, self.framing.settings
        (H, W), (height, width) = now.frame, pool.images.shape[2:]
        if now.fit != stored.fit or H * width != W * height:
            raise ShardSetError(
                f"{self.path}: its static images were fitted to {width}x{height} pixels ({stored.fit or FITS[0]}), and "
                f"frames of {W}x{H} ({now.fit or FITS[0]}) show something else. Preprocess with that size, or train "
                "with a method that takes no static images."
            )
        return pool.resized((H, W))

    def static_images(self, *, resident: bool = True) -> StaticImages:
        """Read all static images of the set, whose file is compared with its hash once per process.

        Args:
            resident: read the images into memory; otherwise they stay in their file.

        Raises:
            ShardSetError: missing, changed or damaged.
        """
        self.wait_for_file(STATIC_FILE)
        path = self.path / STATIC_FILE
        try:
            sha256 = sha256_once(path)
        except OSError as error:
            raise ShardSetError(f"{path}: cannot be read ({error}). Convert or copy the set again.") from error
        self._compare(path, sha256)
        return read_static(path, resident=resident)

    def _compare(self, path: Path, sha256: str) -> None:
        """Refuse a file whose hash is not the manifest's."""
        if path.name not in self.files or self.files[path.name]["sha256"] != sha256:
            raise ShardSetError(
                f"{path}: changed or damaged, its content is not what the manifest says (SHA-256 differs). "
                "Convert or copy the set again."
            )

    def event_shards(self, split: str) -> list[Path]:
        """Return the event shard files of a split, in order."""
        extension = EXTENSION[self.settings["format"]]
        return [self.path / n for n in sorted(self.files) if n.startswith(f"events-{split}-") and n.endswith(extension)]

    def _open_split(self, name: str) -> Split:
        shards = self.event_shards(name)
        parts = [self.index(shard.name) for shard in shards]
        shard_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        index = np.concatenate(parts) if parts else np.empty(0, index_dtype(1, store=self.store, preview=self.preview))
        expected = self.manifest["splits"][name]["samples"]
        if len(index) != expected:
            raise ShardSetError(
                f"{self.path}: split {name} indexes {len(index)} samples, its manifest says {expected}. "
                "Convert or copy the set again."
            )
        framing = self.framing if EVENTS in self.arrays else None
        if framing is not None and not self.as_stored and (short := framing.too_short(index)).any():
            first = show(index["key"][int(np.argmax(short))].decode("ascii", "backslashreplace"))
            raise ShardSetError(
                f"{self.path}: {int(short.sum())} of {len(index)} recordings of split {name} are too short for "
                f"{self.sample_shape[0]} time bins (binning {framing.settings.binning}), for example {first}. "
                "Choose fewer, or preprocess the raw data with these settings, which leaves such recordings out."
            )
        return Split(
            shards,
            index,
            shard_of,
            shape=self.sample_shape,
            dtype=self.dtype,
            store=self.store,
            codec=self.codec,
            headers=self._packs_header,
            wait_for_file=self.wait_for_file,
            reopen=partial(_reopen_split, self._reopen(), name),
            framing=framing,
            as_stored=self.as_stored,
        )

    @property
    def _packs_header(self) -> bool:
        """Return whether a compressed sample begins with the header of an .npy file."""
        return self.codec == GZIP and self.settings["format"] == "webdataset"

    def index(self, name: str) -> NDArray[Any]:
        """Read the index of a shard (`name` of its file); compare it with its hash, and its rows with the shard.

        Raises:
            ShardSetError: missing, damaged, or with a row that cannot be.
        """
        path = index_path(self.path / name)
        self.wait_for_file(path.name)
        index = read_index(path, store=self.store, preview=self.preview, compare=partial(self._compare, path))
        shard_bytes = np.uint64(self.files[name]["bytes"])
        good = (index["label"] >= 0) & (index["label"] < len(self.classes)) & self._fitting(index)
        places = [place_columns(self.store, array) for array in self.arrays]
        for offset, length, _ in places:
            good &= (index[offset] <= shard_bytes) & (index[length] <= shard_bytes - index[offset])
        if not good.all():
            row = int(np.argmin(good))
            raise ShardSetError(
                f"{path}: row {row} names a place, size or class that cannot be: {index[row]}. "
                "Convert or copy the set again."
            )
        begins = np.concatenate([index[offset] for offset, _, _ in places])
        ends = np.concatenate([index[offset] + index[length] for offset, length, _ in places])
        in_file = np.argsort(begins, kind="stable")
        if (inner := begins[in_file][1:] < ends[in_file][:-1]).any():
            first, second = in_file[int(np.argmax(inner)) :][:2] % len(index)
            raise ShardSetError(
                f"{path}: row {second} begins inside row {first}; expected bytes of its own. "
                "Convert or copy the set again."
            )
        return index

    def _fitting(self, index: NDArray[Any]) -> NDArray[np.bool_]:
        """Return for which rows of an index size, length and facts of the samples fit together, [n]."""
        good = np.ones(len(index), np.bool_)
        for array in self.arrays:
            sample, length = self.manifest["sample"], index[place_columns(self.store, array)[1]]
            size: Any = math.prod(sample["shape"]) * np.dtype(sample["dtype"]).itemsize
            if array == EVENTS:
                size = index["size"]
                good &= (size <= self.manifest["stored"]["most_bytes"]) & (index["events"] <= size)
                good &= (index["events"] > 0) & (index["duration_us"] <= LONGEST_US)
            good &= length == size if self.codec == RAW else length >= size // MAX_RATIO
        return good


class _Framed(ShardSet):
    """A set whose frames are made with other settings; shares all else with the set that it was made of."""

    def __init__(self, of: ShardSet, asked: Mapping[str, Any]) -> None:
        shared = {name: value for name, value in vars(of).items() if name != "splits"}
        self.__dict__.update(shared)
        self._of, self._asked = of, dict(asked)  # a set that waits for its files must live on
        self._frame_anew(asked)

    def _reopen(self) -> Callable[[], ShardSet]:
        return partial(_reopen_framed, self._of._reopen(), self._asked)


def _reopen_framed(reopen: Callable[[], ShardSet], asked: Mapping[str, Any]) -> ShardSet:
    return reopen().with_frames(**asked)


def _dtype_for(stored: ConversionSettings, now: ConversionSettings, asked: Mapping[str, Any]) -> str:
    """Return the type of frames with other settings: the set's, or the widest where cells may fill up more."""
    new = {name: asked.get(name, getattr(now, name)) for name in FRAMING}
    changed = {name for name in FRAMING if name != "dtype" and new[name] != getattr(stored, name)}
    if changed <= {"time_bins", "size"} and all(new[name] >= getattr(stored, name) for name in changed):
        return stored.dtype
    return DTYPES.get(new["reduction"], (stored.dtype,))[-1]


def read_index(
    path: Path, *, store: str = FRAMES, preview: bool = False, compare: Callable[[str], None] | None = None
) -> NDArray[Any]:
    """Read the index of a shard; objects are refused, and never more memory is taken than the file has bytes.

    Args:
        path: of the index.
        store: what the shard holds, `frames`, `events` or `both`.
        preview: whether it holds pictures, too.
        compare: refuses bytes by their SHA-256 before anything is read from them.

    Raises:
        ShardSetError: missing, damaged, or not an index.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ShardSetError(f"{path}: cannot be read ({error}). Convert or copy the set again.") from error
    if compare is not None:
        compare(hashlib.sha256(data).hexdigest())
    try:
        file = io.BytesIO(data)
        shape, _, dtype = npy.read_header(file)
    except Exception as error:  # numpy's parser of headers lets through whatever Python's own raises
        raise ShardSetError(f"{path}: cannot be read ({error}). Convert or copy the set again.") from error
    rows = len(data) - file.tell()
    widths = [dtype[name].itemsize if name in (dtype.names or ()) else 0 for name in ("key", "group")]
    known = dtype == index_dtype(*widths, store=store, preview=preview)
    if not known or len(shape) != 1 or shape[0] < 0 or shape[0] * dtype.itemsize != rows:
        raise ShardSetError(f"{path}: not the index of a shard. Convert or copy the set again.")
    return np.frombuffer(data, dtype, count=shape[0], offset=file.tell())
