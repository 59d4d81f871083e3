"""One recording in the formats of cameras, written array-wise: millions of events in seconds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from recordings import random_events

from spikebridge.pipeline.events.arrays import Events

SENSOR = (640, 480)
AEDAT4_PACKET = 10_000


def large_recording(count: int) -> Events:
    """Events of a VGA sensor, a million a second."""
    return random_events(0, count=count, size=SENSOR, duration_us=count)


def _words(columns: list[np.ndarray], used: list[np.ndarray], dtype: str) -> bytes:
    """Words event by event: of each event the columns that are used."""
    return np.stack(columns, axis=1)[np.stack(used, axis=1)].astype(dtype).tobytes()


def _changes(column: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], column[1:] != column[:-1]])


def evt2(events: Events) -> bytes:
    """EVT 2.0: the upper 28 bits of the time when they change, then the event."""
    t, x, y, p = (column.astype(np.uint32) for column in events.columns)
    word = p << 28 | (t & 63) << 22 | x << 11 | y
    used = [_changes(t >> 6), np.ones(len(t), bool)]
    return b"% evt 2.0\n% geometry 640x480\n% end\n" + _words([8 << 28 | t >> 6, word], used, "<u4")


def evt3(events: Events) -> bytes:
    """EVT 3.0: time and row when they change, then single events."""
    t, x, y, p = (column.astype(np.uint32) for column in events.columns)
    high = _changes(t >> 12)
    used = [high, high | _changes(t & 0xFFF), _changes(y), np.ones(len(t), bool)]
    columns = [8 << 12 | (t >> 12 & 0xFFF), 6 << 12 | (t & 0xFFF), y, 2 << 12 | p << 11 | x]
    return b"% evt 3.0\n% format EVT3;height=480;width=640\n% geometry 640x480\n% end\n" + _words(columns, used, "<u2")


def dat(events: Events) -> bytes:
    """DAT in Prophesee's layout."""
    t, x, y, p = (column.astype(np.uint32) for column in events.columns)
    records = np.stack([t, x | y << 14 | p << 28], axis=1).astype("<u4")
    header = "% Data file containing CD events.\n% Version 2\n% Date 2022-02-02 02:02:02\n% Height 480\n% Width 640\n"
    return header.encode() + bytes([0x0C, 8]) + records.tobytes()


def aedat31(events: Events) -> bytes:
    """AEDAT 3.1 of a DVS128, in packets of 4,096 events."""
    t, x, y, p = (column.astype(np.uint32) for column in events.columns)
    records = np.stack([x << 17 | y << 2 | p << 1 | 1, t], axis=1).astype("<u4")
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for start in range(0, len(records), 4096):
        packet = records[start : start + 4096]
        parts += [struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, *[len(packet)] * 3), packet.tobytes()]
    return b"".join(parts)


def text(events: Events) -> bytes:
    """Lines of t in seconds, x, y, p, as of RPG's data sets."""
    rows = np.column_stack([events.t / 1e6, events.x, events.y, events.p])
    lines = [f"{t:.6f} {x:.0f} {y:.0f} {p:.0f}\n" for t, x, y, p in rows.tolist()]
    return "".join(lines).encode()


def write_aedat4(path: Path, events: Events) -> None:
    """AEDAT4 with LZ4, by iniVation's own library."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("DVXplorer_bench")
    config.addEventStream(SENSOR)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for start in range(0, len(events), AEDAT4_PACKET):
        store = dv.EventStore()
        rows = (column[start : start + AEDAT4_PACKET].tolist() for column in events.columns)
        for t, x, y, p in zip(*rows, strict=True):
            store.push_back(t, x, y, bool(p))
        writer.writeEvents(store)
    del writer  # closes the file


def write_recordings(folder: Path, *, events: int, lines: int) -> dict[str, Path]:
    """A recording of `events` events in each format, the text of `lines`; returns their paths."""
    recording, paths = large_recording(events), dict[str, Path]()
    encoders: dict[str, tuple[str, Callable[[Events], bytes]]] = {
        "EVT2": ("evt2.raw", evt2),
        "EVT3": ("evt3.raw", evt3),
        "DAT": ("cd.dat", dat),
        "AEDAT3": ("gesture.aedat", aedat31),
    }
    for kind, (name, encode) in encoders.items():
        paths[kind] = folder / name
        paths[kind].write_bytes(encode(recording))
    paths["AEDAT4"] = folder / "dv.aedat4"
    write_aedat4(paths["AEDAT4"], recording)
    paths["text"] = folder / "events.txt"
    paths["text"].write_bytes(text(recording.part(slice(lines))))
    return paths
