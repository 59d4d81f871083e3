"""Where a network looks: Grad-CAM over event frames, by captum, which this file alone needs.

Axes: m samples, T time steps, B batch, P polarity, C channels, H, W pixels, K classes.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017;
the check by a network of random weights: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spikebridge.models import TransferNetwork
from spikebridge.train.evaluation.energy import counting

BATCH = 16
MOST_ALIKE = 0.5
"""Rank correlation, of either sign, up to which maps differ from those of random weights; a limit of ours."""


def available() -> bool:
    """Return whether captum is installed, without the seconds that importing it takes."""
    return find_spec("captum") is not None


def explain_classes(
    network: TransferNetwork, frames: NDArray[np.generic], targets: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute what speaks for a class, in time and space.

    The map of the last convolution: its channels weighted by the mean over space of the class score's gradient, at
    every time step by itself, negative sums left out, resized to the frames and divided by the sample's largest value.

    Args:
        network: in evaluation mode, on the CPU.
        frames: [m,T,P,H,W] as stored.
        targets: class of each sample whose score is explained, [m].

    Returns:
        [m,T,H,W], 0 to 1; zero throughout where nothing speaks for the class.
    """
    from captum.attr import LayerGradCam

    last = _last_convolution(network, frames)
    explain = LayerGradCam(_MeanScores(network), last)
    maps = []
    for start in range(0, len(frames), BATCH):
        events = torch.from_numpy(frames[start : start + BATCH].astype(np.float32))  # [B,T,P,H,W]
        classes = torch.from_numpy(targets[start : start + BATCH])
        attribution = explain.attribute(events, target=classes, relu_attributions=True)  # [B*T,1,h,w]
        sized = F.interpolate(attribution.detach(), size=events.shape[-2:], mode="bilinear", align_corners=False)
        sized = sized.unflatten(0, events.shape[:2])[:, :, 0]  # [B,T,H,W]
        maps.append(sized / sized.amax((1, 2, 3), keepdim=True).clamp(min=1e-30))
    return torch.cat(maps).numpy() if maps else np.zeros((0, *np.array(frames.shape)[[1, 3, 4]]), np.float32)


def similarity(maps: NDArray[np.float32], random: NDArray[np.float32]) -> float | None:
    """Return Spearman's rank correlation of maps [m,T,H,W] and those of a network of random weights, mean over samples.

    Samples for which one of the two says nothing (is the same everywhere) are left out; None where none is left.
    """
    found = list[float]()
    for one, other in zip(maps, random, strict=True):
        first, second = _ranks(one), _ranks(other)
        if scale := math.sqrt(float(first @ first) * float(second @ second)):
            found.append(float(first @ second) / scale)
    return sum(found) / len(found) if found else None


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rank of every value, flat, the mean rank taken off; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values.reshape(-1), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + values.size) / 2)[inverse]
    return ranks


class _MeanScores(nn.Module):
    """A network as captum calls it, batch first; without gradients for the frames, which nobody asks for."""

    def __init__(self, network: TransferNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, events: Tensor) -> Tensor:
        """Compute logits averaged over time [B,K] of event frames [B,T,P,H,W]."""
        logits: Tensor = self.network(None, events.transpose(0, 1)).event_logits
        return logits.mean(0)


def _last_convolution(network: TransferNetwork, frames: NDArray[np.generic]) -> nn.Module:
    with torch.no_grad(), counting(network) as layers:
        network(None, torch.zeros(frames.shape[1], 1, *frames.shape[2:]))
    names = [name for name in layers if isinstance(network.get_submodule(name), nn.Conv2d)]
    return network.get_submodule(names[-1])
