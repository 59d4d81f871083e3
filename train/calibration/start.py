"""A first guess at movement and polarities, in closed form, from the frames alone.

Axes: T time bins, B recordings, P polarity (0 OFF, 1 ON), S side of a frame.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spikebridge.train.calibration.moments import movement
from spikebridge.train.config.simulation_ranges import MOST_LEGS, Leg

PEAK = 0.3
"""Part of the highest rate below which a maximum is no movement."""
VALLEY = 0.7
"""Part of the lower of two maxima below which the rate between them parts two movements."""
FOOT = 0.15
"""Part of a maximum at which its movement begins and ends."""
LAG = 1.15
"""Way of the image in ways of its events, which lag behind it: about so in simulated recordings of known cameras."""
COHERENT = 0.5
"""Share of a common movement from which on all recordings are taken to move alike."""


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
    spans = _spans(rate)
    place = _places(frames, sensor)  # [2,T] in sensor pixels
    legs = []
    for first, last in spans:
        travelled = _travelled(place[:, first:last], rate[first:last])
        legs.append(Leg(float(travelled[0]), float(travelled[1]), first / len(rate), (last - first) / len(rate)))
    first, last = spans[0]
    middle = np.average(place[:, first:last], axis=1, weights=rate[first:last] + 1e-9)
    begun = middle - np.array([legs[0].x, legs[0].y]) / 2
    return Start(tuple(legs), _coherence(frames), float(begun[0]), float(begun[1]))


def _spans(rate: np.ndarray) -> list[tuple[int, int]]:
    """Return the bins of the movements, first to behind the last, in order: where the rate [T] rises and falls."""
    padded = np.pad(rate, 1, mode="edge")
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    highest = smooth.max()
    peaks: list[int] = []
    for t in range(len(smooth)):
        around = smooth[max(0, t - 1) : t + 2]
        if smooth[t] < PEAK * highest or smooth[t] < around.max():
            continue
        if peaks and smooth[peaks[-1] : t + 1].min() > VALLEY * min(smooth[peaks[-1]], smooth[t]):
            if smooth[t] > smooth[peaks[-1]]:
                peaks[-1] = t
            continue
        peaks.append(t)
    peaks = sorted(sorted(peaks, key=lambda t: -smooth[t])[:MOST_LEGS])
    cuts = [0, *(a + int(smooth[a : b + 1].argmin()) for a, b in itertools.pairwise(peaks)), len(smooth)]
    spans = []
    for peak, low, high in zip(peaks, cuts, cuts[1:], strict=False):
        first, last = peak, peak + 1
        while first > low and smooth[first - 1] > FOOT * smooth[peak]:
            first -= 1
        while last < high and smooth[last] > FOOT * smooth[peak]:
            last += 1
        spans.append((first, last))
    return spans


def _travelled(place: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the way [2] from places [2,T] of events: a line through them over the share of events that have come."""
    weights = rate + 1e-9
    done = (np.cumsum(weights) - weights / 2) / weights.sum()
    done = done - np.average(done, weights=weights)
    spread = float(weights @ done**2)
    slope: np.ndarray = (place * weights) @ done / spread if spread > 0 else np.zeros(2)
    return LAG * slope


def _places(frames: Tensor, sensor: tuple[int, int]) -> np.ndarray:
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
