"""The table at the end of an AEDAT4 file: how many items each packet holds, and from when to when.

A flatbuffer in LZ4 of the identifier `FTAB`: a vector of tables with the position of a packet's content, its stream and
length, the number of its items, and the times of the first and the last.

Source: https://docs.inivation.com, "AEDAT 4.0".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikebridge.pipeline.containers.lz4 import is_plain, unpack
from spikebridge.pipeline.containers.packed import FREE_BYTES, unpacked_at_most

IDENTIFIER = b"FTAB"


class Packet(NamedTuple):
    """Where a packet lies in its file."""

    stream: int
    start: int
    length: int


class Entry(NamedTuple):
    """What the table says of a packet."""

    items: int
    first_us: int
    last_us: int


def read_table(path: Path, position: int, packets: Sequence[Packet]) -> list[Entry] | None:
    """Return what the table at a position says of each packet; None where it is not of these packets, or unreadable."""
    with open(path, "rb") as file:
        file.seek(position)
        packed = file.read()
    try:
        if not is_plain(packed) or unpacked_at_most(packed) > FREE_BYTES:
            return None
        data = unpack(packed, np.empty(0, np.uint8))[0].tobytes()
        if data[8:12] != IDENTIFIER:
            return None
        root = 4 + struct.unpack_from("<I", data, 4)[0]
        vector = root + _places(data, root)[0]
        vector += struct.unpack_from("<I", data, vector)[0]
        if struct.unpack_from("<I", data, vector)[0] != len(packets):
            return None
        entries = []
        for at, packet in zip(range(vector + 4, vector + 4 + 4 * len(packets), 4), packets, strict=True):
            table = at + struct.unpack_from("<I", data, at)[0]
            places = _places(data, table)
            start, items, first, last = (
                struct.unpack_from("<q", data, table + place)[0] if place else 0  # a number that is 0 is left out
                for place in (places[0], *places[2:5])
            )
            if (start, *struct.unpack_from("<iI", data, table + places[1])) != (
                packet.start,
                packet.stream,
                packet.length,
            ):
                return None
            entries.append(Entry(items, first, last))
    except (ValueError, struct.error):
        return None
    return entries


def _places(data: bytes, table: int) -> tuple[int, ...]:
    """Return where the first five fields of a table lie behind its beginning; 0 for one that is left out.

    Raises:
        struct.error: beyond the data.
    """
    fields = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, max(0, fields))[0]
    places = struct.unpack_from(f"<{max(0, min(5, size // 2 - 2))}H", data, fields + 4)
    return (*places, *[0] * (5 - len(places)))
