"""Scores of a network on a split: event frames only, evaluation mode, no augmentation.

Axes: n samples, T time, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.data.frames import Frames
from spikebridge.train.evaluation.early_exit import OverTime, averaged
from spikebridge.train.runs.result import SplitScores


@dataclass(frozen=True)
class Scores:
    """Outputs of a network on one split."""

    logits: np.ndarray
    """float32 [n,K], averaged over time."""
    labels: np.ndarray
    """int64 [n]."""
    loss: float
    """Mean cross entropy of the time-averaged logits, natural logarithm."""
    firing_rates: dict[str, float]
    """Spikes per neuron and time step, by layer, mean over the samples."""
    over_time: OverTime | None = None
    """What was said after each step; None where it was not asked for."""

    @property
    def predictions(self) -> np.ndarray:
        """Return the class of the highest score, int64 [n]; the lower class wins a tie."""
        predictions: np.ndarray = self.logits.argmax(axis=1)
        return predictions

    @property
    def accuracy(self) -> float:
        """Return the share of right predictions, 0 to 1."""
        return float(np.mean(self.predictions == self.labels))

    def confusion(self) -> list[list[int]]:
        """Count predictions [K][K]: row = label, column = prediction."""
        K = self.logits.shape[1]
        counts = np.bincount(self.labels * K + self.predictions, minlength=K * K)
        return [[int(count) for count in row] for row in counts.reshape(K, K)]


def split_scores(best: Mapping[str, Scores | None], last: Mapping[str, Scores | None]) -> SplitScores:
    """Return what result.json says of the splits `validation` and `test`, with the best weights and with the last."""

    def figures(scores: Scores | None) -> tuple[float | None, float | None]:
        return (scores.accuracy, scores.loss) if scores else (None, None)

    validation, test = figures(best["validation"]), figures(best["test"])
    last_validation, last_test = figures(last["validation"]), figures(last["test"])
    return {
        "validation_accuracy": validation[0],
        "validation_loss": validation[1],
        "test_accuracy": test[0],
        "test_loss": test[1],
        "last_validation_accuracy": last_validation[0],
        "last_validation_loss": last_validation[1],
        "last_test_accuracy": last_test[0],
        "last_test_loss": last_test[1],
    }


class ScoredNetwork(Protocol):
    """A `TransferNetwork`, or an exported network behind the same call."""

    training: bool
    record_firing_rates: bool

    def __call__(self, static: None, event: torch.Tensor, /) -> Any:
        """Compute a `models.TransferOutput` with event logits [T,B,K] from frames [T,B,P,H,W]."""

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode."""

    def eval(self) -> Any:
        """Set evaluation mode."""


class ScoredFrames(Protocol):
    """Recordings that are scored."""

    labels: NDArray[np.int64]
    """[n] class indices."""

    def __len__(self) -> int:
        """Return the number of recordings."""

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield frames float32 [T,B,P,H,W] and labels [B]."""


@torch.no_grad()
def score(
    network: ScoredNetwork,
    frames: ScoredFrames,
    *,
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[], None] | None = None,
    over_time: bool = False,
) -> Scores | None:
    """Score a network on recordings; None when there are none. The network's mode is put back afterwards.

    `on_batch` is called after each batch, and may raise to give up. With `over_time` what is said after each time step
    is kept, too.
    """
    if not len(frames):
        return None
    was_training = network.training
    network.eval()
    network.record_firing_rates = True
    # what is found stays on the device until the end: a look at each batch would make the host wait for it
    logits: list[torch.Tensor] = []
    losses = torch.zeros((), dtype=torch.float64, device=device)
    rates: dict[str, torch.Tensor] = {}
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for events, labels in frames.batches(batch_size, device):
            out = network(None, events)
            mean = out.event_logits.float().mean(0)  # [B,K]
            logits.append(mean)
            if over_time:
                sure, leading = averaged(out.event_logits).softmax(2).max(2)  # [T,B]
                steps.append((sure, leading))
            losses += F.cross_entropy(mean.double(), labels, reduction="sum")
            for layer, rate in out.firing_rates.items():
                share = rate.double() * len(labels)
                rates[layer] = rates[layer] + share if layer in rates else share
            if on_batch is not None:
                on_batch()
    finally:
        network.record_firing_rates = False
        network.train(was_training)
    totals = torch.stack([losses, *rates.values()]).tolist()
    seen = None
    if over_time:
        confidence, leaders = (torch.cat(each, 1).T.cpu().numpy() for each in zip(*steps, strict=True))  # [n,T]
        seen = OverTime(np.equal(leaders, frames.labels[:, None]), confidence)
    return Scores(
        logits=torch.cat(logits).cpu().numpy(),
        labels=frames.labels,
        loss=totals[0] / len(frames),
        firing_rates={layer: total / len(frames) for layer, total in zip(rates, totals[1:], strict=True)},
        over_time=seen,
    )


def split_frames(shards: ShardSet, name: str, *, residence: str = "auto", device: torch.device | None = None) -> Frames:
    """Return all recordings of a split, in the order of the shard set."""
    split = shards.split(name)
    positions = np.arange(len(split), dtype=np.int64)
    return Frames(split, positions, sample_shape=shards.sample_shape, residence=residence, device=device)
