"""A small network that fits a Speck chip: four layers without bias, and spikes for an answer.

Axes: B batch, S streams, T time, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikebridge.models.build import network
from spikebridge.models.features import fire_aligned
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import FrameConv2d, fire
from spikebridge.models.network import NetworkSettings, TransferNetwork

GAIN = 0.2
"""Of a convolution's first weights against Kaiming's: a neuron without leak adds up all that it gets."""
SPIKE = 10.0
"""What a spike of a class counts among the logits: with 1 no softmax over ten classes can be sure."""


def _halved(side: int) -> int:
    """Return the side of a map behind an unpadded 5x5 convolution and pooling."""
    return (side - 4) // 2


@network("speck_snn")
class SpeckSNN(TransferNetwork):
    """[conv5x5, neuron, pool] x 2, Linear, neuron; per stream a Linear and the neurons of the classes (28x28).

    A class's logit at a step is `SPIKE` where its neuron spikes. With neuron "IF" and reset "soft" `export --target
    speck` takes it; at 28x28 and width 1 each layer fits a core. There is no bias, because the chip adds one by its
    clock and not by the time step, and no BatchNorm, which would fold into one. Alignment feature: as in the scnn, the
    potential after reset of the hidden layer; the network is this project's, in no publication.
    """

    default_size = 28
    spatial = False
    smallest_size = 16

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        first, second, hidden = (settings.scaled(channels) for channels in (16, 32, 128))
        H, W = (_halved(_halved(side)) for side in settings.input_size)
        self.conv1 = FrameConv2d(settings.in_channels, first, 5, bias=False)
        self.node1 = self.make_node()
        self.conv2 = nn.Conv2d(first, second, 5, bias=False)
        self.node2 = self.make_node()
        self.fc = nn.Linear(second * H * W, hidden, bias=False)
        self.node3 = self.make_node()
        self.static_head = nn.Linear(hidden, settings.num_classes, bias=False)
        self.static_node = self.make_node()
        self.event_head = nn.Linear(hidden, settings.num_classes, bias=False)
        self.event_node = self.make_node()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                module.weight.data *= GAIN
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.1, 0.1)

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes and feature [B,S,T,F] of the hidden layer."""
        x, _ = fire(over_frames(self.conv1, x), self.node1, pool=True)
        x, _ = fire(over_frames(self.conv2, x), self.node2, pool=True)  # [B,S,T,C,H,W]
        return fire_aligned(self.fc(x.flatten(3)), self.node3, feature=self.aligned)

    def classify(self, hidden: Tensor, stream: int) -> Tensor:
        """Return what the spikes of the classes' neurons count, [B,T,K], from [B,T,F]."""
        node = (self.static_node, self.event_node)[stream]
        spikes, _ = fire(super().classify(hidden, stream).unsqueeze(1), node)  # [B,1,T,K]
        return SPIKE * spikes.squeeze(1)
