"""No label of any recording: simulated recordings of static images, and real ones that the network labels itself.

The unlabelled recordings are the whole training split. The recordings of a batch only count the steps. No label picks
the weights either: the last epoch is taken, whatever the validation split says.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from spikebridge.models import TransferOutput
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import Batch
from spikebridge.train.losses import TransferLoss, transfer_loss
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods.self_training import SelfTraining


@method
class LabelFree(SelfTraining):
    """`simulate_only` with `unlabelled_per_recording` unlabelled recordings for each simulated group."""

    terms: tuple[str, ...] = ("pseudo", "accepted")
    capturable = True
    unlabelled = "all"

    @classmethod
    def complete(cls, settings: TrainSettings) -> TrainSettings:
        """Return the settings with the last epoch selected."""
        return replace(settings, selection="last")

    def supervised_inputs(self, batch: Batch, step: int) -> Inputs:
        """Return simulated recordings, as many as of `simulate_only`."""
        frames, labels, seeds = self.simulate(batch, 1 + self.settings.simulated_per_recording)
        return Inputs(batch, step, static=None, event=frames, labels=labels, dropout_seeds=seeds)

    def supervised_loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor) -> TransferLoss:
        """Compute the loss of the simulated recordings."""
        return transfer_loss(out, inputs.labels, coefficients, tet=self.settings.tet)
