"""Checked events as one 64-bit word each, the input of framing and of the hash of a recording.

Axes: N events. A word is time << 24 | x << 12 | y << 1 | p, the time in microseconds from the first event: 39 bits of
it (6.3 days), 12 of x, 11 of y, 1 of polarity. Words in order of time can be cut into bins without being unpacked.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Checks, Events, StartOver

TIME_SHIFT, X_SHIFT, Y_SHIFT = 24, 12, 1
X_MASK, Y_MASK = 0xFFF, 0x7FF
LARGEST_SENSOR = (X_MASK + 1, Y_MASK + 1)
"""(W, H) in pixels that a word has room for."""
LONGEST_US = 2 ** (63 - TIME_SHIFT) - 1
"""Longest recording that a word has room for, in microseconds."""
KEPT_EVENTS = 2**24
"""A recording of more events is not kept in memory (as words: 134 MB)."""


@dataclass(frozen=True)
class Words:
    """Events of a chunk that its decoder packed itself, not checked yet."""

    words: NDArray[np.int64]
    """[N] int64, see above, but times count from `origin_us`."""
    origin_us: int
    """On the file's clock; not after the first event of the recording."""
    ordered: bool
    """Whether no event is earlier than the one before it in the chunk."""
    extent: tuple[int, int]
    """(W, H), largest coordinates plus one."""

    @classmethod
    def of(cls, words: NDArray[np.int64], origin_us: int) -> Words:
        """Return words [N] after a look at all of them."""
        from spikebridge.pipeline.events.loops import packing as kernel

        ordered, right, bottom = kernel.look(words)
        return cls(words, origin_us, ordered, (right, bottom))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def first_us(self) -> int:
        """Return the time of the first event on the file's clock."""
        return self.origin_us + (int(self.words[0]) >> TIME_SHIFT)

    @property
    def last_us(self) -> int:
        """Return that of the last one."""
        return self.origin_us + (int(self.words[-1]) >> TIME_SHIFT)

    def unpack(self) -> Events:
        """Return the events as columns, their times as the file counts them."""
        return _unpack(self.words, self.origin_us)


@dataclass(frozen=True)
class Unpacked:
    """Events of a chunk that its decoder packs where they are to lie: what is written once need not be copied."""

    count: int
    first_us: int
    """Time of the first one on the file's clock."""
    pack: Callable[[NDArray[np.int64], int], Words]
    """Fills words [N] whose times count from one on the file's clock; called before the next chunk is asked for."""

    def __len__(self) -> int:
        return self.count

    def unpack(self) -> Events:
        """Return the events as columns, their times as the file counts them."""
        return self.pack(np.empty(self.count, np.int64), self.first_us).unpack()


Chunk = Events | Words | Unpacked


def make_room(count: int, *, packed: bool) -> tuple[NDArray[Any], ...]:
    """Return room for events, see `pipeline.events.loops.sinks`: the words, or columns."""
    return (np.empty(count, np.int64),) if packed else Events.room(count).columns


def chunk_of(sink: tuple[NDArray[Any], ...], count: int, *, origin_us: int = 0) -> Chunk:
    """Return the first events of a room that a decoder filled; the times of words count from `origin_us`."""
    if len(sink) == 1:
        return Words.of(sink[0][:count], origin_us)
    t, x, y, p = sink
    return Events(t[:count], x[:count], y[:count], p[:count])


@dataclass(frozen=True)
class PackedEvents:
    """A checked recording."""

    words: NDArray[np.int64]
    """[N] int64, see above; at least one, in order of time."""
    start_us: int
    """Time of the first event as the file counts it."""
    extent: tuple[int, int]
    """(W, H), largest coordinates plus one."""
    overflow_markers: int = 0
    """This and the following: see `pipeline.events.arrays.Events`."""
    passed_over: tuple[tuple[str, int], ...] = ()
    doubts: tuple[str, ...] = ()
    not_read: int = 0
    choices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds."""
        return int(self.words[-1]) >> TIME_SHIFT

    def sha256(self) -> str:
        """Return the hash of the events: equal for a copy of a recording under another name or with shifted times."""
        return hashlib.sha256(self.words.astype("<i8", copy=False).data).hexdigest()

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words: all at once."""
        yield self.words

    def columns(self) -> Iterator[Events]:
        """Yield the events as columns, their times as the file counts them: all at once."""
        yield self.unpack()

    def unpack(self) -> Events:
        """Return the events as columns, their times as the file counts them."""
        return _unpack(self.words, self.start_us)


@dataclass(frozen=True)
class LongEvents:
    """A checked recording that does not lie in memory: it is decoded anew whenever it is gone over."""

    passes: Callable[[], Iterator[NDArray[np.int64]]]
    """Begins a pass over the words, in chunks, each valid until the next is asked for."""
    count: int
    duration_us: int
    """Time from the first to the last event."""
    digest: str
    start_us: int
    """This and the following: see `PackedEvents`."""
    extent: tuple[int, int]
    overflow_markers: int = 0
    passed_over: tuple[tuple[str, int], ...] = ()
    doubts: tuple[str, ...] = ()
    not_read: int = 0
    choices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def sha256(self) -> str:
        """Return the hash of the events, that of `PackedEvents`."""
        return self.digest

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words in chunks."""
        return self.passes()

    def columns(self) -> Iterator[Events]:
        """Yield the events as columns, in chunks."""
        return (_unpack(words, self.start_us) for words in self.passes())


class CheckedEvents(Protocol):
    """A checked recording, wherever its events lie."""

    @property
    def start_us(self) -> int:
        """Return this and the following as `PackedEvents` has them."""

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds."""

    @property
    def extent(self) -> tuple[int, int]:
        """Return (W, H), largest coordinates plus one."""

    @property
    def overflow_markers(self) -> int:
        """Return this and the following as `pipeline.events.arrays.Events` has them."""

    @property
    def passed_over(self) -> tuple[tuple[str, int], ...]:
        """Return what else of the file is no event, and how often it occurs."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what may be wrong about the file."""

    @property
    def not_read(self) -> int:
        """Return how many more events the file holds, outside the time window that alone was asked for."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Return what was decided where the file left it open."""

    def __len__(self) -> int: ...

    def sha256(self) -> str:
        """Return the hash of the events."""

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words, all at once or in chunks, each valid until the next."""

    def columns(self) -> Iterator[Events]:
        """Yield the events as columns, all at once or in chunks."""


def _unpack(words: NDArray[np.int64], start_us: int) -> Events:
    return Events(
        t=(words >> TIME_SHIFT) + start_us,
        x=(words >> X_SHIFT & X_MASK).astype(np.int32),
        y=(words >> Y_SHIFT & Y_MASK).astype(np.int32),
        p=(words & 1).astype(np.uint8),
    )


def pack(events: Events, *, sensor_size: tuple[int, int], source: str) -> PackedEvents:
    """Check events against a sensor of (W, H) pixels and pack them.

    Raises:
        RecordingError: see `check_events`; or longer than 6 days (`too_long`).
    """
    count = len(events)
    packed = pack_chunks(lambda: iter((events,)), sensor_size=sensor_size, source=source, likely=count, most=count)
    assert isinstance(packed, PackedEvents)
    return packed


def pack_chunks(
    chunks: Callable[[], Iterator[Chunk]],
    *,
    sensor_size: tuple[int, int],
    source: str,
    likely: int = 0,
    most: int = KEPT_EVENTS,
) -> CheckedEvents:
    """Check the events of a recording against a sensor of (W, H) pixels, and pack them.

    Args:
        chunks: begins a pass over the events; what they are annotated with counts in the last chunk.
        sensor_size: (W, H) in pixels.
        source: file name for messages.
        likely: number of events, as far as it is known before: room is made for it.
        most: recordings of more events are not kept in memory.

    Raises:
        RecordingError: as `pack`.
    """
    size = (min(sensor_size[0], LARGEST_SENSOR[0]), min(sensor_size[1], LARGEST_SENSOR[1]))
    try:
        return _pack_chunks(chunks, size, source, likely, most)
    except StartOver:
        return _pack_chunks(chunks, size, source, likely, most)


def _pack_chunks(
    chunks: Callable[[], Iterator[Chunk]], size: tuple[int, int], source: str, likely: int, most: int
) -> CheckedEvents:
    packer, digest, chunk = _Packer(size), hashlib.sha256(), None
    room, count, keeping = _MEMORY.room(min(likely, most)), 0, True
    for chunk in chunks():
        if keeping and count + len(chunk) > most:  # from here on the hash is all that is kept
            digest.update(room[:count].astype("<i8", copy=False).data)
            room, keeping = np.empty(0, np.int64), False
        start = count if keeping else 0
        if start + len(chunk) > len(room):
            grown = min(max(2 * len(room), start + len(chunk)), most)
            room = _MEMORY.extend(room[:start], grown) if keeping else np.empty(len(chunk), np.int64)
        words = room[start : start + len(chunk)]
        if not packer.pack(chunk, words):
            raise _refusal(chunks, size, source)
        if not keeping:
            digest.update(words.astype("<i8", copy=False).data)
        count += len(chunk)
    if not count:
        raise _refusal(chunks, size, source)
    assert isinstance(chunk, Events)
    assert packer.start_us is not None
    noted = (chunk.overflow_markers, chunk.passed_over, chunk.doubts, chunk.not_read, chunk.choices)
    about = (packer.start_us, packer.extent, *noted)
    if keeping:
        return PackedEvents(room[:count], *about)

    def passes() -> Iterator[NDArray[np.int64]]:
        again, room = _Packer(size), np.empty(0, np.int64)
        for chunk in filter(len, chunks()):
            if len(chunk) > len(room):
                room = np.empty(len(chunk), np.int64)
            again.pack(chunk, room[: len(chunk)])
            yield room[: len(chunk)]

    return LongEvents(passes, count, packer.latest_us - packer.start_us, digest.hexdigest(), *about)


class _Memory:
    """Memory that one recording after the other is packed into.

    Fresh memory takes the kernel, which clears it page by page, as long as packing takes.
    """

    def __init__(self) -> None:
        self._spare, self._lock = np.empty(0, np.int64), threading.Lock()
        self._unheld = self._holders()

    def _holders(self) -> int:
        return sys.getrefcount(self._spare)

    def room(self, count: int) -> NDArray[np.int64]:
        """Return room for so many words, or more: what was used before, unless that is less or somebody holds it."""
        with self._lock:
            if len(self._spare) < count or self._holders() > self._unheld:
                self._spare = np.empty(count, np.int64)
            return self._spare[:]

    def extend(self, words: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return room for so many words, which begins with these."""
        room = np.empty(count, np.int64)
        room[: len(words)] = words
        with self._lock:
            self._spare = room
            return self._spare[:]


_MEMORY = _Memory()


class _Packer:
    """Packs the chunks of a recording one after the other."""

    def __init__(self, sensor_size: tuple[int, int]) -> None:
        self.sensor_size = sensor_size
        self.start_us: int | None = None
        self.latest_us = 0
        self.extent = (0, 0)

    def pack(self, chunk: Chunk, words: NDArray[np.int64]) -> bool:
        """Fill the words from a chunk; False where a check fails."""
        if not len(chunk):
            return True
        if isinstance(chunk, Unpacked):
            chunk = chunk.pack(words, chunk.first_us if self.start_us is None else self.start_us)
        return self._shift(chunk, words) if isinstance(chunk, Words) else self._pack(chunk, words)

    def _shift(self, chunk: Words, words: NDArray[np.int64]) -> bool:
        """Let the times of packed events count from the first of the recording."""
        if self.start_us is None:
            self.start_us = self.latest_us = chunk.first_us
        self.extent = (max(self.extent[0], chunk.extent[0]), max(self.extent[1], chunk.extent[1]))
        fine = chunk.ordered and chunk.first_us >= self.latest_us and chunk.last_us - self.start_us <= LONGEST_US
        self.latest_us = chunk.last_us
        if not fine or self.extent[0] > self.sensor_size[0] or self.extent[1] > self.sensor_size[1]:
            return False
        if chunk.words is not words:
            np.subtract(chunk.words, (self.start_us - chunk.origin_us) << TIME_SHIFT, out=words)
        return True

    def _pack(self, events: Events, words: NDArray[np.int64]) -> bool:
        from spikebridge.pipeline.events.loops import packing as kernel

        if self.start_us is None:
            self.start_us = self.latest_us = int(events.t[0])
        fine, right, bottom = kernel.pack_columns(
            events.t, events.x, events.y, events.p, *self.sensor_size, self.start_us, self.latest_us, words
        )
        self.latest_us = int(events.t[-1])
        self.extent = (max(self.extent[0], right), max(self.extent[1], bottom))
        return bool(fine)


def _refusal(chunks: Callable[[], Iterator[Chunk]], sensor_size: tuple[int, int], source: str) -> RecordingError:
    """Return the error of a recording that a check refuses, found by looking at all of its events."""
    checks = Checks(sensor_size)
    for chunk in chunks():
        checks.add(chunk if isinstance(chunk, Events) else chunk.unpack())
    try:
        checks.require(source=source)
    except RecordingError as error:
        return error
    return RecordingError(
        f"{source}: {(checks.last_us - checks.first_us) / 1e6:,.0f} s from the first event to the last; up to "
        f"{LONGEST_US / 1e6:,.0f} s can be packed. Cut the recording, or correct the unit of its time stamps.",
        reason="too_long",
    )
