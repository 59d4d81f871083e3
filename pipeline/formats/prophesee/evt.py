"""Prophesee recordings (`.raw`) in the formats EVT 2.0, EVT 2.1 and EVT 3.0, decoded here.

A text header of lines that begin with `%`, then little-endian words of 32 (EVT 2.0), 64 (EVT 2.1) or 16 bits (EVT 3.0).
What is no event - triggers, words of the inertial unit and the monitors, padding, kinds that the format reserves - is
passed over and counted.

Source: Prophesee, "RAW file format", "EVT 2.0 Format", "EVT 2.1 Format" and "EVT 3.0 Format", docs.prophesee.ai.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import StartOver
from spikebridge.pipeline.events.packing import LARGEST_SENSOR, LONGEST_US, chunk_of, make_room
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.source import Source

WORD_BYTES = {"2.0": 4, "2.1": 8, "3.0": 2}
MAX_HEADER_LINES, MOST_HEADER_BYTES = 1000, 2**20
KNOWN_EVT21 = (0, 1, 8, 10, 14, 15)
"""Types of words of EVT 2.1."""
ORDERS = ("little", "legacy")
"""Of the halves of its words."""
HEADER_LINE = re.compile(rb"% |%\r?\n(?=%)")
"""How a line of the header begins: an empty one may stand between others, not before words that may look like it."""
GENERATION_3 = re.compile(r"^plugin_name hal_plugin_gen3", re.M)
"""Line of recorders that did not name the format yet; those of this generation of cameras knew EVT 2.0 alone."""
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
    unsaid: bool = False
    """The version is that of the camera, not said."""


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode all events of a file, `data`, at once; see `stream`."""
    return stream(Source.of_bytes(data, source)).decoded()


def stream(source: Source) -> Stream:
    """Return the events of a file in their order; t in microseconds of the camera's clock, unrolled where it wraps.

    Events before the first time stamp have no time and are counted as passed over.

    Raises:
        RecordingError: no header, or another format (`format`), a length that is no whole number of words
            (`truncated`); in a pass, words none of which is a time stamp (`damaged`).
    """
    header = parse_header(source.read(0, MOST_HEADER_BYTES), source.name)
    width, length = WORD_BYTES[header.version], source.size - header.length
    if length % width:
        raise RecordingError(
            f"{source.name}: {length} bytes after the header, no multiple of {width}; the file is truncated. Copy it "
            "again.",
            reason="truncated",
        )
    exchanged, choices = _order_of_halves(source, header) if header.version == "2.1" else (False, ())
    choices += ("no line names EVT: 2.0, by the generation of the camera",) * header.unsaid

    packable = True

    def passes(*, packed: bool = False) -> Pass:
        nonlocal packable
        from spikebridge.pipeline.formats.prophesee import evt_kernel as kernel

        packed &= packable
        decoders: dict[str, Callable[..., int]] = {
            "2.0": kernel.decode_evt2,
            "2.1": kernel.decode_evt21,
            "3.0": kernel.decode_evt3,
        }
        decode, most = decoders[header.version], kernel.MOST_EVENTS[header.version]
        state, passed = np.array(kernel.BEGINNING, np.int64), np.zeros(5, np.int64)
        most_wraps = (LONGEST_US + 1) >> kernel.TIME_BITS[header.version]
        sink, total = make_room(0, packed=packed), 0
        for block in source.blocks(header.length, f"<u{width}"):
            words = _exchange(block) if exchanged else block
            if len(words) * most > len(sink[0]):
                sink = make_room(len(words) * most, packed=packed)
            count = decode(words, sink, state, passed)
            total += count
            if packed and (state[kernel.WRAPS] >= most_wraps or state[kernel.REACHED] > LARGEST_SENSOR[0]):
                packable = False  # times or places that no word has room for
                raise StartOver
            yield chunk_of(sink, count)
        if length and not total and passed.sum():
            raise RecordingError(
                f"{source.name}: {length // width:,} words and no event with a time stamp in them; the file is damaged "
                f"or of another format than EVT {header.version}. Copy it again.",
                reason="damaged",
            )
        passed_over = dict(zip(PASSED_OVER, passed.tolist(), strict=True))
        doubts = _doubts(passed, length // width)
        return Facts(f"EVT {header.version}", header.sensor_size, passed_over, choices, doubts)

    return Stream(passes, likely=length // width, packed=partial(passes, packed=True))


def parse_header(data: bytes, source: str) -> Header:
    """Read the lines that begin with `%`, whose text may be of any encoding.

    Raises:
        RecordingError: there are none, or they name another format (`format`).
    """
    start, lines = 0, list[str]()
    while HEADER_LINE.match(data, start) and len(lines) < MAX_HEADER_LINES:
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
    unsaid = not version and bool(GENERATION_3.search(text))
    version = "2.0" if unsaid else version
    if version not in WORD_BYTES:
        advice = "Is this the right file?"
        if lines and not version:
            advice = (
                "Recorders before 2020 left it out: write the line `% evt 2.0` on top, or `% evt 3.0`, whichever the "
                "camera gave."
            )
        raise RecordingError(
            f"{source}: {'EVT ' + version if version else 'no header that names EVT'} found; expected a Prophesee RAW "
            f"file in EVT 2.0, EVT 2.1 or EVT 3.0. {advice}",
            reason="format",
        )
    size = re.search(r"^geometry:? *(\d{1,5})x(\d{1,5})", text, re.M)
    width, height = (re.search(rf"^format .*\b{name}=(\d{{1,5}})", text, re.M) for name in ("width", "height"))
    order = re.search(r"^format .*\bendianness=(\w+)", text, re.M)
    stated = (size[1], size[2]) if size else (width[1], height[1]) if width and height else None
    stated_size = (int(stated[0]), int(stated[1])) if stated else None
    return Header(version, stated_size, start, order[1] if order else "", unsaid)


def _text(line: bytes) -> str | None:
    """A line of the header, or None for bytes that are no text."""
    for encoding in ("utf-8", "latin-1"):
        try:
            text = line.strip().decode(encoding)
        except UnicodeDecodeError:
            continue
        return text if text.replace("\t", " ").isprintable() else None
    return None


def _exchange(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return words >> np.uint64(32) | words << np.uint64(32)


def _order_of_halves(source: Source, header: Header) -> tuple[bool, tuple[str, ...]]:
    """Return whether the halves of the words of EVT 2.1 are exchanged (the older order, "legacy"), and the choice.

    Raises:
        RecordingError: the header does not say which, and both or none fit (`format`).
    """
    if header.endianness in ORDERS:
        return header.endianness == "legacy", ()
    fitting = list(ORDERS)
    for words in source.blocks(header.length, "<u8"):
        orders = {"little": words, "legacy": _exchange(words)}
        fitting = [name for name in fitting if np.isin(orders[name] >> np.uint64(60), KNOWN_EVT21).all()]
    if len(fitting) != 1 and source.size > header.length:
        raise RecordingError(
            f"{source.name}: EVT 2.1 whose header does not say the order of bytes, and "
            f"{'both' if fitting else 'none'} of the two fit. Write endianness=little or endianness=legacy into its "
            "line `% format EVT21;...`.",
            reason="format",
        )
    name = fitting[0] if fitting else "little"
    return name == "legacy", (f"order of bytes {name}, by the words themselves",)


def _doubts(passed: NDArray[np.int64], words: int) -> tuple[str, ...]:
    reserved = int(passed[3])
    if not reserved:
        return ()
    return (
        f"{reserved:,} of {words:,} words are of kinds that the format reserves: from a newer camera, or the file is "
        "damaged",
    )
