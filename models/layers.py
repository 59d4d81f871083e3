"""The two layers that know time: firing (with what surrounds it), and dropout.

Axes: B batch, S streams, T time, C channels, H, W, F features. `streams` says which the S are: 0 static, 1 event.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikebridge.models import backends
from spikebridge.models.fire_torch import fire as fire_torch
from spikebridge.models.folding import over_frames
from spikebridge.models.neurons import Neuron
from spikebridge.models.normalization import StepNorm


def fire(
    x: Tensor,
    node: Neuron,
    norm: StepNorm | None = None,
    *,
    streams: Sequence[int] = (),
    pool: bool = False,
    potential: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Normalise, fire over all steps, pool: one operation, so that a backend can fuse it.

    Args:
        x: [B,S,T,C,H,W], or [B,S,T,F] without normalisation and pooling.
        node: the neurons; potential 0 before the first step of every sequence.
        norm: BatchNorm in front of them, or None.
        streams: which the S are (needed by `norm`).
        pool: average over 2x2 behind them; an odd last row or column is dropped.
        potential: whether to return the membrane potential after reset.

    Returns:
        Spikes (shape of x, or [B,S,T,C,H//2,W//2] pooled), and the potential (shape of x) or None.

    Raises:
        BackendError: the backend asked for cannot run on x.
    """
    backend = backends.choose(x, node.rule)
    if backend == "numba":
        from spikebridge.models.fire_numba import fire as launch
    elif backend == "triton":
        from spikebridge.models.fire_triton import fire as launch
    else:
        launch = fire_torch
    frame_type = x.dtype
    if norm is not None and norm.training and norm.partners is not None:
        # Statistics over several processes come before the fused operation, whichever backend runs it.
        x, norm = norm(x.float() if frame_type in (torch.float16, torch.bfloat16) else x, streams), None
        spikes, after = launch(x, node, None, streams=streams, pool=pool, potential=potential)
        return spikes.to(frame_type), after
    if node.watch:
        spikes, after = launch(x, node, norm, streams=streams, pool=False, potential=True)
        node.work = count_work(spikes.detach(), after.detach() if node.rule.spiking and after is not None else None)
        shown = over_frames(lambda full: F.avg_pool2d(full, 2), spikes) if pool else spikes
        return shown, after if potential else None
    if not node.record:
        return launch(x, node, norm, streams=streams, pool=pool, potential=potential)
    # Pooled spikes have the same mean as all of them, unless some are dropped, or not spikes.
    whole = pool and node.rule.spiking and x.shape[-2] % 2 == x.shape[-1] % 2 == 0
    spikes, after = launch(x, node, norm, streams=streams, pool=whole, potential=potential)
    spikes_or_not = spikes.detach() if node.rule.spiking else (spikes.detach() > 0).to(spikes.dtype)
    node.rate = spikes_or_not.mean()  # of neurons that do not spike: the share that is above 0
    node.count = x[0, 0, 0].numel()
    return (over_frames(lambda full: F.avg_pool2d(full, 2), spikes) if pool and not whole else spikes), after


def count_work(outputs: Tensor, after: Tensor | None) -> Tensor:
    """Count what neurons did, int64 [3]: outputs, outputs that are not 0, and updates of membrane potentials.

    An update is a potential that a step leaves at another value; in the first step each counts.

    Args:
        outputs: [B,S,T,...].
        after: their potentials after reset, of the same shape; None for neurons without.

    Source: neurobench 2.3, `ActivationSparsity` and `MembraneUpdates`.
    """
    updates = outputs.new_zeros((), dtype=torch.int64)
    if after is not None:
        updates = (after[:, :, 1:] != after[:, :, :-1]).sum() + after[:, :, 0].numel()
    return torch.stack([torch.full_like(updates, outputs.numel()), outputs.count_nonzero(), updates])


class FrameConv2d(nn.Conv2d):
    """A network's first convolution, whose frames may come with further channels of zeros."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        missing = x.shape[1] - weight.shape[1]
        return super()._conv_forward(x, F.pad(weight, (0, 0, 0, 0, 0, missing)) if missing else weight, bias)


_MASK = 0xFFFFFFFF


def _scramble(h: Tensor) -> Tensor:
    """Apply in place a bijection of 32-bit integers (kept in int64) that spreads every bit over all.

    Source: the finaliser of MurmurHash3 (A. Appleby, public domain).
    """
    h ^= h >> 16
    h.mul_(0x85EBCA6B).bitwise_and_(_MASK)
    h ^= h >> 13
    h.mul_(0xC2B2AE35).bitwise_and_(_MASK)
    h ^= h >> 16
    return h


def keep_mask(seeds: Tensor, *, streams: Sequence[int], time_steps: int, features: int, salt: int, p: float) -> Tensor:
    """Make the dropout mask [B,S,T,F] (bool, True = kept) as a pure function of every sample's own seed.

    The mask of a sample depends neither on its place in the batch nor on the other stream's presence nor on the
    device, and every time step has its own.

    Args:
        seeds: [B] int64.
        streams: which the S are.
        time_steps: T.
        features: F.
        salt: the layer.
        p: share of features dropped.
    """

    def count(n: int) -> Tensor:
        return torch.arange(n, device=seeds.device)

    h = _scramble((seeds ^ (seeds >> 32)) & _MASK)
    h = _scramble(h + salt + 1 & _MASK)  # [B]
    # filled on the device, one by one: a copy from the host would end a CUDA graph
    which = torch.cat([torch.full((1,), stream + 1, device=h.device) for stream in streams])
    h = _scramble(h[:, None] + 0x9E3779B9 * which & _MASK)  # [B,S]
    h = _scramble(h[..., None] + 0x9E3779B9 * (count(time_steps) + 1) & _MASK)  # [B,S,T]
    h = _scramble(h[..., None] + 0x9E3779B9 * (count(features) + 1) & _MASK)  # [B,S,T,F]
    return h >= int(p * 2**32)


class SequenceDropout(nn.Module):
    """Dropout with a mask per time step and stream, as published (nn.Dropout called at every step).

    Args:
        p: share of features dropped.
        salt: tells the layers of one network apart under the same seeds.
    """

    def __init__(self, p: float, *, salt: int) -> None:
        super().__init__()
        self.p, self.salt = p, salt

    def forward(self, x: Tensor, streams: Sequence[int], seeds: Tensor | None) -> Tensor:
        """Drop features of [B,S,T,F] in training mode; seeds [B] int64, or None for torch's generator."""
        if seeds is None or not self.training:
            return F.dropout(x, self.p, self.training)
        T, features = x.shape[2:]
        mask = keep_mask(seeds, streams=streams, time_steps=T, features=features, salt=self.salt, p=self.p)
        return x * mask.to(x.dtype) / (1 - self.p)
