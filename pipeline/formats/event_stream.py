"""Event Stream recordings (`.es`), version 2, of a DVS or an ATIS.

The words `Event Stream`, three bytes of version, one of type; width and height (16 bits each, little endian); then
events of five bytes, see `event_stream_kernel`. The format counts rows from the bottom; here they count from the top.

Source: International Centre for Neuromorphic Systems, "Event Stream", version 2.0.
"""

from __future__ import annotations

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.source import Source

MAGIC = b"Event Stream"
HEADER_BYTES = 20
DVS, ATIS = 1, 2
TYPES = {0: "generic events", DVS: "a DVS", ATIS: "an ATIS", 3: "asynchronous & modular events", 4: "a colour camera"}
EVENT_BYTES = 5


def decode(data: bytes, *, source: str) -> Decoded:
    """Decode all events of a file, `data`, at once; see `stream`."""
    return stream(Source.of_bytes(data, source)).decoded()


def stream(source: Source) -> Stream:
    """Return the events of a file, t in microseconds since the start of the recording.

    The exposure measurements of an ATIS are passed over and counted.

    Raises:
        RecordingError: no such file, another version, or a stream that holds no events of a DVS or ATIS (`format`); in
            a pass, an event that is cut (`truncated`).
    """
    camera, (width, height) = _header(source.head, source.name)

    def passes() -> Pass:
        from spikebridge.pipeline.formats import event_stream_kernel as kernel

        state, rest, room = np.zeros(2, np.int64), np.empty(0, np.uint8), Events.room(0)
        for block in source.blocks(HEADER_BYTES, "u1"):
            data = np.concatenate([rest, block])
            if len(data) > EVENT_BYTES * len(room):
                room = Events.room(len(data) // EVENT_BYTES + 1)
            count, used = kernel.decode(data, camera == ATIS, height, *room.columns, state)
            rest = data[used:]
            yield room.part(slice(count))
        if len(rest):
            raise RecordingError(f"{source.name}: truncated, its last event is cut. Copy it again.", reason="truncated")
        name = f"Event Stream 2, {TYPES[camera]}"
        return Facts(name, (width, height), {"exposure measurements": int(state[1])})

    return Stream(passes, likely=source.size // EVENT_BYTES)


def sensor_size(data: bytes, source: str) -> tuple[int, int]:
    """Return (W, H) as the header states it.

    Raises:
        RecordingError: as `decode`.
    """
    return _header(data, source)[1]


def _header(data: bytes, source: str) -> tuple[int, tuple[int, int]]:
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 4:
        raise RecordingError(
            f"{source}: begins with {data[:12]!r}; expected an Event Stream file. Is this the right file?",
            reason="format",
        )
    version, camera = data[12:15], data[15]
    if version[0] != 2:
        raise RecordingError(
            f"{source}: Event Stream of version {version[0]}.{version[1]}; only version 2 is read. Write it again with "
            "today's event_stream.",
            reason="format",
        )
    if camera not in (DVS, ATIS):
        raise RecordingError(
            f"{source}: an Event Stream of {TYPES.get(camera, f'type {camera}')}, which are no events of pixels; only "
            "those of a DVS or an ATIS are read. Is this the right file?",
            reason="format",
        )
    if len(data) < HEADER_BYTES:
        raise RecordingError(f"{source}: truncated, its header is cut. Copy it again.", reason="truncated")
    return camera, (int.from_bytes(data[16:18], "little"), int.from_bytes(data[18:20], "little"))
