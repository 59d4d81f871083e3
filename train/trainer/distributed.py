"""The processes that train one network together: started by torchrun, one per device; alone without it.

Every process holds the whole network and computes its slice of each batch; gradients are summed after backward in one
flat buffer (37 MB for the full VGG-SNN), so all of them take the same update. Rank 0 is the main process: it alone
writes.

Axes: T time, B batch of this process, N batch of all processes, F features.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from spikebridge.train.errors import DeviceError, DistributedError, RunStoppedError, TrainError
from spikebridge.train.trainer.peers import PeerWatch

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another; rank 0 scores the validation and test splits while the others wait."""


class Distributed:
    """The collective operations of one process; all processes call them in the same order.

    `cpu_group` takes tensors on the CPU; it is None where the default group, which takes the device's tensors, does.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, cpu_group: Any = None) -> None:
        self.rank, self.world_size, self.cpu_group = rank, world_size, cpu_group

    @property
    def can_be_recorded(self) -> bool:
        """Whether a CUDA graph can hold what the processes tell each other; NCCL's operations run on the device."""
        return self.world_size == 1 or dist.get_backend() == "nccl"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs for all; no collective operation."""
        return self.rank == 0

    def all_reduce_max(self, *values: int) -> tuple[int, ...]:
        """Return the maximum of every value over the processes; the device does not wait."""
        if self.world_size == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.cpu_group)
        return tuple(numbers.tolist())

    def broadcast_bytes(self, data: bytes | None) -> bytes:
        """Return the bytes of rank 0 on all processes; the others' argument is ignored."""
        if self.world_size == 1:
            return data or b""
        length = torch.tensor([len(data or b"") if self.is_main else 0])
        dist.broadcast(length, 0, group=self.cpu_group)
        buffer = np.frombuffer(data or b"", np.uint8) if self.is_main else np.empty(int(length), np.uint8)
        content = torch.from_numpy(buffer.copy())
        if len(content):
            dist.broadcast(content, 0, group=self.cpu_group)
        return content.numpy().tobytes()

    def on_main(self, action: Callable[[], Any]) -> Any:
        """Run `action` on rank 0 while the others wait; all return its result (plain JSON) or raise its error.

        Raises:
            TrainError: what the action raised; on the other processes a `DistributedError` or `RunStoppedError`.
        """
        if self.world_size == 1:
            return action()
        if self.is_main:
            try:
                value = action()
            except TrainError as error:
                stopped = error.signal if isinstance(error, RunStoppedError) else 0
                self.broadcast_bytes(json.dumps({"error": str(error), "signal": stopped}).encode())
                raise
            self.broadcast_bytes(json.dumps({"value": value}).encode())
            return value
        answer = json.loads(self.broadcast_bytes(None))
        if answer.get("signal"):
            raise RunStoppedError(answer["error"], signal=answer["signal"])
        if "error" in answer:
            raise DistributedError(f"rank 0 gave up: {answer['error']}")
        return answer["value"]

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes as a new tensor, not differentiable."""
        summed = tensor.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(summed)
        return summed

    def gather_rows(self, vector: Tensor) -> Tensor:
        """Return the vectors of all processes on the CPU, [world_size, len(vector)] by rank."""
        if self.world_size == 1:
            return vector.detach().cpu()[None].clone()
        rows = torch.zeros((self.world_size, *vector.shape), dtype=vector.dtype)
        rows[self.rank] = vector.detach().cpu()
        dist.all_reduce(rows, group=self.cpu_group)  # zeros elsewhere: a sum that rounds nothing
        return rows

    def all_gather(self, features: Tensor, sizes: Sequence[int]) -> Tensor:
        """Concatenate the features [T,B,F] of all processes by rank to [T,N,F]; differentiable.

        Args:
            features: of this process; ignored where its size is 0.
            sizes: samples of every process.
        """
        gathered: Tensor = _AllGather.apply(features, tuple(sizes), self)
        return gathered

    def sum_gradients(self, modules: Sequence[nn.Module]) -> None:
        """Replace every gradient by its sum over the processes; one all-reduce per dtype."""
        if self.world_size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            if parameter.grad is not None:
                by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


class _AllGather(torch.autograd.Function):
    """Gathers along B; backward sums the gradient over the processes and keeps the own slice."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, sizes: tuple[int, ...], distributed: Distributed) -> Tensor:
        T, _, F = features.shape
        own, longest = sizes[distributed.rank], max(sizes)
        padded = features.new_zeros(T, longest, F)  # all_gather wants equal shapes
        padded[:, :own] = features[:, :own]
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        ctx.distributed, ctx.sizes, ctx.shape = distributed, sizes, features.shape
        return torch.cat([part[:, :size] for part, size in zip(parts, sizes, strict=True)], dim=1)  # [T,N,F]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        summed = ctx.distributed.all_reduce_sum(grad)
        start, own = sum(ctx.sizes[: ctx.distributed.rank]), ctx.sizes[ctx.distributed.rank]
        own_grad = grad.new_zeros(ctx.shape)
        own_grad[:, :own] = summed[:, start : start + own]
        return own_grad, None, None


def launched_processes() -> int:
    """Return the number of processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(name: str) -> str:
    """Return the device of this process: under torchrun, `auto` and `cuda` are the GPU of its local rank."""
    if launched_processes() > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Distributed]:
    """Join the processes that torchrun started; a process group that is open already is used and left open.

    Raises:
        DistributedError: the processes do not find each other, or one is gone; names its rank.
        DeviceError: this torch cannot talk between processes on that device.
    """
    opened = False
    if not (dist.is_available() and dist.is_initialized()):
        if launched_processes() == 1:
            yield Distributed()
            return
        if not dist.is_available():
            raise DeviceError("this torch was built without torch.distributed; start without torchrun")
        # Imported while a group is open (torch's optimisers do), this module keeps the group as a default argument; the
        # group's threads then outlive the interpreter, which may abort. Import it before.
        importlib.import_module("torch.distributed.nn")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise DistributedError(
                f"the processes did not find each other: {error}; start them with torchrun"
            ) from error
        opened = True
    distributed = Distributed(dist.get_rank(), dist.get_world_size())
    try:
        distributed.cpu_group = (
            None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=TIMEOUT)
        )
        if not opened:
            yield distributed
            return
        watch = PeerWatch(distributed.rank, distributed.world_size, distributed.broadcast_bytes)
        try:
            with watch:
                yield distributed
                distributed.all_reduce_max(0)  # nobody leaves before all are done; after an error nobody waits
        except RuntimeError as error:  # a collective operation whose partner is gone
            if not watch.loss:
                raise
            raise DistributedError(f"{watch.loss}; once that is mended, the same command continues") from error
    finally:
        if opened:
            distributed.cpu_group = None  # a group lives, and its threads with it, as long as anything refers to it
            dist.destroy_process_group()
