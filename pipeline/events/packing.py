"""Checked events as one 64-bit word each, the input of framing and of the hash of a recording.

Axes: N events. A word is time << 24 | x << 12 | y << 1 | p, the time in microseconds from the first event: 39 bits of
it (6.3 days), 12 of x, 11 of y, 1 of polarity. Words in order of time can be cut into bins without being unpacked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events, check_events

TIME_SHIFT, X_SHIFT, Y_SHIFT = 24, 12, 1
X_MASK, Y_MASK = 0xFFF, 0x7FF
LARGEST_SENSOR = (X_MASK + 1, Y_MASK + 1)
"""(W, H) in pixels that a word has room for."""
LONGEST_US = 2 ** (63 - TIME_SHIFT) - 1
"""Longest recording that a word has room for, in microseconds."""


@dataclass(frozen=True)
class PackedEvents:
    """A checked recording."""

    words: NDArray[np.int64]
    """[N] int64, see above; at least one, in order of time."""
    start_us: int
    """Time of the first event as the file counts it."""
    extent: tuple[int, int]
    """(W, H), largest coordinates plus one."""
    overflow_markers: int = 0
    """This and the following: see `pipeline.events.arrays.Events`."""
    passed_over: tuple[tuple[str, int], ...] = ()
    doubts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds."""
        return int(self.words[-1]) >> TIME_SHIFT

    def sha256(self) -> str:
        """Return the hash of the events: equal for a copy of a recording under another name or with shifted times."""
        return hashlib.sha256(self.words.astype("<i8", copy=False).tobytes()).hexdigest()

    def unpack(self) -> Events:
        """Return the events as columns, their times as the file counts them."""
        words = self.words
        return Events(
            t=(words >> TIME_SHIFT) + self.start_us,
            x=(words >> X_SHIFT & X_MASK).astype(np.int32),
            y=(words >> Y_SHIFT & Y_MASK).astype(np.int32),
            p=(words & 1).astype(np.uint8),
        )


def pack(events: Events, *, sensor_size: tuple[int, int], source: str) -> PackedEvents:
    """Check events against a sensor of (W, H) pixels and pack them, in one compiled pass.

    Raises:
        RecordingError: see `check_events`; or longer than 6 days (`too_long`).
    """
    from spikebridge.pipeline.events import packing_kernel as kernel

    words = np.empty(len(events), np.int64)
    width, height = (min(size, room) for size, room in zip(sensor_size, LARGEST_SENSOR, strict=True))
    fine, right, bottom = kernel.pack_columns(events.t, events.x, events.y, events.p, width, height, words)
    if not fine:
        check_events(events, sensor_size=(width, height), source=source)
        raise RecordingError(
            f"{source}: {events.duration_us / 1e6:,.0f} s from the first event to the last; up to "
            f"{LONGEST_US / 1e6:,.0f} s can be packed. Cut the recording, or correct the unit of its time stamps.",
            reason="too_long",
        )
    carried = (events.overflow_markers, events.passed_over, events.doubts)
    return PackedEvents(words, int(events.t[0]), (right, bottom), *carried)
