"""What a run remembers: its position, which a checkpoint keeps as JSON, and the sums of the epoch in progress.

Axes: T time, B batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.losses import TransferLoss


@dataclass(frozen=True)
class Best:
    """The best epoch so far."""

    epoch: int
    """Number of finished epochs when it was taken."""
    accuracy: float
    """On the selection split, 0 to 1."""
    loss: float
    """On the selection split."""

    def beaten_by(self, accuracy: float, loss: float) -> bool:
        """Higher accuracy, or the same with a lower loss; an equal later epoch does not count."""
        return accuracy > self.accuracy or (accuracy == self.accuracy and loss < self.loss)


@dataclass
class Position:
    """Where a run is; all that changes besides weights and optimiser, and what a checkpoint keeps as JSON."""

    shard_set: str
    """ID of the shard set."""
    threads: int
    """CPU threads of torch when the run began."""
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps."""
    seconds: float = 0.0
    """Spent in training and validation, over all sessions."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl."""
    best: Best | None = field(default=None)
    """None before the first look at a selection split."""

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Position:
        """The inverse of `asdict`, ignoring what else the file holds."""
        values = {name: state[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "best": Best(**values["best"]) if values["best"] else None})


class EpochSums:
    """Sums over an epoch's samples, on the device, so that a step need not wait for them.

    Args:
        time_steps: T.
        device: of the losses.
    """

    NAMES = ("loss_total", "loss_static", "loss_event", "loss_domain", "train_accuracy")

    def __init__(self, time_steps: int, device: torch.device) -> None:
        self._sums = torch.zeros(len(self.NAMES), dtype=torch.float64, device=device)
        self._cka = torch.zeros(time_steps, dtype=torch.float64, device=device)
        self._aligned = torch.zeros((), dtype=torch.float64, device=device)
        self._samples = 0

    def add(self, loss: TransferLoss, event_logits: Tensor | None, labels: Tensor) -> None:
        """Add a batch: its losses, and how many samples the event head got right before the update."""
        B = len(labels)
        right = torch.zeros((), device=labels.device)
        if event_logits is not None:
            right = (event_logits.detach().mean(0).argmax(1) == labels).sum() / B
        parts = [part.detach() for part in (loss.total, loss.static, loss.event, loss.domain)]
        self._sums += torch.stack([*parts, right.to(parts[0].dtype)]).double() * B
        aligned = loss.cka.detach().ne(0).any().double() * B  # zeros: alignment was skipped
        self._cka += loss.cka.detach().double() * aligned
        self._aligned += aligned
        self._samples += B

    def means(self) -> dict[str, Any]:
        """Means per sample by name; `cka` [T] is the mean over aligned samples, None without any."""
        means: dict[str, Any] = dict(zip(self.NAMES, (self._sums / self._samples).tolist(), strict=True))
        aligned = float(self._aligned)
        return means | {"cka": (self._cka / aligned).tolist() if aligned else None}
