"""Running statistics of BatchNorm from event recordings alone.

The published running statistics follow both streams: after a step of T = 10 the event stream, which is all that is
scored, holds 74 % of them. Recalibration takes them anew from the event training recordings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikebridge.models.normalization import EVENT, StepNorm
from spikebridge.train.evaluation.score import ScoredFrames


@torch.no_grad()
def recalibrate(
    network: nn.Module, frames: ScoredFrames, *, batch_size: int, device: torch.device, prior: float = 0.0
) -> int:
    """Set the running statistics of every BatchNorm to those of event recordings, in place.

    One forward pass over the recordings, unaugmented and in the order of the shard set, in which every BatchNorm uses
    the statistics of its batch, as in training, and dropout is off. Each running statistic becomes the mean over
    batches (weighted by their samples) and time steps of the batch's mean and unbiased variance: what training tracks,
    without its preference for the latest steps and without static images. Deterministic; the batch size has a small
    part in it. With statistics "domain" the static row stays. Weights and the mode of the network are untouched, and
    training, which never reads running statistics, goes on as it would have.

    With a `prior` the statistics that are there count as so many recordings, and stay in the mean by this weight.

    Returns:
        The number of BatchNorm layers; 0 for a network without. Without recordings nothing happens.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021 (PreciseBN).
    """
    norms = [module for module in network.modules() if isinstance(module, StepNorm)]
    if not norms or not len(frames):
        return len(norms)
    sums = [torch.zeros(2, len(norm.weight), dtype=torch.float64, device=device) for norm in norms]
    modes = [(module, module.training) for module in network.modules()]
    partners = [norm.partners for norm in norms]
    weight = 0

    def adder(total: Tensor) -> Callable[[Tensor, Tensor], None]:
        def add(mean: Tensor, variance: Tensor) -> None:
            total.add_(torch.stack([mean.double().mean((0, 1)), variance.double().mean((0, 1))]), alpha=weight)  # [2,C]

        return add

    network.eval()
    try:
        for norm, total in zip(norms, sums, strict=True):
            norm.train()
            norm.divert = adder(total)
            norm.partners = None  # one process does this alone
        for events, labels in frames.batches(batch_size, device):
            weight = len(labels)
            network(None, events)
    finally:
        for norm, others in zip(norms, partners, strict=True):
            norm.divert, norm.partners = None, others
        for module, training in modes:
            module.training = training
    for norm, total in zip(norms, sums, strict=True):
        row = EVENT if norm.statistics == "domain" else slice(None)
        mixed = total / len(frames)
        if prior:
            trained = torch.stack([norm.running_mean[row], norm.running_var[row]]).double()
            mixed = (prior * trained + total) / (prior + len(frames))
        norm.running_mean[row], norm.running_var[row] = mixed
    return len(norms)
