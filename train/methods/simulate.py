"""Simulated recordings of static images beside the real ones, through the event stream; one network, one loss.

The simulator is `train.data.simulation`, whose settings are drawn from wide ranges. On the built-in data set, whose
recordings are simulated too, a gain of this method says little about real cameras.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikebridge.models import TransferOutput
from spikebridge.train.data.batches import Batch
from spikebridge.train.losses import TransferLoss, classification_loss
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods._simulating import SimulatingMethod


@method
class Simulate(SimulatingMethod):
    """Every recording comes with `simulated_per_recording` simulated ones of images of any class."""

    terms: tuple[str, ...] = ("simulated",)
    capturable = True

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return recordings, then simulated ones, all in the event stream."""
        frames, labels, seeds = self.simulate(batch, self.settings.simulated_per_recording)
        return Inputs(
            batch,
            step,
            static=None,
            event=torch.cat([batch.events, frames], 1),
            labels=torch.cat([batch.labels, labels]),
            dropout_seeds=torch.cat([batch.dropout_seeds, seeds]),
        )

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Weigh the event losses of recordings and simulated ones, each a mean over its own."""
        assert out.event_logits is not None
        B, settings = len(inputs.batch.labels), self.settings
        mixture = inputs.batch.mixture
        recorded = classification_loss(out.event_logits[:, :B], inputs.labels[:B], tet=settings.tet, mixture=mixture)
        simulated = classification_loss(out.event_logits[:, B:], inputs.labels[B:], tet=settings.tet)
        weight, zero = settings.simulated_weight, coefficients.new_zeros(())
        return TransferLoss(
            total=(1 - weight) * recorded + weight * simulated,
            static=zero,
            event=recorded,
            domain=zero,
            cka=torch.zeros_like(coefficients),
            extra={"simulated": simulated.detach()},
        )
