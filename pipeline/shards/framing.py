"""Frames of a recording by the settings of a set: the same for a conversion and for events that are read from shards.

Axes: T time bins, P polarity, H and W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.fitting import FITS, Box, fit_box
from spikebridge.pipeline.events.compact import CompactEvents, Counter, Head, stored_extent
from spikebridge.pipeline.events.compact_layout import OTHER, first_bin
from spikebridge.pipeline.events.framing import RecordingFrames, cell_tables, to_frames
from spikebridge.pipeline.events.packing import CheckedEvents
from spikebridge.pipeline.events.parts import parts_of
from spikebridge.pipeline.shards.settings import ConversionSettings

Change = Callable[[CheckedEvents, tuple[int, int]], CheckedEvents | None]
"""Changes the events of a recording on a sensor of (W, H) pixels; None where none is left."""


def frame_events(
    events: CheckedEvents,
    settings: ConversionSettings,
    *,
    sensor_size: tuple[int, int] | None,
    crop: Box | None,
    span_us: int | None,
    source: str,
) -> RecordingFrames:
    """Make frames of a recording whose events are those that the settings' filters keep.

    Args:
        events: a checked recording.
        settings: of the set.
        sensor_size: (W, H) of its sensor; None where that is not known, and no canvas is shown.
        crop: see `pipeline.events.framing.to_frames`.
        span_us: see there.
        source: name for messages.

    Raises:
        RecordingError: see there.
    """
    return to_frames(
        events,
        time_bins=settings.time_bins,
        size=settings.size,
        width=settings.width,
        fit=settings.fit or FITS[0],
        reduction=settings.reduction,
        dtype=settings.dtype,
        canvas=sensor_size if settings.extent == "canvas" else None,
        source=source,
        crop=crop,
        span_us=span_us,
        binning=settings.binning_rule,
        tau_us=settings.tau_us,
        latest_events=settings.latest_events,
    )


class Counting(NamedTuple):
    """How the events of a recording are counted in bins."""

    head: Head
    """Of its stored bytes."""
    start: int
    """Where the first bin begins: microseconds from the first event, or number of an event."""
    length: int
    """Of a bin, likewise."""
    of_time: bool
    """Whether these are times."""
    rest: bool
    """Whether the last bin takes all that comes after it."""
    limit: int
    """Of a count."""
    box: Box
    """What is shown, before it is fitted to the frame."""


@dataclass(frozen=True)
class Framing:
    """Makes frames of stored events."""

    settings: ConversionSettings
    """How frames are made."""
    stored: ConversionSettings
    """Those that the events are stored with."""
    crop: Box | None
    """This and the following: see `frame_events`."""
    span_us: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (T,P,H,W) of a sample."""
        return (self.settings.time_bins, 2, *self.settings.frame)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of frames, little-endian."""
        return np.dtype(self.settings.dtype).newbyteorder("<")

    def frames_into(
        self, out: NDArray[Any], data: NDArray[np.uint8], *, source: str, change: Change | None = None
    ) -> None:
        """Make frames [T,P,H,W] of the stored bytes of a recording.

        Args:
            out: of `shape` and `dtype`.
            data: stored bytes.
            source: name for messages.
            change: changes the events first; where too few are left for frames, they stay as they were.

        Raises:
            ValueError: these are not the bytes of a recording.
            RecordingError: it cannot be framed with these settings.
        """
        if change is not None:
            with suppress(RecordingError):
                if (frames := self._frames(data, source, change)) is not None:
                    out[:] = frames
                    return
        if not self.count_into(out, data):
            out[:] = self.frame(data, source=source)[1].frames

    def _frames(self, data: NDArray[np.uint8], source: str, change: Change) -> NDArray[Any] | None:
        """Make frames of changed events; None where none is left."""
        events, sensor_size = self._events(data, source)
        changed = change(events, sensor_size if self.settings.extent == "canvas" else events.extent)
        return None if changed is None else self._frame(changed, sensor_size, source).frames

    def frame(self, data: NDArray[np.uint8], *, source: str) -> tuple[CheckedEvents, RecordingFrames]:
        """Make frames in the way of a conversion, which says what is wrong with a recording.

        Returns:
            The events that are used, and their frames.

        Raises:
            ValueError: these are not the bytes of a recording.
            RecordingError: it cannot be framed with these settings.
        """
        events, sensor_size = self._events(data, source)
        return events, self._frame(events, sensor_size, source)

    def _events(self, data: NDArray[np.uint8], source: str) -> tuple[CheckedEvents, tuple[int, int]]:
        """Return the events that are used, and the (W, H) of their sensor."""
        compact = CompactEvents.parse(data)
        events: CheckedEvents = compact.packed
        if self.settings.time_window_us != self.stored.time_window_us:
            events = self._within(events, source)
        return events, compact.sensor_size

    def _frame(self, events: CheckedEvents, sensor_size: tuple[int, int], source: str) -> RecordingFrames:
        return frame_events(
            events, self.settings, sensor_size=sensor_size, crop=self.crop, span_us=self.span_us, source=source
        )

    def _within(self, events: CheckedEvents, source: str) -> CheckedEvents:
        """Return the events in the part of the time that the settings choose."""
        start, stop = self.settings.time_window_us
        ((_, part),) = parts_of(events, [(start, stop)])
        if part is None:
            raise RecordingError(f"{source}: no event from {start} to {stop} us.", reason="filtered")
        return part

    @cached_property
    def countable(self) -> bool:
        """Return whether frames are counts of all that is stored, which one pass over the stored bytes gives."""
        counted = self.settings.reduction in ("sum", "event")
        return counted and self.settings.time_window_us == self.stored.time_window_us

    @cached_property
    def _counted(self) -> bool:
        """Return whether this pass can be made here."""
        return self.countable and find_spec("numba") is not None

    @cached_property
    def _counter(self) -> list[Counter]:
        """Return what counted the last recording, if there was one."""
        return []

    @cached_property
    def most_counted(self) -> int:
        """Return the largest count of a cell."""
        return 1 if self.settings.reduction == "event" else 256**self.dtype.itemsize - 1

    @cached_property
    def _fitted(self) -> tuple[tuple[int, int], str]:
        """Return (H, W) of a frame, and how what is shown is fitted to it."""
        return self.settings.frame, self.settings.fit or FITS[0]

    @cached_property
    def may_show_none(self) -> bool:
        """Return whether frames may show a part of the sensor without any event, which is refused."""
        return self.crop is not None or self.settings.fit == "crop"

    def counting(self, data: NDArray[np.uint8]) -> Counting | None:
        """Return how the events of a recording are counted, if frames are `countable`; None where they cannot be.

        Raises:
            ValueError: these are not the bytes of a recording.
        """
        head = Head.read(data)
        start, length = first_bin(head, *self._bins, self.settings.time_bins)
        if not length:
            return None
        return Counting(head, start, length, self._bins[2], self._rest, self.most_counted, self._box(head))

    @cached_property
    def _bins(self) -> tuple[int, int, bool]:
        """Return span, length and kind of the bins, as `first_bin` takes them."""
        settings, span_us = self.settings, -1 if self.span_us is None else self.span_us
        if settings.binning == "count":
            return span_us, settings.events_per_bin, False
        return span_us, settings.window_us if settings.binning == "window" else 0, True

    @cached_property
    def _rest(self) -> bool:
        """Return whether the last bin takes all that comes after it."""
        return self.settings.reduction == "event" and self.settings.binning == "bins"

    def _box(self, head: Head) -> Box:
        """Return what is shown of a recording, before it is fitted to the frame."""
        return self.crop or (0, 0, *(head.sensor_size if self.settings.extent == "canvas" else head.extent))

    def count_into(self, out: NDArray[Any], data: NDArray[np.uint8]) -> bool:
        """Make frames in one pass, see `frames_into`; False where that cannot be, or there is anything to object to.

        Raises:
            ValueError: these are not the bytes of a recording.
        """
        if not self._counted:
            return False
        used = self._counter[0].count_into(out, data) if self._counter else OTHER
        if used == OTHER:  # of another extent or sensor than the one before
            head = Head.read(data)
            counter = Counter.of(
                head,
                _tables(head.bits, self._box(head), *self._fitted),
                same_extent=self.settings.extent != "canvas" and self.crop is None,
                bins=self._bins,
                rest=self._rest,
                limit=self.most_counted,
            )
            self._counter[:] = [counter]
            used = counter.count_into(out, data)
        return used > 0 or (used == 0 and not self.may_show_none)

    def too_short(self, index: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which recordings of an index leave a time bin without length or events, [n]."""
        settings = self.settings
        if settings.binning == "count":
            each: NDArray[np.bool_] = index["events"] < (0 if settings.events_per_bin else settings.bins)
            return each
        if settings.binning == "window" or self.span_us is not None:
            return np.zeros(len(index), np.bool_)
        short: NDArray[np.bool_] = index["duration_us"] < settings.bins
        return short


@lru_cache(maxsize=4096)
def _tables(
    bits: tuple[int, int], box: Box, frame: tuple[int, int], fit: str
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the tables of `cell_tables` for all that places of these bits can say; `frame` is (H, W)."""
    height, width = frame
    shown = fit_box(box, (width, height), fit)
    return cell_tables(stored_extent(bits), shown, height, width)
