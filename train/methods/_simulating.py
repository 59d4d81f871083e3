"""The base of the methods that train on simulated recordings of static images.

Axes: T time, B samples of a batch, N simulated recordings, P polarity, H, W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikebridge.models import TransferNetwork
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.data.draws import pool_rows, random_words
from spikebridge.train.data.simulation import ImageSimulator, make_simulator
from spikebridge.train.methods import Method


class SimulatingMethod(Method):
    """Draws images from the whole static pool, by their own labels, and simulates recordings of them."""

    needs_static = True
    draw_from_pool = True
    reads_pool = True
    simulates = True
    data: TrainingBatches
    simulator: ImageSimulator

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Make the simulator for these data.

        Raises:
            MethodError: frames that cannot be simulated.
        """
        self.data, self.simulator = data, make_simulator(data, self.settings)

    def simulate(self, batch: Batch, each: int) -> tuple[Tensor, Tensor, Tensor]:
        """Simulate `each` recordings for every sample of a batch, of images that are drawn independently of it.

        Args:
            batch: gives the number and the random numbers.
            each: 1 or more.

        Returns:
            Frames float32 [T,N,P,H,W], labels int64 [N] and dropout seeds int64 [N], N = each * B.
        """
        lanes = torch.arange(each, device=batch.draws.device)
        draws = (batch.draws[:, None] * each + lanes).flatten()  # [N]
        rows = pool_rows(self.data.pool_images, seed=batch.seed, epoch=batch.epoch, draws=draws)
        frames = self.simulator.frames(self.data.images(rows), epoch=batch.epoch, draws=draws)
        seeds = random_words(batch.seed, "simulated dropout", batch.epoch, draws)
        return frames, self.data.image_classes(rows).to(frames.device), seeds.to(frames.device)
