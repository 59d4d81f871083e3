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

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat.cameras import sensor_of
from spikebridge.pipeline.formats.decoded import Decoded, Facts

MAGIC = b"#!AER-DAT3."
END_OF_HEADER = re.compile(rb"#!END-HEADER[ \t]*\r?\n")
PACKET_HEADER = struct.Struct("<hhiiiiii")
POLARITY, POLARITY_BYTES = 1, 8
KINDS = {0: "special events", 2: "frames", 3: "samples of the inertial unit", 4: "samples of the inertial unit"}
"""What other packets hold, by their kind."""
MOST_HEADER_BYTES = 2**20


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode the bytes of one file; only valid polarity events are events, all else is counted.

    Args:
        data: the whole file.
        source: file name for messages.

    Returns:
        The events in the order of the file, t in microseconds with the overflow of the packet's header added.

    Raises:
        RecordingError: no end of the header, or a packet that cannot be one (`damaged`), packets that are packed in a
            way that is not read (`format`), the last packet cut (`truncated`), or several cameras (`streams`).
    """
    end = END_OF_HEADER.search(data[:MOST_HEADER_BYTES])
    if end is None:
        raise RecordingError(
            f"{source}: AEDAT 3 without the line #!END-HEADER; its header is damaged. Copy it again.", reason="damaged"
        )
    header = data[: end.start()]
    packing = re.search(rb"#Format:\s*([^\r\n]*)", header)
    if packing and packing[1].strip() != b"RAW":
        raise RecordingError(
            f"{source}: AEDAT 3 whose packets are {packing[1].decode('latin-1')}; only RAW ones are read. Convert it "
            "to AEDAT 4 (.aedat4, with dv-processing).",
            reason="format",
        )
    words, times, passed_over = [], [], dict[str, int]()
    sources, position = set[int](), end.end()
    while position < len(data):
        if position + PACKET_HEADER.size > len(data):
            raise _truncated(source, position, PACKET_HEADER.size, len(data))
        kind, camera, size, _, overflow, capacity, number, _ = PACKET_HEADER.unpack_from(data, position)
        if min(kind, size, overflow, capacity, number) < 0 or number > capacity:
            raise RecordingError(
                f"{source}: the packet at byte {position} says kind {kind}, {size} bytes an event, {number} of "
                f"{capacity} events; no packet is like that. The file is damaged. Copy it again.",
                reason="damaged",
            )
        start, length = position + PACKET_HEADER.size, capacity * size
        if start + length > len(data):
            raise _truncated(source, position, PACKET_HEADER.size + length, len(data))
        if kind == POLARITY:
            if size != POLARITY_BYTES:
                raise RecordingError(
                    f"{source}: polarity events of {size} bytes at byte {position}; expected 8. The file is damaged. "
                    "Copy it again.",
                    reason="damaged",
                )
            raw = np.frombuffer(data, "<u4", count=2 * number, offset=start).reshape(-1, 2)  # [N,2]
            words.append(raw[:, 0])
            times.append((raw[:, 1] & 0x7FFFFFFF).astype(np.int64) | overflow << 31)
            sources.add(camera)
        else:
            what = KINDS.get(kind, f"events of kind {kind}")
            passed_over[what] = passed_over.get(what, 0) + number
        position = start + length
    if len(sources) > 1:
        raise RecordingError(
            f"{source}: events of {len(sources)} cameras; expected 1. Export one camera to a file of its own.",
            reason="streams",
        )
    word = np.concatenate(words) if words else np.empty(0, np.uint32)
    t = np.concatenate(times) if times else np.empty(0, np.int64)
    valid = word & 1 != 0
    passed_over["events marked invalid"] = int(len(word) - valid.sum())
    word, t = word[valid], t[valid]
    x, y = (word >> 17).astype(np.int32), (word >> 2 & 0x7FFF).astype(np.int32)
    names = {int(number): name.decode("latin-1") for number, name in re.findall(rb"#Source (\d+): *([^\r\n]*)", header)}
    name = (names[min(names)] if len(names) == 1 else names.get(min(sources, default=0), "")).strip()
    events = Events(t, x, y, (word >> 1 & 1).astype(np.uint8))
    return Decoded(events, Facts(f"AEDAT 3.1{', ' + name if name else ''}", sensor_of(name), passed_over))


def sensor_size(header: bytes) -> tuple[int, int] | None:
    """Return (W, H) of the camera that the first bytes of a file name, or None."""
    found = re.search(rb"#Source \d+: *([^\r\n]*)", header)
    return sensor_of(found[1].decode("latin-1")) if found else None


def _truncated(source: str, position: int, wanted: int, size: int) -> RecordingError:
    return RecordingError(
        f"{source}: truncated, the packet at byte {position} needs {wanted} bytes and {size - position} are left. Copy "
        "it again.",
        reason="truncated",
    )
