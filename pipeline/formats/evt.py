"""Prophesee recordings (`.raw`) in the formats EVT 2.0 and EVT 3.0, decoded here.

A text header of lines that begin with `%`, then little-endian words of 32 (EVT 2.0) or 16 bits (EVT 3.0).

Source: Prophesee, "RAW file format", "EVT 2.0 Format" and "EVT 3.0 Format", docs.prophesee.ai.
Differs from the package `expelliarmus` (1.1.12): that gives other times for EVT 3.0 once the upper half of the time
changes, drops the end of a truncated file without a word, and has wheels for Python 3.11 only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events

WORD_BYTES = {"2": 4, "3": 2}
MAX_HEADER_LINES = 1000


class Header(NamedTuple):
    """What the text before the words says."""

    version: str
    """`2` or `3`."""
    sensor_size: tuple[int, int] | None
    """(W, H), where it is said."""
    length: int
    """Bytes before the first word."""


def read(path: Path) -> Events:
    """Read all events of a file; triggers are passed over, and events before the first time stamp, which have none.

    Returns:
        The events in their order; t in microseconds of the camera's clock, unrolled where the format's counter wraps.

    Raises:
        RecordingError: no header or another format (`format`), a length that is no whole number of words
            (`truncated`), or a word that the format does not have (`damaged`).
    """
    from spikebridge.pipeline.formats import evt_kernel as kernel

    data = path.read_bytes()
    header = parse_header(data, path.name)
    width = WORD_BYTES[header.version]
    if (len(data) - header.length) % width:
        raise RecordingError(
            f"{path.name}: {len(data) - header.length} bytes after the header, no multiple of {width}; the file is "
            "truncated. Copy it again.",
            reason="truncated",
        )
    words = np.frombuffer(data, f"<u{width}", offset=header.length)
    size = kernel.count_evt3(words) if header.version == "3" else len(words)
    t, p = np.empty(size, np.int64), np.empty(size, np.uint8)
    x, y = np.empty(size, np.int32), np.empty(size, np.int32)
    decode = kernel.decode_evt3 if header.version == "3" else kernel.decode_evt2
    count, unknown = decode(words, t, x, y, p)
    if unknown >= 0:
        raise RecordingError(
            f"{path.name}: word {unknown} is {int(words[unknown]):#x}, which EVT {header.version}.0 does not have; the "
            "file is damaged or of another format. Copy it again.",
            reason="damaged",
        )
    return Events(t[:count], x[:count], y[:count], p[:count])


def sensor_size(path: Path) -> tuple[int, int] | None:
    """(W, H) from the header, or None where it does not say.

    Raises:
        RecordingError: no header that can be read (`format`).
    """
    with open(path, "rb") as file:
        return parse_header(file.read(2**16), path.name).sensor_size


def parse_header(data: bytes, source: str) -> Header:
    """Read the lines that begin with `%`.

    Raises:
        RecordingError: there are none, or they name another format (`format`).
    """
    start, lines = 0, list[str]()
    while data[start : start + 2] == b"% " and len(lines) < MAX_HEADER_LINES:
        end = data.find(b"\n", start)
        if end < 0 or not data[start:end].strip().decode("latin-1").isprintable():
            break  # older headers have no end line, and the first word may look like a percent sign
        lines.append(data[start:end].decode("latin-1").strip("% \r"))
        start = end + 1
        if lines[-1] == "end":
            break
    text = "\n".join(lines)
    found = re.search(r"^evt (\d)(?:\.(\d))?", text, re.M) or re.search(r"^format EVT(\d)\.?(\d)?", text, re.M)
    if not found or found[1] not in WORD_BYTES or (found[2] or "0") != "0":
        raise RecordingError(
            f"{source}: {'EVT ' + found[1] + '.' + (found[2] or '0') if found else 'no header that names EVT'} found; "
            "expected a Prophesee RAW file in EVT 2.0 or EVT 3.0.",
            reason="format",
        )
    size = re.search(r"^geometry (\d{1,5})x(\d{1,5})", text, re.M)
    if size is None:
        width, height = (re.search(rf"^format .*{name}=(\d{{1,5}})", text, re.M) for name in ("width", "height"))
        return Header(found[1], (int(width[1]), int(height[1])) if width and height else None, start)
    return Header(found[1], (int(size[1]), int(size[2])), start)
