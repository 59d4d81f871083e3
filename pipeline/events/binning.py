"""Time bins: equal parts of a recording, windows of fixed length, or equal numbers of events.

Axes: N events, T time bins. Bins are given as cuts [T + 1] int64: bin k holds the events cuts[k] to cuts[k + 1]; of a
long recording each chunk has its own.

    tonic's ToFrame         here                      differs
    n_time_bins=T           binning bins              -
    time_window=w           binning window            always T bins: later events are dropped, missing ones are empty,
                                                      and the bin in which the recording ends is kept
    n_event_bins=T          binning count             -
    event_count=n           binning count with        as with time_window
                            events_per_bin=n
    int16 cells wrap        counts saturate           and saturated cells are counted
    unsorted times, coordinates beyond the sensor     refused: tonic counts into the wrong cells or fails without
                                                      naming the file
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.packing import LONGEST_US, TIME_SHIFT, CheckedEvents


def loops() -> ModuleType:
    """Return the loops over events: compiled ones, or where numba is not installed those in numpy."""
    try:
        from spikebridge.pipeline.events.loops import framing
    except ModuleNotFoundError:
        from spikebridge.pipeline.events.loops import framing_plain

        return framing_plain
    return framing


@dataclass(frozen=True)
class Binning:
    """A rule that cuts a recording into T time bins."""

    mode: str = "bins"
    """`bins`, `window` or `count`."""
    window_us: int = 0
    """Length of a window in microseconds; `window` only."""
    events_per_bin: int = 0
    """Events of a bin; 0 shares out the recording's evenly; `count` only."""

    def edges(self, events: CheckedEvents, *, time_bins: int, span_us: int | None, rest: bool, source: str) -> Edges:
        """Return where the bins of a recording begin and end.

        Args:
            events: the recording.
            time_bins: T.
            span_us: length of a recording that begins at t = 0 whether or not there is an event; None counts from the
                first event to the last.
            rest: give the events after the last bin to it.
            source: file name for messages.

        Raises:
            RecordingError: shorter than T microseconds, or fewer than T events to be shared out: a bin would have no
                length (`too_short`).
        """
        if self.mode == "count":
            each = self.events_per_bin or len(events) // time_bins
            if each == 0:
                raise RecordingError(
                    f"{source}: {len(events)} event(s); expected at least {time_bins} for {time_bins} bins of equal "
                    "counts. Use fewer bins, or remove the recording.",
                    reason="too_short",
                )
            at = np.arange(time_bins + 1, dtype=np.int64) * each
            return Edges(at, each, events.duration_us, of_time=False, rest=rest)
        length = self.window_us if self.mode == "window" else bin_us(events, time_bins, span_us, source)
        first = 0 if span_us is None else -events.start_us  # of the first bin, counted from the first event
        times = first + np.arange(time_bins + 1, dtype=np.int64) * length
        span = events.duration_us if span_us is None else span_us
        return Edges(np.minimum(times, LONGEST_US), length, span, of_time=True, rest=rest)  # later ones fit no word


@dataclass(frozen=True)
class Edges:
    """Where the T bins of a recording begin and end."""

    at: NDArray[np.int64]
    """[T + 1] microseconds from the first event, or numbers of events."""
    step: int
    """Microseconds or events of a bin."""
    span_us: int
    """Length of the recording."""
    of_time: bool
    """Which of the two."""
    rest: bool
    """The last bin takes all that comes after it."""

    def cuts(self, words: NDArray[np.int64], before: int) -> NDArray[np.int64]:
        """Return where the bins begin and end [T + 1] among words [N] of the recording, behind `before` others."""
        if self.of_time:
            cuts = np.searchsorted(words, self.at << TIME_SHIFT).astype(np.int64)
        else:
            cuts = np.clip(self.at - before, 0, len(words))
        if self.rest:
            cuts[-1] = len(words)
        return cuts


def bin_us(events: CheckedEvents, time_bins: int, span_us: int | None, source: str) -> int:
    """Return the length of each of T equal bins, floor(duration / T).

    Raises:
        RecordingError: it would be 0 (`too_short`).
    """
    duration = events.duration_us if span_us is None else span_us
    if duration // time_bins == 0:
        raise RecordingError(
            f"{source}: {len(events)} event(s) within {duration} us; expected at least {time_bins} us for "
            f"{time_bins} time bins. Use fewer bins, or remove the recording.",
            reason="too_short",
        )
    return duration // time_bins
