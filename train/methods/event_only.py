"""The baseline: the same network, recordings, steps, schedule and augmentation, without static images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spikebridge.models import TransferOutput
from spikebridge.train.data.batches import Batch
from spikebridge.train.losses import TransferLoss, transfer_loss
from spikebridge.train.methods import Inputs, Method, make_inputs, method


@method
class EventOnly(Method):
    """Event loss with weights 1, no static stream."""

    capturable = True

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return the events alone."""
        return make_inputs(batch, step, static=None, event=batch.events)

    def loss(
        self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: Mapping[str, Tensor]
    ) -> TransferLoss:
        """Compute the event loss; coefficients and alignment have no effect."""
        return transfer_loss(out, inputs.labels, coefficients, tet=self.settings.tet, mixture=inputs.mixture)
