"""Training methods: one file each, named like the method; a new file is all that a new method takes.

Axes: T time, B samples of a batch, N samples shown to the network, P polarity, H, W, K classes, F features.

The course of a run, as a method sees it: `attach` once, before the optimiser is made; `prepare` once, before the very
first step, and `restore` with what it returned, in this session and in every later one; `begin_epoch`; then at every
step `inputs`, the network, `heads`, `loss`. All of it must be a function of the arguments, the settings and what
`prepare` returned: a continued run makes a new method and calls it the same way.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spikebridge.pipeline.base.names import register, suggest
from spikebridge.train.config.settings import METHODS, TrainSettings
from spikebridge.train.errors import MethodError

if TYPE_CHECKING:  # keeps this module, and with it the names, free of torch
    import torch
    from torch import Tensor, nn

    from spikebridge.models import TransferNetwork, TransferOutput
    from spikebridge.train.data.batches import Batch, TrainingBatches
    from spikebridge.train.losses import Mixture, TransferLoss


@dataclass(frozen=True)
class Inputs:
    """The inputs of the network at a step, and what the loss needs besides."""

    batch: Batch
    """Where it was made from."""
    step: int
    """0-based, over the run."""
    static: Tensor | None
    """Static stream [T,N,P,H,W], or None."""
    event: Tensor | None
    """Event stream [T,N,P,H,W], or None; not both None. N is a multiple of B."""
    labels: Tensor
    """int64 [N], classes of the streams' samples."""
    dropout_seeds: Tensor
    """int64 [N], one for the dropout masks of each sample."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Whatever else the loss needs, by name."""
    mixture: Mixture | None = None
    """Second classes of the streams' samples; None where every one has one class."""


class Method:
    """Base of the methods, which differ in the streams that the network sees and in the loss.

    Args:
        settings: the `[train]` table.
        steps: steps of the whole run.
    """

    needs_static = False
    """Whether batches carry static images."""
    draw_from_pool = False
    """Whether these are drawn from the whole pool, whatever the recordings show; see `Batch.image_labels`."""
    capturable = False
    """Whether a step can be recorded on the device and replayed: it takes all numbers from the batch's tensors (what
    `number` gives through `Batch.number`), looks at none of them on the host, and does the same at every step of a
    `phase`. Each class says so for itself; a class that derives from one that can is not taken to."""
    simulates = False
    """Whether it simulates recordings: `simulation = "auto"` then calibrates the camera before the run."""
    unlabelled = ""
    """Recordings that it learns from without their labels, see `TrainingBatches`: `others` than those with labels, or
    `all` of the training split."""
    reads_pool = False
    """Whether `inputs` reads static images itself, which lie on the device then if a step is recorded."""
    terms: tuple[str, ...] = ()
    """Names of the losses in `TransferLoss.extra`; metrics.jsonl has the mean of each as `loss_NAME`."""

    def __init__(self, settings: TrainSettings, *, steps: int) -> None:
        """Take settings that have gone through `complete`."""
        self.settings = settings
        self.steps = steps
        self.trust = False
        """Whether `prepare` may open files that can run code; see `--trust` of `train`."""
        self.modules: dict[str, nn.Module] = {}
        """What trains along with the network and is no part of it: optimised, checkpointed, never exported."""

    @classmethod
    def complete(cls, settings: TrainSettings) -> TrainSettings:
        """Return the settings that a run trains by, network included: these, but for what the method fixes."""
        return settings

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Fill `modules`, with weights that depend on the seed alone (`networks.seeded_weights`).

        Raises:
            MethodError: the method cannot work with this network or these data.
        """

    def prepare(self, data: TrainingBatches, device: torch.device, on_batch: Callable[[], None]) -> dict[str, Tensor]:
        """Make the tensors that stay fixed during the run, such as the weights of a teacher; empty for most methods.

        Args:
            data: of the run.
            device: where to compute.
            on_batch: to be called now and then; raises where the run has been asked to stop.
        """
        return {}

    def restore(self, prepared: Mapping[str, Tensor], device: torch.device) -> None:
        """Take what `prepare` returned, on the CPU."""

    def begin_epoch(self, network: TransferNetwork, epoch: int) -> None:
        """Set what is constant during an epoch (0-based), before its first step and again after an interruption."""

    def replacement_probability(self, step: int) -> float | None:
        """Return the probability of sliding replacement at a step (0-based, over the run); None where there is none."""
        return None

    def number(self, step: int) -> float:
        """Return the number by which a step differs from the others of its phase; see `Batch.number`."""
        return self.replacement_probability(step) or 0.0

    def phase(self, step: int) -> int:
        """Return the phase of the run that a step belongs to: the steps of one do the same, and are recorded once."""
        return 0

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return the streams of a step; `make_inputs` makes them of a batch's own samples."""
        raise NotImplementedError

    def heads(self, out: TransferOutput, inputs: Inputs) -> dict[str, Tensor]:
        """Apply `modules` to the network's output, by name; with several processes, to this one's samples."""
        return {}

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Compute the loss, here of one stream alone; terms that the method lacks are 0, `cka` zeros without alignment.

        With `synchronize` and several processes the features of `out` are those of all processes together.
        """
        from spikebridge.train.losses import transfer_loss

        return transfer_loss(out, inputs.labels, coefficients, tet=self.settings.tet, mixture=inputs.mixture)


def make_inputs(batch: Batch, step: int, *, static: Tensor | None, event: Tensor | None, **extra: Tensor) -> Inputs:
    """Make the inputs of a batch's own samples, with its labels, dropout seeds and mixture."""
    return Inputs(batch, step, static, event, batch.labels, batch.dropout_seeds, extra, batch.mixture)


REGISTRY: dict[str, type[Method]] = {}


def method(cls: type[Method]) -> type[Method]:
    """Register a method under the name of its file; a class decorator.

    Raises:
        ValueError: the name is taken.
    """
    return register(REGISTRY, cls.__module__.rpartition(".")[2], cls)


def find_method(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        MethodError: unknown name, with the nearest one.
    """
    if name not in METHODS:
        raise MethodError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}{suggest(name, METHODS)}")
    if name in METHODS.ours:
        importlib.import_module(f"spikebridge.train.methods.{name}")
    return REGISTRY[name]
