"""Normalise, fire and pool on the CPU as one autograd function around the numba kernels.

Axes: B batch, S streams, R = B*S, T time, C channels, P pixels. Kept for backward: the input (a convolution's output)
and [S,T,C] statistics; potential, spikes and normalised values are computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from models import kernels_numba as kernels
from models.backends import SURROGATE_CODES, count_launch
from models.neurons import FiringRule, Neuron
from models.normalization import StepNorm

Array = NDArray[Any]
SMALLEST_SHARE = 1 << 16  # elements below which handing a share to a thread costs more than it saves


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="models-numba")


def _share(kernel: Callable[..., None], x: Array, *arguments: Any) -> None:
    """Run a kernel over all maps of x [R,T,C,P], shared among as many threads as torch may use."""
    maps = x.shape[0] * x.shape[2]
    n = max(1, min(torch.get_num_threads(), maps, x.size // SMALLEST_SHARE))
    edges = [maps * i // n for i in range(n + 1)]
    shares = list(pairwise(edges))
    waiting = [_threads(n - 1).submit(kernel, x, *arguments, lo, hi) for lo, hi in shares[1:]]
    kernel(x, *arguments, *shares[0])
    wait(waiting)
    for future in waiting:
        future.result()


@dataclass(frozen=True)
class Norm:
    """BatchNorm as the kernels take it."""

    mean: Tensor
    """[S,T,C]."""
    inverse_deviation: Tensor
    """[S,T,C]."""
    pooled_over: tuple[int, ...] | None
    """Axes of [B,S,T,C] that the statistics were taken over; None where they are constants (evaluation)."""


@dataclass(frozen=True)
class Plan:
    """What a launch computes, apart from its tensors."""

    rule: FiringRule
    pool: bool
    potential: bool
    norm: Norm | None


def _maps(x: Tensor, channels: bool) -> Array:
    """[B,S,T,...] as [R,T,C,P]; all as one channel unless they are kept apart."""
    B, S, T = x.shape[:3]
    return x.detach().reshape(B * S, T, x.shape[3] if channels else 1, -1).numpy()


def _scalars(x: Array, k: Tensor | float, rule: FiringRule) -> tuple[Any, ...]:
    """k, leak, threshold, soft in the type of x, and whether the threshold itself fires."""
    numbers = (float(k), float(rule.leaky), rule.threshold, float(not rule.hard_reset))
    return *(x.dtype.type(number) for number in numbers), rule.surrogate.fires_at_threshold


def _affine(x: Array, streams: int, weight: Tensor | None, bias: Tensor | None, norm: Norm | None) -> list[Array]:
    """Scale, shift and mean [S,T,C] of a layer's normalisation; 1, 0 and 0 without."""
    if norm is None:
        shape = (streams, *x.shape[1:3])
        return [np.ones(shape, x.dtype), np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)]
    assert weight is not None
    assert bias is not None
    scale = weight.detach() * norm.inverse_deviation
    shift = bias.detach() - norm.mean * scale
    return [part.to(scale.dtype).contiguous().numpy() for part in (scale, shift, norm.mean)]


class FusedFire(torch.autograd.Function):
    """Spikes and potential of x [B,S,T,...] under a plan."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, k: Tensor | float, plan: Plan
    ) -> tuple[Tensor, Tensor | None]:
        """Spikes (pooled where planned) and potential after reset (where planned)."""
        x = x.contiguous()
        maps = _maps(x, plan.pool or plan.norm is not None)
        scale, shift, _ = _affine(maps, x.shape[1], weight, bias, plan.norm)
        shape = (*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2) if plan.pool else x.shape
        spikes = x.new_empty(shape)
        after = torch.empty_like(x) if plan.potential else None
        nothing = np.empty((0, 0, 0, 0), maps.dtype)
        _share(
            kernels.forward,
            maps,
            *(scale, shift, *_scalars(maps, k, plan.rule), x.shape[-1], plan.pool),
            spikes.view(*maps.shape[:3], -1).numpy(),
            nothing if after is None else after.view(maps.shape).numpy(),
        )
        learned = isinstance(k, Tensor)
        ctx.save_for_backward(x, weight, bias, k if learned else None)
        ctx.k, ctx.plan = None if learned else k, plan
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of x, of the normalisation's weight and bias, and of a learned k."""
        x, weight, bias, learned_k = ctx.saved_tensors
        plan: Plan = ctx.plan
        maps = _maps(x, plan.pool or plan.norm is not None)
        scale, shift, mean = _affine(maps, x.shape[1], weight, bias, plan.norm)
        k, rule = (ctx.k if learned_k is None else learned_k), plan.rule
        grad_y = torch.empty_like(x)
        sums = np.empty((2, *maps.shape[:3]) if plan.norm else (0, 0, 0, 0), maps.dtype)
        grad_k = np.zeros((maps.shape[0], maps.shape[2]) if learned_k is not None else (0, 0), maps.dtype)
        nothing = np.empty((0, 0, 0, 0), maps.dtype)
        _share(
            kernels.backward,
            maps,
            *(scale, shift, mean, *_scalars(maps, k, rule)),
            *(SURROGATE_CODES[rule.surrogate.name], maps.dtype.type(rule.surrogate.alpha), x.shape[-1], plan.pool),
            nothing if grad_spikes is None else grad_spikes.contiguous().view(*maps.shape[:3], -1).numpy(),
            nothing if grad_after is None else grad_after.contiguous().view(maps.shape).numpy(),
            *(grad_y.view(maps.shape).numpy(), sums, grad_k),
        )
        grad_weight = grad_bias = None
        if plan.norm is not None:
            grad_weight, grad_bias = _through_norm(x, maps, grad_y, sums, scale, plan.norm)
        learned_grad = None if learned_k is None else learned_k.new_tensor(grad_k.sum(dtype=np.float64))
        return grad_y, grad_weight, grad_bias, learned_grad, None


def _through_norm(x: Tensor, maps: Array, grad: Tensor, sums: Array, scale: Array, norm: Norm) -> tuple[Tensor, Tensor]:
    """Turn the gradient behind the normalisation into the one before it, in place; gradients of weight and bias [C].

    `sums` [2,R,T,C]: of the gradient, and of the gradient times the centred input.
    """
    B, S, T, C = x.shape[:4]
    plain, centred = torch.from_numpy(sums).double().view(2, B, S, T, C).unbind()
    normalized = centred * norm.inverse_deviation  # sums of gradient times normalised input
    gain = torch.from_numpy(scale).double()  # [S,T,C]
    slant, offset = torch.zeros_like(gain), torch.zeros_like(gain)
    if norm.pooled_over is not None:  # the statistics are functions of x
        count = x[0, 0, 0, 0].numel() * math.prod((B, S, T, C)[axis] for axis in norm.pooled_over)
        mean_plain, mean_normalized = (
            (part.sum(norm.pooled_over, keepdim=True) / count).squeeze(0) for part in (plain, normalized)
        )
        slant = -gain * mean_normalized * norm.inverse_deviation
        offset = -gain * mean_plain - slant * norm.mean
    parts = [part.to(x.dtype).contiguous().numpy() for part in (gain, slant, offset)]
    _share(kernels.normalize_backward, maps, grad.view(maps.shape).numpy(), *parts)
    return normalized.sum((0, 1, 2)).to(x.dtype), plain.sum((0, 1, 2)).to(x.dtype)


def _batch_norm(x: Tensor, norm: StepNorm, streams: Sequence[int]) -> Norm:
    """Statistics of x [B,S,T,C,H,W], which in training move the running ones."""
    B, S, T, C, H, W = x.shape
    if not norm.training:
        mean, variance = (part[:, None].expand(S, T, C) for part in norm.running(streams))
        return Norm(mean, (variance + norm.eps).rsqrt(), None)
    norm.check_count(x)
    maps = _maps(x.contiguous(), channels=True)
    sums, squares = np.empty((2, *maps.shape[:3]), maps.dtype)
    _share(kernels.moments, maps, sums, squares)
    pooled_over = (0, 2) if norm.statistics == "pooled" else (0,)
    totals = torch.from_numpy(sums).double().view(B, S, T, C)
    spreads = torch.from_numpy(squares).double().view(B, S, T, C)
    pixels = H * W
    count = pixels * B * (T if norm.statistics == "pooled" else 1)
    mean = totals.sum(pooled_over, keepdim=True) / count  # [1,S,T or 1,C]
    between = pixels * (totals / pixels - mean).square()
    spread = (spreads + between).sum(pooled_over, keepdim=True)
    mean, spread = mean.squeeze(0), spread.squeeze(0)
    norm.update_running(mean, spread / (count - 1), streams)
    deviation = (spread / count + norm.eps).sqrt()
    return Norm(mean.to(x.dtype).expand(S, T, C), deviation.reciprocal().to(x.dtype).expand(S, T, C), pooled_over)


def fire(
    x: Tensor, node: Neuron, norm: StepNorm | None, *, streams: Sequence[int], pool: bool, potential: bool
) -> tuple[Tensor, Tensor | None]:
    """Normalise, fire over all steps, pool: see `models.layers.fire`, whose numba backend this is."""
    count_launch("numba")
    with torch.no_grad():
        statistics = None if norm is None else _batch_norm(x, norm, streams)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    spikes: tuple[Tensor, Tensor | None] = FusedFire.apply(
        x, weight, bias, node.gain(), Plan(node.rule, pool, potential, statistics)
    )
    return spikes
