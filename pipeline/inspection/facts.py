"""Facts about one recording or stored sample, and its anomalies.

Axes: N events, T time bins, P polarity (0 OFF, 1 ON), H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import CheckedEvents

HOT_FACTOR = 20.0
"""A pixel is hot when it has more than this many times the mean of the pixels with any event."""
ONE_SIDED = 0.02
"""Share of ON or of OFF events below which a recording counts as having one polarity."""
LONG_GAP = 0.25
"""Share of the duration from which a pause without any event is named."""
OUTLIER_SPREADS, OUTLIER_FACTOR = 5.0, 3.0
"""A recording has unusually few or many events when it is this many robust standard deviations and at least this factor
away from the median of its class."""
FEWEST_FOR_OUTLIERS = 5
"""Recordings of a class that a median needs."""
JSON_KEYS = {"anomalies": "complaints", "inspected": "looked", "total": "of"}
"""Field -> key in `inspect --json`, where they differ: programs read the keys of earlier versions."""


@dataclass(frozen=True)
class Facts:
    """One recording or sample in numbers."""

    name: str
    """Recording name or sample key."""
    events: float
    """Number of events; of a sample whose frames are no counts, the sum of the cells."""
    on_share: float | None
    """Share of ON events, 0 to 1; None without events."""
    extent: tuple[int, int, int, int] | None
    """(left, top, right, bottom) of the pixels with events, right and bottom exclusive; None without."""
    active_pixels: int
    hot_pixels: tuple[tuple[int, int, float], ...]
    """(x, y, share of all events), largest first, see `HOT_FACTOR`."""
    events_per_bin: tuple[float, ...]
    """Events of each of T time bins."""
    duration_us: int | None
    """First to last event; None for a stored sample, whose frames do not tell."""
    longest_gap_us: int | None
    """Longest pause between two events; None likewise."""
    anomalies: tuple[str, ...]
    """One phrase each."""

    @property
    def rate_hz(self) -> float | None:
        """Return the mean event rate in events per second; None where no duration is known."""
        return self.events / (self.duration_us / 1e6) if self.duration_us else None

    def as_dict(self) -> dict[str, object]:
        """Return the facts and the rate, JSON-ready."""
        return {**{JSON_KEYS.get(name, name): value for name, value in vars(self).items()}, "rate_hz": self.rate_hz}


def summarize_events(events: CheckedEvents, *, name: str, time_bins: int) -> Facts:
    """Return facts about a recording; the time bins are equal parts of the duration."""
    from spikebridge.pipeline.events.loops import framing as kernel

    pixels = np.zeros((2, events.extent[1], events.extent[0]), np.int32)
    per_bin, gap, latest = np.zeros(time_bins, np.int64), 0, events.start_us
    for chunk in events.columns():
        kernel.count_pixels(chunk.x, chunk.y, chunk.p, pixels)
        per_bin += np.bincount(bins_of(chunk, events, time_bins), minlength=time_bins)
        gap = max(gap, int(chunk.t[0]) - latest, int(np.diff(chunk.t).max(initial=0)))
        latest = int(chunk.t[-1])
    return _summarize(name, pixels, per_bin, duration_us=events.duration_us, gap_us=gap, anomalies=events.doubts)


def bins_of(chunk: Events, events: CheckedEvents, time_bins: int) -> NDArray[np.int64]:
    """Return the time bin of each event of a chunk; the last bin takes the last event of the recording, too."""
    since = chunk.t - events.start_us
    return np.minimum(since * time_bins // max(events.duration_us, 1), time_bins - 1)


def summarize_frames(frames: NDArray[Any], *, name: str) -> Facts:
    """Return facts about one stored sample [T,P,H,W]; cells at the limit of an integer type are an anomaly."""
    counts = frames.astype(np.float64)
    anomalies = []
    if frames.dtype.kind == "u" and (full := int((frames == np.iinfo(frames.dtype).max).sum())):
        anomalies = [f"{full} cells at the limit of {frames.dtype}"]
    return _summarize(name, counts.sum(0), counts.sum((1, 2, 3)), duration_us=None, gap_us=None, anomalies=anomalies)


def screen(samples: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return of stored samples [n,T,P,H,W] the numbers of events [n], and which have anomalies of their own [n].

    These are those for which `summarize_frames` names some: looking at all together takes a fraction of the time.
    """
    pixels = samples.sum(1, dtype=np.float64)  # [n,P,H,W]
    total, counts = pixels.sum((1, 2, 3)), pixels.sum(1)
    odd = (total == 0) | ~samples.sum((2, 3, 4), dtype=np.float64).all(1)
    if samples.dtype.kind == "u":
        odd |= samples.max((1, 2, 3, 4)) == np.iinfo(samples.dtype).max
    with np.errstate(invalid="ignore"):  # samples without an event
        odd |= (counts > (HOT_FACTOR * total / (counts > 0).sum((1, 2)))[:, None, None]).any((1, 2))
        if samples.shape[2] > 1:
            on = pixels[:, 1].sum((1, 2)) / total
            odd |= (on < ONE_SIDED) | (on > 1 - ONE_SIDED)
    return total, odd


def _summarize(
    name: str,
    pixels: NDArray[Any],
    per_bin: NDArray[Any],
    *,
    duration_us: int | None,
    gap_us: int | None,
    anomalies: Sequence[str] = (),
) -> Facts:
    """Return facts from events per pixel [P,H,W] and per bin [T]."""
    anomalies = list(anomalies)
    total, counts = float(pixels.sum()), pixels.sum(0)  # [H,W]
    active = counts > 0
    if not total:
        anomalies.append("no event")
        return Facts(name, 0, None, None, 0, (), tuple(per_bin.tolist()), duration_us, gap_us, tuple(anomalies))
    hot = np.argwhere(counts > HOT_FACTOR * total / active.sum())
    hot_pixels = sorted(((int(x), int(y), float(counts[y, x] / total)) for y, x in hot), key=lambda pixel: -pixel[2])
    if hot_pixels:
        x, y, share = hot_pixels[0]
        anomalies.append(
            f"{len(hot_pixels)} hot pixels, the worst at x={x} y={y} with {100 * share:.0f} % of the events"
        )
    on = float(pixels[1].sum() / total) if len(pixels) > 1 else None
    if on is not None and not ONE_SIDED <= on <= 1 - ONE_SIDED:
        anomalies.append(f"one polarity only: {100 * on:.0f} % ON")
    if empty := [t + 1 for t, count in enumerate(per_bin) if not count]:
        bins = ", ".join(map(str, empty[:6])) + (", ..." if len(empty) > 6 else "")
        anomalies.append(f"{len(empty)} of {len(per_bin)} time bins are empty ({bins})")
    if duration_us and gap_us is not None and gap_us > LONG_GAP * duration_us:
        anomalies.append(f"a pause of {gap_us / 1000:,.1f} ms in {duration_us / 1000:,.1f} ms")
    rows, columns = np.flatnonzero(active.any(1)), np.flatnonzero(active.any(0))
    return Facts(
        name=name,
        events=total,
        on_share=on,
        extent=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        active_pixels=int(active.sum()),
        hot_pixels=tuple(hot_pixels),
        events_per_bin=tuple(per_bin.tolist()),
        duration_us=duration_us,
        longest_gap_us=gap_us,
        anomalies=tuple(anomalies),
    )


def find_unusual_counts(events: Sequence[float], labels: Sequence[int]) -> dict[int, str]:
    """Return the recordings of which their class has far fewer or more events, by row, each with a phrase."""
    phrases = dict[int, str]()
    logs = np.log(np.maximum(np.asarray(events, float), 0.5))
    for rows in _rows_by_class(labels):
        if len(rows) < FEWEST_FOR_OUTLIERS:
            continue
        away = logs[rows] - np.median(logs[rows])
        spread = 1.4826 * np.median(np.abs(away))  # a standard deviation, were it normal
        for at in np.flatnonzero(np.abs(away) > max(OUTLIER_SPREADS * spread, np.log(OUTLIER_FACTOR))):
            word = "more" if away[at] > 0 else "fewer"
            phrases[int(rows[at])] = f"{np.exp(abs(away[at])):.1f} times {word} events than the median of its class"
    return phrases


def find_furthest_count(events: Sequence[float], labels: Sequence[int]) -> tuple[int, float]:
    """Return the row whose number of events is furthest from the median of its class, by factor, and that median.

    Needs at least one recording; the first of equals wins.
    """
    counts = np.maximum(np.asarray(events, float), 0.5)
    middle = np.empty_like(counts)
    for rows in _rows_by_class(labels):
        middle[rows] = np.median(counts[rows])
    row = int(np.abs(np.log(counts / middle)).argmax())
    return row, float(middle[row])


def _rows_by_class(labels: Sequence[int]) -> list[NDArray[np.intp]]:
    """Return the rows of every class, in their order."""
    classes = np.asarray(labels)
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)
