"""DAT recordings (`.dat`) in both layouts: text lines that begin with `%`, two bytes of type and size, 8-byte records.

A record is two little-endian words: the time stamp in microseconds, and the event. Layout 2 (Prophesee CD): x in bits
0-13, y in bits 14-27, polarity in bits 28-31. Layout 1 (ATIS): x in bits 0-8, y in bits 9-16, polarity in bit 17. The
header's `% Version` says which was meant, but files of layout 2 go by version 1, too, so each is held against the
events: bits that a layout does not use must be 0, and coordinates must lie on the sensor that the header states.

Source: Prophesee, "DAT file format", docs.prophesee.ai; Posch et al. 2011 for the ATIS.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.clock import unwrapped
from spikebridge.pipeline.formats.decoded import Decoded, Facts

RECORD_BYTES = 8
TYPES = {0x00: "2D events", 0x0C: "CD events"}
ATIS_SIZE = (304, 240)
LARGEST_CD = (2048, 2048)
"""Sensor beyond which no camera of layout 2 goes, in pixels."""
MAX_HEADER_LINES = 1000


def decode(data: bytes, *, source: str, sensor_size: tuple[int, int] | None = None) -> Decoded:
    """Decode the bytes of one file.

    Args:
        data: the whole file.
        source: file name for messages.
        sensor_size: (W, H) of the sensor where it is known and the header does not state it.

    Returns:
        The events, t as stored; a clock of 32 bits that wraps once is unrolled.

    Raises:
        RecordingError: no bytes (`empty`), no header or events of another kind (`format`), a record that is cut
            (`truncated`), or events that fit neither layout (`damaged`) or both (`format`).
    """
    if not data:
        raise RecordingError(f"{source}: 0 bytes; expected a DAT file. Copy the file again.", reason="empty")
    text, start = _header(data, source)
    if start + 2 > len(data):
        raise RecordingError(f"{source}: truncated, it ends in its header. Copy it again.", reason="truncated")
    kind, size = data[start], data[start + 1]
    if kind not in TYPES or size != RECORD_BYTES:
        raise RecordingError(
            f"{source}: DAT records of type {kind:#04x} and {size} bytes; only events (type 0x00 or 0x0c, 8 bytes) are "
            "read. Is this a file of triggers?",
            reason="format",
        )
    start += 2
    if (len(data) - start) % RECORD_BYTES:
        raise RecordingError(
            f"{source}: {len(data) - start} bytes of events, no multiple of 8; the file is truncated. Copy it again.",
            reason="truncated",
        )
    raw = np.frombuffer(data, "<u4", offset=start).reshape(-1, 2)  # [N,2]
    words = raw[:, 1]
    stated = _stated_size(text) or sensor_size
    version = re.search(r"^Version +(\d+)", text, re.M | re.I)
    layout, choices = _layout(words, int(version[1]) if version else None, stated, source)
    t, undone = unwrapped(raw[:, 0].astype(np.int64))
    if undone:
        choices += ("the clock wrapped once: undone",)
    x, y, p = _columns(words, layout)
    facts = Facts(f"DAT, layout {layout}", stated, choices=choices)
    return Decoded(Events(t, x, y, (p > 0).astype(np.uint8)), facts)


def sensor_size(data: bytes, source: str) -> tuple[int, int] | None:
    """Return (W, H) as the header states it, or None.

    Raises:
        RecordingError: no header (`format`).
    """
    return _stated_size(_header(data, source)[0])


def _header(data: bytes, source: str) -> tuple[str, int]:
    """The text of the lines that begin with `%`, and where they end."""
    start, lines = 0, list[str]()
    while data[start : start + 1] == b"%" and len(lines) < MAX_HEADER_LINES:
        end = data.find(b"\n", start)
        if end < 0:
            break
        lines.append(data[start:end].decode("latin-1").strip("% \r"))
        start = end + 1
    if not lines:
        raise RecordingError(
            f"{source}: begins with {data[:8].hex()}; expected a DAT file, whose first lines begin with %. Is this the "
            "right file?",
            reason="format",
        )
    return "\n".join(lines), start


def _stated_size(text: str) -> tuple[int, int] | None:
    width, height = (re.search(rf"^{name}:? +(\d{{1,5}})", text, re.M | re.I) for name in ("Width", "Height"))
    return (int(width[1]), int(height[1])) if width and height else None


def _columns(words: NDArray[np.uint32], layout: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint32]]:
    if layout == 1:
        x, y, p = words & 0x1FF, words >> 9 & 0xFF, words >> 17 & 1
    else:
        x, y, p = words & 0x3FFF, words >> 14 & 0x3FFF, words >> 28
    return x.astype(np.int32), y.astype(np.int32), p.astype(np.uint32)


def _fits(words: NDArray[np.uint32], layout: int, stated: tuple[int, int] | None) -> bool:
    """Whether all events are such as a camera of the layout gives."""
    x, y, p = _columns(words, layout)
    width, height = stated or (ATIS_SIZE if layout == 1 else LARGEST_CD)
    unused = bool((words >> 18).any()) if layout == 1 else bool((p > 1).any())
    return not unused and int(x.max(initial=0)) < width and int(y.max(initial=0)) < height


def _layout(
    words: NDArray[np.uint32], version: int | None, stated: tuple[int, int] | None, source: str
) -> tuple[int, tuple[str, ...]]:
    """Which layout the events have, and how that was decided."""
    fitting = [layout for layout in (1, 2) if _fits(words, layout, stated)]
    if version is not None and version >= 2 and 2 in fitting:
        return 2, ()
    if not len(words):
        return (2 if version is None else min(version, 2)), ()
    if len(fitting) == 1:
        said = f"version {version}" if version is not None else "no version"
        meant = None if version is None else 1 if version < 2 else 2
        return fitting[0], () if meant == fitting[0] else (f"{said} in the header: layout {fitting[0]} by the events",)
    if fitting:
        found = "no version" if version is None else f"version {version}"
        raise RecordingError(
            f"{source}: both layouts of DAT fit its {len(words):,} events, and {found} in the header does not tell "
            "them apart. Write `% Version 2` into its header for Prophesee's layout, or "
            "save its columns t, x, y, p as .npz.",
            reason="format",
        )
    size = f"{stated[0]}x{stated[1]}" if stated else "any"
    raise RecordingError(
        f"{source}: its events fit neither layout of DAT on a sensor of {size} pixels; the file is damaged or of "
        "another kind. Copy it again.",
        reason="damaged",
    )
