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

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.compact_layout import HEAD, HEAD_BYTES, VERSION, WRONG, lay_out
from spikebridge.pipeline.events.packing import (
    KEPT_EVENTS,
    LONGEST_US,
    TIME_SHIFT,
    X_MASK,
    X_SHIFT,
    Y_MASK,
    Y_SHIFT,
    CheckedEvents,
    LongEvents,
    PackedEvents,
)

_HEAD = struct.Struct(f"<{HEAD}q")
STEP_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2")}
"""Types of a step by their bytes."""
PLACE_BITS, HIGH_BITS = 16, 8
"""Of a place, and of those above in a column of their own."""
PIECE = 2**22
"""Events of a long recording that are made words at once, a multiple of 8: 34 MB of them."""


def place_bits(extent: tuple[int, int]) -> tuple[int, int]:
    """Return the bits that x and y take in a place."""
    return (int(extent[0]) - 1).bit_length(), (int(extent[1]) - 1).bit_length()  # without numba they are numpy's


def stored_extent(bits: tuple[int, int]) -> tuple[int, int]:
    """Return one more than the largest x and y that a stored place can say, whatever stands there."""
    whole = PLACE_BITS + (HIGH_BITS if sum(bits) > PLACE_BITS else 0)
    return 1 << bits[0], 1 << whole - bits[0]


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
    bits: tuple[int, int]
    """Of x and of y in a place."""
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
        head = _HEAD.unpack_from(data.data)
        extent, sensor_size = head[6:8], head[8:]
        bits = place_bits(extent)
        parts = lay_out(head, len(data), sum(bits) > PLACE_BITS)
        if not parts[0]:
            raise ValueError(WRONG[parts[1]].format(size=len(data), events=head[1]))
        version, count, long, step_bytes, start_us, duration_us = head[:6]
        return cls(version, count, long, step_bytes, start_us, duration_us, extent, sensor_size, bits, parts)


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
    def packed(self) -> CheckedEvents:
        """Return the events as words; those of more than `KEPT_EVENTS` are made piece by piece, at every pass.

        Raises:
            ValueError: times or places that are not what the head says.
        """
        digest, reached, words = hashlib.sha256(), (0, 0), np.empty(0, np.int64)
        for words in self._pieces():
            x, y = words >> X_SHIFT & X_MASK, words >> Y_SHIFT & Y_MASK
            reached = (max(reached[0], int(x.max()) + 1), max(reached[1], int(y.max()) + 1))
            if len(words) < len(self):
                digest.update(words.astype("<i8", copy=False).data)
        if reached != self.extent:
            raise ValueError("places that are not what its head says")
        if len(words) == len(self):
            return PackedEvents(words, self.start_us, self.extent)
        return LongEvents(self._pieces, len(self), self.duration_us, digest.hexdigest(), self.start_us, self.extent)

    def _pieces(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words, of more than `KEPT_EVENTS` events some at a time.

        Raises:
            ValueError: times that are not what the head says.
        """
        (bits, _), escape = self.head.bits, np.iinfo(self.step.dtype).max
        latest, escaped, wrong = 0, 0, "times that are not what its head says"
        if (len(self.long) and not 0 <= int(self.long.min()) <= int(self.long.max()) <= LONGEST_US) or self.step[0]:
            raise ValueError(wrong)
        piece = len(self) if len(self) <= KEPT_EVENTS else PIECE
        for begin in range(0, len(self), piece):
            rows = slice(begin, min(begin + piece, len(self)))
            steps = self.step[rows].astype(np.int64)
            long = steps == escape
            found = self.long[escaped : escaped + int(np.count_nonzero(long))]
            escaped += int(np.count_nonzero(long))
            if escaped > len(self.long):
                raise ValueError(wrong)
            steps[long] = found
            times = np.cumsum(steps) + latest
            latest = int(times[-1])
            last = rows.stop == len(self)
            if int(times.min()) < 0 or (last and (latest, escaped) != (self.duration_us, len(self.long))):
                raise ValueError(wrong)
            place = self.place[rows].astype(np.int64)
            if len(self.high):
                place |= self.high[rows].astype(np.int64) << PLACE_BITS
            x, y = place & ((1 << bits) - 1), place >> bits
            p = np.unpackbits(self.polarity[begin // 8 : -(-rows.stop // 8)], count=len(steps), bitorder="little")
            yield times << TIME_SHIFT | x << X_SHIFT | y << Y_SHIFT | p

    def sha256(self) -> str:
        """Return the hash of the events, that of `PackedEvents`."""
        return self.packed.sha256()

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the words, see `packed`."""
        return self.packed.chunks()

    def columns(self) -> Iterator[Events]:
        """Yield the events as columns, their times as the file counted them, see `packed`."""
        return self.packed.columns()


@dataclass(frozen=True)
class Counter:
    """Counts the events of stored bytes in the cells of frames, as `pipeline.events.framing` does, in one pass."""

    rule: NDArray[np.int64]
    """What `of` is given, see `pipeline.events.loops.compact.count_stored`."""
    columns: NDArray[np.uint32]
    """Tables of `pipeline.events.framing.cell_tables`, for all that the bits of a place can say."""
    rows: NDArray[np.uint32]

    @classmethod
    def of(
        cls,
        head: Head,
        tables: tuple[NDArray[np.uint32], NDArray[np.uint32]],
        *,
        same_extent: bool,
        bins: tuple[int, int, bool],
        rest: bool,
        limit: int,
    ) -> Counter:
        """Return what counts a recording, and all whose places have the same bits, on a sensor of the same size.

        Args:
            head: of the recording.
            tables: for its bits.
            same_extent: only those that have its extent, too.
            bins: what follows the head in the arguments of `compact_layout.first_bin`, but for T.
            rest: give the events after the last bin to it.
            limit: of a count.
        """
        most = head.extent if same_extent else tuple(1 << bits for bits in head.bits)
        least = (side - 1 if same_extent else side >> 1 for side in most)
        wide = sum(head.bits) > PLACE_BITS
        rule = [*least, *most, *head.sensor_size, head.bits[0], wide, *bins, rest, limit]
        return cls(np.array(rule, np.int64), *tables)

    def count_into(self, counts: NDArray[Any], data: NDArray[np.uint8]) -> int:
        """Write counts [T,P,H,W], of an unsigned type, of stored bytes.

        Returns:
            The events used; OTHER where extent and sensor are not those that this counts; REFUSED where the head, the
            bins or the long steps cannot be.
        """
        from spikebridge.pipeline.events.loops.compact import count_stored

        used: int = count_stored(data, self.rule, self.columns, self.rows, counts)
        return used


def compact(events: CheckedEvents, *, sensor_size: tuple[int, int], folder: Path | None = None) -> NDArray[np.uint8]:
    """Return the stored bytes of a recording, in two passes over its events.

    Args:
        events: the recording.
        sensor_size: (W, H) in pixels.
        folder: where those of a recording that was too long for memory lie, in a nameless file; None for nowhere.
    """
    long, latest = dict.fromkeys(STEP_TYPES, 0), 0
    for words in events.chunks():
        steps = _steps(words, latest)
        latest = int(words[-1]) >> TIME_SHIFT
        for step_bytes, dtype in STEP_TYPES.items():
            long[step_bytes] += int(np.count_nonzero(steps >= np.iinfo(dtype).max))
    count, extent = len(events), events.extent
    step_bytes = min(STEP_TYPES, key=lambda size: stored_bytes(count, long[size], size, extent))
    size = stored_bytes(count, long[step_bytes], step_bytes, extent)
    if folder is not None and isinstance(events, LongEvents):
        with tempfile.TemporaryFile(dir=folder) as file:
            data: NDArray[np.uint8] = np.asarray(np.memmap(file, np.uint8, "w+", shape=(size,)))
    else:
        data = np.zeros(size, np.uint8)
    head = (VERSION, count, long[step_bytes], step_bytes, events.start_us, events.duration_us, *extent, *sensor_size)
    data[:HEAD_BYTES].view("<i8")[:] = head
    columns = CompactEvents.parse(data)
    escape, at, escaped, latest = np.iinfo(columns.step.dtype).max, 0, 0, 0
    polarity = np.empty(0, np.bool_)  # of the events whose bits do not fill a byte
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
        polarity = np.concatenate([polarity, words & 1 > 0])
        packed = np.packbits(polarity, bitorder="little")  # the last byte again with the next events
        first = at // 8
        columns.polarity[first : first + len(packed)] = packed
        at, escaped = at + len(words), escaped + len(found)
        polarity = polarity[len(polarity) - at % 8 :]
    return data


def _steps(words: NDArray[np.int64], latest_us: int) -> NDArray[np.int64]:
    """Return the times between events in microseconds, the first counted from `latest_us`."""
    return np.diff(words >> TIME_SHIFT, prepend=latest_us)
