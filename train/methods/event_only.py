"""The baseline: the same network, recordings, steps, schedule and augmentation, without static images."""

from __future__ import annotations

from torch import Tensor

from models import TransferOutput
from train.batches import Batch
from train.losses import TransferLoss, transfer_loss
from train.methods import Method, method


@method
class EventOnly(Method):
    """Event loss with weights 1, no static stream."""

    def streams(self, batch: Batch, step: int) -> tuple[None, Tensor]:
        """Events alone."""
        return None, batch.events

    def loss(self, out: TransferOutput, batch: Batch, coefficients: Tensor) -> TransferLoss:
        """The event loss; coefficients and alignment play no part."""
        return transfer_loss(out, batch.labels, coefficients, tet=self.settings.tet)
