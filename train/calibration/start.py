"""A first guess at the movement, from the frames alone.

Axes: T time bins, B recordings, P polarity (0 OFF, 1 ON), S side of a frame.

Which way the image moves in a bin is read off pairs of events of successive bins; how far, off the number of events: an
edge that moves twice as fast passes twice as many pixels. That is the shape of the path. Its length, and how it departs
from the shape, is measured: the events of one bin lie like those of another, moved by the way of the image in between,
which is where the two correlate most. The steps are then put together to as few legs as explain them. Where the path
begins follows from the places of the events.
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
from spikebridge.train.networks.threads import same_threads

FARTHEST, MOST_BINS = 8, 6
"""Ways that are looked for along each axis, in frame pixels, and bins that they are measured over, at most."""
CLEAR_WAY = 1.5
"""Shortest way that counts, in frame pixels: a pixel's next event comes late, so that shorter ones look longer."""
CLEAR_PEAK = 4.0
"""Least height of a peak, in deviations of the correlation around it."""
DEVIATION = 1.4826
"""Standard deviation of normal numbers in median absolute deviations."""
SHAPE = 3.0
"""Weight of the shape beside what is measured, of all bins together."""
TOGETHER = 50
"""Recordings that are correlated at one time."""
LATE = 0.3
"""Weight of OFF events where places tell of the way: pixels that grow dark are slow."""
PRIORS = (0.05, 0.05, 0.01, 1.0)
"""Inverse deviations, per sensor pixel, of what the line of least squares looks for; see `_begin`."""
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
    longer: float = 1.0
    """How many times as long as usual the recordings are; see `parameters.longer_than_usual`."""

    @property
    def free(self) -> bool:
        """Return whether recordings move each in its own way."""
        return self.coherence < COHERENT


@same_threads(1)  # sums depend on their number
def guess(frames: Tensor, sensor: tuple[int, int]) -> Start:
    """Guess the movement behind frames [T,B,2,S,S] of a sensor of (W, H) pixels."""
    rate = frames.sum((1, 2, 3, 4)).double().numpy()  # [T]
    shape = _directions(frames) * rate / max(rate.mean(), 1e-9)  # [2,T], of unknown length
    steps = _measured(frames, sensor, shape)
    if not steps.any():
        steps = shape * 1e-3  # no way is clear: shorter than the shortest
    extent = max(np.ptp(np.cumsum(steps, 1), 1).max(), 1e-9) / max(sensor)
    steps *= min(max(1.0, SHORTEST / extent), LONGEST / extent)
    x, y = _begin(frames, sensor, steps)
    return Start(_legs(steps), _coherence(frames), x, y)


def _directions(frames: Tensor) -> Array:
    """Return which way the image moves in each bin, vectors [2,T] of length 1, or 0 where nothing tells."""
    found = movement(frames).sum(1).double().numpy()  # [2,T-1], between bins
    ways = np.zeros((2, len(frames)))
    ways[:, :-1] += found
    ways[:, 1:] += found
    return ways / np.maximum(np.hypot(*ways), 1e-9)


def _measured(frames: Tensor, sensor: tuple[int, int], shape: Array) -> Array:
    """Return the steps of the path [2,T] in sensor pixels: as measured, and as the shape [2,T] where little is.

    Least squares of the ways between bins, weighted by how clearly they correlate. What a shape of length 1 measures
    is one more unknown, so that a leg of few events gets the length of the others. All are 0 where no way is clear.
    """
    T, size = len(frames), frames.shape[3:]
    pixel = np.array([sensor[0] / size[1], sensor[1] / size[0]])  # sensor pixels of a frame pixel
    rows, ways = _ways(frames)
    if not len(rows):
        return np.zeros_like(shape)
    weight = SHAPE * float((rows**2).sum()) / T
    normal, right = np.zeros((2 * T + 1, 2 * T + 1)), np.zeros(2 * T + 1)
    for axis in range(2):
        own = slice(axis * T, axis * T + T)
        normal[own, own] = rows.T @ rows + weight * np.eye(T)
        normal[own, -1] = normal[-1, own] = -weight * shape[axis]
        normal[-1, -1] += weight * (shape[axis] ** 2).sum()
        right[own] = rows.T @ ways[axis] * pixel[axis]
    solved = np.linalg.lstsq(normal, right, rcond=None)[0]
    return np.asarray(solved[:-1].reshape(2, T), np.float64)


def _ways(frames: Tensor) -> tuple[Array, Array]:
    """Return the ways of the image between bins, [2,L], and which share of each bin they span, [L,T], both weighted.

    What all recordings have in common, such as hot pixels, does not move and is left out.
    """
    T, B, _, height, width = frames.shape
    common = frames.mean(1, keepdim=True) if B > 1 else torch.zeros_like(frames)
    padded = (height + 2 * FARTHEST, width + 2 * FARTHEST)
    sums = {k: torch.zeros(T - k, padded[0], padded[1] // 2 + 1, dtype=torch.complex64) for k in _lags(T)}
    for first in range(0, B, TOGETHER):
        waves = torch.fft.rfft2(frames[:, first : first + TOGETHER] - common, s=padded)  # [T,b,2,.,.]
        for k in sums:
            sums[k] += (waves[:-k].conj() * waves[k:]).sum((1, 2))
    down, across = (length - torch.arange(-FARTHEST, FARTHEST + 1).abs() for length in (height, width))
    overlap = (down.clamp(min=1)[:, None] * across.clamp(min=1)).double()  # pixels that lie on one another
    rows, ways = list[Array](), list[Array]()
    for k, total in sums.items():
        alike = torch.fft.irfft2(total, s=padded).roll((FARTHEST, FARTHEST), (1, 2))
        alike = (alike[:, : 2 * FARTHEST + 1, : 2 * FARTHEST + 1].double() / overlap).numpy()  # [T-k,2F+1,2F+1]
        for t, found in enumerate(alike):
            way, above = _peak(found)
            if np.hypot(*way) < CLEAR_WAY or above == 0:
                continue
            spanned = np.zeros(T)  # from the middle of one bin to that of the other
            spanned[t : t + k + 1] = 1
            spanned[[t, t + k]] = 0.5
            rows.append(spanned * above)
            ways.append(way * above)
    return np.array(rows).reshape(-1, T), np.array(ways).reshape(-1, 2).T


def _lags(bins: int) -> range:
    return range(1, min(MOST_BINS, bins - 1) + 1)


def _peak(alike: Array) -> tuple[Array, float]:
    """Return where a correlation [2F+1,2F+1] is highest, x and y from its middle, and how high above its median.

    The height is 0 where the peak is no clear one, or lies at the border, outside which it may rise further.
    """
    row, column = np.unravel_index(int(alike.argmax()), alike.shape)
    at, above = np.array([column, row], float), alike - np.median(alike)
    if not 0 < min(row, column) <= max(row, column) < len(alike) - 1:
        return at - FARTHEST, 0.0
    at[0] += _summit(*alike[row, column - 1 : column + 2])
    at[1] += _summit(*alike[row - 1 : row + 2, column])
    height = float(above[row, column])
    return at - FARTHEST, height if height > CLEAR_PEAK * DEVIATION * np.median(np.abs(above)) else 0.0


def _summit(before: float, at: float, after: float) -> float:
    """Return where a parabola through three values, the middle one highest, is highest: -0.5 to 0.5."""
    bend = before - 2 * at + after
    return 0.0 if bend >= 0 else float((before - after) / (2 * bend))


def _begin(frames: Tensor, sensor: tuple[int, int], steps: Array) -> tuple[float, float]:
    """Return where the path of steps [2,T] begins, x and y, in sensor pixels.

    The mean place of the events of one polarity in a bin is that of the image, and a way ahead of it or behind it along
    the movement: one that has opposite signs for both polarities, and one that they share. These four are looked for.
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
            rows.append((np.stack([*own, sign * ahead[axis], ahead[axis]]) * root).T)
            places.append((place - path[axis]) * root)
    x, y, _, _ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(places), rcond=None)[0]
    return float(x), float(y)


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
