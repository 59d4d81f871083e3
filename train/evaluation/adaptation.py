"""Test-time adaptation of BatchNorm: a network is scored with statistics of the very recordings that it is scored on.

No label is read. The statistics are those of the whole split, whatever the order of its recordings, so a prediction
depends on the recordings beside it: on a device that sees one at a time there is nothing to adapt to.

Source: Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020
(N pseudo-samples); Nado et al., "Evaluating prediction-time batch normalization", 2020 (N = 0).

Differs: theirs are the statistics of a test batch; these are means over batches and time steps, as of `recalibrate`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spikebridge.models.normalization import StepNorm
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import ScoredFrames, Scores, score

log = logging.getLogger(__name__)


def prior_of(settings: TrainSettings) -> float | None:
    """Return how many recordings the trained statistics count as in scorings of a recipe; None: nothing is adapted."""
    return settings.adaptation_prior if settings.adapt_normalization else None


def norm_layers(network: nn.Module) -> list[StepNorm]:
    """Return the BatchNorm layers of a network."""
    return [module for module in network.modules() if isinstance(module, StepNorm)]


def warn_without_norms(network: nn.Module, name: str) -> None:
    """Say that adaptation changes nothing where a network has no BatchNorm."""
    if not norm_layers(network):
        log.warning("adapt_normalization: %s has no BatchNorm, so there is nothing to adapt", name)


@contextmanager
def adapted(
    network: nn.Module, frames: ScoredFrames, *, prior: float, batch_size: int, device: torch.device
) -> Iterator[None]:
    """Mix the running statistics with those of recordings; afterwards the trained ones are back, to the bit.

    With n recordings the mean becomes (prior * trained + n * theirs) / (prior + n), and the variance alike.

    Args:
        network: with BatchNorm, or nothing happens.
        frames: recordings, of which no label is read.
        prior: recordings that the trained statistics count as.
        batch_size: has a small part in the statistics, see `recalibrate`.
        device: of the network.
    """
    norms = norm_layers(network)
    kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    try:
        recalibrate(network, frames, batch_size=batch_size, device=device, prior=prior)
        yield
    finally:
        for norm, (mean, variance) in zip(norms, kept, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def adapt_and_score(
    network: Any,
    frames: ScoredFrames,
    *,
    prior: float | None,
    batch_size: int,
    device: torch.device,
    **how: Any,
) -> Scores | None:
    """Score a network as `score` does, with adapted statistics unless `prior` is None; `how` as there."""
    if prior is None or not len(frames):
        return score(network, frames, batch_size=batch_size, device=device, **how)
    with adapted(network, frames, prior=prior, batch_size=batch_size, device=device):
        return score(network, frames, batch_size=batch_size, device=device, **how)
