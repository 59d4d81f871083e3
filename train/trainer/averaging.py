"""A moving average of the weights, with which a run validates, tests and ends; training goes on with its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from spikebridge.models import TransferNetwork
from spikebridge.train.runs.checkpoints import copy_weights

EARLY = 9
"""After n steps the average is of about n / 9 of them, until its own length is reached."""


class WeightAverage:
    """The exponential moving average of a network's weights and statistics over steps.

    Args:
        network: trained elsewhere; the average has no memory in common with it.
        decay: share of the average that a step leaves, 0 to below 1; the first step leaves nothing of it.

    Source: Polyak and Juditsky, 1992; Tarvainen and Valpola, "Mean teachers", NeurIPS 2017 (short averages at first).
    """

    def __init__(self, network: TransferNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._trained, self._decay = network.state_dict(), decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, which counts from 0 over the run."""
        share = 1 - min(self._decay, step / (step + EARLY))
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(self._trained[name], share)
            else:
                average.copy_(self._trained[name])

    def tensors(self) -> dict[str, Tensor]:
        """Copy the average to the CPU, as a checkpoint keeps it."""
        return {f"average.{name}": value for name, value in copy_weights(self.network).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the average back; other tensors of the checkpoint are ignored."""
        own = {name.removeprefix("average."): t for name, t in tensors.items() if name.startswith("average.")}
        self.network.load_state_dict(own)
