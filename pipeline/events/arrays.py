"""Events of one recording as separate columns, and the checks every recording passes.

Axes: N events. Columns: t [N] int64 microseconds from the recording's first event, x [N] and y [N] int32 pixels with
the origin top left, p [N] uint8 polarity (0 = OFF, 1 = ON).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError


@dataclass(frozen=True)
class Events:
    """Events of one recording, columns of equal length N."""

    t: NDArray[np.int64]
    """[N] int64, microseconds."""
    x: NDArray[np.int32]
    """[N] int32, column."""
    y: NDArray[np.int32]
    """[N] int32, row."""
    p: NDArray[np.uint8]
    """[N] uint8, 0 = OFF, 1 = ON."""
    overflow_markers: int = 0
    """Records of the clock, not of events, that were taken out (`.bin` files only)."""
    passed_over: tuple[tuple[str, int], ...] = ()
    """What else of the file is no event, and how often it occurs."""
    doubts: tuple[str, ...] = ()
    """What may be wrong about the file, one sentence each."""

    def __len__(self) -> int:
        return len(self.t)

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds; 0 for none or one."""
        return int(self.t[-1]) - int(self.t[0]) if len(self) else 0


def check_events(events: Events, *, sensor_size: tuple[int, int], source: str) -> None:
    """Refuse events that binning would silently misplace on a sensor of (W, H) pixels.

    Raises:
        RecordingError: no events (`empty`), time stamps that go back (`unsorted`), coordinates off the sensor
            (`out_of_range`), or a polarity other than 0 and 1 (`polarity`).
    """
    width, height = sensor_size
    if len(events) == 0:
        raise RecordingError(f"{source}: no events; expected at least one.", reason="empty")
    back = np.flatnonzero(events.t[1:] < events.t[:-1])  # a difference could wrap
    if len(back):
        i = int(back[0]) + 1
        raise RecordingError(
            f"{source}: event {i} is {int(events.t[i - 1]) - int(events.t[i])} us earlier than the event before it "
            f"({len(back)} such steps back); expected time stamps in order. Sort or re-export the recording.",
            reason="unsorted",
        )
    for name, column, limit in (("x", events.x, width), ("y", events.y, height)):
        low, high = int(column.min()), int(column.max())
        if low < 0 or high >= limit:
            raise RecordingError(
                f"{source}: {name} runs from {low} to {high}; the sensor of {width}x{height} pixels allows "
                f"0 to {limit - 1}. Is this file from another camera?",
                reason="out_of_range",
            )
    if int(events.p.max()) > 1:
        raise RecordingError(
            f"{source}: polarity {int(events.p.max())} found; expected 0 (OFF) and 1 (ON).", reason="polarity"
        )
