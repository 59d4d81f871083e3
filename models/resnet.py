"""ResNet-18 and ResNet-34 with spiking pre-activation blocks.

Axes: B batch, S streams, T time, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from spikebridge.models.build import network
from spikebridge.models.features import fire_aligned
from spikebridge.models.folding import over_frames
from spikebridge.models.layers import FrameConv2d, fire
from spikebridge.models.network import NetworkSettings, TransferNetwork
from spikebridge.models.neurons import Neuron
from spikebridge.models.normalization import StepNorm

CHANNELS = (64, 128, 256, 512)


def conv3x3(channels: int, out: int, *, stride: int = 1) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size (divided by `stride`, rounded up), without bias."""
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, without bias.

    Narrow ones choose their pixels before a convolution without a stride, on a CPU: the backward pass of the other way
    ended the process in torch 2.13.0.
    """

    NARROW = 8
    """Channels of an input that is not narrow."""

    def __init__(self, channels: int, out: int, *, stride: int) -> None:
        super().__init__(channels, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [N,C,H,W] -> [N,C',H',W']."""
        if self.in_channels >= self.NARROW or x.device.type != "cpu":
            return super().forward(x)
        return functional.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)


class Shortcut(nn.ModuleList):
    """BN, LIF, conv1x1, under their published names 0, 1 and 2."""

    def __init__(self, net: TransferNetwork, channels: int, out: int, *, stride: int) -> None:
        norm, node = net.make_norm(channels), net.make_node()
        super().__init__([norm, node, Pointwise(channels, out, stride=stride)])

    def forward(self, x: Tensor, streams: Sequence[int]) -> Tensor:
        """Compute [B,S,T,C,H,W] -> [B,S,T,C',H',W']."""
        norm, node, conv = self
        assert isinstance(norm, StepNorm)
        assert isinstance(node, Neuron)
        x, _ = fire(x, node, norm, streams=streams)
        return over_frames(conv, x)


class Block(nn.Module):
    """BN, LIF, conv3x3, BN, LIF, conv3x3, plus the input; through BN, LIF, conv1x1 where the shape changes."""

    def __init__(self, net: TransferNetwork, channels: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1, self.node1 = net.make_norm(channels), net.make_node()
        self.conv1 = conv3x3(channels, out, stride=stride)
        self.bn2, self.node2 = net.make_norm(out), net.make_node()
        self.conv2 = conv3x3(out, out)
        self.downsample = Shortcut(net, channels, out, stride=stride) if stride != 1 or channels != out else None

    def forward(self, x: Tensor, streams: Sequence[int], *, feature: str = "") -> tuple[Tensor, Tensor | None]:
        """Compute [B,S,T,C,H,W] -> [B,S,T,C',H',W'], and where one is asked for the feature of the second neurons."""
        aligned: Tensor | None = None
        y, _ = fire(x, self.node1, self.bn1, streams=streams)
        y = over_frames(self.conv1, y)
        if feature:
            y, aligned = fire_aligned(y, self.node2, self.bn2, feature=feature, streams=streams)
        else:
            y, _ = fire(y, self.node2, self.bn2, streams=streams)
        y = over_frames(self.conv2, y)
        return (x if self.downsample is None else self.downsample(x, streams)) + y, aligned


class SpikingResNet(TransferNetwork):
    """conv3x3, four stages of blocks, BN without neurons, global average pool, linear head per stream.

    Stage two onwards begins with stride 2. Published alignment feature: the pooled vector; the others are those of the
    last neurons, in the last block. Initialisation as published: convolutions Kaiming-normal by fan-out, BN gain 1 and
    bias 0; the reference leaves the heads to PyTorch's default.

    Source: He et al., AAAI 2024.
    """

    default_size = 48
    published_feature = "pooled"
    smallest_size = 9  # 2x2 in the last stage: BatchNorm can train on a single sample
    published_prefixes = {"static_head.": "rgb_fc.", "event_head.": "dvs_fc."}  # noqa: RUF012
    blocks: tuple[int, ...]

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = settings.scaled(CHANNELS[0])
        self.conv1 = FrameConv2d(settings.in_channels, channels, 3, padding=1, bias=False)
        for stage, (published, blocks) in enumerate(zip(CHANNELS, self.blocks, strict=True), start=1):
            wide = settings.scaled(published)
            strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
            layer = nn.ModuleList()
            for stride in strides:
                layer.append(Block(self, channels, wide, stride=stride))
                channels = wide
            self.add_module(f"layer{stage}", layer)
        self.bn1 = self.make_norm(channels)
        self.static_head = nn.Linear(channels, settings.num_classes)
        self.event_head = nn.Linear(channels, settings.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the pooled vector [B,S,T,C], and as the feature that or the last neurons' [B,S,T,C,H,W]."""
        x = over_frames(self.conv1, x)
        blocks = [b for stage in range(len(self.blocks)) for b in self.get_submodule(f"layer{stage + 1}").children()]
        for block in blocks[:-1]:
            x, _ = block(x, streams)
        x, aligned = blocks[-1](x, streams, feature="" if self.aligned == "pooled" else self.aligned)
        pooled = self.bn1(x, streams).mean(dim=(-2, -1))  # [B,S,T,C]
        return pooled, pooled if aligned is None else aligned


@network("resnet18_snn")
class ResNet18SNN(SpikingResNet):
    """Two blocks per stage."""

    blocks = (2, 2, 2, 2)


@network("resnet34_snn")
class ResNet34SNN(SpikingResNet):
    """3, 4, 6 and 3 blocks."""

    blocks = (3, 4, 6, 3)
