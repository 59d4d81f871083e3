"""Normalise, fire and pool on the CPU as one autograd function around the numba kernels.

Axes: B batch, S streams, R = B*S, T time, C channels, H, W, N numbers of a frame, L = W*C of a row. Memory is
channels-last: a layer that comes so is read in place and leaves so; another is copied once. Kept for backward: the
input (a convolution's output) and [S,T,C] statistics; potential, spikes and normalised values are computed again.
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

from spikebridge.models import kernels_numba as kernels
from spikebridge.models.backends import SURROGATE_CODES, count_launch
from spikebridge.models.folding import channels_last, empty_channels_last
from spikebridge.models.neurons import FiringRule, Neuron
from spikebridge.models.normalization import StepNorm

Array = NDArray[Any]
NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.float32, torch.float16: np.float32}
"""What frames of each type are computed in."""
AS_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
"""How the kernels take 16 bits."""
SMALLEST_SHARE = 1 << 16  # elements below which handing a share to a thread costs more than it saves


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="models-numba")


def share(kernel: Callable[..., None], x: Array, *arguments: Any) -> None:
    """Run a kernel over all sequences of x [R,T,N], shared among as many threads as torch may use."""
    n = max(1, min(torch.get_num_threads(), len(x), x.size // SMALLEST_SHARE))
    edges = [len(x) * i // n for i in range(n + 1)]
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


def _frames(x: Tensor) -> Array:
    """Return [B,S,T,...], which lies channels-last, as [R,T,N] in the order of memory; 16 bits as `AS_BITS`."""
    if x.ndim == 6:
        x = x.permute(0, 1, 2, 4, 5, 3)  # [B,S,T,H,W,C]
    x = x.detach().view(-1, x.shape[2], math.prod(x.shape[3:]))
    return (x.view(AS_BITS[x.dtype]) if x.dtype in AS_BITS else x).numpy()


def _computed_in(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in AS_BITS else x.dtype


def _row(x: Tensor) -> tuple[int, int]:
    """Return L and C of [B,S,T,C,H,W], or F and F of [B,S,T,F]."""
    C = x.shape[3]
    return (C * x.shape[5] if x.ndim == 6 else C), C


def _scalars(kind: type, k: Tensor | float, rule: FiringRule) -> tuple[Any, ...]:
    """Return k, leak, the potential above which a neuron fires, threshold and soft, in the type that is computed in."""
    k, leak, threshold, soft = map(kind, (float(k), rule.leaky, rule.threshold, not rule.hard_reset))
    # where the threshold itself fires, what is above the number before it
    limit = np.nextafter(threshold, kind(0)) if rule.surrogate.fires_at_threshold else threshold
    return k, leak, limit, threshold, soft


def _across(part: Tensor, x: Tensor) -> Array:
    """Repeat what there is of each channel, [S,T,C], for a row of x: [S,T,L] in the type that is computed in."""
    return part.to(_computed_in(x)).repeat(1, 1, x.shape[5]).numpy()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm | None) -> tuple[Tensor, ...]:
    """Return scale, shift and mean [S,T,C] of a layer's normalisation."""
    assert weight is not None
    assert bias is not None
    assert norm is not None
    scale = weight.detach() * norm.inverse_deviation
    return scale, bias.detach() - norm.mean * scale, norm.mean


class FusedFire(torch.autograd.Function):
    """Spikes and potential of x [B,S,T,...] under a plan."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, k: Tensor | float, plan: Plan
    ) -> tuple[Tensor, Tensor | None]:
        """Return spikes (pooled where planned) in the type of x, the potential (where planned) in float32 or more."""
        frames, kind = _frames(x), NUMPY[x.dtype]
        nothing = np.empty((0, 0, 0), kind)
        scale = shift = np.empty((x.shape[1], 0, 0), kind)
        if plan.norm is not None:
            scale, shift, _ = (_across(part, x) for part in _affine(x, weight, bias, plan.norm))
        shape = (*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2) if plan.pool else x.shape
        spikes = empty_channels_last(x, shape)
        after = empty_channels_last(x, x.shape, _computed_in(x)) if plan.potential else None
        share(
            kernels.forward,
            frames,
            *(scale, shift, *_scalars(kind, k, plan.rule), *_row(x), plan.pool),
            *(_frames(spikes), nothing if after is None else _frames(after)),
        )
        learned = isinstance(k, Tensor)
        ctx.save_for_backward(x, weight, bias, k if learned else None)
        ctx.k, ctx.plan = None if learned else k, plan
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, of the normalisation's weight and bias, and of a learned k."""
        x, weight, bias, learned_k = ctx.saved_tensors
        plan: Plan = ctx.plan
        frames, kind = _frames(x), NUMPY[x.dtype]
        nothing, no_spikes = np.empty((0, 0, 0), kind), np.empty((0, 0, 0), frames.dtype)
        scale = shift = mean = np.empty((x.shape[1], 0, 0), kind)
        if plan.norm is not None:
            scale, shift, mean = (_across(part, x) for part in _affine(x, weight, bias, plan.norm))
        k, rule = (ctx.k if learned_k is None else learned_k), plan.rule
        learned = learned_k is not None
        # rounded by the kernel where nothing else is computed of it
        grad_y = empty_channels_last(x, x.shape, _computed_in(x) if plan.norm or learned else x.dtype)
        (row, C), (R, T, _) = _row(x), frames.shape
        sums = np.empty((2, R, T, C) if plan.norm else (0, 0, 0, 0))
        grad_k = np.zeros(R if learned else 0)
        share(
            kernels.backward,
            frames,
            *(scale, shift, mean, *_scalars(kind, k, rule)),
            *(SURROGATE_CODES[rule.surrogate.name], kind(rule.surrogate.alpha), row, C, plan.pool),
            no_spikes if grad_spikes is None else _frames(channels_last(grad_spikes)),
            nothing if grad_after is None else _frames(channels_last(grad_after)),
            *(_frames(grad_y), sums, grad_k),
        )
        grad_weight = grad_bias = None
        if plan.norm is not None:
            scales, _, _ = _affine(x, weight, bias, plan.norm)
            grad_y, grad_weight, grad_bias = _through_norm(x, grad_y, sums, scales, plan.norm)
        learned_grad = learned_k.new_tensor(grad_k.sum()) if learned else None
        return grad_y.to(x.dtype), grad_weight, grad_bias, learned_grad, None


def _through_norm(x: Tensor, grad: Tensor, sums: Array, scale: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the gradient behind the normalisation into the one before it, in place unless x has 16 bits.

    Returns that, in the type of x, and the gradients of weight and bias [C].

    `sums` [2,R,T,C]: of the gradient, and of the gradient times the centred input.
    """
    B, S, T, C = x.shape[:4]
    plain, centred = torch.from_numpy(sums).view(2, B, S, T, C).unbind()
    normalized = centred * norm.inverse_deviation  # sums of gradient times normalised input
    gain = scale.double()  # [S,T,C]
    slant, offset = torch.zeros_like(gain), torch.zeros_like(gain)
    if norm.pooled_over is not None:  # the statistics are functions of x
        count = x[0, 0, 0, 0].numel() * math.prod((B, S, T, C)[axis] for axis in norm.pooled_over)
        mean_plain, mean_normalized = (
            (part.sum(norm.pooled_over, keepdim=True) / count).squeeze(0) for part in (plain, normalized)
        )
        slant = -gain * mean_normalized * norm.inverse_deviation
        offset = -gain * mean_plain - slant * norm.mean
    before = grad if grad.dtype == x.dtype else empty_channels_last(x, x.shape)
    out = np.empty((0, 0, 0), NUMPY[x.dtype]) if before is grad else _frames(before)
    share(kernels.normalize_backward, _frames(x), _frames(grad), *(_across(p, x) for p in (gain, slant, offset)), out)
    return before, normalized.sum((0, 1, 2)).to(scale.dtype), plain.sum((0, 1, 2)).to(scale.dtype)


def _batch_norm(x: Tensor, norm: StepNorm, streams: Sequence[int]) -> Norm:
    """Compute the statistics of x [B,S,T,C,H,W], which in training move the running ones."""
    B, S, T, C, H, W = x.shape
    if not norm.training:
        mean, variance = (part[:, None].expand(S, T, C) for part in norm.running(streams))
        return Norm(mean, (variance + norm.eps).rsqrt(), None)
    norm.check_count(x)
    frames = _frames(x)
    sums, squares = np.empty((2, *frames.shape[:2], C))
    share(kernels.moments, frames, np.empty(0, NUMPY[x.dtype]), W * C, sums, squares)
    pooled_over = (0, 2) if norm.statistics == "pooled" else (0,)
    totals = torch.from_numpy(sums).view(B, S, T, C)
    spreads = torch.from_numpy(squares).view(B, S, T, C)
    pixels = H * W
    count = pixels * B * (T if norm.statistics == "pooled" else 1)
    mean = totals.sum(pooled_over, keepdim=True) / count  # [1,S,T or 1,C]
    between = pixels * (totals / pixels - mean).square()
    spread = (spreads + between).sum(pooled_over, keepdim=True)
    mean, spread = mean.squeeze(0), spread.squeeze(0)
    norm.update_running(mean, spread / (count - 1), streams)
    deviation = (spread / count + norm.eps).sqrt()
    kind = _computed_in(x)
    return Norm(mean.to(kind).expand(S, T, C), deviation.reciprocal().to(kind).expand(S, T, C), pooled_over)


def fire(
    x: Tensor, node: Neuron, norm: StepNorm | None, *, streams: Sequence[int], pool: bool, potential: bool
) -> tuple[Tensor, Tensor | None]:
    """Normalise, fire over all steps, pool: see `models.layers.fire`, whose numba backend this is.

    16 bits are normalised and integrated in float32; spikes come back in them, the potential in float32.
    """
    count_launch("numba")
    x = channels_last(x)
    with torch.no_grad():
        statistics = None if norm is None else _batch_norm(x, norm, streams)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    spikes: tuple[Tensor, Tensor | None] = FusedFire.apply(
        x, weight, bias, node.gain(), Plan(node.rule, pool, potential, statistics)
    )
    return spikes
