"""SCNN: the small convolutional network for N-Omniglot.

Axes: B batch, S streams, T time, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikebridge.models.build import network
from spikebridge.models.features import fire_aligned
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import fire
from spikebridge.models.network import NetworkSettings, TransferNetwork
from spikebridge.models.neurons import Neuron


def _halved(side: int) -> int:
    """Return the side of a map behind an unpadded 5x5 convolution and pooling."""
    return (side - 4) // 2


@network("scnn")
class SCNN(TransferNetwork):
    """[conv5x5, LIF, pool] x 2, Linear, LIF, and one Linear that both streams share (28x28 published).

    Published alignment feature: the potential after reset behind the first Linear. No padding, no bias in convolutions.
    Initialisation as published: convolutions Kaiming-normal, weights of the Linears uniform(-0.1, 0.1); the
    reference leaves the biases to PyTorch's default.

    Source: He et al., AAAI 2024.
    """

    default_size = 28
    spatial = False
    heads = ("fc2.",)
    smallest_size = 16

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        first, second, hidden = (settings.scaled(channels) for channels in (15, 40, 300))
        self.feature = nn.ModuleDict()  # keys are the published indices; 2 and 5 are the pools
        for index, channels, out in (("0", settings.in_channels, first), ("3", first, second)):
            self.feature[index] = nn.Conv2d(channels, out, 5, bias=False)
            self.feature[str(int(index) + 1)] = self.make_node()
        H, W = (_halved(_halved(side)) for side in settings.input_size)
        self.fc1 = nn.Linear(second * H * W, hidden)
        self.node1 = self.make_node()
        self.fc2 = nn.Linear(hidden, settings.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.1, 0.1)

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes and feature [B,S,T,F] of the hidden layer."""
        for conv, index in (("0", "1"), ("3", "4")):
            node = self.feature[index]
            assert isinstance(node, Neuron)
            x, _ = fire(over_frames(self.feature[conv], x), node, pool=True)  # [B,S,T,C,H,W]
        return fire_aligned(self.fc1(x.flatten(3)), self.node1, feature=self.aligned)

    def classify(self, hidden: Tensor, stream: int) -> Tensor:
        """Return the logits [B,T,K] from [B,T,F], the same for both streams."""
        logits: Tensor = self.fc2(hidden)
        return logits
