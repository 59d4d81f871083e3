"""Figures of single events: rates, polarities, times between events of one pixel, pixels that fire by themselves.

Axes: N events, n recordings.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.measurement.hot_pixels import HotPixel, find_hot_pixels
from spikebridge.pipeline.measurement.recordings import RecordingSet

INTERVAL_EDGES_US = tuple(round(10 ** (i / 3)) for i in range(3, 19))
"""Edges of the classes of inter-event times, three a decade from 10 us to 1 s."""
PROFILE_US = 5_000
"""Longest bin of the time profile."""
FLOOR, FEWEST_INTERVALS = 0.01, 1000
"""Share of the inter-event times that may be shorter than the refractory time (a camera's double events, noise); times
that it needs, at least."""


class Statistics(TypedDict):
    """JSON types; of a set of recordings, each figure a mean over them unless it says otherwise."""

    recordings: int
    events: float
    """Events of a recording."""
    events_deviation: float
    """Standard deviation from recording to recording."""
    events_per_pixel_s: float
    """Events of a pixel in a second."""
    on_share: float
    duration_us: int
    """Median."""
    profile_bin_us: float
    profile: list[float]
    """Events of a recording in each of these bins."""
    interval_edges_us: list[int]
    intervals: list[float]
    """Shares of the times between two events of one pixel in the classes between these edges; both ends are open."""
    same_polarity: float
    """Share of successive events of one pixel that are of one polarity."""
    refractory_us: float | None
    """Time that all but `FLOOR` of the times between events of one pixel exceed: a pixel is blind no longer; None where
    there are too few."""
    hot_pixels: list[HotPixel]
    """Busiest first."""


def measure(recordings: RecordingSet) -> Statistics:
    """Return the figures of a set of recordings."""
    width, height = recordings.sensor
    counts = np.array([len(events) for events in recordings.events])
    duration = recordings.duration_us
    bins = max(1, -(-duration // PROFILE_US))
    profile = np.zeros(bins)
    intervals, same = [], []
    for events in recordings.events:
        part = np.minimum(events.t * bins // max(1, events.duration_us), bins - 1)
        profile += np.bincount(part, minlength=bins)
        between, equal = _successions(events, width)
        intervals.append(between)
        same.append(equal)
    gaps = np.concatenate(intervals)
    edges = np.array(INTERVAL_EDGES_US)
    classes = np.bincount(np.searchsorted(edges, gaps, "right"), minlength=len(edges) + 1)
    seconds = sum(events.duration_us for events in recordings.events) * 1e-6
    return Statistics(
        recordings=len(counts),
        events=float(counts.mean()),
        events_deviation=float(counts.std(ddof=1)) if len(counts) > 1 else 0.0,
        events_per_pixel_s=float(counts.sum() / (seconds * width * height)),
        on_share=float(sum(int(events.p.sum()) for events in recordings.events) / counts.sum()),
        duration_us=duration,
        profile_bin_us=duration / bins,
        profile=(profile / len(counts)).tolist(),
        interval_edges_us=edges.tolist(),
        intervals=(classes / max(1, len(gaps))).tolist(),
        same_polarity=float(np.concatenate(same).mean()) if len(gaps) else 0.0,
        refractory_us=_shortest(gaps),
        hot_pixels=hot_pixels_of(recordings),
    )


def shortest_interval_us(recordings: RecordingSet) -> float | None:
    """Return `refractory_us` of `Statistics` alone."""
    return _shortest(np.concatenate([_successions(events, recordings.sensor[0])[0] for events in recordings.events]))


def _shortest(gaps: NDArray[np.int64]) -> float | None:
    return float(np.quantile(gaps, FLOOR)) if len(gaps) >= FEWEST_INTERVALS else None


def hot_pixels_of(recordings: RecordingSet) -> list[HotPixel]:
    """Return the hot pixels of recordings, busiest first."""
    width, height = recordings.sensor

    def counts(events: Events) -> NDArray[np.int64]:
        """Return OFF and ON events [2,H,W]."""
        cell = (events.p.astype(np.int64) * height + events.y) * width + events.x
        return np.bincount(cell, minlength=2 * height * width).reshape(2, height, width)

    return find_hot_pixels(map(counts, recordings.events))


def _successions(events: Events, width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the times between successive events of a pixel in a recording, and whether their polarities agree."""
    pixel = events.y.astype(np.int64) * width + events.x
    order = np.lexsort((events.t, pixel))
    pixel, t, p = pixel[order], events.t[order], events.p[order]
    follows = pixel[1:] == pixel[:-1]
    return (t[1:] - t[:-1])[follows], (p[1:] == p[:-1])[follows]
