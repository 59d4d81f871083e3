"""What the fit compares: figures of each recording's frames whose means over a set describe camera and movement.

Axes: T time bins, B recordings, P polarity (0 OFF, 1 ON), S side of a frame, M moments.

Every figure is a sum over events or pairs of them, so that means over recordings need no pairing with static images,
and an almost empty recording weighs little. Places are in half frames from the middle, -1 to 1.

Source: McFadden 1989, "A method of simulated moments for estimation of discrete response models without numerical
integration", Econometrica 57.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LAGS = (1, 2, 3, 5, 8)
"""Distances in time bins at which events of one pixel are paired: inter-event times, and the order of polarities."""
DISTANCES = (1, 2, 4, 8)
"""Distances in frame pixels at which events are paired: the spatial spectrum."""
SEGMENTS = 5
"""Parts of the recording within which places are compared."""
STRIPES = 12
"""Stripes of the frame along each axis."""
COUNTS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 10**9))
"""Events of a pixel in a recording, in classes."""
GROUPS = (
    "rate",
    "time profile",
    "place",
    "extent",
    "stripes",
    "events per pixel",
    "events per cell",
    "inter-event times and polarity",
    "movement",
    "spatial spectrum",
    "lonely events",
)
"""Kinds of moments, in their order."""
LOGARITHMS = "rate"
"""The kind whose moments are those of logarithms, and near 0."""


@dataclass(frozen=True)
class Unit:
    """What moments are measured in, taken from the recordings and the same for what is compared with them."""

    events: float
    """Mean events of a recording."""
    log_events: tuple[float, float]
    """Means of the logarithms of OFF and ON events."""
    whole_counts: bool
    """Whether cells hold whole events, of a pixel or of the few that make up a cell; see `SensorGrid.counts_whole`."""

    @classmethod
    def of(cls, frames: Tensor, *, whole_counts: bool) -> Unit:
        """Take the unit from frames [T,B,2,S,S]."""
        per_polarity = frames.sum((0, 3, 4))  # [B,2]
        off, on = per_polarity.log1p().mean(0).tolist()
        return cls(max(float(per_polarity.sum(1).mean()), 1.0), (off, on), whole_counts)


def moments(frames: Tensor, unit: Unit) -> dict[str, Tensor]:
    """Return the moments of every recording, [B,m] for each of `GROUPS`, of frames [T,B,2,S,S]."""
    T, _, _, height, width = frames.shape
    per = 1 / unit.events
    u = torch.linspace(-1, 1, width, device=frames.device)
    v = torch.linspace(-1, 1, height, device=frames.device)
    columns, rows = frames.sum(3), frames.sum(4)  # [T,B,2,S]
    in_bins = columns.sum(3)  # [T,B,2]
    logs = in_bins.sum(0).log1p()  # [B,2]
    departure = logs - torch.tensor(unit.log_events)
    profile = in_bins * (T * per)
    x, y = ((lines * weights).sum(3) * (T * per) for lines, weights in ((columns, u), (rows, v)))  # [T,B,2]
    parts = torch.stack([part.sum(0) for part in frames.tensor_split(SEGMENTS)])  # [5,B,2,S,S]
    both = parts.sum(2)  # [5,B,S,S]
    extent = torch.stack(
        [
            (both.sum(2) * u**2).sum(2),
            (both.sum(3) * v**2).sum(2),
            ((both * u).sum(3) * v).sum(2),
        ]
    ) * (SEGMENTS * per)  # [3,5,B]
    stripes = [
        F.adaptive_avg_pool1d(lines.sum(0), STRIPES) * (STRIPES * lines.shape[3] / STRIPES * per)
        for lines in (columns, rows)
    ]  # [B,2,12]
    whole = parts.sum(0)  # [B,2,S,S]
    made = {
        "rate": torch.cat([departure, departure**2], 1),
        "time profile": _flat(profile),
        "place": torch.cat([_flat(x), _flat(y)], 1),
        "extent": extent.flatten(0, 1).T,
        "stripes": torch.cat(stripes, 2).flatten(1),
        "inter-event times and polarity": _in_time(frames) * per,
        "movement": torch.cat([*movement(frames)], 1) * (T * per),
        "spatial spectrum": _in_space(parts) * per,
    }
    if unit.whole_counts:
        classes = [((whole >= low) & (whole <= high)).sum((2, 3)) for low, high in COUNTS]  # of [B,2]
        cells = [(frames >= n).sum((0, 3, 4)) for n in (1, 2, 3)]
        made["events per pixel"] = torch.cat(classes, 1).float() * per
        made["events per cell"] = torch.cat(cells, 1).float() * per
        total = whole.sum(1, keepdim=True)
        around = F.avg_pool2d(total, 3, 1, 1) * 9
        made["lonely events"] = (whole * ((total == 1) & (around < 1.5))).sum((2, 3)) * per  # [B,2]
    return {name: made[name] for name in GROUPS if name in made}


def _flat(values: Tensor) -> Tensor:
    """Return [B,2T] of values [T,B,2]."""
    return values.transpose(0, 1).flatten(1)


def _in_time(frames: Tensor) -> Tensor:
    """Return [B,m]: events of one pixel, in pairs of each order of polarities, by their distance in time."""
    off, on = frames[:, :, 0].flatten(2), frames[:, :, 1].flatten(2)  # [T,B,SS]
    pairs = [(a * b).sum((0, 2)) for a, b in ((off, off), (on, on), (off, on))]
    for lag in LAGS:
        if lag < len(frames):
            early, late = slice(None, -lag), slice(lag, None)
            pairs += [(a[early] * b[late]).sum((0, 2)) for a in (off, on) for b in (off, on)]
    return torch.stack(pairs, 1)


def movement(frames: Tensor) -> Tensor:
    """Return [2,B,T-1], x then y: pairs of events of successive bins of which the later lies ahead, less those behind.

    Edges take their events with them, so its sign is that of the movement, whatever the static image shows.
    """
    early, late = frames[:-1], frames[1:]
    ahead = (early[..., :-1] * late[..., 1:]).sum((2, 3, 4)) - (early[..., 1:] * late[..., :-1]).sum((2, 3, 4))
    below = (early[..., :-1, :] * late[..., 1:, :]).sum((2, 3, 4)) - (early[..., 1:, :] * late[..., :-1, :]).sum(
        (2, 3, 4)
    )
    return torch.stack([ahead.T, below.T])


def _in_space(parts: Tensor) -> Tensor:
    """Return [B,m]: events of one part of the recording, in pairs of polarities, by their distance in space."""
    off, on = parts[:, :, 0], parts[:, :, 1]  # [5,B,S,S]
    pairs = []
    for distance in DISTANCES:
        near, far = slice(None, -distance), slice(distance, None)
        for a, b in ((off, off), (on, on), (off, on), (on, off)):
            pairs.append((a[..., near] * b[..., far]).sum((0, 2, 3)))
            pairs.append((a[..., near, :] * b[..., far, :]).sum((0, 2, 3)))
    return torch.stack(pairs, 1)
