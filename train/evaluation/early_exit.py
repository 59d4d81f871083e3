"""What a network says before a recording ends: accuracy after each time step, and an early exit that may abstain.

Axes: n recordings, T time steps, B batch, P polarity, H, W, K classes.

After t steps the mean of the first t logits decides, as the mean of all does at the end. With an early exit a recording
ends at the first step after which the probability of the class that leads (softmax of that mean) reaches a threshold;
where it never does, there is no answer. The threshold is chosen on the validation split, never on test recordings.

A recording is lost by the exit where its answer is wrong and the whole recording would have been decided rightly. Each
validation recording has a highest threshold that loses it; above the k + 1st highest of these n thresholds, k of n are
lost. Which k is permitted says the binomial distribution: were the share of recordings that are lost as high as the
limit, k or fewer of n would be lost with a probability of 1 - `EXIT_CONFIDENCE` at most. Where not even k = 0 is
permitted, n is too small, and there is no exit.

Source: Teerapittayanon et al. 2016, "BranchyNet" (exit where confident); Chow 1970, "On optimum recognition error and
reject tradeoff" (no answer); Li et al. 2023, "SEENN: Towards temporal spiking early-exit neural networks" (over steps);
Clopper and Pearson 1934 (the bound); Angelopoulos et al. 2021, "Learn then Test", and Angelopoulos et al. 2024,
"Conformal risk control" (thresholds with a bound on a risk, which is made monotone).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.evaluation.energy import ACCUMULATE_PJ, MULTIPLY_ACCUMULATE_PJ, counting
from spikebridge.train.evaluation.held_out import mean_seconds
from spikebridge.train.statistics import fewest_trials, most_failures

EXIT_CONFIDENCE = 0.9
"""Probability with which a choice of validation recordings gives a threshold that keeps its promise, at least."""
MEASURED = 64
"""Recordings whose energy is estimated step by step, at most."""


@dataclass(frozen=True)
class OverTime:
    """What a network said of recordings after each time step."""

    right: NDArray[np.bool_]
    """[n,T], whether the leading class was that of the recording."""
    confidence: NDArray[np.float32]
    """[n,T], its probability."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Return the share of right predictions after each step, [T]."""
        shares: NDArray[np.float64] = self.right.mean(0)
        return shares

    def part(self, number: int, of: int) -> OverTime:
        """Return every `of`-th recording, from `number` on."""
        return OverTime(self.right[number::of], self.confidence[number::of])


def averaged(logits: Tensor) -> Tensor:
    """Return logits [T,B,K] averaged over the first t steps, float32 [T,B,K]; the last row is what decides."""
    logits = logits.float()
    steps = torch.arange(1, len(logits) + 1, dtype=logits.dtype, device=logits.device)
    made = logits.cumsum(0) / steps[:, None, None]
    made[-1] = logits.mean(0)  # the very sum that evaluation decides by
    return made


@dataclass(frozen=True)
class EarlyExit:
    """Thresholds of the exit, and what they promise."""

    points: float
    """Of accuracy that is lost by the exit, at most: recordings that are lost, in per cent of all."""
    thresholds: tuple[float | None, ...]
    """Of recordings 0, k, 2k, ..., of 1, k + 1, ...: one for all, or one for each half; None where no threshold keeps
    the promise: then there is no answer."""
    chosen_on: int
    """Validation recordings, the fewest for a threshold."""

    @property
    def needed(self) -> int | None:
        """Return how many validation recordings the promise needs at least; None where no number is enough."""
        return fewest_trials(self.points / 100, EXIT_CONFIDENCE)

    def described(self) -> dict[str, Any]:
        """Return the promise and the thresholds, JSON types."""
        return {
            "points": self.points,
            "confidence": EXIT_CONFIDENCE,
            "thresholds": list(self.thresholds),
            "chosen_on": self.chosen_on,
            "needed": self.needed,
        }

    def figures(self, seen: OverTime, energy_nj: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Return what the exit does to recordings, JSON types.

        Args:
            seen: the recordings.
            energy_nj: of a recording after each step, [T]; None where it is not known.

        Returns:
            answered (share), accuracy (of answers; None without), lost (share of all recordings: answered wrongly, and
            right when whole), mean_step (at which a recording ends; without an answer at the last), energy_saved
            (share, estimated; None where it is not known).
        """
        each = np.array([np.inf if threshold is None else threshold for threshold in self.thresholds])
        ended, answered = _exits(seen, np.resize(each, len(seen.right)))
        right = seen.right[np.arange(len(ended)), ended]
        return {
            "answered": float(answered.mean()),
            "accuracy": float(right[answered].mean()) if answered.any() else None,
            "lost": float((answered & ~right & seen.right[:, -1]).mean()),
            "mean_step": float(ended.mean() + 1),
            "energy_saved": None if energy_nj is None else float(1 - energy_nj[ended].mean() / energy_nj[-1]),
        }


def choose_exit(validation: OverTime, points: float, *, halves: bool = False) -> EarlyExit:
    """Choose the lowest threshold with which at most so many points of accuracy are lost, with `EXIT_CONFIDENCE`.

    Args:
        validation: what was said of the recordings of the validation split, two or more.
        points: recordings that are lost, in per cent of all.
        halves: the rule is for these very recordings: the threshold of each half (every second recording) is chosen on
            the other, so that none is scored with a threshold that it helped to choose.
    """
    chosen_on = [validation.part(1 - half, 2) for half in range(2)] if halves else [validation]
    thresholds = tuple(_threshold(seen, points) for seen in chosen_on)
    return EarlyExit(points, thresholds, min(len(seen.right) for seen in chosen_on))


def _threshold(seen: OverTime, points: float) -> float | None:
    """Return the lowest threshold that keeps the promise; None without one."""
    permitted = most_failures(len(seen.right), points / 100, EXIT_CONFIDENCE)
    if permitted < 0:
        return None
    losing = np.sort(_losing(seen))[::-1][permitted]
    threshold = np.nextafter(losing, np.float32(2)) if losing >= 0 else 0.0
    return float(threshold) if threshold <= 1 else None


def _losing(seen: OverTime) -> NDArray[np.float32]:
    """Return the highest threshold that loses each recording, [n]; -1 where none does.

    A recording can end at the steps that are surer than all before them.
    """
    before = np.maximum.accumulate(seen.confidence, axis=1)[:, :-1]
    surer = np.pad(seen.confidence[:, 1:] > before, ((0, 0), (1, 0)), constant_values=True)
    lost = surer & ~seen.right & seen.right[:, -1:]
    return np.where(lost, seen.confidence, np.float32(-1)).max(1)


def _exits(seen: OverTime, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the step, from 0, at which each recording ends, [n], and whether there is an answer, [n]."""
    sure = seen.confidence >= thresholds[:, None]  # [n,T]
    answered: NDArray[np.bool_] = np.any(sure, axis=1)
    return np.where(answered, sure.argmax(1), sure.shape[1] - 1), answered


def step_ms(shards: ShardSet, split: str) -> float | None:
    """Return the milliseconds that a time step of a split's recordings lasts on average; None where that says nothing.

    Bins of equal counts have no duration of their own.
    """
    if shards.settings.get("binning") == "window":
        return float(shards.settings["window_us"]) / 1e3
    if shards.settings.get("binning") == "count":
        return None
    seconds = mean_seconds(shards, split, len(shards.split(split)))
    return 1e3 * seconds / int(shards.sample_shape[0]) if seconds else None


@torch.no_grad()
def energy_over_time(network: nn.Module, events: Tensor) -> NDArray[np.float64]:
    """Return the estimated nanojoules of a recording after each time step, [T], of frames [T,B,P,H,W]; see `energy`.

    The network is in evaluation mode.
    """
    T, B = events.shape[:2]
    with counting(network, time_steps=T) as layers:
        network(None, events)
    spent = np.zeros(T)
    for cost in layers.values():
        if cost.spiking:
            spent += ACCUMULATE_PJ * np.cumsum(cost.by_step)
        else:
            spent += MULTIPLY_ACCUMULATE_PJ * cost.dense * np.arange(1, T + 1) / T
    return spent / (1000 * B)
