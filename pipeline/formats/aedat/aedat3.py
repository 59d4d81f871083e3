"""AEDAT 3.1 (`.aedat`) of cAER, as in DVS128 Gesture: lines that begin with `#`, then packets of one kind each.

A packet has a header of 28 bytes, little endian: kind and source (16 bits each), bytes of an event, offset of its time
stamp, upper half of the time stamps, capacity, number of events, number of valid events (32 bits each). A polarity
event is a word (bit 0 valid, bit 1 polarity, bits 2-16 y, bits 17-31 x) and a time stamp in microseconds. The origin
is top left.

Source: iniVation, "AEDAT file formats" (3.1).
"""

from __future__ import annotations

import re
import struct
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import StartOver
from spikebridge.pipeline.events.packing import chunk_of, make_room
from spikebridge.pipeline.formats.aedat.cameras import sensor_of
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.source import Source

MAGIC = b"#!AER-DAT3."
END_OF_HEADER = re.compile(rb"#!END-HEADER[ \t]*\r?\n")
PACKET_HEADER = struct.Struct("<hhiiiiii")
POLARITY, POLARITY_BYTES = 1, 8
KINDS = {0: "special events", 2: "frames", 3: "samples of the inertial unit", 4: "samples of the inertial unit"}
"""What other packets hold, by their kind."""
MOST_HEADER_BYTES = 2**20


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode all events of a file, `data`, at once; see `stream`."""
    return stream(Source.of_bytes(data, source)).decoded()


def stream(source: Source) -> Stream:
    """Return the events of a file in its order, t in microseconds with the overflow of the packet's header added.

    Only valid polarity events are events, all else is counted.

    Raises:
        RecordingError: no end of the header (`damaged`), or packets that are packed in a way that is not read
            (`format`); in a pass, a packet that cannot be one (`damaged`), the last packet cut (`truncated`), or
            several cameras (`streams`).
    """
    head = source.read(0, MOST_HEADER_BYTES)
    end = END_OF_HEADER.search(head)
    if end is None:
        raise RecordingError(
            f"{source.name}: AEDAT 3 without the line #!END-HEADER; its header is damaged. Copy it again.",
            reason="damaged",
        )
    header, first = head[: end.start()], end.end()
    packing = re.search(rb"#Format:\s*([^\r\n]*)", header)
    if packing and packing[1].strip() != b"RAW":
        raise RecordingError(
            f"{source.name}: AEDAT 3 whose packets are {packing[1].decode('latin-1')}; only RAW ones are read. Convert "
            "it to AEDAT 4 (.aedat4, with dv-processing).",
            reason="format",
        )

    packable = True

    def passes(*, packed: bool = False) -> Pass:
        nonlocal packable
        from spikebridge.pipeline.formats.aedat import aedat3_kernel as kernel

        packed &= packable
        found, strange = np.zeros(kernel.KIND + kernel.KINDS, np.int64), dict[str, int]()
        found[kernel.CAMERA], found[kernel.SINCE] = -1, -1 if packed else 0
        position, rest, sink = first, np.empty(0, np.uint8), make_room(0, packed=packed)
        for block in source.blocks(first, "u1"):
            data = np.concatenate([rest, block])
            if len(data) // POLARITY_BYTES > len(sink[0]):
                sink = make_room(len(data) // POLARITY_BYTES, packed=packed)
            while True:
                count, used = kernel.decode(data, sink, found)
                if packed and found[kernel.BEYOND]:
                    packable = False  # times or places that no word has room for
                    raise StartOver
                if count:
                    yield chunk_of(sink, int(count), origin_us=int(found[kernel.SINCE]))
                position, data = position + int(used), data[used:]
                if (passed := _check_packet(data, position, source, strange)) is None:
                    break
                position, data = position + passed, data[passed:]
            rest = data
        if len(rest):
            raise _truncated(source.name, position, PACKET_HEADER.size, source.size)
        if found[kernel.SEVERAL]:
            raise RecordingError(
                f"{source.name}: events of several cameras; expected 1. Export one camera to a file of its own.",
                reason="streams",
            )
        passed_over = dict[str, int]()
        for kind, number in enumerate(found[kernel.KIND :].tolist()):
            if number:
                what = KINDS.get(kind, f"events of kind {kind}")
                passed_over[what] = passed_over.get(what, 0) + number
        passed_over["events marked invalid"] = int(found[kernel.INVALID])
        name = _camera(header, int(found[kernel.CAMERA]))
        return Facts(f"AEDAT 3.1{', ' + name if name else ''}", sensor_of(name), passed_over | strange)

    return Stream(passes, likely=source.size // POLARITY_BYTES, packed=partial(passes, packed=True))


def _camera(header: bytes, number: int) -> str:
    """Return the name of the source of a number, or of the only one; empty where the header does not say.

    Behind a program that filtered a recording, lines `#-Source` name the camera that it came from.
    """
    found = re.findall(rb"#(-?)Source (\d+): *([^\r\n]*)", header)
    names = {int(n): name.decode("latin-1").strip() for past, n, name in found if not past}
    before = {name.decode("latin-1").strip() for past, _, name in found if past}
    name = names[min(names)] if len(names) == 1 else names.get(max(0, number), "")
    cameras = [one for one in before if sensor_of(one)]
    return cameras[0] if sensor_of(name) is None and len(cameras) == 1 else name


def _check_packet(data: NDArray[np.uint8], position: int, source: Source, strange: dict[str, int]) -> int | None:
    """Look at the packet before which the compiled loop stopped; return the bytes to pass over, None for more bytes.

    Raises:
        RecordingError: it cannot be a packet (`damaged`), or the file ends within it (`truncated`).
    """
    if len(data) < PACKET_HEADER.size:
        return None
    kind, _, size, _, overflow, capacity, number, _ = PACKET_HEADER.unpack_from(data.data)
    if min(kind, size, overflow, capacity, number) < 0 or number > capacity:
        raise RecordingError(
            f"{source.name}: the packet at byte {position} says kind {kind}, {size} bytes an event, {number} of "
            f"{capacity} events; no packet is like that. The file is damaged. Copy it again.",
            reason="damaged",
        )
    length = PACKET_HEADER.size + capacity * size
    if position + length > source.size:
        raise _truncated(source.name, position, length, source.size)
    if kind == POLARITY and size != POLARITY_BYTES:
        raise RecordingError(
            f"{source.name}: polarity events of {size} bytes at byte {position}; expected 8. The file is damaged. Copy "
            "it again.",
            reason="damaged",
        )
    if length > len(data):
        return None
    what = f"events of kind {kind}"  # a high one, which the compiled loop does not count
    strange[what] = strange.get(what, 0) + number
    return length


def sensor_size(source: Source) -> tuple[int, int] | None:
    """Return (W, H) of the camera of a file's first events, or None where the header does not name it.

    Of the packets no more is read than their headers, up to the first of polarity events.
    """
    head = source.read(0, MOST_HEADER_BYTES)
    end = END_OF_HEADER.search(head)
    if end is None:
        return None
    number = -1
    with source.open() as file:
        file.seek(end.end())
        while len(packet := file.read(PACKET_HEADER.size)) == PACKET_HEADER.size:
            kind, camera, size, _, _, capacity, events, _ = PACKET_HEADER.unpack(packet)
            if min(size, capacity) < 0 or (kind == POLARITY and events):
                number = camera
                break
            file.seek(capacity * size, 1)
    return sensor_of(_camera(head[: end.start()], number))


def _truncated(source: str, position: int, wanted: int, size: int) -> RecordingError:
    return RecordingError(
        f"{source}: truncated, the packet at byte {position} needs {wanted} bytes and {size - position} are left. Copy "
        "it again.",
        reason="truncated",
    )
