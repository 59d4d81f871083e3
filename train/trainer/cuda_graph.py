"""The whole step on the device: batch, forward, loss, backward and update from a few numbers, recorded once.

Small networks and batches are bound by the time it takes to launch their thousands of kernels. A CUDA graph launches
all of them at once. What changes from step to step (epoch, first draw, step, the method's number, learning rate)
lives in tensors that are filled before each replay; the batch is made on the device from them. `DeviceStep` runs on a
CPU too, unrecorded, and takes the same updates as `TrainStep.step`.

Axes: B batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import DeviceError
from spikebridge.train.runs.state import EpochSums
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch
from spikebridge.train.trainer.memory import is_out_of_memory
from spikebridge.train.trainer.step import TrainStep

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps before the recording, so that libraries choose their kernels and Triton compiles; they change nothing."""


def why_not_capturable(
    data: TrainingBatches, method: type, settings: TrainSettings, distributed: Distributed, device: torch.device
) -> str | None:
    """Return why the steps of a run cannot be recorded, or None."""
    reasons = {
        f"the device is {device}, CUDA graphs need CUDA": device.type != "cuda",
        f"the frames are kept elsewhere ({data.frames.residence}), not on the device": not data.on_device,
        "batches are accumulated in parts": settings.accumulate > 1,
        "several processes train together": distributed.world_size > 1,
        f"method {settings.method} does not say that it can be": not vars(method).get("capturable", False),
        "there is no full batch": len(data) < settings.batch_size,
    }
    return next((why for why, holds in reasons.items() if holds), None)


class DeviceStep:
    """Takes the steps of full batches on the device, unrecorded; see the module.

    Args:
        train_step: what to do with a batch.
        sums: takes in the losses.
        finite: notes losses that are not finite.
        batch_size: B.
        device: of the network and the data, whose residence is `device`.
    """

    def __init__(
        self, train_step: TrainStep, sums: EpochSums, finite: FiniteWatch, *, batch_size: int, device: torch.device
    ) -> None:
        self._train_step, self._sums, self._finite, self._size = train_step, sums, finite, batch_size
        self._positions, self._device = torch.arange(batch_size, device=device), device
        self._epoch, self._index, self._step = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        self._number, self._host_step = torch.zeros((), dtype=torch.float64, device=device), 0

    def is_full_batch(self, index: int) -> bool:
        """Return whether batch `index` of an epoch is a full one."""
        return (index + 1) * self._size <= len(self._train_step.data)

    def step(self, epoch: int, index: int, step: int) -> None:
        """Take one step: forward, loss, backward, update; arguments as in `TrainStep.step`.

        Raises:
            NonFiniteError: a loss was not finite, see `FiniteWatch.check_noted`.
        """
        self.begin(epoch, index, step)
        self.launch()
        self._finite.check_noted(step=step)

    def begin(self, epoch: int, index: int, step: int) -> None:
        """Fill in the numbers of a step."""
        self._train_step.data.begin_epoch(epoch)
        self._epoch.fill_(epoch)
        self._index.fill_(index)
        self._step.fill_(step)
        self._number.fill_(self._train_step.method.number(step))
        self._host_step = step

    def launch(self) -> None:
        """Start the step's work on the device."""
        self.compute()

    def compute(self) -> None:
        """Compute the step as a function of tensors."""
        draws = self._index * self._size + self._positions
        batch = self._train_step.data.batch_of(self._epoch, draws, number=self._number)
        self._train_step.step_on_device(batch, self._step, like=self._host_step, sums=self._sums, finite=self._finite)

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
    """A `DeviceStep` that is recorded at the first launch of each phase of the method, and replayed from then on."""

    _graph: torch.cuda.CUDAGraph | None = None
    _phase = 0

    def launch(self) -> None:
        """Replay the recording, made first where there is none.

        Raises:
            torch.OutOfMemoryError: a step does not fit.
            DeviceError: the step cannot be recorded.
        """
        phase = self._train_step.method.phase(self._host_step)
        if self._graph is None or phase != self._phase:
            self._graph = None  # its memory goes before the next needs as much
            self._graph, self._phase = self._record(), phase
        self._graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream(self._device)
        with self.state_restored():
            aside.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self.compute()
            torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with warnings.catch_warnings():
                # torch only warns of a graph without any work, whose replays would train nothing
                warnings.filterwarnings("error", message=".*CUDA Graph is empty")
                with torch.cuda.graph(graph, stream=aside):  # computes nothing
                    self.compute()
        except (RuntimeError, UserWarning) as error:
            if is_out_of_memory(error):
                raise
            raise DeviceError(
                f"the step could not be recorded as a CUDA graph on {self._device}: {error}; --no-graph does without"
            ) from error
        log.info("steps of %d samples are one CUDA graph each", self._size)
        return graph
