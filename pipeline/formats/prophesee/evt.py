"""Prophesee recordings (`.raw`) in the formats EVT 2.0, EVT 2.1 and EVT 3.0, decoded here.

A text header of lines that begin with `%`, then little-endian words of 32 (EVT 2.0), 64 (EVT 2.1) or 16 bits (EVT 3.0).
What is no event - triggers, words of the inertial unit and the monitors, padding, kinds that the format reserves - is
passed over and counted.

Source: Prophesee, "RAW file format", "EVT 2.0 Format", "EVT 2.1 Format" and "EVT 3.0 Format", docs.prophesee.ai.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts

WORD_BYTES = {"2.0": 4, "2.1": 8, "3.0": 2}
MAX_HEADER_LINES = 1000
KNOWN_EVT21 = (0, 1, 8, 10, 14, 15)
"""Types of words of EVT 2.1."""
PASSED_OVER = ("triggers", "other words", "padding words", "reserved words", "events before the first time stamp")
"""Names of the counts of `evt_kernel`."""


class Header(NamedTuple):
    """What the text before the words says."""

    version: str
    """`2.0`, `2.1` or `3.0`."""
    sensor_size: tuple[int, int] | None
    """(W, H), where it is said."""
    length: int
    """Bytes before the first word."""
    endianness: str = ""
    """Of EVT 2.1: `little`, `legacy`, or empty where it is not said."""


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode all events of a file.

    Args:
        data: the whole file.
        source: file name for messages.

    Returns:
        The events in their order; t in microseconds of the camera's clock, unrolled where the format's counter wraps.
        Events before the first time stamp have none and are counted as passed over.

    Raises:
        RecordingError: no header, or another format (`format`), a length that is no whole number of words
            (`truncated`), or words none of which is a time stamp (`damaged`).
    """
    from spikebridge.pipeline.formats.prophesee import evt_kernel as kernel

    header = parse_header(data, source)
    width = WORD_BYTES[header.version]
    if (len(data) - header.length) % width:
        raise RecordingError(
            f"{source}: {len(data) - header.length} bytes after the header, no multiple of {width}; the file is "
            "truncated. Copy it again.",
            reason="truncated",
        )
    words = np.frombuffer(data, f"<u{width}", offset=header.length)
    choices: tuple[str, ...] = ()
    if header.version == "2.1":
        words, choices = _order_of_halves(words, header, source)
    counters: dict[str, Callable[..., int]] = {"2.0": len, "2.1": kernel.count_evt21, "3.0": kernel.count_evt3}
    decoders: dict[str, Callable[..., int]] = {
        "2.0": kernel.decode_evt2,
        "2.1": kernel.decode_evt21,
        "3.0": kernel.decode_evt3,
    }
    size = counters[header.version](words)
    t, p = np.empty(size, np.int64), np.empty(size, np.uint8)
    x, y = np.empty(size, np.int32), np.empty(size, np.int32)
    passed = np.zeros(6, np.int64)
    count = decoders[header.version](words, t, x, y, p, passed)
    if len(words) and not count and passed[: kernel.TIMELESS + 1].sum():
        raise RecordingError(
            f"{source}: {len(words):,} words and no event with a time stamp in them; the file is damaged or of another "
            f"format than EVT {header.version}. Copy it again.",
            reason="damaged",
        )
    passed_over = dict(zip(PASSED_OVER, passed.tolist()[:5], strict=True))
    facts = Facts(f"EVT {header.version}", header.sensor_size, passed_over, choices, _doubts(passed, len(words)))
    return Decoded(Events(t[:count], x[:count], y[:count], p[:count]), facts)


def parse_header(data: bytes, source: str) -> Header:
    """Read the lines that begin with `%`, whose text may be of any encoding.

    Raises:
        RecordingError: there are none, or they name another format (`format`).
    """
    start, lines = 0, list[str]()
    while data[start : start + 2] == b"% " and len(lines) < MAX_HEADER_LINES:
        end = data.find(b"\n", start)
        if end < 0 or (line := _text(data[start:end])) is None:
            break  # older headers have no end line, and the first word may look like a percent sign
        lines.append(line.strip("% \r"))
        start = end + 1
        if lines[-1] == "end":
            break
    text = "\n".join(lines)
    found = re.search(r"^evt (\d)(?:\.(\d))?", text, re.M) or re.search(r"^format EVT(\d)\.?(\d)?", text, re.M)
    version = f"{found[1]}.{found[2] or 0}" if found else ""
    if version not in WORD_BYTES:
        raise RecordingError(
            f"{source}: {'EVT ' + version if version else 'no header that names EVT'} found; expected a Prophesee RAW "
            "file in EVT 2.0, EVT 2.1 or EVT 3.0. Is this the right file?",
            reason="format",
        )
    size = re.search(r"^geometry:? *(\d{1,5})x(\d{1,5})", text, re.M)
    width, height = (re.search(rf"^format .*\b{name}=(\d{{1,5}})", text, re.M) for name in ("width", "height"))
    order = re.search(r"^format .*\bendianness=(\w+)", text, re.M)
    stated = (size[1], size[2]) if size else (width[1], height[1]) if width and height else None
    return Header(version, (int(stated[0]), int(stated[1])) if stated else None, start, order[1] if order else "")


def _text(line: bytes) -> str | None:
    """A line of the header, or None for bytes that are no text."""
    for encoding in ("utf-8", "latin-1"):
        try:
            text = line.strip().decode(encoding)
        except UnicodeDecodeError:
            continue
        return text if text.replace("\t", " ").isprintable() else None
    return None


def _order_of_halves(
    words: NDArray[np.uint64], header: Header, source: str
) -> tuple[NDArray[np.uint64], tuple[str, ...]]:
    """Bring words of EVT 2.1 into the order of today; the older ("legacy") one has the halves exchanged.

    Raises:
        RecordingError: the header does not say which, and both or none fit (`format`).
    """
    exchanged = words >> np.uint64(32) | words << np.uint64(32)
    orders = {"little": words, "legacy": exchanged}
    if header.endianness in orders:
        return orders[header.endianness], ()
    fitting = [name for name, one in orders.items() if np.isin(one >> np.uint64(60), KNOWN_EVT21).all()]
    if len(fitting) != 1 and len(words):
        raise RecordingError(
            f"{source}: EVT 2.1 whose header does not say the order of bytes, and {'both' if fitting else 'none'} of "
            "the two fit. Write endianness=little or endianness=legacy into its line `% format EVT21;...`.",
            reason="format",
        )
    name = fitting[0] if fitting else "little"
    return orders[name], (f"order of bytes {name}, by the words themselves",)


def _doubts(passed: NDArray[np.int64], words: int) -> tuple[str, ...]:
    reserved = int(passed[3])
    if not reserved:
        return ()
    return (
        f"{reserved:,} of {words:,} words are of kinds that the format reserves: from a newer camera, or the file is "
        "damaged",
    )
