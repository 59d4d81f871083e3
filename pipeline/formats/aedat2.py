"""AEDAT 2.0 of the DVS128 (`.aedat`): text lines that begin with `#`, then 8-byte big-endian records (address, us).

Bit 0 of an address is the polarity, bits 1-7 and 8-14 are the coordinates; the others are ignored, as all published
decoders of these files do. Orientation and polarity are those of the decoder that the authors of CIFAR10-DVS name
(dat2mat.m): x = 127 - bits 1-7, y = bits 8-14, ON when bit 0 is 0. Differs: other public decoders swap or mirror.

Source: inivation, "AEDAT file formats" (2.0); Li et al. 2017, "CIFAR10-DVS: an event-stream dataset for object
classification", with the readme of its files.
"""

from __future__ import annotations

import re

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events

RECORD_BYTES = 8
SIDE = 128
"""Width and height of the sensor in pixels."""
WRAP_US = 2**32
HEADER_LINE = re.compile(rb"#[\t\x20-\x7e]*\r?\n")
CHIP = re.compile(rb"#\s*AEChip:\s*([\x21-\x7e]+)")
"""Header line of the camera, where the recording program wrote one."""
END_OF_HEADER = b"#End Of ASCII Header"
MOST_DOUBTFUL_US = 60_000_000
"""Events behind a header line that may be data must lie within this time, in order, to be taken for data."""


def decode(data: bytes, *, source: str) -> tuple[Events, bool]:
    """Decode the bytes of one file.

    The 32-bit clock wraps after 71 minutes: if time stamps fall once, by more than half of its range, that is undone.
    Any other step back is left as it is, for `pipeline.events.arrays.check_events` to refuse.

    Args:
        data: the whole file.
        source: file name for messages.

    Returns:
        The events (t as stored, not shifted; none where the file ends after its header), and whether a wrap was undone.

    Raises:
        RecordingError: an empty file (`empty`), no header (`damaged`), that of another version or camera
            (`format`), or a record that is cut (`truncated`).
    """
    if not data:
        raise RecordingError(f"{source}: 0 bytes; expected an AEDAT 2.0 file. Copy the file again.", reason="empty")
    start = _data_start(data, source)
    if (len(data) - start) % RECORD_BYTES:
        raise RecordingError(
            f"{source}: {len(data) - start} bytes after the header is no multiple of 8; expected 8 bytes per event, so "
            "the file is truncated. Copy it again.",
            reason="truncated",
        )
    raw = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2)  # [N,2]
    address, t = raw[:, 0].astype(np.uint32), raw[:, 1].astype(np.int64)
    wraps = np.flatnonzero(np.diff(t) < -(WRAP_US // 2))
    if undone := len(wraps) == 1:
        t[int(wraps[0]) + 1 :] += WRAP_US
    x = (SIDE - 1 - (address >> 1 & 0x7F).astype(np.int32)).astype(np.int32)
    y = (address >> 8 & 0x7F).astype(np.int32)
    return Events(t, x, y, (1 - (address & 1)).astype(np.uint8)), undone


def encode(events: Events, *, header: bytes = b"#!AER-DAT2.0\r\n") -> bytes:
    """Encode events of a 128x128 sensor; the inverse of `decode`, time stamps modulo 2**32."""
    raw = np.empty((len(events), 2), ">u4")
    raw[:, 0] = (SIDE - 1 - events.x) << 1 | events.y << 8 | 1 - events.p.astype(np.int32)
    raw[:, 1] = events.t % WRAP_US
    return header + raw.tobytes()


def _data_start(data: bytes, source: str) -> int:
    """Where the header ends: behind the last line of text that begins with `#`.

    The first byte of data may be `#`, too. Such "lines" are told from text by their bytes (a record holds some that no
    text has, in the address or the time), by their line ending, and, where the length then is no whole number of
    records, by being plausible as records.
    """
    ends = [0]
    ending = b""
    while match := HEADER_LINE.match(data, ends[-1]):
        line = match[0]
        ending = ending or (b"\r\n" if line.endswith(b"\r\n") else b"\n")
        if line.endswith(b"\r\n") != (ending == b"\r\n"):
            break
        ends.append(match.end())
        if line.startswith(END_OF_HEADER):
            break
    first = data[: ends[1]] if len(ends) > 1 else b""
    version = re.match(rb"#!AER-DAT\s*([0-9.]+)", first)
    if not first:
        raise RecordingError(
            f"{source}: begins with {data[:8].hex()}; expected the header of AEDAT 2.0, #!AER-DAT2.0. Copy it again.",
            reason="damaged",
        )
    if version is not None and not version[1].startswith(b"2"):
        raise RecordingError(
            f"{source}: AEDAT {version[1].decode()}; only 2.0 is read from .aedat files. Convert it to AEDAT 4 "
            "(.aedat4, with dv-processing), or save its columns t, x, y, p as .npz.",
            reason="format",
        )
    chip = CHIP.search(data[: ends[-1]])
    if chip is not None and b"DVS128" not in chip[1].upper():
        raise RecordingError(
            f"{source}: recorded by {chip[1].decode()}, whose addresses mean something else; of AEDAT 2.0 only those "
            "of the DVS128 are read. Convert it to AEDAT 4 (.aedat4), or save its columns t, x, y, p as .npz.",
            reason="format",
        )
    if (len(data) - ends[-1]) % RECORD_BYTES:
        for end in reversed(ends[1:-1]):
            if (len(data) - end) % RECORD_BYTES == 0 and _plausible(data[end : ends[-1] + RECORD_BYTES]):
                return end
    return ends[-1]


def _plausible(data: bytes) -> bool:
    """Whether doubtful bytes, and the record behind them, could be records: in order and close together."""
    t = np.frombuffer(data[: len(data) // RECORD_BYTES * RECORD_BYTES], ">u4")[1::2].astype(np.int64)
    return bool(len(t) and (np.diff(t) >= 0).all() and t[-1] - t[0] <= MOST_DOUBTFUL_US)
