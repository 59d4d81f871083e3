"""Filters before binning: a part of the time, hot pixels, bursts of a pixel, and noise.

Axes: N events. Filters work in the order of `Filters`; each gets the events that the one before kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events


@dataclass(frozen=True)
class Filters:
    """Rules for the events that are kept; the defaults keep all.

    Source: for the last two tonic 1.7 `refractory_period` and `denoise`, after Delbruck 2008, "Frame-free dynamic
    digital vision".
    Differs: tonic drops an event at t = 0 for the refractory period, and keeps every event before t = filter_time.
    """

    time_window_us: tuple[int, ...] = ()
    """(start, stop) counted from the first event; start <= t < stop is kept; empty keeps all."""
    hot_pixels: float = 0.0
    """Pixels with more than this many times the mean number of events of the pixels with any are left out, both
    polarities together; 0 keeps all."""
    refractory_us: int = 0
    """An event is left out when its pixel had one (kept or not) up to this long before; 0 keeps all."""
    background_us: int = 0
    """An event is left out when none of the four pixels beside it had one less than this long before; 0 keeps all."""

    def __bool__(self) -> bool:
        return self != Filters()

    def apply(self, events: Events, *, source: str) -> tuple[Events, dict[str, int]]:
        """Filter a checked recording.

        Returns:
            The events kept, and how many each filter in use took out.

        Raises:
            RecordingError: no event is left (`filtered`).
        """
        from spikebridge.pipeline.events import filters_kernel as kernel

        left, taken = events, dict.fromkeys(self.names(), 0)
        for name in taken:
            if name == "time_window":
                start, stop = self.time_window_us
                since = left.t - left.t[0]
                kept = (since >= start) & (since < stop)
            elif name == "hot_pixels":
                kept = ~_find_hot_events(left, self.hot_pixels)
            else:
                kept = np.empty(len(left), np.bool_)
                latest_us = np.full(
                    (int(left.y.max()) + 3, int(left.x.max()) + 3), NEVER_US, np.int64
                )  # a pixel of margin
                if name == "refractory":
                    kernel.refractory(left.t, left.x, left.y, self.refractory_us, latest_us, kept)
                else:
                    kernel.background(left.t, left.x, left.y, self.background_us, latest_us, kept)
            taken[name] = len(left) - int(np.count_nonzero(kept))
            left = Events(left.t[kept], left.x[kept], left.y[kept], left.p[kept])
            if not len(left):
                counts = ", ".join(f"{name} {count:,}" for name, count in taken.items() if count)
                raise RecordingError(
                    f"{source}: no event of {len(events):,} is left after filtering ({counts}). Use milder filters, or "
                    "remove the recording.",
                    reason="filtered",
                )
        return left, taken

    def names(self) -> tuple[str, ...]:
        """Return the filters in use, in their order."""
        used = {
            "time_window": bool(self.time_window_us),
            "hot_pixels": self.hot_pixels > 0,
            "refractory": self.refractory_us > 0,
            "background": self.background_us > 0,
        }
        return tuple(name for name, is_used in used.items() if is_used)


NEVER_US = -(2**62)
"""Time of the last event of a pixel that had none."""


def _find_hot_events(events: Events, factor: float) -> NDArray[np.bool_]:
    """Mark events of pixels with more than `factor` times the mean of the pixels with any."""
    width = int(events.x.max()) + 1
    pixel = events.y.astype(np.int64) * width + events.x
    counts = np.bincount(pixel)
    return (counts > factor * len(events) / np.count_nonzero(counts))[pixel]
