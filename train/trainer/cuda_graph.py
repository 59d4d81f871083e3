"""The whole step on the device: batch, forward, loss, backward and update from a few numbers, recorded once.

Small networks and batches are bound by the time it takes to launch their thousands of kernels. A CUDA graph launches
all of them at once. What changes from step to step (epoch, first draw, step, the method's number, learning rate) lives
in tensors that are filled before each replay; the batch is made on the device from them, or where the data are kept
elsewhere copied into tensors that the recording reads. `DeviceStep` runs on a CPU too, unrecorded, and takes the same
updates as `TrainStep.step`.

Axes: B batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.errors import DeviceError
from spikebridge.train.methods import Method
from spikebridge.train.runs.state import EpochSums
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch
from spikebridge.train.trainer.memory import is_out_of_memory
from spikebridge.train.trainer.step import TrainStep

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps before the recording, so that libraries choose their kernels and Triton compiles; they change nothing."""


def why_not_capturable(
    data: TrainingBatches, method: type[Method], settings: TrainSettings, distributed: Distributed, device: torch.device
) -> str | None:
    """Return why the steps of a run cannot be recorded, or None."""
    reasons = {
        f"the device is {device}, CUDA graphs need CUDA": device.type != "cuda",
        f"method {settings.method} reads images, and they are kept elsewhere ({data.frames.residence})": (
            method.reads_pool and not data.on_device
        ),
        "batches are accumulated in parts": settings.accumulate > 1,
        "the processes talk to each other by way of the host, not by NCCL": not distributed.can_be_recorded,
        f"method {settings.method} does not say that it can be": not vars(method).get("capturable", False),
        "there is no full batch": len(data) < settings.batch_size,
    }
    return next((why for why, holds in reasons.items() if holds), None)


class DeviceStep:
    """Takes steps on the device, unrecorded; see the module.

    Full batches, and the partial one at the end of an epoch where every process has a sample of it.

    Args:
        train_step: what to do with a batch.
        sums: takes in the losses.
        finite: notes losses that are not finite.
        batch_size: B of all processes together.
        device: of the network. Where the data are elsewhere, their batches are copied into memory that stays the same.
    """

    def __init__(
        self, train_step: TrainStep, sums: EpochSums, finite: FiniteWatch, *, batch_size: int, device: torch.device
    ) -> None:
        self._train_step, self._sums, self._finite, self._size = train_step, sums, finite, batch_size
        self._device, self._held = device, dict[int, Batch]()
        data, rank, world = train_step.data, train_step.distributed.rank, train_step.distributed.world_size
        sizes = [size for size in {batch_size, len(data) % batch_size or batch_size} if world <= size <= len(data)]
        # draws of this process within a batch, by the samples of the batch
        self._positions = {size: torch.arange(rank, size, world, device=device) for size in sizes}
        self._epoch, self._index, self._step = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        self._number, self._host_step = torch.zeros((), dtype=torch.float64, device=device), 0

    def _samples(self, index: int) -> int:
        return min(self._size, len(self._train_step.data) - index * self._size)

    def takes(self, index: int) -> bool:
        """Return whether batch `index` of an epoch is of a size that is taken here."""
        return self._samples(index) in self._positions

    def step(self, epoch: int, index: int, step: int) -> None:
        """Take one step: forward, loss, backward, update; arguments as in `TrainStep.step`.

        Raises:
            NonFiniteError: a loss was not finite, see `FiniteWatch.check_noted`.
        """
        self.begin(epoch, index, step)
        self.launch(self._samples(index))
        self._finite.check_noted(step=step)

    def begin(self, epoch: int, index: int, step: int) -> None:
        """Fill in what a step differs by from the others."""
        train_step = self._train_step
        self._epoch.fill_(epoch)
        self._index.fill_(index)
        self._step.fill_(step)
        self._number.fill_(train_step.method.number(step))
        self._host_step = step
        if train_step.data.on_device:
            train_step.data.begin_epoch(epoch)
        else:
            self._hold(train_step.own_batch(epoch, index), self._samples(index))

    def _hold(self, batch: Batch, samples: int) -> None:
        if samples not in self._held:
            self._held[samples] = replace(batch.copied(self._device), number=self._number)
            return
        for held, found in zip(self._held[samples].tensors(), batch.tensors(), strict=True):
            held.copy_(found, non_blocking=True)

    @contextmanager
    def idle_memory(self) -> Iterator[None]:
        """Let a block between two steps have the memory that they take; none of its tensors may outlive it."""
        yield

    def launch(self, samples: int) -> None:
        """Start the work of a step on the device."""
        self.compute(samples)

    def compute(self, samples: int) -> None:
        """Compute a step of so many samples as a function of tensors."""
        data = self._train_step.data
        if data.on_device:
            draws = self._index * self._size + self._positions[samples]
            batch = data.batch_of(self._epoch, draws, number=self._number)
        else:
            batch = self._held[samples]
        self._train_step.step_on_device(
            batch, self._step, like=self._host_step, samples=samples, sums=self._sums, finite=self._finite
        )

    @contextmanager
    def state_restored(self) -> Iterator[None]:
        """Put back, in place, all that steps inside the block change: weights, statistics, optimiser, sums."""
        train_step = self._train_step
        tensors = [self._sums.vector, self._finite.first]
        for module in (train_step.network, *train_step.method.modules.values()):
            tensors += module.state_dict().values()
        states = train_step.optimizer.state
        earlier = {id(value) for state in states.values() for value in state.values() if isinstance(value, Tensor)}
        tensors += [value for state in states.values() for value in state.values() if isinstance(value, Tensor)]
        before, scale = [tensor.detach().clone() for tensor in tensors], train_step.precision.tensors()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
                for state in states.values():
                    for value in state.values():
                        if isinstance(value, Tensor) and id(value) not in earlier:
                            value.zero_()  # made inside the block; AdamW begins with zeros
            train_step.precision.restore(scale)
            train_step.optimizer.zero_grad(set_to_none=True)


class CudaGraphStep(DeviceStep):
    """A `DeviceStep` that is recorded at the first launch of each phase of the method, and replayed from then on.

    There is a recording for each size of a batch, all in the same memory: one is replayed at a time, and between two
    replays others may have it.
    """

    _phase = 0

    def __init__(self, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}  # before the pool, which must end last
        self._pool: torch.cuda.MemPool | None = None
        self._aside: Any = None
        """Stream of the recordings; the memory of a pool belongs to the stream that it was taken on."""

    def launch(self, samples: int) -> None:
        """Replay the recording, made first where there is none.

        Raises:
            torch.OutOfMemoryError: a step does not fit.
            DeviceError: the step cannot be recorded.
        """
        phase = self._train_step.method.phase(self._host_step)
        if not self._graphs or phase != self._phase:
            self._graphs.clear()  # their memory goes before the next need as much
            self._record()
            self._phase = phase
        self._graphs[samples].replay()

    @contextmanager
    def idle_memory(self) -> Iterator[None]:
        """Let a block between two replays have the memory of the recordings, on their stream.

        A replay writes there whatever lies there: no tensor of the block may outlive it.
        """
        if self._pool is None:
            yield
            return
        current = torch.cuda.current_stream(self._device)
        torch.cuda.empty_cache()  # while a pool is in use, the allocator gives back nothing of the others
        self._aside.wait_stream(current)
        try:
            with torch.cuda.stream(self._aside), torch.cuda.use_mem_pool(self._pool, self._device):
                yield
        finally:
            current.wait_stream(self._aside)

    def _record(self) -> None:
        """Record a step of each size, the largest first; before it all are taken, so that memory is needed once."""
        self._pool = None
        self._aside = aside = torch.cuda.Stream(self._device)
        sizes, train_step = sorted(self._positions, reverse=True), self._train_step
        if not train_step.data.on_device:
            for samples in sizes:
                if samples not in self._held:
                    index = 0 if samples == self._size else train_step.data.steps_per_epoch - 1
                    self._hold(train_step.own_batch(int(self._epoch), index), samples)
        with self.state_restored():
            aside.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(aside):
                for samples in sizes:
                    for _ in range(WARM_UP):
                        self.compute(samples)
            torch.cuda.current_stream(self._device).wait_stream(aside)
        self._pool = torch.cuda.MemPool()
        for samples in sizes:
            self._graphs[samples] = self._capture(samples, self._pool.id, aside)

    def _capture(self, samples: int, pool: Any, aside: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            with warnings.catch_warnings():
                # torch only warns of a graph without any work, whose replays would train nothing
                warnings.filterwarnings("error", message=".*CUDA Graph is empty")
                # other threads may work meanwhile: the one that reads ahead, NCCL's
                with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                    self.compute(samples)  # computes nothing
        except (RuntimeError, UserWarning) as error:
            if is_out_of_memory(error):
                raise
            raise DeviceError(
                f"the step could not be recorded as a CUDA graph on {self._device}: {error}; --no-graph does without"
            ) from error
        log.info("steps of %d samples are one CUDA graph each", samples)
        return graph
