"""How far simulated recordings can be told from real ones that the fit did not see.

Axes: T time bins, n recordings, P polarity, S side of a frame, M features.

A ridge classifier learns on the recordings of the fit and as many simulated ones, drawn from the profile's ranges, and
is asked about recordings that were held out and other simulated ones. It sees the moments of the fit recording by
recording, so their spread and their relations, and coarse maps of the events. The same is asked of other ways to make
recordings of the same static images, see `renderings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.train.calibration.moments import SEGMENTS, Unit, moments
from spikebridge.train.calibration.renderings import Rendering
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS, Profile
from spikebridge.train.data.simulation import SensorGrid, hot_pixel_draws, simulate_frames, simulation_draws
from spikebridge.train.statistics import wilson

MAP_SIDE = 7
"""Of the coarse maps."""
PENALTY = 0.1
"""Of the classifier, per feature."""
FARTHEST = 5.0
"""Deviations at which a feature is cut off."""
EPOCH = 20
"""Of the draws: no simulated set of the fit has it."""
GAPS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Time bins between two bins with events of one pixel: lowest of each class."""


@dataclass(frozen=True)
class Fidelity:
    """Real recordings that were held out beside simulated ones."""

    accuracy: float
    """Of the classifier; 0.5 where it cannot tell them apart."""
    asked: int
    """Recordings that it was asked about, half of them simulated."""
    real: dict[str, Any]
    """Figures of those that were held out, JSON types; see `figures`."""
    made: dict[str, Any]
    """The same of as many simulated ones."""
    others: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of a classifier for each other way to make recordings of static images, by its name."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the accuracy for so many recordings."""
        return wilson(self.accuracy, self.asked)

    def as_table(self) -> dict[str, float]:
        """Return what a profile says of it: rounded shares by name."""
        low, high = self.interval
        found = {"told_apart": self.accuracy, "low": low, "high": high, **self.others}
        return {name: round(value, 3) for name, value in found.items()} | {"asked": self.asked}

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "asked": self.asked,
            "others": dict(self.others),
            "real": self.real,
            "simulated": self.made,
        }


def compare(
    learnt: Tensor,
    held_out: Tensor,
    images: Tensor,
    grid: SensorGrid,
    profile: Profile,
    *,
    seed: int,
    others: Mapping[str, Rendering] = MappingProxyType({}),
) -> tuple[Fidelity, Tensor]:
    """Compare real recordings with simulated ones of drawn static images.

    Args:
        learnt: frames [T,n,2,S,S] that the fit saw.
        held_out: frames that it did not see.
        images: static images [m,1,H,W].
        grid: of the frames.
        profile: of which recordings are simulated.
        seed: of static images and draws.
        others: other ways to make recordings of the same static images, each with a classifier of its own.

    Returns:
        The figures, and the simulated frames beside `held_out`, as many.
    """
    n, asked = learnt.shape[1], held_out.shape[1]
    rows = np.random.default_rng([seed, EPOCH]).integers(len(images), size=n + asked)
    numbers = torch.arange(n + asked)
    draws = simulation_draws(seed, EPOCH, numbers, grid, device=torch.device("cpu"))
    if profile.hot_pixels:
        draws = replace(draws, hot_pixels=hot_pixel_draws(seed, EPOCH, numbers, profile, len(learnt)))
    made = simulate_frames(images[rows], draws, grid, time_bins=len(learnt), profile=profile, instants=FINE_INSTANTS)
    accuracy = told_apart(learnt, held_out, made, whole_counts=grid.counts_whole)
    told = {}
    for name, other in others.items():
        rendered = other.render(images[rows], len(learnt))
        told[name] = told_apart(other.view(learnt), other.view(held_out), rendered, whole_counts=grid.counts_whole)
    return Fidelity(accuracy, 2 * asked, figures(held_out), figures(made[:, n:]), told), made[:, n:]


def told_apart(learnt: Tensor, held_out: Tensor, made: Tensor, *, whole_counts: bool) -> float:
    """Return the share of held-out and as many made recordings that a classifier tells, which learnt on the others."""
    n, asked = learnt.shape[1], held_out.shape[1]
    unit = Unit.of(learnt, whole_counts=whole_counts)
    seen = np.concatenate([_features(frames, unit) for frames in (learnt, made[:, :n])])
    new = np.concatenate([_features(frames, unit) for frames in (held_out, made[:, n:])])
    said = _classify(seen, np.repeat([1.0, -1.0], n), new)
    return float((said == np.repeat([1.0, -1.0], asked)).mean())


def figures(frames: Tensor) -> dict[str, Any]:
    """Return the figures of frames [T,n,2,S,S] that a report shows, JSON types."""
    counts = frames.sum((0, 3, 4))  # [n,2]
    total = counts.sum(1)
    gaps, same = _gaps(frames)
    return {
        "events": float(total.mean()),
        "events_deviation": float(total.std()) if len(total) > 1 else 0.0,
        "on_share": float(counts[:, 1].sum() / counts.sum().clamp(min=1)),
        "profile": (frames.sum((1, 2, 3, 4)) / frames.shape[1]).tolist(),
        "gap_bins": list(GAPS),
        "gaps": gaps,
        "same_polarity": same,
    }


def _gaps(frames: Tensor) -> tuple[list[float], float]:
    """Return the shares of gaps between bins with events of one pixel, by class, and of those of equal polarity."""
    pixels = frames.permute(1, 3, 4, 0, 2).reshape(-1, len(frames), 2).numpy()  # [nSS,T,2]
    pixel, bin_ = np.nonzero(pixels.sum(2) > 0)
    on = pixels[pixel, bin_, 1] >= pixels[pixel, bin_, 0]
    follows = pixel[1:] == pixel[:-1]
    between = (bin_[1:] - bin_[:-1])[follows]
    classes = np.bincount(np.searchsorted(GAPS, between, "right") - 1, minlength=len(GAPS))
    same = (on[1:] == on[:-1])[follows]
    return (classes / max(1, len(between))).tolist(), float(same.mean()) if len(same) else 0.0


def _features(frames: Tensor, unit: Unit) -> NDArray[np.float64]:
    """Return what the classifier sees of each recording, [n,M]."""
    parts = torch.stack([part.sum(0) for part in frames.tensor_split(SEGMENTS)])  # [5,n,2,S,S]
    maps = F.adaptive_avg_pool2d(parts.flatten(0, 2)[:, None], MAP_SIDE).view(SEGMENTS, frames.shape[1], -1)
    seen = torch.cat([*moments(frames, unit).values(), maps.transpose(0, 1).flatten(1).sqrt()], 1)
    found: NDArray[np.float64] = seen.double().numpy()
    return found


def _classify(seen: NDArray[np.float64], answers: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the answers to new recordings, 1 or -1, of a ridge regression on seen ones."""
    middle, scale = seen.mean(0), seen.std(0) + 1e-9
    known, asked = (np.clip((rows - middle) / scale, -FARTHEST, FARTHEST) for rows in (seen, new))
    matrix = known @ known.T + PENALTY * known.shape[1] * np.eye(len(known))
    found: NDArray[np.float64] = np.where(asked @ known.T @ np.linalg.solve(matrix, answers) >= 0, 1.0, -1.0)
    return found
