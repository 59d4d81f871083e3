"""AEDAT4 recordings (`.aedat4`) of iniVation's cameras, through the package `aedat`.

A file is a magic line, a header, packets of events, frames, IMU samples or triggers (each compressed with LZ4 or
Zstandard), and a table of the packets. The decoder says nothing when packets are missing at the end, and a damaged
header makes it end the process; so the container is walked here first, which reads no packet.

Source: https://docs.inivation.com, "AEDAT 4.0".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers.packed import FREE_BYTES, allowed, unpacked_at_most
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts

MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER_BYTES = 2**24
PASSED_OVER = {"frame": "frames", "imus": "samples of the inertial unit", "triggers": "triggers"}
"""What is no event, by the names of the decoder."""
UNKNOWN = -1
"""Position of the packet table in a file whose recorder was stopped before it could write one."""


def read(path: Path) -> Events:
    """Return the events of `decode`, with the counts of what was passed over."""
    return decode(path).annotated()


def decode(path: Path) -> Decoded:
    """Decode all events of a file; frames, IMU samples and triggers are passed over and counted.

    Args:
        path: the file.

    Returns:
        The events in their order; t as stored, microseconds since 1970.

    Raises:
        RecordingError: no AEDAT4 file (`format`), cut off (`truncated`), damaged inside (`damaged`), unpacking to
            far more than its size allows (`too_large`), or with more than one stream of events (`streams`).
    """
    import aedat

    _check_container(path)
    passed_over = dict.fromkeys(PASSED_OVER.values(), 0)
    with _refusing(path):
        decoder = aedat.Decoder(str(path))
        streams = [stream for stream in decoder.id_to_stream().values() if stream["type"] == "events"]
        packets, room = [], allowed(path.stat().st_size)
        for content in decoder:
            for name, what in PASSED_OVER.items():
                if name in content:
                    passed_over[what] += 1 if name == "frame" else len(content[name])
            if "events" not in content:
                continue
            packet = content["events"]
            room -= packet.nbytes
            if room < 0:
                raise _too_large(path)
            packets.append(packet)
    if len(streams) != 1:
        raise RecordingError(
            f"{path.name}: {len(streams)} streams of events; expected 1. Export one camera to a file of its own.",
            reason="streams",
        )
    parts = [np.concatenate([packet[name] for packet in packets]) if packets else np.empty(0) for name in "txy"]
    polarity = np.concatenate([packet["on"] for packet in packets]) if packets else np.empty(0)
    events = Events(
        parts[0].astype(np.int64), parts[1].astype(np.int32), parts[2].astype(np.int32), polarity.astype(np.uint8)
    )
    return Decoded(events, Facts("AEDAT 4", (streams[0]["width"], streams[0]["height"]), passed_over))


def sensor_size(path: Path) -> tuple[int, int]:
    """(W, H) of the first stream of events.

    Raises:
        RecordingError: as `read`.
    """
    import aedat

    _check_container(path)
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
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecordingError):
        raise
    except BaseException as error:
        raise _damaged(path, str(error)) from error


def _check_container(path: Path) -> None:
    """Walk over the packets without unpacking them.

    Raises:
        RecordingError: see `read`.
    """
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
        while (position := file.tell()) < end:
            head = file.read(8)
            length = struct.unpack("<iI", head)[1] if len(head) == 8 else end
            if position + 8 + length > end:
                raise _truncated(path, f"the packet at byte {position} is not complete")
            if unpacked_at_most(file.read(length)) > FREE_BYTES:
                raise _too_large(path)


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
