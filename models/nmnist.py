"""The network for N-MNIST: two spiking convolutions, a wide hidden layer, and voting spikes.

Axes: B batch, S streams, T time, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikebridge.models.build import network
from spikebridge.models.features import fire_aligned
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import FrameConv2d, SequenceDropout, fire
from spikebridge.models.network import NetworkSettings, TransferNetwork

VOTERS = 10  # neurons per class


@network("nmnist_snn")
class NMNISTSNN(TransferNetwork):
    """[conv3x3, BN, LIF, pool] x 2, dropout, Linear, LIF, dropout; per stream a Linear, LIF and vote (34x34).

    A class's logit at a step is the share of its ten neurons that spike. Dropout 0.5 with a mask per step, as
    published. Published alignment feature: the potential after reset of the hidden layer. The reference leaves to
    PyTorch's defaults: all initialisations, biases (none in the convolutions, which precede BN; one in every Linear).
    No published names are known for this network: `load_published` takes our own.

    Source: He et al., AAAI 2024.
    """

    default_size = 34
    spatial = False
    smallest_size = 4

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels, hidden = settings.scaled(128), settings.scaled(2048)
        H, W = (side // 4 for side in settings.input_size)
        self.conv1 = FrameConv2d(settings.in_channels, channels, 3, padding=1, bias=False)
        self.bn1, self.node1 = self.make_norm(channels), self.make_node()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2, self.node2 = self.make_norm(channels), self.make_node()
        self.dropout1 = SequenceDropout(0.5, salt=1)
        self.fc = nn.Linear(channels * H * W, hidden)
        self.node3 = self.make_node()
        self.dropout2 = SequenceDropout(0.5, salt=2)
        self.static_head = nn.Linear(hidden, VOTERS * settings.num_classes)
        self.static_node = self.make_node()
        self.event_head = nn.Linear(hidden, VOTERS * settings.num_classes)
        self.event_node = self.make_node()

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the spikes behind the second dropout, and the feature of the hidden layer, [B,S,T,F]."""
        x, _ = fire(over_frames(self.conv1, x), self.node1, self.bn1, streams=streams, pool=True)
        x, _ = fire(over_frames(self.conv2, x), self.node2, self.bn2, streams=streams, pool=True)
        x = self.dropout1(x.flatten(3), streams, dropout_seeds)
        spikes, aligned = fire_aligned(self.fc(x), self.node3, feature=self.aligned)
        return self.dropout2(spikes, streams, dropout_seeds), aligned

    def classify(self, hidden: Tensor, stream: int) -> Tensor:
        """Return votes [B,T,K] from [B,T,F]."""
        node = (self.static_node, self.event_node)[stream]
        current = super().classify(hidden, stream)  # [B,T,10K]
        spikes, _ = fire(current.unsqueeze(1), node)  # [B,1,T,10K]
        return spikes.squeeze(1).unflatten(-1, (-1, VOTERS)).mean(-1)  # [B,T,K]
