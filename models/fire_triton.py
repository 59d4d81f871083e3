"""Normalise, fire and pool on a GPU as one autograd function around the Triton kernels.

Axes: B batch, S streams, R = B*S, T time, C channels, H, W. Memory is channels-last: a layer that comes so is read
in place and leaves so; another is copied once, and what follows it is channels-last. Kept for backward: the input
(a convolution's output, in its own type) and [S,T,C] statistics; potential and spikes are computed again, those too
that a convolution behind neurons without pooling would keep, see `models.recomputation`.

Nothing here waits for the device or copies from the host, so that a CUDA graph can hold it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikebridge.models import kernels_triton as kernels
from spikebridge.models.backends import SURROGATE_CODES, count_launch
from spikebridge.models.errors import BackendError
from spikebridge.models.folding import channels_last, empty_channels_last
from spikebridge.models.neurons import FiringRule, Neuron
from spikebridge.models.normalization import StepNorm
from spikebridge.models.recomputation import offer

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""The interpreter's time goes by operations, whatever their size: there programs are as large as arrays fit a cache."""

TILE = 65536 if INTERPRETED else 1024
"""Neurons of one program. More save partial sums and cost registers: backward keeps T potentials of each."""

WIDEST = TILE if INTERPRETED else 64
"""Channels of one program that has several pixels: whole cache lines."""

NARROW = 64 if INTERPRETED else 8
"""Channels of one program that looks at all steps of them."""

WARPS = 4
BACKWARD_WARPS = 8
"""Backward holds T steps of its tile: with 512 neurons a program 80 to 128 registers a thread, three blocks or two of
eight warps on a multiprocessor. `finish` holds all steps of its channels in float64."""

MOST_WIDE = 10
"""T up to which the pass for the sums holds 1,024 neurons a program: as many registers as `LIMITED` allows."""

LIMITED: dict[str, int] = {} if INTERPRETED or torch.version.hip else {"maxnreg": 128}
"""Registers a thread of that pass, so that two blocks fit on a multiprocessor; AMD's compiler takes no such limit."""

PROGRAMS = 4096
"""Programs that the statistics are shared among, about: several waves of a large card, so that the last, which is never
full, costs little."""

AHEAD = 4
"""Tiles of a program of `moments` whose loads are under way together; a power of two."""


@dataclass(frozen=True)
class Norm:
    """BatchNorm as the kernels take it, in the kernels' arithmetic."""

    mean: Tensor
    """[S,T,C]."""
    inverse_deviation: Tensor
    """[S,T,C]."""
    scale: Tensor
    """[S,T,C], weight times inverse deviation."""
    shift: Tensor
    """[S,T,C], bias minus mean times scale."""
    pooled_over: tuple[int, ...] | None
    """Axes of [B,S,T,C] that the statistics were taken over; None where they are constants (evaluation)."""


@dataclass(frozen=True)
class Plan:
    """What a launch computes, apart from its tensors."""

    rule: FiringRule
    pool: bool
    potential: bool
    norm: Norm | None


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _sizes(x: Tensor, plan: Plan) -> tuple[int, int, int]:
    """Return H, W and C of a frame for the kernels: one row of channels where pixels need not be told apart."""
    if x.ndim == 6 and (plan.pool or plan.norm is not None):
        return x.shape[4], x.shape[5], x.shape[3]
    return 1, 1, math.prod(x.shape[3:])


def _blocks(pixels: int, channels: int, tile: int) -> dict[str, int]:
    """Choose the tile of a program: channels first, then pixels."""
    wide = min(triton.next_power_of_2(channels), WIDEST if pixels > 1 else tile)
    high = min(triton.next_power_of_2(pixels), max(1, tile // wide))
    return {"BLOCK_P": high, "BLOCK_C": wide}


def _grid(sequences: int, pixels: int, channels: int, blocks: dict[str, int]) -> tuple[int, int]:
    """Return the programs that backward is shared among."""
    return sequences * triton.cdiv(pixels, blocks["BLOCK_P"]), triton.cdiv(channels, blocks["BLOCK_C"])


def _rule(k: Tensor | float, rule: FiringRule) -> dict[str, Any]:
    """Return the neurons' constants; K = 0 says that k lies in memory."""
    return {
        "K": 0.0 if isinstance(k, Tensor) else float(k),
        "LEAKY": rule.leaky,
        "HARD": rule.hard_reset,
        "THRESHOLD": rule.threshold,
        "AT_THRESHOLD": rule.surrogate.fires_at_threshold,
    }


def _affine(norm: Norm | None, like: Tensor) -> tuple[Tensor, ...]:
    """Return scale, shift and mean [S,T,C] of a layer's normalisation; stand-ins that nobody reads without."""
    return (like, like, like) if norm is None else (norm.scale, norm.shift, norm.mean)


def _steps_and_channels(S: int, T: int, C: int) -> dict[str, int]:
    """Choose the tile of a program that looks at all steps of some channels."""
    return {"STEPS": triton.next_power_of_2(S * T), "BLOCK_C": min(triton.next_power_of_2(C), NARROW)}


def _launch_forward(x: Tensor, k: Tensor | float, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """Return spikes and potential, see `FusedFire.forward`."""
    H, W, C = _sizes(x, plan)
    R, T = x.shape[0] * x.shape[1], x.shape[2]
    shape = (*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2) if plan.pool else x.shape
    spikes = empty_channels_last(x, shape, x.dtype)
    after = empty_channels_last(x, x.shape, _accumulator(x)) if plan.potential else None
    scale, shift, _ = _affine(plan.norm, x)
    places = -(-H // 2) * -(-W // 2) if plan.pool else H * W
    blocks = _blocks(4 * places if plan.pool else places, C, TILE)
    if plan.pool:  # a program holds four pixels of each of its places
        blocks["BLOCK_P"] = max(1, blocks["BLOCK_P"] // 2)
    grid = (R * triton.cdiv(places, blocks["BLOCK_P"]), triton.cdiv(C, blocks["BLOCK_C"]))
    kernels.forward[grid](
        *(x, scale, shift, k if isinstance(k, Tensor) else x, spikes, x if after is None else after),
        *(x.shape[1], H, W, C),
        T=T,
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        NORM=plan.norm is not None,
        POOL=plan.pool,
        POTENTIAL=plan.potential,
        **_rule(k, plan.rule),
        **blocks,
        num_warps=WARPS,
    )
    return spikes, after


class FusedFire(torch.autograd.Function):
    """Spikes and potential of x [B,S,T,...], channels-last, under a plan."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, k: Tensor | float, plan: Plan
    ) -> tuple[Tensor, Tensor | None]:
        """Return spikes (pooled where planned) in the type of x, the potential (where planned) in float32 or more."""
        spikes, after = _launch_forward(x, k, plan)
        learned = isinstance(k, Tensor)
        ctx.save_for_backward(x, weight, bias, k if learned else None)
        ctx.k, ctx.plan = None if learned else k, plan
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, of the normalisation's weight and bias, and of a learned k."""
        x, weight, _, learned_k = ctx.saved_tensors
        plan: Plan = ctx.plan
        k: Tensor | float = ctx.k if learned_k is None else learned_k
        H, W, C = _sizes(x, plan)
        B, S, T = x.shape[:3]
        R = B * S
        scale, shift, mean = _affine(plan.norm, x)
        grad_spikes = None if grad_spikes is None else channels_last(grad_spikes)
        grad_after = None if grad_after is None else channels_last(grad_after)
        grad_x = empty_channels_last(x, x.shape, x.dtype)
        constants = {
            "T": T,
            "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
            "NORM": plan.norm is not None,
            "POOL": plan.pool,
            "FROM_SPIKES": grad_spikes is not None,
            "FROM_AFTER": grad_after is not None,
            "KIND": SURROGATE_CODES[plan.rule.surrogate.name],
            "ALPHA": plan.rule.surrogate.alpha,
            "num_warps": BACKWARD_WARPS,
            **_rule(k, plan.rule),
        }
        # a wider tile halves the partial sums; the last layer's holds a third tensor, and is small
        half = TILE // 2
        summing = _blocks(H * W, C, half if grad_after is not None or T > MOST_WIDE else TILE)
        tiles = triton.cdiv(H * W, summing["BLOCK_P"])

        def launch(gain: Tensor, slant: Tensor, offset: Tensor, sums: Tensor, grad_k: Tensor, **which: Any) -> None:
            blocks = summing if which["SUMS"] else _blocks(H * W, C, half)
            kernels.backward[_grid(R, H * W, C, blocks)](
                *(x, scale, shift, mean, gain, slant, offset, x if learned_k is None else learned_k),
                *(x if grad_spikes is None else grad_spikes, x if grad_after is None else grad_after),
                *(grad_x, sums, grad_k, S, H, W, C),
                **constants,
                **which,
                **blocks,
            )

        grid = _grid(R, H * W, C, summing)
        grad_weight = grad_bias = grad_k = None
        gain = slant = offset = x
        if plan.norm is not None or learned_k is not None:
            accumulator = _accumulator(x)
            sums = x.new_empty((2, grid[0], T, C) if plan.norm is not None else (1,), dtype=accumulator)
            partial_k = x.new_empty(grid, dtype=accumulator)
            launch(x, x, x, sums, partial_k, SUMS=True, GRAD_X=False, **LIMITED)
            if learned_k is not None:
                grad_k = partial_k.sum(dtype=torch.float64).to(learned_k.dtype)
            if plan.norm is not None:
                assert weight is not None
                totals = sums.view(2, B, S, tiles, T, C).sum((1, 3), dtype=torch.float64)  # [2,S,T,C]
                gain, slant, offset, grad_weight, grad_bias = _through_norm(x, totals, weight, plan.norm)
        launch(gain, slant, offset, x, x, SUMS=False, GRAD_X=True)
        return grad_x, grad_weight, grad_bias, grad_k, None


def _through_norm(x: Tensor, totals: Tensor, weight: Tensor, norm: Norm) -> tuple[Tensor, ...]:
    """Return gain, slant and offset [S,T,C], and gradients of weight and bias [C], of sums [2,S,T,C] in float64.

    See the kernel.
    """
    S, T, C = norm.mean.shape
    gain, slant, offset = norm.mean.new_empty((3, S, T, C))
    grad_weight, grad_bias = weight.new_empty((2, C))
    over = norm.pooled_over or ()
    blocks = _steps_and_channels(S, T, C)
    kernels.through_norm[(triton.cdiv(C, blocks["BLOCK_C"]),)](
        *(totals, norm.scale, norm.mean, norm.inverse_deviation, gain, slant, offset, grad_weight, grad_bias),
        *(S, C, x[0, 0, 0, 0].numel() * math.prod(x.shape[axis] for axis in over)),
        T=T,
        CONSTANT=norm.pooled_over is None,
        POOLED=2 in over,
        **blocks,
        num_warps=WARPS,
    )
    return gain, slant, offset, grad_weight, grad_bias


def _batch_norm(x: Tensor, norm: StepNorm, streams: Sequence[int]) -> Norm:
    """Compute the statistics of x [B,S,T,C,H,W], channels-last, which in training move the running ones."""
    B, S, T, C, H, W = x.shape
    accumulator = _accumulator(x)
    if not norm.training:
        mean, variance = (part[:, None].expand(S, T, C).to(accumulator) for part in norm.running(streams))
        inverse = (variance + norm.eps).rsqrt()
        scale = norm.weight.detach().to(accumulator) * inverse
        return Norm(mean.contiguous(), inverse, scale, norm.bias.detach() - mean * scale, None)
    norm.check_count(x)
    pixels = B * H * W
    block_c = min(triton.next_power_of_2(C), WIDEST)
    block_n = min(triton.next_power_of_2(pixels), TILE // block_c)
    lanes = S * T * triton.cdiv(C, block_c)
    # a power of two, because the kernel is compiled for the number
    tiles = triton.next_power_of_2(max(AHEAD, pixels * lanes // (PROGRAMS * block_n)))
    chunk = tiles * block_n
    chunks = triton.cdiv(pixels, chunk)
    means, squares = x.new_empty((2, chunks, S, T, C), dtype=accumulator)
    kernels.moments[(S * T, chunks, triton.cdiv(C, block_c))](
        *(x, means, squares, B, S, H * W, C),
        T=T,
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        TILES=tiles,
        AHEAD=AHEAD,
        BLOCK_N=block_n,
        BLOCK_C=block_c,
        num_warps=WARPS,
    )
    pooled = norm.statistics == "pooled"
    diverted = norm.divert is not None
    mean, inverse, variance, scale, shift = x.new_empty((5, S, T, C), dtype=accumulator)
    blocks = _steps_and_channels(S, T, C)
    kernels.finish[(triton.cdiv(C, blocks["BLOCK_C"]),)](
        *(means, squares, norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var),
        *(norm.num_batches_tracked, mean, inverse, variance, scale, shift, B, S, H * W, C, chunks, chunk),
        T=T,
        EPS=norm.eps,
        MOMENTUM=norm.momentum,
        LOG_LEFT=math.log1p(-norm.momentum),
        POOLED=pooled,
        FIRST_ROW=streams[0] if norm.statistics == "domain" else -1,
        MOVE=not diverted,
        KEEP=diverted,
        BLOCK_K=triton.next_power_of_2(chunks) if INTERPRETED else min(8, triton.next_power_of_2(chunks)),
        **blocks,
        num_warps=BACKWARD_WARPS,
    )
    if diverted:
        known = 1 if pooled else T
        norm.update_running(mean[:, :known], variance[:, :known], streams)
    return Norm(mean, inverse, scale, shift, (0, 2) if pooled else (0,))


def fire(
    x: Tensor, node: Neuron, norm: StepNorm | None, *, streams: Sequence[int], pool: bool, potential: bool
) -> tuple[Tensor, Tensor | None]:
    """Normalise, fire over all steps, pool: see `models.layers.fire`, whose Triton backend this is.

    Half-precision input is normalised and integrated in float32; its spikes come back in its own type, the potential
    in float32.
    """
    count_launch("triton")
    x = channels_last(x)
    with torch.no_grad():
        statistics = None if norm is None else _batch_norm(x, norm, streams)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    k, plan = node.gain(), Plan(node.rule, pool, potential, statistics)
    spikes, after = FusedFire.apply(x, weight, bias, k, plan)
    if x.ndim == 6 and not pool:  # pooled spikes are a quarter as large, and four times as much work to make again
        again, kept, gain = replace(plan, potential=False), x.detach(), k.detach() if isinstance(k, Tensor) else k
        offer(spikes, lambda: _launch_forward(kept, gain, again)[0])
    return spikes, after


def try_triton(node: Neuron, *, device: torch.device, dtype: torch.dtype) -> None:
    """Compile and launch one small kernel for these neurons on a GPU, and wait for it.

    Raises:
        BackendError: Triton cannot; says why, and what does without it.
    """
    try:
        x = torch.zeros((1, 1, 1, 1), device=device, dtype=dtype)  # [B,S,T,F]
        fire(x, node.to(device), None, streams=(0,), pool=False, potential=False)
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever the compiler, the driver or a missing header raises
        raise BackendError(
            f"Triton, which computes the neurons on {device}, does not run on this machine: "
            f"{type(error).__name__}: {error}. It needs a C compiler and the headers of Python (Debian: gcc, "
            "python3-dev) and a GPU of compute capability 7.5 or more; --backend torch does without it, more slowly."
        ) from error
