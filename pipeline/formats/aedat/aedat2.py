"""AEDAT 2.0 (`.aedat`) of the DVS128 and the DAVIS family: lines that begin with `#`, then 8-byte big-endian records.

A record is an address and a time stamp in microseconds, 32 bits each. What an address means depends on the camera,
which a header line `# AEChip:` may name. Without one the address bits in use decide, or the file is refused.

DVS128: bit 0 is the polarity, bits 1-7 and 8-14 are the coordinates, bit 15 marks a special event. Orientation and
polarity are those of the decoder that the authors of CIFAR10-DVS name (dat2mat.m): x = 127 - bits 1-7, y = bits 8-14,
ON when bit 0 is 0.

DAVIS: bit 31 is 0 for events, 1 for samples of frames (bits 11 and 10 both 1: of the inertial unit). Of events, bit 10
marks a special one, bit 11 is the polarity (1 = ON), bits 12-21 are x and bits 22-30 y. jAER counts x from the right
and y from the bottom, so both are turned round. Differs for files of `saveaerdat.m`, which writes coordinates as its
user has them: those stay as stored.

Source: iniVation, "AEDAT file formats" (2.0); jAER, `DavisChip` and `DVS128`; Li et al. 2017, "CIFAR10-DVS: an
event-stream dataset for object classification", with the readme of its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat.cameras import DAVIS_SIZES, DVS128_SIZE, is_dvs128, sensor_of
from spikebridge.pipeline.formats.clock import WRAP_US, Clock, unwrapped
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.source import Source

RECORD_BYTES = 8
SIDE = 128
"""Width and height of the DVS128 in pixels."""
HEADER_LINE = re.compile(rb"#[^\x00-\x08\x0a-\x1f\x7f]*\r?\n")
"""Text of any encoding: control characters apart, every byte may occur in a name or a note."""
COMMENT = re.compile(rb"# +[A-Za-z]")
"""How a line begins that a person added, perhaps with another line ending than the program's."""
CHIP = re.compile(rb"#\s*AEChip:\s*([\x21-\x7e]+)")
"""Header line of the camera, where the recording program wrote one."""
END_OF_HEADER = b"#End Of ASCII Header"
AS_STORED = b"saveaerdat.m"
"""Names the program whose coordinates are not jAER's."""
LEAST_ASCII = 0.75
"""Share of a line in other encodings than UTF-8 that must be printable ASCII for it to be text."""
MOST_HEADER_BYTES = 2**20
UNWRAPPED = "the clock wrapped once: undone"
MOST_DOUBTFUL_US = 60_000_000
"""Events behind a header line that may be data must lie within this time, in order, to be taken for data."""
SPECIAL_DVS128, SPECIAL_DAVIS, ON_DAVIS, SAMPLE = 1 << 15, 1 << 10, 1 << 11, 1 << 31
IMU_BITS = ON_DAVIS | SPECIAL_DAVIS
UNUSED_DAVIS = 0x3FF
"""Bits that no polarity event of a DAVIS sets."""


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode all events of a file, `data`, at once; see `stream`."""
    return stream(Source.of_bytes(data, source)).decoded()


def stream(source: Source) -> Stream:
    """Return the events of a file of any of the cameras, t as stored; none where the file ends after its header.

    The 32-bit clock wraps after 71 minutes: if time stamps fall once, by more than half of its range, that is undone.
    Any other step back is left as it is, for `pipeline.events.arrays.check_events` to refuse. What the addresses are is
    decided before the first pass, by all of them.

    Raises:
        RecordingError: an empty file (`empty`), no header, one of another version, of a camera that is not known, or
            with addresses that fit none (`format`), or a record that is cut (`truncated`).
    """
    header = _header(source)
    chip = CHIP.search(header)
    name = chip[1].decode().rsplit(".", 1)[-1] if chip else None
    size = sensor_of(name) if name else None
    if name and size is None:
        raise RecordingError(
            f"{source.name}: recorded by {name}, whose addresses are not known; of AEDAT 2.0 those of the DVS128 and "
            "the DAVIS family are read. Convert it to AEDAT 4 (.aedat4, with dv-processing), or save its columns t, x, "
            "y, p as .npz.",
            reason="format",
        )
    if name and is_dvs128(name):
        return _dvs128(source, len(header), ())
    if size is None:
        used = 0
        for address, _ in _records(source, len(header)):
            used |= int(np.bitwise_or.reduce(address))
        if not used >> 16:
            empty = source.size == len(header)
            said = () if empty else ("no AEChip line: only the 16 address bits of a DVS128 are in use",)
            return _dvs128(source, len(header), said)
    return _davis(source, header, name, size)


def decode_dvs128(data: bytes, *, source: str) -> tuple[Events, bool]:
    """Decode a file that is known to come from a DVS128, whatever the address bits that this camera does not use.

    Returns:
        The events (t as stored), and whether a wrap of the clock was undone.

    Raises:
        RecordingError: as `decode`; a header that names another camera is refused (`format`).
    """
    whole = Source.of_bytes(data, source)
    header = _header(whole)
    chip = CHIP.search(header)
    if chip is not None and not is_dvs128(chip[1].decode().rsplit(".", 1)[-1]):
        raise RecordingError(
            f"{source}: recorded by {chip[1].decode()}; expected a recording of a DVS128. Is this the right file?",
            reason="format",
        )
    records = np.frombuffer(data, ">u4", offset=len(header)).reshape(-1, 2)  # [N,2]
    t, undone = unwrapped(records[:, 1].astype(np.int64))
    return _dvs128_events(records[:, 0].astype(np.uint32), t), undone


def encode(events: Events, *, header: bytes = b"#!AER-DAT2.0\r\n") -> bytes:
    """Encode events of a DVS128; the inverse of `decode`, time stamps modulo 2**32."""
    raw = np.empty((len(events), 2), ">u4")
    raw[:, 0] = (SIDE - 1 - events.x) << 1 | events.y << 8 | 1 - events.p.astype(np.int32)
    raw[:, 1] = events.t % WRAP_US
    return header + raw.tobytes()


def _header(source: Source) -> bytes:
    """Return the bytes before the records."""
    head = source.read(0, MOST_HEADER_BYTES)
    start = _data_start(head, source.size, source.name)
    if (source.size - start) % RECORD_BYTES:
        raise RecordingError(
            f"{source.name}: {source.size - start} bytes after the header is no multiple of 8; expected 8 bytes per "
            "event, so the file is truncated. Copy it again.",
            reason="truncated",
        )
    return head[:start]


def _records(source: Source, start: int) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Yield addresses [N] and time stamps [N] as stored, block by block."""
    for block in source.blocks(start, ">u4", together=2):
        yield block[::2].astype(np.uint32), block[1::2].astype(np.int64)


def _dvs128_events(address: NDArray[np.uint32], t: NDArray[np.int64]) -> Events:
    x = (SIDE - 1 - (address >> 1 & 0x7F).astype(np.int32)).astype(np.int32)
    y = (address >> 8 & 0x7F).astype(np.int32)
    return Events(t, x, y, (1 - (address & 1)).astype(np.uint8))


def _dvs128(source: Source, start: int, choices: tuple[str, ...]) -> Stream:
    clock, specials = Clock(), 0
    for address, t in _records(source, start):
        event = address & SPECIAL_DVS128 == 0
        clock.add(t[event])
        specials += len(t) - int(event.sum())
    if clock.wrap is not None:
        choices += (UNWRAPPED,)
    facts = Facts("AEDAT 2.0, DVS128", DVS128_SIZE, {"special events": specials}, choices)

    def passes() -> Pass:
        first = 0
        for address, t in _records(source, start):
            event = address & SPECIAL_DVS128 == 0
            events = _dvs128_events(address[event], clock.unwrap(t[event], first))
            first += len(events)
            yield events
        return facts

    return Stream(passes, likely=(source.size - start) // RECORD_BYTES, sensor_size=DVS128_SIZE)


def _davis(source: Source, header: bytes, name: str | None, size: tuple[int, int] | None) -> Stream:
    """Return the events of a DAVIS; without a name the smallest sensor of the family that holds them is taken."""
    clock, used, highest, right, bottom = Clock(), 0, 0, -1, -1
    counts = dict.fromkeys(("special events", "samples of frames", "words of the inertial unit"), 0)
    for address, t in _records(source, len(header)):
        highest = max(highest, int(address.max()))
        sample = address & SAMPLE != 0
        imu = int((sample & (address & IMU_BITS == IMU_BITS)).sum())
        event = ~sample & (address & SPECIAL_DAVIS == 0)
        counts["special events"] += len(address) - int(sample.sum()) - int(event.sum())
        counts["samples of frames"] += int(sample.sum()) - imu
        counts["words of the inertial unit"] += imu
        words = address[event]
        used |= int(np.bitwise_or.reduce(words))
        x, y = _davis_coordinates(words)
        right, bottom = max(right, int(x.max(initial=-1))), max(bottom, int(y.max(initial=-1)))
        clock.add(t[event])
    choices: tuple[str, ...] = () if clock.wrap is None else (UNWRAPPED,)
    if size is None:
        sizes = [DAVIS_SIZES[number] for number in ("240", "346", "640")]
        size = next((one for one in sizes if right < one[0] and bottom < one[1]), None)
        if size is None or right < 0 or used & UNUSED_DAVIS:
            raise RecordingError(
                f"{source.name}: AEDAT 2.0 without a line that names the camera (# AEChip: ...), with addresses up to "
                f"{highest:#x} that fit neither a DVS128 nor a DAVIS. Add the line, or save its columns t, x, y, p as "
                ".npz.",
                reason="format",
            )
        choices += (f"no AEChip line: addresses fit a DAVIS of {size[0]}x{size[1]}, x to {right}, y to {bottom}",)
    elif right >= size[0] or bottom >= size[1]:
        raise RecordingError(
            f"{source.name}: x up to {right}, y up to {bottom} in a recording whose header says {name} "
            f"({size[0]}x{size[1]} pixels). The header or the file is of another camera.",
            reason="out_of_range",
        )
    turned = AS_STORED not in header
    if not turned:
        choices += ("written by saveaerdat.m: coordinates as stored",)
    width, height = size
    facts = Facts(f"AEDAT 2.0, {name or 'DAVIS'}", size, counts, choices)

    def passes() -> Pass:
        first = 0
        for address, t in _records(source, len(header)):
            event = address & (SAMPLE | SPECIAL_DAVIS) == 0
            words = address[event]
            x, y = _davis_coordinates(words)
            if turned:
                x, y = width - 1 - x, height - 1 - y
            events = Events(clock.unwrap(t[event], first), x, y, (words >> 11 & 1).astype(np.uint8))
            first += len(events)
            yield events
        return facts

    return Stream(passes, likely=(source.size - len(header)) // RECORD_BYTES, sensor_size=size)


def _davis_coordinates(words: NDArray[np.uint32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return (words >> 12 & 0x3FF).astype(np.int32), (words >> 22 & 0x1FF).astype(np.int32)


def _data_start(data: bytes, size: int, source: str) -> int:
    """Return where the header ends: behind the last line of text that begins with `#`.

    The first byte of data may be `#`, too. Such "lines" are told from text by their bytes (a record holds some that no
    text has, in the address or the time), by their line ending, and, where the length then is no whole number of
    records, by being plausible as records. `data` holds the first bytes of a file of `size` bytes.
    """
    if not data:
        raise RecordingError(f"{source}: 0 bytes; expected an AEDAT 2.0 file. Copy the file again.", reason="empty")
    ends = [0]
    ending = b""
    while match := HEADER_LINE.match(data, ends[-1]):
        line = match[0]
        ending = ending or (b"\r\n" if line.endswith(b"\r\n") else b"\n")
        if not _is_text(line) or (line.endswith(b"\r\n") != (ending == b"\r\n") and not COMMENT.match(line)):
            break
        ends.append(match.end())
        if line.startswith(END_OF_HEADER):
            break
    first = data[: ends[1]] if len(ends) > 1 else b""
    version = re.match(rb"#!AER-DAT\s*([0-9.]+)", first)
    if not first:
        raise RecordingError(
            f"{source}: begins with {data[:8].hex()}; expected the header of AEDAT 2.0, #!AER-DAT2.0. Files without a "
            "header are of jAER's first format (AEDAT 1.0), which is not read: open and save them with jAER. Else copy "
            "it again.",
            reason="format",
        )
    if version is not None and not version[1].startswith(b"2"):
        raise RecordingError(
            f"{source}: AEDAT {version[1].decode()}; expected 2.0. Convert it to AEDAT 4 (.aedat4, with "
            "dv-processing), or save its columns t, x, y, p as .npz.",
            reason="format",
        )
    if (size - ends[-1]) % RECORD_BYTES:
        for end in reversed(ends[1:-1]):
            if (size - end) % RECORD_BYTES == 0 and _plausible(data[end : ends[-1] + RECORD_BYTES]):
                return end
    return ends[-1]


def _is_text(line: bytes) -> bool:
    """Whether a line of the header is text: UTF-8, or mostly ASCII in another encoding."""
    try:
        return line.decode().rstrip().replace("\t", " ").isprintable()
    except UnicodeDecodeError:
        return sum(0x20 <= byte < 0x7F for byte in line) >= LEAST_ASCII * len(line)


def _plausible(data: bytes) -> bool:
    """Whether doubtful bytes, and the record behind them, could be records: in order and close together."""
    t = np.frombuffer(data[: len(data) // RECORD_BYTES * RECORD_BYTES], ">u4")[1::2].astype(np.int64)
    return bool(len(t) and (np.diff(t) >= 0).all() and t[-1] - t[0] <= MOST_DOUBTFUL_US)
