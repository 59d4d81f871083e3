"""Simulated recordings of static images, and no labelled real recording at all; validation and test stay real.

A step shows as many sequences as one of `simulate`. The training recordings only count the steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spikebridge.models import TransferOutput
from spikebridge.train.data.batches import Batch
from spikebridge.train.losses import TransferLoss, transfer_loss
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods._simulating import SimulatingMethod


@method
class SimulateOnly(SimulatingMethod):
    """Event loss of simulated recordings."""

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return simulated recordings of images of any class."""
        frames, labels, seeds = self.simulate(batch, 1 + self.settings.simulated_per_recording)
        return Inputs(batch, step, static=None, event=frames, labels=labels, dropout_seeds=seeds)

    def loss(
        self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: Mapping[str, Tensor]
    ) -> TransferLoss:
        """Compute the event loss; coefficients and alignment have no effect."""
        return transfer_loss(out, inputs.labels, coefficients, tet=self.settings.tet, mixture=inputs.mixture)
