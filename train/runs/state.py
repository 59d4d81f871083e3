"""The state of a run: its progress, which a checkpoint keeps as JSON, and the sums of the epoch in progress.

Axes: T time, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from spikebridge.pipeline.base.foreign_json import Count, Pattern, Range, Sha256
from spikebridge.train.losses import TransferLoss
from spikebridge.train.runs.result import Accuracy, NotNegative, Threads


def flatten_numbers(line: Mapping[str, Any]) -> dict[str, float | int]:
    """Name the numbers of a line of metrics.jsonl: lists as name/0, name/1, tables as name/key, None left out."""
    numbers: dict[str, float | int] = {}
    for name, value in line.items():
        parts = {f"{name}/{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {name: value}
        if isinstance(value, dict):
            parts = {f"{name}/{key}": item for key, item in value.items()}
        numbers |= {key: number for key, number in parts.items() if isinstance(number, int | float)}
    return numbers


@dataclass(frozen=True)
class Best:
    """The best epoch so far."""

    epoch: int
    """Number of finished epochs when it was taken."""
    accuracy: float
    """On the selection split, 0 to 1."""
    loss: float
    """On the selection split."""

    def is_beaten_by(self, accuracy: float, loss: float) -> bool:
        """Return whether accuracy is higher, or equal with a lower loss; an equal later epoch does not count."""
        return accuracy > self.accuracy or (accuracy == self.accuracy and loss < self.loss)


@dataclass
class TrainState:
    """Progress of a run: all that changes besides weights and optimiser; a checkpoint keeps it as JSON."""

    shard_set: str
    """ID of the shard set."""
    threads: int
    """CPU threads of torch when the run began."""
    contents: str = ""
    """What the shard set holds, see `runs.contents_id`."""
    processes: int = 1
    """Processes that trained together when the run began."""
    precision: str = ""
    """What the run began to compute in; empty in a run that began before it was kept."""
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps."""
    seconds: float = 0.0
    """Spent in training and validation of the finished epochs, over all sessions."""
    epoch_seconds: float = 0.0
    """Spent in the steps of the epoch in progress."""
    cpu_seconds: float | None = 0.0
    """Processor time of this process for what `seconds` counts; None in a run that began before it was counted."""
    epoch_cpu_seconds: float = 0.0
    """The same for `epoch_seconds`."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl."""
    best: Best | None = field(default=None)
    """None before a selection split was scored."""

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> TrainState:
        """Invert `asdict`, ignoring what else the file holds."""
        state = {"precision": "", "cpu_seconds": None, "epoch_cpu_seconds": 0.0, **state}
        values = {name: state[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "best": Best(**values["best"]) if values["best"] else None})


class StoredBest(TypedDict):
    """`Best` as JSON."""

    epoch: Count
    accuracy: Accuracy
    loss: NotNegative


class StoredState(TypedDict):
    """The content of a checkpoint's `state.json`: `TrainState`, its files and their sums."""

    schema: int
    shard_set: str
    threads: Threads
    contents: str
    processes: Annotated[int, Range(1, 2**20)]
    precision: NotRequired[str]
    epoch: Count
    step: Count
    seconds: NotNegative
    epoch_seconds: NotNegative
    cpu_seconds: NotRequired[NotNegative | None]
    epoch_cpu_seconds: NotRequired[NotNegative]
    metrics_bytes: Count
    best: StoredBest | None
    tensors: Annotated[str, Pattern(r"epoch-\d+-step-\d+\.safetensors", "epoch-NUMBER-step-NUMBER.safetensors")]
    best_tensors: Annotated[str, Pattern(r"best-\d+\.safetensors", "best-NUMBER.safetensors")] | None
    files: NotRequired[dict[str, Sha256]]
    self_sha256: NotRequired[Sha256]


class EpochSums:
    """Sums over an epoch's samples, on the device, so that a step need not wait for them.

    They are one vector: a sum per name, one per time step for the alignment, then the numbers of aligned and of all
    samples; a checkpoint keeps it, and with several processes every one has its own. `terms` names the method's further
    losses.
    """

    NAMES = ("loss_total", "loss_static", "loss_event", "loss_domain", "train_accuracy")

    def __init__(self, time_steps: int, device: torch.device, terms: tuple[str, ...] = ()) -> None:
        self.terms = terms
        self.names = (*self.NAMES, *(f"loss_{term}" for term in terms))
        self.vector = torch.zeros(len(self.names) + time_steps + 2, dtype=torch.float64, device=device)

    def add(self, loss: TransferLoss, event_logits: Tensor | None, labels: Tensor) -> None:
        """Add a batch: its losses, and how many samples the event head got right before the update."""
        B, names, fixed = len(labels), len(self.names), len(self.NAMES)
        parts = [part.detach() for part in (loss.total, loss.static, loss.event, loss.domain)]
        self.vector[: fixed - 1].add_(torch.stack(parts).double() * B)
        if event_logits is not None:
            self.vector[fixed - 1].add_((event_logits.detach().mean(0).argmax(1) == labels).sum())
        if self.terms:
            extra = torch.stack([loss.extra[term].detach() for term in self.terms])
            self.vector[fixed:names].add_(extra.double() * B)
        aligned = loss.cka.detach().ne(0).any().double() * B  # zeros: alignment was skipped
        self.vector[names:-2].add_(loss.cka.detach().double() * aligned)
        self.vector[-2].add_(aligned)
        self.vector[-1].add_(B)

    def means(self, rows: Tensor) -> dict[str, Any]:
        """Return means per sample by name, from the vectors of all processes [size,len]; empty without samples.

        `cka` [T] is the mean over aligned samples, None without any.
        """
        values, names = rows.sum(0), len(self.names)
        if not float(values[-1]):
            return {}
        means: dict[str, Any] = dict(zip(self.names, (values[:names] / values[-1]).tolist(), strict=True))
        aligned = float(values[-2])
        return means | {"cka": (values[names:-2] / aligned).tolist() if aligned else None}
