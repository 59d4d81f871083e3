"""The baseline: the same network, recordings, steps, schedule and augmentation, without static images."""

from __future__ import annotations

from spikebridge.train.data.batches import Batch
from spikebridge.train.methods import Inputs, Method, make_inputs, method


@method
class EventOnly(Method):
    """Event loss with weights 1, no static stream."""

    capturable = True

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return the events alone."""
        return make_inputs(batch, step, static=None, event=batch.events)
