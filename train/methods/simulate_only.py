"""Simulated recordings of static images, and no labelled real recording at all; validation and test stay real.

A step shows as many sequences as one of `simulate`. The training recordings only count the steps.
"""

from __future__ import annotations

from spikebridge.train.data.batches import Batch
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods._simulating import SimulatingMethod


@method
class SimulateOnly(SimulatingMethod):
    """Event loss of simulated recordings."""

    capturable = True

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return simulated recordings of images of any class."""
        frames, labels, seeds = self.simulate(batch, 1 + self.settings.simulated_per_recording)
        return Inputs(batch, step, static=None, event=frames, labels=labels, dropout_seeds=seeds)
