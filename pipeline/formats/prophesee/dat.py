"""DAT recordings (`.dat`) in both layouts: text lines that begin with `%`, two bytes of type and size, 8-byte records.

A record is two little-endian words: the time stamp in microseconds, and the event. Layout 2 (Prophesee CD): x in bits
0-13, y in bits 14-27, polarity in bits 28-31. Layout 1 (ATIS): x in bits 0-8, y in bits 9-16, polarity in bit 17. The
header's `% Version` says which was meant, but files of layout 2 go by version 1, too, so each is held against the
events: bits that a layout does not use must be 0, and coordinates must lie on the sensor that the header states.

Source: Prophesee, "DAT file format", docs.prophesee.ai; Posch et al. 2011 for the ATIS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events, StartOver
from spikebridge.pipeline.events.packing import Unpacked, Words
from spikebridge.pipeline.formats.clock import Clock
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.seek import find_rows
from spikebridge.pipeline.formats.source import Source

RECORD_BYTES = 8
TYPES = {0x00: "2D events", 0x0C: "CD events"}
ATIS_SIZE = (304, 240)
LARGEST_CD = (2048, 2048)
"""Sensor beyond which no camera of layout 2 goes, in pixels."""
MAX_HEADER_LINES, MOST_HEADER_BYTES = 1000, 2**20


def encode(events: Events, *, sensor_size: tuple[int, int]) -> bytes:
    """Encode events, whose times are from 0 on and fit into 32 bits, in layout 2, below a header that states (W, H)."""
    head = f"% Data file containing CD events.\n% Version 2\n% Height {sensor_size[1]}\n% Width {sensor_size[0]}\n"
    records = np.empty((len(events), 2), "<u4")
    records[:, 0] = events.t
    x, y, p = (column.astype(np.uint32) for column in (events.x, events.y, events.p))
    records[:, 1] = x | y << 14 | p << 28
    return head.encode() + bytes([0x0C, RECORD_BYTES]) + records.tobytes()


def decode(data: bytes, *, source: str, sensor_size: tuple[int, int] | None = None) -> Decoded:
    """Decode all events of a file, `data`, at once; see `stream`."""
    return stream(Source.of_bytes(data, source), sensor_size=sensor_size).decoded()


def stream(source: Source, *, sensor_size: tuple[int, int] | None = None) -> Stream:
    """Return the events of a file, t as stored; a clock of 32 bits that wraps once is unrolled.

    The layout is decided by all events: with a header of version 2 or later in the first pass, which starts over where
    it turns out otherwise, else before it. `sensor_size` is (W, H) of the sensor where it is known and the header does
    not state it.

    Raises:
        RecordingError: no bytes (`empty`), no header or events of another kind (`format`), a record that is cut
            (`truncated`), or events that fit neither layout (`damaged`) or both (`format`).
    """
    if not source.size:
        raise RecordingError(f"{source.name}: 0 bytes; expected a DAT file. Copy the file again.", reason="empty")
    head = source.read(0, MOST_HEADER_BYTES)
    text, start = _header(head, source.name)
    if start + 2 > source.size:
        raise RecordingError(f"{source.name}: truncated, it ends in its header. Copy it again.", reason="truncated")
    kind, size = head[start : start + 2]
    if kind not in TYPES or size != RECORD_BYTES:
        raise RecordingError(
            f"{source.name}: DAT records of type {kind:#04x} and {size} bytes; only events (type 0x00 or 0x0c, 8 "
            "bytes) are read. Is this a file of triggers?",
            reason="format",
        )
    start += 2
    if (source.size - start) % RECORD_BYTES:
        raise RecordingError(
            f"{source.name}: {source.size - start} bytes of events, no multiple of 8; the file is truncated. Copy it "
            "again.",
            reason="truncated",
        )
    stated, found = _stated_size(text) or sensor_size, re.search(r"^Version +(\d+)", text, re.M | re.I)
    version = int(found[1]) if found else None
    likely = (source.size - start) // RECORD_BYTES
    settle = cache(lambda: _survey(source, start, version, stated))
    settled, packable = version is None or version < 2, True
    if settled:
        settle()

    def refuse() -> NoReturn:
        nonlocal settled, packable
        settled, packable = True, False  # the next pass says what it is
        raise StartOver

    def passes(parts: Sequence[tuple[int, int]] = ((0, likely),), *, packed: bool = False) -> Pass:
        from spikebridge.pipeline.formats.prophesee import dat_kernel as kernel

        nonlocal settled
        if settled:
            parts = ((0, likely),)
        layout, choices, clock = settle() if settled else (2, (), Clock())
        facts = Facts(f"DAT, layout {layout}", stated, choices=choices)
        if packed and packable and layout == 2 and clock.wrap is None:
            yield from _packed(source, start, stated or LARGEST_CD, refuse)
            return facts
        room, first, latest = Events.room(0), 0, 0
        edges = ((start + RECORD_BYTES * begin, start + RECORD_BYTES * end) for begin, end in parts if begin < end)
        for words in chain.from_iterable(source.blocks(a, "<u4", together=2, stop=b) for a, b in edges):
            if len(words) > 2 * len(room):
                room = Events.room(len(words) // 2)
            events = room.part(slice(kernel.decode(words, layout, *room.columns)))
            if not settled:
                if not kernel.fits(*events.columns, latest, *(stated or LARGEST_CD)):
                    settled = True
                    raise StartOver
                latest = int(events.t[-1])
            clock.unwrap(events.t, first)
            first += len(events)
            yield events
        return replace(facts, not_read=likely - first)

    def window(window_us: tuple[int, ...]) -> Stream | None:
        def time_at(record: int) -> int:
            return int.from_bytes(source.read(start + RECORD_BYTES * record, 4), "little")

        rows = find_rows(time_at, 0 if settled or source.packed else likely, window_us)
        return Stream(partial(passes, ((0, 1), (max(rows[0], 1), rows[1])))) if rows else None

    return Stream(passes, likely=likely, window=window, packed=partial(passes, packed=True))


def sensor_size(data: bytes, source: str) -> tuple[int, int] | None:
    """Return (W, H) as the header states it, or None.

    Raises:
        RecordingError: no header (`format`).
    """
    return _stated_size(_header(data, source)[0])


def _header(data: bytes, source: str) -> tuple[str, int]:
    """The text of the lines that begin with `%`, and where they end."""
    start, lines = 0, list[str]()
    while data[start : start + 1] == b"%" and len(lines) < MAX_HEADER_LINES:
        end = data.find(b"\n", start)
        if end < 0:
            break
        lines.append(data[start:end].decode("latin-1").strip("% \r"))
        start = end + 1
    if not lines:
        raise RecordingError(
            f"{source}: begins with {data[:8].hex()}; expected a DAT file, whose first lines begin with %. Is this the "
            "right file?",
            reason="format",
        )
    return "\n".join(lines), start


def _stated_size(text: str) -> tuple[int, int] | None:
    width, height = (re.search(rf"^{name}:? +(\d{{1,5}})", text, re.M | re.I) for name in ("Width", "Height"))
    return (int(width[1]), int(height[1])) if width and height else None


def _survey(
    source: Source, start: int, version: int | None, stated: tuple[int, int] | None
) -> tuple[int, tuple[str, ...], Clock]:
    """Return the layout of all records, what was decided, and the clock.

    Raises:
        RecordingError: they fit neither layout (`damaged`) or both (`format`).
    """
    from spikebridge.pipeline.formats.prophesee import dat_kernel as kernel

    found, clock = np.zeros(6, np.uint32), Clock()
    for words in source.blocks(start, "<u4", together=2):
        kernel.survey(words, found)
        clock.add(words[::2])
    layout, choices = _layout(found, version, stated, source, start)
    if clock.wrap is not None:
        choices += ("the clock wrapped once: undone",)
    return layout, choices, clock


def _packed(
    source: Source, start: int, size: tuple[int, int], refuse: Callable[[], NoReturn]
) -> Generator[Unpacked, None, None]:
    """Yield the events of records of layout 2; refuse times that go back, and what words or (W, H) have no room for."""
    from spikebridge.pipeline.formats.prophesee import dat_kernel as kernel

    latest = 0

    def pack(words: NDArray[np.int64], origin_us: int) -> Words:
        nonlocal latest
        fits = kernel.pack(records, words, origin_us)
        chunk = Words.of(words, origin_us)
        fits &= chunk.ordered and chunk.first_us >= latest
        if not fits or chunk.extent[0] > size[0] or chunk.extent[1] > size[1]:
            refuse()
        latest = chunk.last_us
        return chunk

    for records in filter(len, source.blocks(start, "<u8")):
        yield Unpacked(len(records), int(records[0]) & 0xFFFFFFFF, pack)


def _fits(found: NDArray[np.uint32], layout: int, stated: tuple[int, int] | None) -> bool:
    """Return whether all events are such as a camera of the layout gives."""
    used, x1, y1, x2, y2, p2 = found.tolist()
    width, height = stated or (ATIS_SIZE if layout == 1 else LARGEST_CD)
    if layout == 1:
        return not used >> 18 and x1 < width and y1 < height
    return p2 <= 1 and x2 < width and y2 < height


def _layout(
    found: NDArray[np.uint32], version: int | None, stated: tuple[int, int] | None, source: Source, start: int
) -> tuple[int, tuple[str, ...]]:
    """Return which layout the events have, and how that was decided."""
    count = (source.size - start) // RECORD_BYTES
    fitting = [layout for layout in (1, 2) if _fits(found, layout, stated)]
    if version is not None and version >= 2 and 2 in fitting:
        return 2, ()
    if not count:
        return (2 if version is None else min(version, 2)), ()
    if len(fitting) == 1:
        said = f"version {version}" if version is not None else "no version"
        meant = None if version is None else 1 if version < 2 else 2
        return fitting[0], () if meant == fitting[0] else (f"{said} in the header: layout {fitting[0]} by the events",)
    if fitting:
        said = "no version" if version is None else f"version {version}"
        raise RecordingError(
            f"{source.name}: both layouts of DAT fit its {count:,} events, and {said} in the header does not tell "
            "them apart. Write `% Version 2` into its header for Prophesee's layout, or "
            "save its columns t, x, y, p as .npz.",
            reason="format",
        )
    size = f"{stated[0]}x{stated[1]}" if stated else "any"
    raise RecordingError(
        f"{source}: its events fit neither layout of DAT on a sensor of {size} pixels; the file is damaged or of "
        "another kind. Copy it again.",
        reason="damaged",
    )
