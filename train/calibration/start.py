"""A first guess at the movement, from the frames alone.

Axes: T time bins, B recordings, P polarity (0 OFF, 1 ON), S side of a frame.

Which way the image moves in a bin is read off pairs of events of successive bins; how far, off the number of events: an
edge that moves twice as fast passes twice as many pixels. What a step measures in pixels follows from the places of the
events, a line of least squares through all bins. The steps are then put together to as few legs as explain them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.train.calibration.moments import movement
from spikebridge.train.config.simulation_ranges import MOST_LEGS, Leg

LAG = 1.2
"""Way of the image in ways of its events, which lag behind it: about so in simulated recordings of known cameras."""
LATE = 0.3
"""Weight of OFF events where places tell of the way: pixels that grow dark are slow."""
PRIORS = (0.05, 0.05, 0.0, 0.01, 1.0)
"""Inverse deviations, per sensor pixel, of what the line of least squares looks for; see `_track`."""
SHORTEST, LONGEST = 0.07, 0.4
"""Extent of a path, shares of the sensor's longer side."""
EXPLAINED = 0.06
"""Part of the steps' squares that further legs have to explain for the path to have them."""
RIDGE = 0.01
"""Weight of a leg's length beside what it explains: two legs at one time are no way out."""
COARSEST, FINEST = 1.0, 0.25
"""Changes of a leg's begin and end in bins, as they are tried."""
OUTSIDE = 0.2
"""Share of the recording that a leg may begin before it, or end behind it."""
COHERENT = 0.5
"""Share of a common movement from which on all recordings are taken to move alike."""


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """What the search begins with."""

    legs: tuple[Leg, ...]
    """Movements, in sensor pixels and shares of the recording."""
    coherence: float
    """Share of the recordings' movement that is common to all of them, 0 to 1."""
    x_start: float
    y_start: float
    """Place of the first events relative to the middle of the frame, sensor pixels."""

    @property
    def free(self) -> bool:
        """Return whether recordings move each in its own way."""
        return self.coherence < COHERENT


def guess(frames: Tensor, sensor: tuple[int, int]) -> Start:
    """Guess the movement behind frames [T,B,2,S,S] of a sensor of (W, H) pixels."""
    rate = frames.sum((1, 2, 3, 4)).double().numpy()  # [T]
    steps = _directions(frames) * rate / max(rate.mean(), 1e-9)  # [2,T], of unknown length
    x, y, length = _track(frames, sensor, steps)
    extent = max(np.ptp(np.cumsum(steps, 1), 1).max(), 1e-9) / max(sensor)
    length = min(max(LAG * length, SHORTEST / extent), LONGEST / extent)
    legs = _legs(steps * length)
    return Start(legs, _coherence(frames), x, y)


def _directions(frames: Tensor) -> Array:
    """Return which way the image moves in each bin, vectors [2,T] of length 1, or 0 where nothing tells."""
    found = movement(frames).sum(1).double().numpy()  # [2,T-1], between bins
    ways = np.zeros((2, len(frames)))
    ways[:, :-1] += found
    ways[:, 1:] += found
    return ways / np.maximum(np.hypot(*ways), 1e-9)


def _track(frames: Tensor, sensor: tuple[int, int], steps: Array) -> tuple[float, float, float]:
    """Return where the path [2,T] begins, x and y, and what a step of length 1 measures, in sensor pixels.

    The mean place of the events of one polarity in a bin is that of the image, and a way ahead of it or behind it along
    the movement: one that has opposite signs for both polarities, and one that they share. These five are looked for.
    """
    path = np.cumsum(steps, 1) - steps / 2
    ahead = steps / np.maximum(np.hypot(*steps), 1e-9)
    rows, places = [np.diag(PRIORS)], [np.zeros(len(PRIORS))]
    for polarity, sign, weight in ((1, 1.0, 1.0), (0, -1.0, LATE)):
        part = frames[:, :, polarity : polarity + 1]
        share = part.sum((1, 2, 3, 4)).double().numpy()
        root = np.sqrt(weight * share / max(share.sum(), 1e-9))  # [T]
        for axis, place in enumerate(_places(part, sensor)):
            own = np.zeros((2, len(root)))
            own[axis] = 1
            rows.append((np.stack([*own, path[axis], sign * ahead[axis], ahead[axis]]) * root).T)
            places.append(place * root)
    x, y, length, _, _ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(places), rcond=None)[0]
    return float(x), float(y), float(length)


def _legs(steps: Array) -> tuple[Leg, ...]:
    """Return the few legs that together move by steps [2,T], in order of time."""
    spans, total, T = _spans(steps), float((steps**2).sum()), steps.shape[1]
    ways, left = _solve(spans, steps)
    change = COARSEST
    while change >= FINEST:
        before = left
        for i in range(len(spans)):
            for early, late in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, 1), (1, -1), (1, 1), (-1, -1)):
                first, last = spans[i][0] + early * change, spans[i][1] + late * change
                if last - first < 1 or first < -OUTSIDE * T or last > (1 + OUTSIDE) * T:
                    continue
                tried = [*spans[:i], (first, last), *spans[i + 1 :]]
                other, found = _solve(tried, steps)
                if found < left - 1e-3 * total:
                    spans, ways, left = tried, other, found
        if left == before:
            change /= 2
    return tuple(
        Leg(float(x), float(y), float(first / T), float((last - first) / T))
        for (x, y), (first, last) in sorted(zip(ways, spans, strict=True), key=lambda leg: leg[1])
    )


def _spans(steps: Array) -> list[tuple[float, float]]:
    """Return begin and end of legs in bins, each half a bin longer than its part of the recording at both ends.

    Parts hold a leg each, and nothing moves between them. They are the fewest whose legs explain about as much of the
    steps as `MOST_LEGS` legs do. Of all ways to divide the recording the best is found by those of its beginnings.
    """
    T = steps.shape[1]
    standing = np.r_[0.0, np.cumsum((steps**2).sum(0))]  # squares that are left where nothing moves
    moving = {}
    for last in range(1, T + 1):
        for first in range(last):
            share = _shares(first - 0.5, last + 0.5, T)[first:last]
            part = steps[:, first:last]
            way = part @ share / (share @ share)
            moving[first, last] = float(((part - way[:, None] * share) ** 2).sum())
    fewer: list[tuple[float, tuple[tuple[int, int], ...]]] = [(float(left), ()) for left in standing]
    divided = []
    for _ in range(MOST_LEGS):
        ended = [fewer[0]]
        for last in range(1, T + 1):
            ended.append(min((fewer[a][0] + moving[a, last], (*fewer[a][1], (a, last))) for a in range(last)))
        fewer = [
            min((ended[b][0] + float(standing[end] - standing[b]), ended[b][1]) for b in range(end + 1))
            for end in range(T + 1)
        ]
        divided.append(fewer[T])
    enough = divided[-1][0] + EXPLAINED * standing[T]
    chosen = next(parts for left, parts in divided if left <= enough)
    return [(first - 0.5, last + 0.5) for first, last in chosen or ((0, T),)]


def _solve(spans: list[tuple[float, float]], steps: Array) -> tuple[Array, float]:
    """Return the ways [K,2] of legs that come nearest to steps [2,T], and the sum of squares that they leave."""
    shares = np.stack([_shares(first, last, steps.shape[1]) for first, last in spans], 1)  # [T,K]
    square = shares.T @ shares
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    ways = np.asarray(np.linalg.solve(square, shares.T @ steps.T), np.float64)
    return ways, float(((steps.T - shares @ ways) ** 2).sum())


def _shares(first: float, last: float, bins: int) -> Array:
    """Return the share of a leg from `first` to `last` that falls into each bin, [T]; raised-cosine speed."""
    done = np.clip((np.arange(bins + 1) - first) / (last - first), 0, 1)
    return np.diff(done - np.sin(2 * math.pi * done) / (2 * math.pi))


def _places(frames: Tensor, sensor: tuple[int, int]) -> Array:
    """Return the middle of all events in each bin, relative to that of the frame, in sensor pixels: [2,T]."""
    maps = frames.sum((1, 2)).double()  # [T,S,S]
    total = maps.sum((1, 2)).clamp(min=1e-9)
    places = []
    for axis, pixels in ((1, sensor[0]), (2, sensor[1])):
        lines = maps.sum(axis)  # [T,S]
        weights = torch.linspace(-1, 1, lines.shape[1], dtype=torch.float64) * (pixels - 1) / 2
        places.append((lines @ weights / total).numpy())
    return np.stack(places)


def _coherence(frames: Tensor) -> float:
    """Return the share of movement that recordings have in common: the length of the mean over the mean length."""
    each = movement(frames)  # [2,B,T-1]
    n = each.shape[1]
    each = each / each.pow(2).sum((0, 2), keepdim=True).sqrt().clamp(min=1e-9)
    common = float(each.mean(1).pow(2).sum())
    return max(0.0, (common - 1 / n) / (1 - 1 / n)) ** 0.5 if n > 1 else 1.0
