"""One update of the network: in one go, in parts one after the other, or with other processes.

Axes: T time, B batch, F features. An update takes `batch_size` samples. With `accumulate = k` and n processes, part i
of process r is every (k n)-th of them from r + n i on, weighted by its share of the samples, so that the
classification losses are those of the whole batch. What looks at several samples at once (BatchNorm statistics,
alignment) sees a part only, or with `synchronize` the parts of all processes together.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spikebridge.models import TransferNetwork
from spikebridge.models.normalization import StepNorm
from spikebridge.models.synchronized import Partners
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.losses import TransferLoss
from spikebridge.train.methods import Method
from spikebridge.train.networks.precision import Precision
from spikebridge.train.runs.state import EpochSums
from spikebridge.train.trainer.ahead import BatchesAhead
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch

log = logging.getLogger(__name__)

READ_AHEAD_FOR = {"cuda"}
"""Kinds of device beside which the host has nothing to do but read; a CPU's cores are all computing."""

InspectLoss = Callable[[TransferLoss, tuple[Tensor | None, Tensor | None]], None]
"""Inspects a loss and the streams it came from, before the update."""


@dataclass(frozen=True)
class MicroBatch:
    """The samples that a process computes at once."""

    batch: Batch
    share: float | None
    """Of the update's samples; 0 where the process has none and only takes part, None for all of them."""
    sizes: tuple[int, ...]
    """Samples of every process."""


class TrainStep:
    """Takes the updates of one network, which is in training mode when `step` is called; see the module."""

    def __init__(
        self,
        network: TransferNetwork,
        optimizer: Optimizer,
        method: Method,
        data: TrainingBatches,
        settings: TrainSettings,
        distributed: Distributed,
        device: torch.device,
    ) -> None:
        self.network, self.optimizer, self.method = network, optimizer, method
        self.data, self.distributed = data, distributed
        self.own_batch: Callable[[int, int], Batch] = partial(
            data.batch, rank=distributed.rank, world=distributed.world_size
        )
        """Return this process's share of batch `index` of an epoch, both 0-based."""
        if device.type in READ_AHEAD_FOR and not data.on_device:
            self.own_batch = BatchesAhead(data, device, rank=distributed.rank, world=distributed.world_size).batch
        self.precision = Precision(settings.precision, device)
        self._parts = settings.accumulate
        self._partners = (
            Partners(distributed.all_reduce_sum) if settings.synchronize and distributed.world_size > 1 else None
        )
        if self._partners is not None:
            for module in network.modules():
                if isinstance(module, StepNorm):
                    module.partners = self._partners
        if distributed.is_main:
            _log_parts(settings, distributed.world_size)

    def step(self, epoch: int, index: int, step: int, *, sums: EpochSums, finite: FiniteWatch) -> None:
        """Compute forward, loss and backward of every micro-batch of batch `index` of an epoch, then update.

        All count from 0, `step` over the run.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for micro in self._split(epoch, index):
            self._compute(micro, step, sums, lambda loss, given: finite.check_loss(loss, given, step=step))
        self._update()

    def step_on_device(
        self, batch: Batch, step: Tensor, *, like: int, samples: int, sums: EpochSums, finite: FiniteWatch
    ) -> None:
        """Take a step on the device from a batch that is there; the host waits for nothing.

        Args:
            batch: this process's share of it.
            step: 0-d int64.
            like: a step of the same phase, see `Method.phase`.
            samples: of the batch of all processes.
            sums: takes in the losses.
            finite: notes losses that are not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        micro = MicroBatch(batch, None, ())
        if (world := self.distributed.world_size) > 1:
            sizes = tuple(len(range(rank, samples, world)) for rank in range(world))
            micro = MicroBatch(batch, len(batch.labels) / samples, sizes)
        self._compute(micro, like, sums, lambda loss, _: finite.note(loss, step))
        self._update()

    def _update(self) -> None:
        self.distributed.sum_gradients([self.network, *self.method.modules.values()])
        self.precision.update(self.optimizer)

    def try_step(self, epoch: int, index: int, step: int, *, samples: int) -> None:
        """Try forward and backward of a batch's first samples, without an update: does it fit into memory?

        The running statistics move; the run is over.
        """
        self.optimizer.zero_grad(set_to_none=True)
        world = -(-sum(self.data.sizes(index)) // samples)
        batch = self.data.batch(epoch, index, rank=0, world=world)
        self._compute(MicroBatch(batch, None, (len(batch.labels),)), step, None, None)
        self.optimizer.zero_grad(set_to_none=True)

    def _split(self, epoch: int, index: int) -> Iterator[MicroBatch]:
        """Yield the micro-batches of this process; every process has as many."""
        rank, world = self.distributed.rank, self.distributed.world_size
        if world * self._parts == 1:
            yield MicroBatch(self.own_batch(epoch, index), None, ())
            return
        sizes = self.data.sizes(index, world=world * self._parts)
        for first in range(0, world * self._parts, world):
            counts = tuple(sizes[first : first + world])
            if not any(counts):  # the batch has fewer samples than parts
                return
            own = counts[rank]
            # Without a sample, compute on the first process's: its share of 0 keeps it out of everything.
            batch = self.data.batch(epoch, index, rank=first + (rank if own else 0), world=world * self._parts)
            yield MicroBatch(batch, own / sum(sizes), counts)

    def _compute(self, micro: MicroBatch, step: int, sums: EpochSums | None, inspect: InspectLoss | None) -> None:
        """Compute forward, loss and backward."""
        batch = micro.batch
        inputs = self.method.inputs(batch, step)
        if self._partners is not None:
            self._partners.counted = micro.share != 0
        out: Any = self.precision.forward(self.network, inputs.static, inputs.event, inputs.dropout_seeds)
        heads = self.method.heads(out, inputs)
        gathered = out
        if self._partners is not None and out.static_features is not None and out.event_features is not None:
            several = len(inputs.labels) // len(batch.labels)  # samples shown for each one of the batch
            sizes = tuple(several * size for size in micro.sizes)
            of_all = [self.distributed.all_gather(own, sizes) for own in (out.static_features, out.event_features)]
            gathered = dataclasses.replace(out, aligned=torch.stack(of_all).permute(2, 0, 1, 3))  # [N,S,T,F]
        loss = self.method.loss(gathered, inputs, self.network.coefficients, heads)
        if inspect is not None:
            inspect(loss, (inputs.static, inputs.event))
        self.precision.backward(loss.total if micro.share is None else loss.total * micro.share)
        if sums is not None and micro.share != 0:
            sums.add(loss, out.event_logits, inputs.labels)


def _log_parts(settings: TrainSettings, processes: int) -> None:
    """Log what several micro-batches mean for statistics and alignment."""
    together = settings.accumulate * (1 if settings.synchronize else processes)
    if settings.accumulate * processes == 1:
        return
    size = -(-settings.batch_size // together)
    log.info(
        "one update of %d samples: %d process(es), accumulate = %d; BatchNorm statistics and alignment are those of "
        "%d samples%s",
        *(settings.batch_size, processes, settings.accumulate, size),
        ", and running statistics move once per part" if settings.accumulate > 1 else "",
    )
    if size < 4:
        log.warning("alignment is skipped: it needs 4 samples at least")
