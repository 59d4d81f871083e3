"""VGG-SNN: eight spiking convolutions in four pairs.

Axes: B batch, S streams, T time, C channels, H, W, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikebridge.models.build import network
from spikebridge.models.features import fire_aligned
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import FrameConv2d, fire
from spikebridge.models.network import NetworkSettings, TransferNetwork

# (published index, channels); every second one is followed by pooling, which takes the index in between.
CONVOLUTIONS = ((0, 64), (1, 128), (3, 256), (4, 256), (6, 512), (7, 512), (9, 512), (10, 512))
POOLED = (1, 4, 7, 10)


class SpikingConv(nn.Module):
    """conv3x3 without bias, BN, neurons."""

    def __init__(self, net: TransferNetwork, channels: int, out: int, *, first: bool) -> None:
        super().__init__()
        self.conv = (FrameConv2d if first else nn.Conv2d)(channels, out, 3, padding=1, bias=False)
        self.bn, self.node = net.make_norm(out), net.make_node()

    def forward(
        self, x: Tensor, streams: Sequence[int], *, pool: bool, feature: str = ""
    ) -> tuple[Tensor, Tensor | None]:
        """Return the spikes of frames [B,S,T,C,H,W], and the feature where one is asked for, see `fire_aligned`."""
        x = over_frames(self.conv, x)
        if feature:
            return fire_aligned(x, self.node, self.bn, feature=feature, streams=streams, pool=pool)
        return fire(x, self.node, self.bn, streams=streams, pool=pool)


@network("vgg_snn")
class VGGSNN(TransferNetwork):
    """[conv3x3, BN, LIF] x 8, pooled after every second, and a linear head per stream (48x48 published).

    Published alignment feature: the potential after reset of the last neurons, before pooling. Convolutions have no
    bias. Initialisation: the reference leaves it to PyTorch's defaults.

    Source: He et al., AAAI 2024.
    """

    default_size = 48
    smallest_size = 16
    published_prefixes = {"static_head.": "rgb_fc.1.", "event_head.": "dvs_fc.1."}  # noqa: RUF012

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self.feature = nn.ModuleDict()
        channels = settings.in_channels
        for index, published in CONVOLUTIONS:
            wide = settings.scaled(published)
            self.feature[str(index)] = SpikingConv(self, channels, wide, first=not self.feature)
            channels = wide
        H, W = (side // 16 for side in settings.input_size)
        self.static_head = nn.Linear(channels * H * W, settings.num_classes)
        self.event_head = nn.Linear(channels * H * W, settings.num_classes)

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return [B,S,T,F] for the heads and the feature of the last layer, [B,S,T,C,H,W] or pooled [B,S,T,C]."""
        aligned: Tensor | None = None
        last, _ = CONVOLUTIONS[-1]
        for index, _ in CONVOLUTIONS:
            feature = self.aligned if index == last else ""
            x, aligned = self.feature[str(index)](x, streams, pool=index in POOLED, feature=feature)
        assert aligned is not None
        return x.flatten(3), aligned
