"""The 40-bit event record of N-MNIST and N-Caltech101 (`.bin`): no header, 5 bytes an event.

Byte 0 is x, byte 1 is y, bit 7 of byte 2 the polarity (1 = ON), the other 23 bits a big-endian time stamp in
microseconds. A record with y = 240 is the recorder's overflow marker: every later event is 2**13 us later than it says.

Source: Orchard et al. 2015, "Converting static image datasets to spiking neuromorphic datasets using saccades", and the
readers published with N-MNIST.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events import packing
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import X_SHIFT, Y_SHIFT, PackedEvents
from spikebridge.pipeline.formats.decoded import Facts, Pass, Stream
from spikebridge.pipeline.formats.source import Source

RECORD_BYTES = 5
MAX_TIME_US = 2**23 - 1
"""Latest time a record can hold: 8.39 s."""
MAX_WIDTH, MAX_HEIGHT = 256, 240
"""Largest sensor the record can hold: y = 240 is the overflow marker."""
OVERFLOW_Y = 240
MOST_STEPS_BACK, FEWEST = 0.1, 50
"""Share of records that may be earlier than the one before; of bytes that are no records half are. Of few, any."""
OVERFLOW_US = 2**13


def decode(data: bytes, *, source: str) -> tuple[Events, int]:
    """Decode all events of a file, `data`, at once; see `stream`.

    Returns:
        The events, and the number of overflow markers, which are also attached to them.
    """
    found = stream(Source.of_bytes(data, source)).decoded()
    return replace(found.events, overflow_markers=found.facts.overflow_markers), found.facts.overflow_markers


def stream(source: Source) -> Stream:
    """Return the events of a file, overflow markers removed and their time added (t as stored otherwise, not shifted).

    Raises:
        RecordingError: the file is empty (`empty`), its length is no multiple of 5 (`truncated`), or in a pass too many
            times go back (`format`).
    """
    if not source.size:
        raise RecordingError(
            f"{source.name}: 0 bytes; expected 5 bytes per event. Copy the file again.", reason="empty"
        )
    if source.size % RECORD_BYTES:
        raise RecordingError(
            f"{source.name}: {source.size} bytes is no multiple of 5; expected 5 bytes per event, so the file is "
            "truncated. Copy it again.",
            reason="truncated",
        )

    def passes() -> Pass:
        markers, latest, steps_back = 0, 0, 0
        for block in source.blocks(0, "u1", together=RECORD_BYTES):
            raw = block.reshape(-1, RECORD_BYTES)  # [N,5]
            t = (raw[:, 2] & 0x7F).astype(np.int64) << 16 | raw[:, 3].astype(np.int64) << 8 | raw[:, 4]
            x, y, p = raw[:, 0].astype(np.int32), raw[:, 1].astype(np.int32), (raw[:, 2] >> 7).astype(np.uint8)
            marker = y == OVERFLOW_Y
            if markers or marker.any():
                t += OVERFLOW_US * (markers + np.cumsum(marker))
                markers += int(marker.sum())
                t, x, y, p = t[~marker], x[~marker], y[~marker], p[~marker]
            if len(t):
                steps_back += int(t[0] < latest) + int(np.count_nonzero(t[1:] < t[:-1]))
                latest = int(t[-1])
            yield Events(t, x, y, p)
        if steps_back > MOST_STEPS_BACK * max(FEWEST, source.size // RECORD_BYTES):
            raise RecordingError(
                f"{source.name}: no records of 40 bits (N-MNIST, N-Caltech101): their times would go back "
                f"{steps_back:,} times. Files of that ending may hold anything: save t, x, y, p as .npz.",
                reason="format",
            )
        return Facts("40-bit records", overflow_markers=markers)

    return Stream(passes, likely=source.size // RECORD_BYTES)


def decode_packed(data: bytes, *, sensor_size: tuple[int, int], source: str, from_corner: bool = False) -> PackedEvents:
    """Decode, check and pack one `.bin` file in one compiled pass; the same as `decode` and `packing.pack`.

    Args:
        data: the whole file.
        sensor_size: (W, H) in pixels.
        source: file name for messages.
        from_corner: count pixels from the smallest x and y that occur.

    Raises:
        RecordingError: as `decode` and `packing.pack` say.
    """
    from spikebridge.pipeline.events.loops import packing as kernel

    if data and len(data) % RECORD_BYTES == 0:
        words = np.empty(len(data) // RECORD_BYTES, np.int64)
        ordered, start, left, right, top, bottom = kernel.pack_bin40(np.frombuffer(data, np.uint8), words)
        left, top = (left, top) if from_corner else (0, 0)
        extent = (right - left + 1, bottom - top + 1)
        if ordered and bottom < OVERFLOW_Y and extent[0] <= sensor_size[0] and extent[1] <= sensor_size[1]:
            if left or top:
                words -= left << X_SHIFT | top << Y_SHIFT
            return PackedEvents(words, start, extent)
    events = decode(data, source=source)[0]  # overflow markers, or something is wrong: the long way says what
    return packing.pack(events.to_corner() if from_corner else events, sensor_size=sensor_size, source=source)


def encode(events: Events) -> bytes:
    """Encode events as the bytes of a `.bin` file; the inverse of `decode`.

    Raises:
        SettingsError: a coordinate or a time stamp that the record cannot hold.
    """
    if len(events) == 0:
        return b""
    if int(events.x.max()) >= MAX_WIDTH or int(events.y.max()) >= MAX_HEIGHT or int(events.t.max()) > MAX_TIME_US:
        raise SettingsError(
            f"events reach x = {int(events.x.max())}, y = {int(events.y.max())}, t = {int(events.t.max())} us; "
            f"the .bin format holds x < {MAX_WIDTH}, y < {MAX_HEIGHT} and t <= {MAX_TIME_US} us. "
            "Use a smaller sensor or a shorter recording."
        )
    raw = np.empty((len(events), RECORD_BYTES), np.uint8)
    raw[:, 0] = events.x
    raw[:, 1] = events.y
    raw[:, 2] = events.p.astype(np.int64) << 7 | events.t >> 16
    raw[:, 3] = events.t >> 8 & 0xFF
    raw[:, 4] = events.t & 0xFF
    return raw.tobytes()
