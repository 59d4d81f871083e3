"""AEDAT4 recordings (`.aedat4`) of iniVation's cameras.

A file is a magic line, a header, packets of events, frames, IMU samples or triggers (each compressed with LZ4 or
Zstandard), and a table of the packets. Packets in LZ4, as recorders write them, are unpacked here; all others, and the
header, through the package `aedat`. That says nothing when packets are missing at the end, and a damaged header makes
it end the process; so the container is walked here first, which reads no packet.

Source: https://docs.inivation.com, "AEDAT 4.0".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers.lz4 import HEAD_BYTES, is_plain, unpack
from spikebridge.pipeline.containers.packed import FREE_BYTES, allowed, unpacked_at_most
from spikebridge.pipeline.events.arrays import Events, StartOver
from spikebridge.pipeline.events.packing import Chunk, chunk_of, make_room
from spikebridge.pipeline.formats import seek
from spikebridge.pipeline.formats.aedat.aedat4_table import Entry, Packet, read_table
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream

NAME = "AEDAT 4"
MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER_BYTES = 2**24
PASSED_OVER = {"frame": "frames", "imus": "samples of the inertial unit", "triggers": "triggers"}
"""What is no event, by the names of the decoder."""
COLUMNS = {"t": np.int64, "x": np.int32, "y": np.int32, "on": np.uint8}
"""Names of the decoder, and the types of `Events`."""
IDENTIFIERS = {"events": b"EVTS", "frame": b"FRME", "imus": b"IMUS", "triggers": b"TRIG"}
"""What the content of a packet of a kind begins with, behind 8 bytes."""
EVENT_BYTES = 16
PACKET_HEADER = struct.Struct("<iI")
"""Stream, and length of what follows."""
UNKNOWN = -1
"""Position of the packet table in a file whose recorder was stopped before it could write one."""


Content = tuple[str, Chunk | int | None]
"""Kind of a packet, and its events, or how many of another kind it holds."""


def read(path: Path) -> Events:
    """Return the events of `decode`, with the counts of what was passed over."""
    return decode(path).annotated()


def decode(path: Path) -> Decoded:
    """Decode all events of a file at once; see `stream`."""
    return stream(path).decoded()


def stream(path: Path) -> Stream:
    """Return the events of a file in their order; t as stored, microseconds since 1970.

    Frames, IMU samples and triggers are passed over and counted.

    Raises:
        RecordingError: no AEDAT4 file (`format`), cut off (`truncated`), damaged inside (`damaged`), unpacking to
            far more than its size allows (`too_large`), or with more than one stream of events (`streams`).
    """
    packets, table, plain = _walk(path)
    packable = True

    def passes(*, packed: bool = False) -> Pass:
        nonlocal packable
        import aedat

        passed_over = dict.fromkeys(PASSED_OVER.values(), 0)
        with _refusing(path):
            decoder = aedat.Decoder(str(path))
            kinds, size = _streams(decoder, path)
            chunks = _unpack(path, packets, kinds, packed=packed and packable) if plain else _by_package(decoder)
            room = allowed(path.stat().st_size)
            for kind, content in chunks:
                if isinstance(content, int):
                    passed_over[PASSED_OVER[kind]] += content
                    continue
                if content is None:  # events that words have no room for
                    packable = False
                    raise StartOver
                room -= EVENT_BYTES * len(content)
                if room < 0:
                    raise _too_large(path)
                yield content
        return Facts(NAME, size, passed_over)

    def window(window_us: tuple[int, ...]) -> Stream | None:
        entries = read_table(path, table, packets) if plain and table != UNKNOWN else None
        return _within(path, dict(zip(packets, entries, strict=True)), window_us, passes) if entries else None

    return Stream(passes, window=window, packed=partial(passes, packed=True))


def _within(
    path: Path, entries: Mapping[Packet, Entry], window_us: tuple[int, ...], all_of_it: Callable[[], Pass]
) -> Stream | None:
    """Return the first packet of events and those that reach into a time window, by the table of the file.

    None where there are few events, or their packets overlap. A packet of which the table says what is not true makes
    the pass start over and read all.
    """
    import aedat

    with _refusing(path):
        kinds, size = _streams(aedat.Decoder(str(path)), path)
    full = [(packet, e) for packet, e in entries.items() if kinds[packet.stream] == "events" and e.items]
    total = sum(entry.items for _, entry in full)
    times = [time for _, entry in full for time in (entry.first_us, entry.last_us)]
    if total < seek.SEEKS_FROM or any(later < earlier for earlier, later in pairwise(times)):
        return None
    start, stop = (times[0] + edge for edge in window_us)
    chosen = [(packet, e) for packet, e in full if e.first_us < stop and e.last_us >= start]
    chosen = chosen if chosen[:1] == full[:1] else [full[0], *chosen]
    passed_over = dict.fromkeys(PASSED_OVER.values(), 0)
    for packet, entry in entries.items():
        if (kind := kinds[packet.stream]) in PASSED_OVER:
            passed_over[PASSED_OVER[kind]] += 1 if kind == "frame" else entry.items
    believed = True

    def passes() -> Pass:
        nonlocal believed
        if not believed:
            return (yield from all_of_it())
        with _refusing(path):
            contents = _unpack(path, [packet for packet, _ in chosen], kinds, packed=False)
            for (_, entry), (_, events) in zip(chosen, contents, strict=True):
                assert isinstance(events, Events)
                ends = (int(events.t[0]), int(events.t[-1])) if len(events) else ()
                if (len(events), *ends) != entry:
                    believed = False
                    raise StartOver
                yield events
        return Facts(NAME, size, passed_over, not_read=total - sum(entry.items for _, entry in chosen))

    return Stream(passes)


def _streams(decoder: Any, path: Path) -> tuple[dict[int, str], tuple[int, int]]:
    """Return the kind of each stream of a file, and (W, H) of its camera.

    Raises:
        RecordingError: not one stream of events (`streams`).
    """
    streams = decoder.id_to_stream()
    events = [stream for stream in streams.values() if stream["type"] == "events"]
    if len(events) != 1:
        kinds = sorted({stream["type"] for stream in streams.values()})
        advice = (
            "Export one camera to a file of its own." if events else f"Of other kinds: {', '.join(kinds) or 'none'}."
        )
        raise RecordingError(f"{path.name}: {len(events)} streams of events; expected 1. {advice}", reason="streams")
    return {number: stream["type"] for number, stream in streams.items()}, (events[0]["width"], events[0]["height"])


def _by_package(decoder: Any) -> Iterator[Content]:
    """Yield the events of each packet, and of other packets their kind and number."""
    for content in decoder:
        for kind in PASSED_OVER:
            if kind in content:
                yield kind, 1 if kind == "frame" else len(content[kind])
        if "events" in content:
            packet = content["events"]
            t, x, y, p = (packet[name].astype(to) for name, to in COLUMNS.items())
            yield "events", Events(t, x, y, p)


def _unpack(path: Path, packets: Sequence[Packet], kinds: Mapping[int, str], *, packed: bool) -> Iterator[Content]:
    """Yield the same as `_by_package`, of packets that are plain LZ4: faster; `packed`, or None if that cannot be."""
    from spikebridge.pipeline.formats.aedat import aedat4_kernel as kernel

    room, sink, origin = np.empty(0, np.uint8), make_room(0, packed=packed), None
    with open(path, "rb") as file:
        for packet in packets:
            kind = kinds[packet.stream]
            file.seek(packet.start)
            frame = file.read(packet.length)
            if unpacked_at_most(frame) > FREE_BYTES:
                raise _too_large(path)
            content, room = unpack(frame, room)
            if bytes(content[8:12]) != IDENTIFIERS[kind]:
                raise ValueError(f"a packet of {bytes(content[8:12])!r}, not {IDENTIFIERS[kind]!r}")
            start, count = (0, 1) if kind == "frame" else _vector(content)
            if kind != "events":
                yield kind, count
                continue
            if start + EVENT_BYTES * count > len(content):
                raise ValueError(f"a packet says {count} events and is shorter")
            if count > len(sink[0]):
                sink = make_room(count, packed=packed)
            data = content[start : start + EVENT_BYTES * count]
            if data.ctypes.data % 8:
                data = data.copy()
            events = data.view("<i8")
            if not packed:
                kernel.split(events, *sink)
            elif count:
                origin = int(events[0]) if origin is None else origin
                if not kernel.pack(events, origin, sink[0]):
                    yield kind, None
            yield kind, chunk_of(sink, count, origin_us=origin or 0)


def _vector(content: NDArray[np.uint8]) -> tuple[int, int]:
    """Return where the items of a packet's content begin, and how many they are: a flatbuffer of one vector.

    Raises:
        ValueError, struct.error: it is none.
    """
    data = content.data
    table = 4 + struct.unpack_from("<I", data, 4)[0]
    fields = table - struct.unpack_from("<i", data, table)[0]
    size, _, first = struct.unpack_from("<3H", data, fields) if fields >= 0 else (0, 0, 0)
    if size < 6 or not first:
        return 0, 0
    at = table + first + struct.unpack_from("<I", data, table + first)[0]
    return at + 4, struct.unpack_from("<I", data, at)[0]


def sensor_size(path: Path) -> tuple[int, int]:
    """(W, H) of the first stream of events.

    Raises:
        RecordingError: as `read`.
    """
    import aedat

    _walk(path)
    with _refusing(path):
        streams = aedat.Decoder(str(path)).id_to_stream()
    sizes = [(s["width"], s["height"]) for _, s in sorted(streams.items()) if s["type"] == "events"]
    if not sizes:
        raise RecordingError(f"{path.name}: no stream of events. Is this the right file?", reason="streams")
    return sizes[0]


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn whatever the decoder raises, its panics too, which are no `Exception`, into a `RecordingError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecordingError, StartOver):
        raise
    except BaseException as error:
        raise _damaged(path, str(error)) from error


def _walk(path: Path) -> tuple[list[Packet], int, bool]:
    """Return the packets of a file, where their table lies, and whether all are plain LZ4.

    Those that are not are looked at, but not unpacked.

    Raises:
        RecordingError: see `stream`.
    """
    packets, others = list[Packet](), False
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise RecordingError(
                f"{path.name}: does not begin with {MAGIC.decode().strip()}; expected an AEDAT4 file. Copy it again.",
                reason="format",
            )
        table = _table_position(_header(file, path), path)
        end = size if table == UNKNOWN else table
        if end > size:
            raise _truncated(path, f"its packets should end at byte {end}, but it has {size}")
        position = file.tell()
        while position < end:
            file.seek(position)
            head = file.read(PACKET_HEADER.size + HEAD_BYTES)
            stream, length = PACKET_HEADER.unpack_from(head) if len(head) >= PACKET_HEADER.size else (0, end)
            packets.append(Packet(stream, position + PACKET_HEADER.size, length))
            position = packets[-1].start + length
            if position > end:
                raise _truncated(path, f"the packet at byte {packets[-1].start - PACKET_HEADER.size} is not complete")
            others |= not is_plain(head[PACKET_HEADER.size :])
        for packet in packets if others else ():
            file.seek(packet.start)
            if unpacked_at_most(file.read(packet.length)) > FREE_BYTES:
                raise _too_large(path)
    return packets, table, not others


def _header(file: BinaryIO, path: Path) -> bytes:
    """The header, a flatbuffer with its length before it."""
    head = file.read(4)
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER_BYTES:
        raise _damaged(path, f"a header of {length} bytes")
    header = file.read(length)
    if len(head) < 4 or len(header) < length:
        raise _truncated(path, "its header is not complete")
    return header


def _table_position(header: bytes, path: Path) -> int:
    """Second field of the header; its third, the XML description, is checked to be text."""
    try:
        table = struct.unpack_from("<I", header, 0)[0]
        fields = table - struct.unpack_from("<i", header, table)[0]
        _, position, text = struct.unpack_from("<3H", header, fields + 4)
        start = table + text + struct.unpack_from("<I", header, table + text)[0]
        length = struct.unpack_from("<I", header, start)[0]
        if min(table, fields, start) < 0 or start + 4 + length > len(header):
            raise ValueError("an offset outside the header")
        header[start + 4 : start + 4 + length].decode("ascii")
        return struct.unpack_from("<q", header, table + position)[0] if position else UNKNOWN
    except (struct.error, ValueError) as error:
        raise _damaged(path, f"header: {error}") from error


def _damaged(path: Path, what: str) -> RecordingError:
    return RecordingError(
        f"{path.name}: cannot be decoded ({what}); expected an AEDAT4 file. Copy it again.", reason="damaged"
    )


def _too_large(path: Path) -> RecordingError:
    return RecordingError(
        f"{path.name}: unpacks to far more than a recording of its size. Is the file what it says?", reason="too_large"
    )


def _truncated(path: Path, what: str) -> RecordingError:
    return RecordingError(f"{path.name}: truncated, {what}. Copy it again.", reason="truncated")
