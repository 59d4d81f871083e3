"""What a shard set brings into another one: columns over its samples and images, read and checked once.

Axes: n samples, N static images.
Kept in memory are some 150 bytes a sample or image; texts wait in a nameless file, pixels stay where they are.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, ShardSetError
from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.base.progress import Progress
from spikebridge.pipeline.checks.leaks import Recordings
from spikebridge.pipeline.checks.samples import Stored, check_rows, read_metadata
from spikebridge.pipeline.events.compact import Head, compact
from spikebridge.pipeline.preprocess.reformat import damaged, read_samples
from spikebridge.pipeline.shards.manifest import REJECTS, SPLITS
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import StaticImages
from spikebridge.pipeline.shards.writer import EVENTS, Sample


class Texts:
    """The metadata of samples, in a file that goes with the object."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (it lives as long as the object)
        self._ends = [0]

    def __del__(self) -> None:
        self._file.close()

    def append(self, text: bytes) -> None:
        """Add the text of the next sample."""
        self._file.write(text)
        self._ends.append(self._ends[-1] + len(text))

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Read and parse the metadata of a sample, which `read_metadata` has checked."""
        self._file.seek(self._ends[row])
        values: dict[str, Any] = json.loads(self._file.read(self._ends[row + 1] - self._ends[row]))
        return values


@dataclass(frozen=True)
class SourceSample:
    """A sample on its way from one set to another."""

    frames: NDArray[Any]
    """[T,P,H,W]."""
    metadata: dict[str, Any]
    events: NDArray[np.uint8] | None
    """[bytes] compact; None where the set stores none."""
    saturated: int
    """Cells of the frames that are saturated."""
    lost: dict[str, int] = field(default_factory=dict)
    """See `pipeline.preprocess.tasks.TaskResult.lost`, of frames that were made anew."""


@dataclass(frozen=True)
class Source:
    """A shard set, every file of which has been compared with its manifest."""

    shards: ShardSet
    recordings: Recordings
    """Columns [n] in the order of splits and shards."""
    rows: NDArray[np.int64]
    """[n] position in the split."""
    crc32: NDArray[np.uint32]
    """[n] of what is stored of each."""
    texts: Texts
    """Metadata of the n samples."""
    static: StaticImages
    """All static images, whose pixels stay in their file."""
    stored: tuple[tuple[int, bytes], ...]
    """crc32 and SHA-256 of each of the N images as stored."""

    def take(self, row: int) -> SourceSample:
        """Read a sample, with frames of the settings that its set was opened with.

        Raises:
            ShardSetError: it was changed since it was checked, or cannot be framed.
        """
        shards, metadata = self.shards, self.texts[row]
        split, position = shards.split(SPLITS[self.recordings.splits[row]]), int(self.rows[row])
        events = None
        if EVENTS in shards.arrays:
            (events,) = split.read_compact([position])
        if shards.reframed:
            assert events is not None
            return self._reframe(events, metadata, split.keys[position])
        frames = split.read([position])[0]
        return SourceSample(frames, metadata, events, _saturated(shards, frames))

    def _reframe(self, events: NDArray[np.uint8], metadata: dict[str, Any], key: str) -> SourceSample:
        """Return a sample with other frames, and what a conversion with these settings would say of it."""
        framing = self.shards.framing
        try:
            used, framed = framing.frame(events, source=key)
        except RecordingError as error:
            raise ShardSetError(f"{self.shards.path}: {error}") from error
        metadata["dropped_events"] = framed.dropped_events
        if framing.settings.time_window_us != framing.stored.time_window_us:
            head = Head.read(events)
            metadata["filtered_events"] = {"time_window": head.events - len(used)}
            metadata |= {"duration_us": used.duration_us, "events_sha256": used.sha256()}
            events = compact(used, sensor_size=head.sensor_size)
        return SourceSample(
            framed.frames,
            metadata,
            events,
            framed.saturated_cells,
            {"clipped_events": framed.clipped_events, "outside_events": framed.outside_events},
        )


def _saturated(shards: ShardSet, frames: NDArray[Any]) -> int:
    """Return how many cells of a sample hold the largest count of their type, in a set that clipped any.

    Differs: a conversion counts those that lack events, which their frames do not tell from those that just fit.
    """
    if not shards.manifest["events"].get("saturated_cells"):
        return 0
    limit = np.iinfo(frames.dtype).max if frames.dtype.kind == "u" else np.finfo(frames.dtype).max
    return int(np.count_nonzero(frames == limit))


def open_source(path: Path) -> ShardSet:
    """Open a set that another one shall be made of.

    Raises:
        ShardSetError: not a whole set.
    """
    shards = ShardSet(path)
    if shards.partial:
        raise ShardSetError(f"{path}: only a part of the set was pulled; pull all of it before making another of it.")
    return shards


def read_source(shards: ShardSet, work: Path, *, progress: Progress) -> Source:
    """Read a whole set; texts wait in a file below `work`.

    Raises:
        ShardSetError: a file is not what the manifest says.
    """
    if sha256_file(shards.path / REJECTS) != shards.files[REJECTS]["sha256"]:
        raise damaged(shards.path / REJECTS)
    texts = Texts(work)
    paths = [(split, path) for split in SPLITS for path in shards.event_shards(split)]
    parts, checksums = list[Recordings](), list[NDArray[np.uint32]]()
    for split, path in progress(paths, len(paths), f"shards of {shards.path.name}"):
        index = shards.index(path.name)
        check_rows(index, split=split, name=path.name)
        samples = _note_texts(read_samples(shards, path, index, framed=False), texts)
        parts.append(Recordings.of_shard(split, index, read_metadata(samples, index, name=path.name)))
        checksums.append(index["crc32"])
    recordings = Recordings.join(parts)
    counts = np.bincount(recordings.splits, minlength=len(SPLITS))
    rows = np.concatenate([np.arange(count) for count in counts])
    static = shards.fitted(shards.static_images(resident=False))
    stored = tuple(_stored(static))
    crc32 = np.concatenate([np.empty(0, np.uint32), *checksums])
    return Source(shards, recordings, rows, crc32, texts, static, stored)


def _note_texts(samples: Iterator[Sample], texts: Texts) -> Iterator[Stored]:
    for sample in samples:
        text = sample.metadata.encode()
        texts.append(text)
        yield Stored({}, text)


def _stored(static: StaticImages) -> Iterator[tuple[int, bytes]]:
    for block in static.images.blocks():
        for image in block:
            yield zlib.crc32(image), hashlib.sha256(image.tobytes()).digest()


class JoinedImages:
    """Images [N,C,H,W] of several sets, which stay in their files; a slice of rows reads them.

    `places` are (set, row) of the N images.
    """

    def __init__(self, sets: Sequence[Any], places: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
        self._sets, self._places = sets, list(places)
        self.shape = (len(self._places), *shape)

    def reordered(self, order: Sequence[int]) -> JoinedImages:
        """Return the same images in another order; nothing is read."""
        return JoinedImages(self._sets, [self._places[row] for row in order], self.shape[1:])

    def __getitem__(self, rows: int | slice) -> NDArray[np.uint8]:
        """Read images [len(rows),C,H,W], or one [C,H,W]."""
        if not isinstance(rows, slice):
            number, row = self._places[rows]
            image: NDArray[np.uint8] = self._sets[number][row]
            return image
        images = [self._sets[number][row] for number, row in self._places[rows]]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)
