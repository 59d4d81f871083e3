"""Events of a recording as compact columns: what an event shard stores, three to five bytes an event, without loss.

Axes: N events, L long steps. Little-endian, one part after the other:

    head      int64 [10]           version (1), N, L, bytes of a step; microseconds of the first event as its file
                                   counts, and from it to the last; W and H of the extent, and of the sensor
    long      int64 [L]            steps that do not fit into their column, in order
    place     uint16 [N]           lower 16 bits of x + y * 2**b, where b is the number of bits of W - 1 of the extent
    step      uint8 or uint16 [N]  microseconds since the event before; its largest number stands for the next of `long`
    high      uint8 [N]            bits of the place above the 16th; only where x and y take more than 16 together
    polarity  uint8 [(N + 7) // 8] a bit an event, 0 = OFF, 1 = ON; the first in the lowest

`docs/reference/formats.md` has the lines of numpy that read them. Steps in time are small where events are many, which
is why two or three of the thirteen bytes of plain columns are enough for place and time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import (
    LARGEST_SENSOR,
    LONGEST_US,
    TIME_SHIFT,
    X_MASK,
    X_SHIFT,
    Y_MASK,
    Y_SHIFT,
    CheckedEvents,
    PackedEvents,
)

VERSION = 1
HEAD = 10
"""Numbers of the head."""
HEAD_BYTES = 8 * HEAD
_HEAD = struct.Struct(f"<{HEAD}q")
STEP_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2")}
"""Types of a step by their bytes."""
PLACE_BITS = 16


def place_bits(extent: tuple[int, int]) -> tuple[int, int]:
    """Return the bits that x and y take in a place."""
    return (extent[0] - 1).bit_length(), (extent[1] - 1).bit_length()


def stored_bytes(count: int, long: int, step_bytes: int, extent: tuple[int, int]) -> int:
    """Return the bytes that N events take with L long steps."""
    high = count if sum(place_bits(extent)) > PLACE_BITS else 0
    return HEAD_BYTES + 8 * long + (2 + step_bytes) * count + high + -(-count // 8)


class Head(NamedTuple):
    """The head of a recording's stored bytes; each number is plausible, and their sum is that of the bytes."""

    version: int
    events: int
    long: int
    step_bytes: int
    start_us: int
    duration_us: int
    extent: tuple[int, int]
    sensor_size: tuple[int, int]
    parts: tuple[int, int, int, int]
    """Where places, steps, high bits and polarities begin; the long steps do behind the head."""

    @classmethod
    def read(cls, data: NDArray[np.uint8]) -> Head:
        """Read the head of stored bytes.

        Raises:
            ValueError: these are not the bytes of a recording.
        """
        if len(data) < HEAD_BYTES:
            raise ValueError(f"{len(data)} bytes, which are too few")
        version, count, long, step_bytes, start_us, duration_us, right, bottom, width, height = _HEAD.unpack_from(
            data.data
        )
        extent = (right, bottom)
        fits = 1 <= right <= width <= LARGEST_SENSOR[0] and 1 <= bottom <= height <= LARGEST_SENSOR[1]
        if not (version == VERSION and count > 0 and 0 <= long <= count and step_bytes in STEP_TYPES and fits):
            raise ValueError("a head that cannot be")
        if not 0 <= duration_us <= LONGEST_US or not -(2**62) <= start_us <= 2**62:
            raise ValueError("times that cannot be")
        if len(data) != stored_bytes(count, long, step_bytes, extent):
            raise ValueError(f"{len(data)} bytes, which are not those of {count} events")
        place = HEAD_BYTES + 8 * long
        step = place + 2 * count
        high = step + step_bytes * count
        polarity = high + (count if sum(place_bits(extent)) > PLACE_BITS else 0)
        parts = (place, step, high, polarity)
        return cls(version, count, long, step_bytes, start_us, duration_us, extent, (width, height), parts)


@dataclass(frozen=True)
class CompactEvents:
    """A checked recording as compact columns, over the bytes that are stored."""

    head: Head
    """What stands before the columns."""
    long: NDArray[np.int64]
    """[L] int64."""
    place: NDArray[np.uint16]
    """[N] uint16."""
    step: NDArray[np.uint8] | NDArray[np.uint16]
    """[N] uint8 or uint16."""
    high: NDArray[np.uint8]
    """[N] uint8, or empty."""
    polarity: NDArray[np.uint8]
    """[(N + 7) // 8] uint8."""

    overflow_markers: int = 0
    """This and the following, see `pipeline.events.arrays.Events`, were noted when the recording was converted."""
    passed_over: tuple[tuple[str, int], ...] = ()
    doubts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: NDArray[np.uint8]) -> CompactEvents:
        """Return views of the columns in stored bytes, which begin at a multiple of 8 in memory.

        Raises:
            ValueError: these are not the bytes of a recording.
        """
        head = Head.read(data)
        begins = (HEAD_BYTES, *head.parts)
        types = (np.dtype("<i8"), np.dtype("<u2"), STEP_TYPES[head.step_bytes], np.dtype("u1"))
        columns: Any = [data[a:b].view(t) for a, b, t in zip(begins, begins[1:], types, strict=False)]
        long_steps, place, step, high = columns
        return cls(head, long_steps, place, step, high, data[begins[-1] :])

    def __len__(self) -> int:
        return len(self.place)

    @property
    def start_us(self) -> int:
        """Return the time of the first event as the file counted it."""
        return self.head.start_us

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds."""
        return self.head.duration_us

    @property
    def extent(self) -> tuple[int, int]:
        """Return (W, H), largest coordinates plus one."""
        return self.head.extent

    @property
    def sensor_size(self) -> tuple[int, int]:
        """Return (W, H) of the sensor in pixels."""
        return self.head.sensor_size

    @cached_property
    def packed(self) -> PackedEvents:
        """Return the events as words.

        Raises:
            ValueError: times or places that are not what the head says.
        """
        times = self.times_us()
        bits, _ = place_bits(self.extent)
        place = self.place.astype(np.int64)
        if len(self.high):
            place |= self.high.astype(np.int64) << PLACE_BITS
        x, y = place & ((1 << bits) - 1), place >> bits
        if (int(x.max()) + 1, int(y.max()) + 1) != self.extent:
            raise ValueError("places that are not what its head says")
        p = np.unpackbits(self.polarity, count=len(self), bitorder="little")
        return PackedEvents(times << TIME_SHIFT | x << X_SHIFT | y << Y_SHIFT | p, self.start_us, self.extent)

    def times_us(self) -> NDArray[np.int64]:
        """Return the times in microseconds from the first event, [N] int64.

        Raises:
            ValueError: they are not what the head says.
        """
        steps = self.step.astype(np.int64)
        escaped = steps == np.iinfo(self.step.dtype).max
        good = np.count_nonzero(escaped) == len(self.long) and not steps[0]
        if good and len(self.long):
            good = int(self.long.min()) >= 0 and int(self.long.max()) <= LONGEST_US
            steps[escaped] = self.long
        times = np.cumsum(steps)
        if not good or times[-1] != self.duration_us or int(times.min()) < 0:
            raise ValueError("times that are not what its head says")
        return times

    def sha256(self) -> str:
        """Return the hash of the events, that of `PackedEvents`."""
        return self.packed.sha256()

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words: all at once."""
        yield self.packed.words

    def columns(self) -> Iterator[Events]:
        """Yield the events as columns, their times as the file counted them: all at once."""
        yield self.packed.unpack()


def count_into(
    counts: NDArray[Any],
    data: NDArray[np.uint8],
    head: Head,
    edges: tuple[int, int],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    *,
    of_time: bool,
    rest: bool,
    limit: int,
) -> int:
    """Count the events of stored bytes in the cells of frames, as `pipeline.events.framing` does, in one pass.

    Args:
        counts: [T,P,H,W] of an unsigned type.
        data: stored bytes.
        head: theirs.
        edges: where the first bin begins, and the length of a bin: microseconds from the first event, or events.
        tables: see `pipeline.events.framing.cell_tables`, for all that the bits of a place can say.
        of_time: whether the edges are times.
        rest: give the events after the last bin to it.
        limit: of a count.

    Returns:
        The events used.

    Raises:
        ValueError: these are not the bytes of a recording.
    """
    from spikebridge.pipeline.events.loops.compact import count_events

    counts.fill(0)
    used: int = count_events(
        data,
        (HEAD_BYTES, *head.parts),
        head.events,
        place_bits(head.extent),
        *edges,
        of_time,
        rest,
        tables,
        len(counts),
        _units(counts.dtype, limit),
        counts.reshape(-1),
    )
    if used < 0:
        raise ValueError("times that are not what its head says")
    return used


@cache
def _units(dtype: np.dtype[Any], limit: int) -> NDArray[Any]:
    """Return 1 and a limit in a type."""
    return np.array([1, limit], dtype)


def compact(events: CheckedEvents, *, sensor_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the stored bytes of a recording of a sensor of (W, H) pixels, in two passes over its events."""
    long, latest = dict.fromkeys(STEP_TYPES, 0), 0
    for words in events.chunks():
        steps = _steps(words, latest)
        latest = int(words[-1]) >> TIME_SHIFT
        for step_bytes, dtype in STEP_TYPES.items():
            long[step_bytes] += int(np.count_nonzero(steps >= np.iinfo(dtype).max))
    count, extent = len(events), events.extent
    step_bytes = min(STEP_TYPES, key=lambda size: stored_bytes(count, long[size], size, extent))
    data = np.zeros(stored_bytes(count, long[step_bytes], step_bytes, extent), np.uint8)
    head = (VERSION, count, long[step_bytes], step_bytes, events.start_us, events.duration_us, *extent, *sensor_size)
    data[:HEAD_BYTES].view("<i8")[:] = head
    columns = CompactEvents.parse(data)
    escape, at, escaped, latest = np.iinfo(columns.step.dtype).max, 0, 0, 0
    polarity = np.empty(count, np.bool_)
    for words in events.chunks():
        rows = slice(at, at + len(words))
        steps = _steps(words, latest)
        latest = int(words[-1]) >> TIME_SHIFT
        found = steps[steps >= escape]
        columns.long[escaped : escaped + len(found)] = found
        columns.step[rows] = np.minimum(steps, escape)
        place = (words >> X_SHIFT & X_MASK) | (words >> Y_SHIFT & Y_MASK) << place_bits(extent)[0]
        columns.place[rows] = place & 0xFFFF
        if len(columns.high):
            columns.high[rows] = place >> PLACE_BITS
        polarity[rows] = words & 1
        at, escaped = at + len(words), escaped + len(found)
    columns.polarity[:] = np.packbits(polarity, bitorder="little")
    return data


def _steps(words: NDArray[np.int64], latest_us: int) -> NDArray[np.int64]:
    """Return the times between events in microseconds, the first counted from `latest_us`."""
    return np.diff(words >> TIME_SHIFT, prepend=latest_us)
