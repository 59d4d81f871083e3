"""Events of one recording as separate columns, and the checks every recording passes.

Axes: N events. Columns: t [N] int64 microseconds from the recording's first event, x [N] and y [N] int32 pixels with
the origin top left, p [N] uint8 polarity (0 = OFF, 1 = ON).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError

OUTSIDE = "outside_sensor"
"""Name of the count of events that lie outside the sensor."""


class StartOver(Exception):  # noqa: N818  (no error)
    """What a pass over a recording took for granted does not hold; the next one knows. Whoever began it starts over."""


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
    not_read: int = 0
    """Events of the file outside the time window that alone was asked for."""
    choices: tuple[str, ...] = ()
    """What was decided where the file left it open."""

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def room(cls, count: int) -> Events:
        """Return columns of a length whose content is still to be written."""
        return cls(
            np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.uint8)
        )

    def to_corner(self) -> Events:
        """Return them with x and y counted from the leftmost and the topmost event; none stay none."""
        return replace(self, x=self.x - self.x.min(), y=self.y - self.y.min()) if len(self) else self

    @property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        """Return t, x, y and p."""
        return self.t, self.x, self.y, self.p

    def part(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Events:
        """Return some of the events, without what is attached to all."""
        return Events(self.t[rows], self.x[rows], self.y[rows], self.p[rows])

    @property
    def duration_us(self) -> int:
        """Return the time from the first to the last event in microseconds; 0 for none or one."""
        return int(self.t[-1]) - int(self.t[0]) if len(self) else 0


class Checks:
    """What the checks of a recording find, chunk by chunk, on a sensor of (W, H) pixels."""

    def __init__(self, sensor_size: tuple[int, int]) -> None:
        self.sensor_size = sensor_size
        self.count = self.outside = 0
        self.first_us = self.last_us = 0
        self.back: tuple[int, int] | None = None
        """Number of the first event that is earlier than the one before it, and by how many microseconds."""
        self.steps_back = 0
        self.lowest = {"x": 2**63, "y": 2**63}
        self.highest = {"x": -(2**63), "y": -(2**63), "p": 0}

    def add(self, events: Events) -> None:
        """Look at the next events."""
        if not len(events):
            return
        t = events.t
        if not self.count:
            self.first_us = int(t[0])
        elif int(t[0]) < self.last_us:
            self._step_back(self.count, self.last_us - int(t[0]))
        back = np.flatnonzero(t[1:] < t[:-1])  # a difference could wrap
        if len(back):
            i = int(back[0])
            self._step_back(self.count + i + 1, int(t[i]) - int(t[i + 1]), len(back))
        self.count += len(events)
        self.last_us = int(t[-1])
        for name, column in (("x", events.x), ("y", events.y)):
            self.lowest[name] = min(self.lowest[name], int(column.min()))
            self.highest[name] = max(self.highest[name], int(column.max()))
        self.highest["p"] = max(self.highest["p"], int(events.p.max()))
        width, height = self.sensor_size
        inside = (events.x >= 0) & (events.x < width) & (events.y >= 0) & (events.y < height)
        self.outside += len(events) - int(np.count_nonzero(inside))

    def _step_back(self, event: int, us: int, steps: int = 1) -> None:
        self.steps_back += steps
        self.back = self.back or (event, us)

    def require(self, *, source: str) -> None:
        """Refuse events that binning would silently misplace.

        Raises:
            RecordingError: see `check_events`.
        """
        if not self.count:
            raise RecordingError(f"{source}: no events; expected at least one.", reason="empty")
        if self.back:
            event, us = self.back
            raise RecordingError(
                f"{source}: event {event} is {us} us earlier than the event before it ({self.steps_back} such steps "
                "back); expected time stamps in order. Sort or re-export the recording.",
                reason="unsorted",
            )
        width, height = self.sensor_size
        for name, limit in (("x", width), ("y", height)):
            low, high = self.lowest[name], self.highest[name]
            if low < 0 or high >= limit:
                raise RecordingError(
                    f"{source}: {name} runs from {low} to {high}; the sensor of {width}x{height} pixels allows "
                    f"0 to {limit - 1}. {self.outside:,} of {self.count:,} events lie outside. Is this file from "
                    "another camera?",
                    reason="out_of_range",
                    counts={OUTSIDE: self.outside, "events": self.count},
                )
        if self.highest["p"] > 1:
            raise RecordingError(
                f"{source}: polarity {self.highest['p']} found; expected 0 (OFF) and 1 (ON).", reason="polarity"
            )


def check_events(events: Events, *, sensor_size: tuple[int, int], source: str) -> None:
    """Refuse events that binning would silently misplace on a sensor of (W, H) pixels.

    Raises:
        RecordingError: no events (`empty`), time stamps that go back (`unsorted`), coordinates off the sensor
            (`out_of_range`), or a polarity other than 0 and 1 (`polarity`).
    """
    checks = Checks(sensor_size)
    checks.add(events)
    checks.require(source=source)
