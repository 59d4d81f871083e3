"""Simulated recordings first, then the real ones alone, in one run and under one learning-rate schedule."""

from __future__ import annotations

from spikebridge.train.data.batches import Batch
from spikebridge.train.methods import Inputs, make_inputs, method
from spikebridge.train.methods.simulate_only import SimulateOnly


@method
class SimulatePretrain(SimulateOnly):
    """`simulate_only` for the first `pretrain_share` of the steps, `event_only` for the rest."""

    capturable = True

    def phase(self, step: int) -> int:
        """Return 0 in the steps of simulated recordings, then 1."""
        return int(step >= self.settings.pretrain_share * self.steps)

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return simulated recordings, later the batch's own."""
        if self.phase(step) == 0:
            return super().inputs(batch, step)
        return make_inputs(batch, step, static=None, event=batch.events)
