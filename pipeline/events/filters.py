"""Filters before binning: a part of the time, hot pixels, bursts of a pixel, and noise.

Axes: N events. Filters work in the order of `Filters`; each gets the events that the one before kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import KEPT_EVENTS, CheckedEvents, pack_chunks

Chunks = Callable[[], Iterator[Events]]
"""Begins a pass over the events of a recording."""


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

    def apply(
        self, events: CheckedEvents, *, source: str, most: int = KEPT_EVENTS
    ) -> tuple[CheckedEvents, dict[str, int]]:
        """Filter a checked recording, in as many passes as the filters in use need.

        Returns:
            The events kept, and how many each filter in use took out.

        Raises:
            RecordingError: no event is left (`filtered`).
        """
        taken = dict.fromkeys(self.names(), 0)
        chunks: Chunks = events.columns
        for name in taken:
            chunks = self._filtered(name, chunks, events, taken)
        try:
            left = pack_chunks(chunks, sensor_size=events.extent, source=source, likely=len(events), most=most)
        except RecordingError as error:
            taken = _with_not_read(taken, events)
            counts = ", ".join(f"{name} {count:,}" for name, count in taken.items() if count)
            raise RecordingError(
                f"{source}: no event of {len(events) + events.not_read:,} is left after filtering ({counts}). Use "
                "milder filters, or remove the recording.",
                reason="filtered",
            ) from error
        return left, _with_not_read(taken, events)

    def _filtered(self, name: str, chunks: Chunks, events: CheckedEvents, taken: dict[str, int]) -> Chunks:
        """Return passes over what a filter keeps of other passes; a pass counts in `taken` what it takes out."""
        hot = cache(lambda: _find_hot_pixels(chunks(), self.hot_pixels, events.extent))  # [H,W]

        def passes() -> Iterator[Events]:
            from spikebridge.pipeline.events.loops import filters as kernel

            latest_us = np.full((events.extent[1] + 2, events.extent[0] + 2), NEVER_US, np.int64)  # a pixel of margin
            taken[name] = 0
            for chunk in chunks():
                if name == "time_window":
                    start, stop = self.time_window_us
                    since = chunk.t - events.start_us
                    kept = (since >= start) & (since < stop)
                elif name == "hot_pixels":
                    kept = ~hot()[chunk.y, chunk.x]
                else:
                    kept = np.empty(len(chunk), np.bool_)
                    run, time_us = (
                        (kernel.refractory, self.refractory_us)
                        if name == "refractory"
                        else (kernel.background, self.background_us)
                    )
                    run(chunk.t, chunk.x, chunk.y, time_us, latest_us, kept)
                taken[name] += len(chunk) - int(np.count_nonzero(kept))
                yield chunk.part(kept)

        return passes

    def names(self) -> tuple[str, ...]:
        """Return the filters in use, in their order."""
        used = {
            "time_window": bool(self.time_window_us),
            "hot_pixels": self.hot_pixels > 0,
            "refractory": self.refractory_us > 0,
            "background": self.background_us > 0,
        }
        return tuple(name for name, is_used in used.items() if is_used)


def _with_not_read(taken: dict[str, int], events: CheckedEvents) -> dict[str, int]:
    """Return what filters took out, with the events outside the time window that were not even read."""
    return {**taken, "time_window": taken["time_window"] + events.not_read} if events.not_read else taken


NEVER_US = -(2**62)
"""Time of the last event of a pixel that had none."""


def _find_hot_pixels(chunks: Iterable[Events], factor: float, extent: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels [H,W] with more than `factor` times the mean of the pixels with any event."""
    from spikebridge.pipeline.events.loops import framing as kernel

    by_polarity = np.zeros((2, extent[1], extent[0]), np.int32)
    for chunk in chunks:
        kernel.count_pixels(chunk.x, chunk.y, chunk.p, by_polarity)
    counts = by_polarity.sum(0)
    return counts > factor * counts.sum() / max(np.count_nonzero(counts), 1)
