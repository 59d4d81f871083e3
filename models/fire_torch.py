"""Neurons over all time steps in plain PyTorch: any device, any float type.

Axes: B batch, S streams, T time, then any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikebridge.models.backends import count_launch
from spikebridge.models.folding import over_frames
from spikebridge.models.neurons import FiringRule, Neuron
from spikebridge.models.normalization import StepNorm


def charge(v: Tensor, x: Tensor, k: Tensor | float, rule: FiringRule) -> Tensor:
    """Return the potential before the spike, from the one after the last reset `v` and the input `x` (same shapes)."""
    if not rule.spiking:
        return x
    return v + ((x - v) if rule.leaky else x) * k


def reset(v: Tensor, spikes: Tensor, rule: FiringRule) -> Tensor:
    """Return the potential after the spike; `spikes` is 0 or 1 in the shape of `v`."""
    return v * (1 - spikes) if rule.hard_reset else v - rule.threshold * spikes


class FireOverTime(torch.autograd.Function):
    """Spikes of all steps; keeps the input alone and recomputes potential and spikes in backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, k: Tensor | float, rule: FiringRule, potential: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return spikes, and the potential after reset where asked for, each in the shape of x [B,S,T,...]."""
        spikes = torch.empty_like(x)
        after = torch.empty_like(x) if potential else None
        v = torch.zeros_like(x[:, :, 0])
        for t in range(x.shape[2]):
            v = charge(v, x[:, :, t], k, rule)
            spike = rule.surrogate.fires(v - rule.threshold).to(x.dtype)
            v = reset(v, spike, rule)
            spikes[:, :, t] = spike
            if after is not None:
                after[:, :, t] = v
        learned = isinstance(k, Tensor)
        ctx.save_for_backward(x, k if learned else None)
        ctx.k, ctx.rule = None if learned else k, rule
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, and of k where it is learned."""
        x, learned_k = ctx.saved_tensors
        k, rule = (ctx.k if learned_k is None else learned_k), ctx.rule
        befores, spikes, starts = [], [], []
        v = torch.zeros_like(x[:, :, 0])
        for t in range(x.shape[2]):
            starts.append(v)
            before = charge(v, x[:, :, t], k, rule)
            spike = rule.surrogate.fires(before - rule.threshold).to(x.dtype)
            v = reset(before, spike, rule)
            befores.append(before)
            spikes.append(spike)

        grad_x = torch.empty_like(x)
        grad_k = None if learned_k is None else torch.zeros_like(learned_k)
        carried = torch.zeros_like(v)  # gradient of the potential after this step's reset
        for t in reversed(range(x.shape[2])):
            if grad_after is not None:
                carried = carried + grad_after[:, :, t]
            grad = carried * (1 - spikes[t]) if rule.hard_reset else carried
            if grad_spikes is not None:
                slope = rule.surrogate.derivative(befores[t] - rule.threshold, rule.surrogate.alpha)
                grad = grad + grad_spikes[:, :, t] * slope
            grad_x[:, :, t] = grad * k
            if grad_k is not None:
                grad_k += (grad * ((x[:, :, t] - starts[t]) if rule.leaky else x[:, :, t])).sum()
            carried = grad * (1 - k) if rule.leaky else grad
        return grad_x, grad_k, None, None


def fire(
    x: Tensor, node: Neuron, norm: StepNorm | None, *, streams: Sequence[int], pool: bool, potential: bool
) -> tuple[Tensor, Tensor | None]:
    """Normalise, fire over all steps, pool: see `models.layers.fire`, whose torch backend this is.

    Half-precision input is normalised and integrated in float32; its spikes come back in its own type.
    """
    count_launch("torch")
    frame_type = x.dtype
    if frame_type in (torch.float16, torch.bfloat16):
        x = x.float()
    if norm is not None:
        x = norm(x, streams)  # [B,S,T,C,H,W]
    if node.rule.spiking:
        spikes, after = FireOverTime.apply(x, node.gain(), node.rule, potential)
    else:
        spikes, after = F.relu(x), x if potential else None
    if pool:
        spikes = over_frames(partial(F.avg_pool2d, kernel_size=2), spikes)  # [B,S,T,C,H//2,W//2]
    return spikes.to(frame_type), after
