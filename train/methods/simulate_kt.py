"""Knowledge transfer whose static stream shows simulated recordings of the images instead of the images.

Alignment, sliding and losses are those of `kt`. The simulated recordings go through the static head, so that networks
with a head per stream learn less from them than with `simulate`.
"""

from __future__ import annotations

from dataclasses import replace

from spikebridge.models import TransferNetwork
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.data.simulation import ImageSimulator, make_simulator
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods.kt import KnowledgeTransfer


@method
class SimulateKt(KnowledgeTransfer):
    """`kt` with a simulated recording of an image of the same class beside each recording."""

    capturable = True
    simulates = True
    simulator: ImageSimulator

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Make the simulator for these data.

        Raises:
            MethodError: frames that cannot be simulated.
        """
        self.simulator = make_simulator(data, self.settings)

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return simulated recordings (some of them replaced by events) and events."""
        assert batch.images is not None
        frames = self.simulator.frames(batch.images, epoch=batch.epoch, draws=batch.draws)  # [T,B,P,H,W]
        return super().inputs(replace(batch, images=frames), step)
