"""What of the last neurons the alignment compares.

Axes: B batch, S streams, T time, C channels, H, W, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.models.errors import ModelError
from spikebridge.models.fire_torch import charge
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import fire
from spikebridge.models.neurons import Neuron
from spikebridge.models.normalization import StepNorm

FEATURES = ("published", "potential", "before_reset", "spikes", "pooled")
"""`published`: what the network's own publication compares. `potential`: the membrane potential after reset.
`before_reset`: the one that is compared with the threshold. `spikes`. `pooled`: one value per channel, the average over
space of what the network publishes (VGG: of the potential after reset; ResNet: of its last BatchNorm)."""


def resolve(feature: str, *, network: str, published: str, spatial: bool) -> str:
    """Return the feature that a network compares.

    Args:
        feature: one of `FEATURES`.
        network: its name, for the message.
        published: what it publishes.
        spatial: whether its last neurons lie in space, so that there is something to average.

    Raises:
        ModelError: no such feature, or not of this network.
    """
    offered = FEATURES if spatial else tuple(name for name in FEATURES if name != "pooled")
    if feature not in offered:
        why = " (its hidden layer has no height and width to average over)" if feature == "pooled" else ""
        raise ModelError(f"feature is {feature!r}; {network} offers {', '.join(offered)}{why}.")
    return published if feature == "published" else feature


def fire_aligned(
    x: Tensor,
    node: Neuron,
    norm: StepNorm | None = None,
    *,
    feature: str,
    streams: Sequence[int] = (),
    pool: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run `fire`, and return what the alignment compares of these neurons too.

    The potential before reset is not stored by any kernel: it is charged once more from the potential after the step
    before, so every backend has it, at the price of a normalisation that is not fused.

    Args:
        x: [B,S,T,C,H,W], or [B,S,T,F] without normalisation and pooling.
        node: the neurons.
        norm: BatchNorm in front of them, or None.
        feature: "potential", "before_reset", "spikes", or "pooled" (of the potential, over H and W).
        streams: which the S are.
        pool: average the spikes over 2x2 behind the neurons; the feature is taken before.

    Returns:
        Spikes as `fire` gives them, and the feature: [B,S,T,C] pooled, else the shape of x.
    """
    if feature == "spikes":
        spikes, _ = fire(x, node, norm, streams=streams)
        return (over_frames(partial(F.avg_pool2d, kernel_size=2), spikes) if pool else spikes), spikes
    frame_type = x.dtype
    if feature == "before_reset":
        if frame_type in (torch.float16, torch.bfloat16):
            x = x.float()  # statistics and state are never in half precision
        if norm is not None:
            x, norm = norm(x, streams), None  # [B,S,T,C,H,W]
    spikes, after = fire(x, node, norm, streams=streams, pool=pool, potential=True)
    assert after is not None
    if feature == "before_reset":
        start = torch.cat([torch.zeros_like(after[:, :, :1]), after[:, :, :-1]], dim=2)
        return spikes.to(frame_type), charge(start, x, node.gain(), node.rule)
    return spikes, after.mean(dim=(-2, -1)) if feature == "pooled" else after
