"""The processes that train one network together: started by torchrun, one per device; alone without it.

Every process holds the whole network and computes its slice of each batch; gradients are summed after backward in one
flat buffer (37 MB for the full VGG-SNN), so all of them take the same update. Rank 0 leads: it alone writes.

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

from spikebridge.train.errors import DeviceError, RunStoppedError, TeamError, TrainError

PATIENCE = timedelta(hours=2)
"""How long a process waits for another; rank 0 scores the validation and test splits while the others wait."""


class Team:
    """One process's view of the team; every method but `lead` must be called by all processes in the same order.

    Args:
        rank: of this process, from 0 on.
        size: number of processes.
        words: process group for numbers on the CPU; None for the default group, which takes the device's tensors.
    """

    def __init__(self, rank: int = 0, size: int = 1, words: Any = None) -> None:
        self.rank, self.size, self.words = rank, size, words

    @property
    def lead(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def highest(self, *values: int) -> tuple[int, ...]:
        """The highest of every value over the processes; costs the device no wait."""
        if self.size == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.words)
        return tuple(numbers.tolist())

    def bytes_of_lead(self, data: bytes | None) -> bytes:
        """What rank 0 gives; the others' argument is ignored."""
        if self.size == 1:
            return data or b""
        length = torch.tensor([len(data or b"") if self.lead else 0])
        dist.broadcast(length, 0, group=self.words)
        given = np.frombuffer(data or b"", np.uint8) if self.lead else np.empty(int(length), np.uint8)
        content = torch.from_numpy(given.copy())
        if len(content):
            dist.broadcast(content, 0, group=self.words)
        return content.numpy().tobytes()

    def lead_does(self, action: Callable[[], Any]) -> Any:
        """Let rank 0 act while the others wait; all return its result (plain JSON) or raise its error.

        Raises:
            TrainError: what the action raised; on the other processes a `TeamError` or `RunStoppedError`.
        """
        if self.size == 1:
            return action()
        if self.lead:
            try:
                value = action()
            except TrainError as error:
                stopped = error.signal if isinstance(error, RunStoppedError) else 0
                self.bytes_of_lead(json.dumps({"error": str(error), "signal": stopped}).encode())
                raise
            self.bytes_of_lead(json.dumps({"value": value}).encode())
            return value
        told = json.loads(self.bytes_of_lead(None))
        if told.get("signal"):
            raise RunStoppedError(told["error"], signal=told["signal"])
        if "error" in told:
            raise TeamError(f"rank 0 gave up: {told['error']}")
        return told["value"]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, not differentiable; the argument is left alone."""
        summed = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(summed)
        return summed

    def rows(self, vector: Tensor) -> Tensor:
        """The vectors of all processes on the CPU, [size, len(vector)] by rank."""
        if self.size == 1:
            return vector.detach().cpu()[None].clone()
        everyone = torch.zeros((self.size, *vector.shape), dtype=vector.dtype)
        everyone[self.rank] = vector.detach().cpu()
        dist.all_reduce(everyone, group=self.words)  # zeros elsewhere: a sum that rounds nothing
        return everyone

    def gather(self, features: Tensor, sizes: Sequence[int]) -> Tensor:
        """Features [T,N,F] of all processes, by rank, from [T,B,F] here; differentiable.

        Args:
            features: of this process; ignored where its size is 0.
            sizes: samples of every process.
        """
        gathered: Tensor = _Gather.apply(features, tuple(sizes), self)
        return gathered

    def sum_gradients(self, modules: Sequence[nn.Module]) -> None:
        """Replace every gradient by its sum over the processes; one call per type of number."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            if parameter.grad is not None:
                kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in kinds.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


class _Gather(torch.autograd.Function):
    """All-gather along B; backward sums the gradient over the processes and keeps the own slice."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, sizes: tuple[int, ...], team: Team) -> Tensor:
        T, _, F = features.shape
        own, longest = sizes[team.rank], max(sizes)
        padded = features.new_zeros(T, longest, F)  # all_gather wants equal shapes
        padded[:, :own] = features[:, :own]
        everyone = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(everyone, padded)
        ctx.team, ctx.sizes, ctx.shape = team, sizes, features.shape
        return torch.cat([part[:, :size] for part, size in zip(everyone, sizes, strict=True)], dim=1)  # [T,N,F]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        summed = ctx.team.total(grad)
        start, own = sum(ctx.sizes[: ctx.team.rank]), ctx.sizes[ctx.team.rank]
        here = grad.new_zeros(ctx.shape)
        here[:, :own] = summed[:, start : start + own]
        return here, None, None


def planned_size() -> int:
    """Processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(name: str) -> str:
    """The device of this process: under torchrun, `auto` and `cuda` are the GPU numbered like it on its machine."""
    if planned_size() > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


@contextmanager
def meet(device: torch.device) -> Iterator[Team]:
    """The team of this process, alone without torchrun; a group that is open already is used and left open.

    Raises:
        TeamError: the processes do not find each other.
        DeviceError: this torch cannot talk between processes on that device.
    """
    opened = False
    if not (dist.is_available() and dist.is_initialized()):
        if planned_size() == 1:
            yield Team()
            return
        if not dist.is_available():
            raise DeviceError("this torch was built without torch.distributed; start without torchrun")
        # Its functions have the open group for a default, where they are imported with one open, and keep it: imported
        # later (by torch's optimisers), the group's threads run into the interpreter's end, which may abort.
        importlib.import_module("torch.distributed.nn")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TeamError(f"the processes did not find each other: {error}; start them with torchrun") from error
        opened = True
    team = Team(dist.get_rank(), dist.get_world_size())
    try:
        team.words = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
        yield team
        if opened:
            team.highest(0)  # nobody leaves before all are done; after an error nobody waits
    finally:
        if opened:
            team.words = None  # a group lives, and its threads with it, as long as anything refers to it
            dist.destroy_process_group()
