"""Knowledge transfer: both streams, alignment of their features, static sequences sliding over into events.

Source: He et al., AAAI 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikebridge.models import TransferNetwork, TransferOutput
from spikebridge.train.data.batches import Batch, static_stream
from spikebridge.train.losses import TransferLoss, transfer_loss
from spikebridge.train.methods import Inputs, Method, make_inputs, method
from spikebridge.train.schedules import replacement_probability, scheduled_coefficient

SMALLEST_ALIGNED_BATCH = 4
"""Alignment is skipped for smaller batches: biased CKA is constant at 1 and 2, the debiased one undefined below 4."""


@method
class KnowledgeTransfer(Method):
    """The published method; every part of it is a setting of the recipe."""

    needs_static = True
    capturable = True

    def begin_epoch(self, network: TransferNetwork, epoch: int) -> None:
        """Write coefficients that are not learned into the network, so that logs and weights show the ones in use."""
        settings = self.settings
        if settings.coefficient == "learned":
            return
        end = settings.coefficient_start if settings.coefficient == "fixed" else settings.coefficient_end
        value = scheduled_coefficient(epoch, settings.epochs, start=settings.coefficient_start, end=end)
        with torch.no_grad():
            network.coefficients.fill_(value)

    def replacement_probability(self, step: int) -> float:
        """Return `schedules.replacement_probability` of the recipe's settings."""
        settings = self.settings
        return replacement_probability(
            step, self.steps, sliding=settings.sliding, power=settings.sliding_power, switch=settings.sliding_step
        )

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return images (some of them replaced by events) and events."""
        static = static_stream(batch, self.replacement_probability(step))
        return make_inputs(batch, step, static=static, event=batch.events)

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Compute static plus event plus weighted domain loss."""
        settings = self.settings
        return transfer_loss(
            out,
            inputs.labels,
            coefficients if settings.coefficient == "learned" else coefficients.detach(),
            domain_coefficient=settings.domain_coefficient,
            tet=settings.tet,
            regularization=settings.regularization,
            weights=settings.step_weights,
            cka=settings.cka,
            smallest_aligned_batch=SMALLEST_ALIGNED_BATCH,
        )
