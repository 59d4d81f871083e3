"""What all networks share: settings, both streams in one pass, coefficients, firing rates.

Axes: T time, B batch, S streams, C channels, H, W, F features, K classes. Stream 0 is static, 1 is event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikebridge.models import backends
from spikebridge.models.errors import InputShapeError, ModelError
from spikebridge.models.features import resolve
from spikebridge.models.folding import fold, fold_padded
from spikebridge.models.layers import FrameConv2d
from spikebridge.models.neurons import Neuron, make_neuron
from spikebridge.models.normalization import StepNorm
from spikebridge.models.output import TransferOutput
from spikebridge.models.published import LoadReport, load_published
from spikebridge.models.recomputation import recompute_offered

FULL_CHANNELS = 8
"""What a number of channels is a multiple of where tensor cores multiply 16-bit numbers at full speed."""


@dataclass(frozen=True)
class NetworkSettings:
    """Everything that decides a network's structure; `build_model(**net.config)` builds it again."""

    name: str
    """Registry name of the network."""
    num_classes: int
    """K, at least 1."""
    time_steps: int
    """T, at least 1."""
    surrogate: str
    """Name of the surrogate gradient."""
    width: float
    """Factor on every layer's number of channels, positive; each is rounded and at least 1."""
    neuron: str
    """"LIF" (published), "PLIF", "IF", or "ReLU": no spikes, the ANN with the same layers."""
    reset: str
    """"hard" (published) or "soft"."""
    statistics: str
    """BatchNorm: "per_step" (published), "pooled" over time, or "domain" = own running statistics per stream."""
    in_channels: int
    """Channels of a frame."""
    input_size: tuple[int, int]
    """(H, W) of a frame in pixels."""
    feature: str = "published"
    """What the alignment compares, see `models.features.FEATURES`."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "time_steps", "in_channels", "width"):
            if not getattr(self, name) > 0:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def scaled(self, channels: int) -> int:
        """Return a published number of channels times `width`."""
        return max(1, round(channels * self.width))


class TransferNetwork(nn.Module):
    """Base of the networks: a shared encoder, a head per stream, one learnable scalar per time step.

    A network defines `encode`, and `classify` unless its heads are `static_head` and `event_head`.
    """

    default_size: ClassVar[int]
    smallest_size: ClassVar[int]
    published_feature: ClassVar[str] = "potential"
    """What the alignment compares in the network's publication."""
    spatial: ClassVar[bool] = True
    """Whether the neurons that are compared lie in space."""
    heads: ClassVar[tuple[str, ...]] = ("static_head.", "event_head.")
    """Where the names of weights begin that belong to classes."""
    published_prefixes: ClassVar[Mapping[str, str]] = {}
    """Where a published name begins otherwise than ours: ours -> published."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        if min(settings.input_size) < self.smallest_size:
            raise InputShapeError(
                f"{settings.name} cannot take {'x'.join(map(str, settings.input_size))} pixels; "
                f"the smallest input is {self.smallest_size}x{self.smallest_size}."
            )
        self.settings = settings
        self.aligned = resolve(
            settings.feature, network=settings.name, published=self.published_feature, spatial=self.spatial
        )
        self.coefficients = nn.Parameter(torch.ones(settings.time_steps))
        self._record = False

    @property
    def config(self) -> dict[str, Any]:
        """Plain values, from which `build_model(**config)` builds the same structure."""
        values = asdict(self.settings)
        return values | {"input_size": list(values["input_size"])}

    @property
    def record_firing_rates(self) -> bool:
        """Whether a pass fills `firing_rates` of its output; off at first, cheap when on."""
        return self._record

    @record_firing_rates.setter
    def record_firing_rates(self, record: bool) -> None:
        self._record = record
        for node in self._nodes().values():
            node.record, node.rate = record, None

    def _nodes(self) -> dict[str, Neuron]:
        return {name: module for name, module in self.named_modules() if isinstance(module, Neuron)}

    @property
    def neuron_counts(self) -> dict[str, int]:
        """Neurons of every layer that fired in the last pass with `record_firing_rates`, by layer name."""
        return {name: node.count for name, node in self._nodes().items() if node.count}

    def make_node(self) -> Neuron:
        """Make neurons as the settings have them."""
        return make_neuron(self.settings.neuron, surrogate=self.settings.surrogate, reset=self.settings.reset)

    def make_norm(self, channels: int) -> StepNorm:
        """Make a BatchNorm as the settings have it."""
        return StepNorm(channels, statistics=self.settings.statistics)

    def encode(self, x: Tensor, streams: Sequence[int], dropout_seeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the input of the heads [B,S,T,...] and alignment features [B,S,T,...] of frames [B,S,T,C,H,W]."""
        raise NotImplementedError

    def classify(self, hidden: Tensor, stream: int) -> Tensor:
        """Return the logits [B,T,K] of one stream from its [B,T,F]."""
        logits: Tensor = self.get_submodule(("static_head", "event_head")[stream])(hidden)
        return logits

    def forward(
        self, static: Tensor | None, event: Tensor | None, *, dropout_seeds: Tensor | None = None
    ) -> TransferOutput:
        """Compute both streams in one pass.

        Args:
            static: [T,B,C,H,W] of any numeric type, or None.
            event: the same, or None; not both None.
            dropout_seeds: [B] int64, one per sample, which make the dropout masks a pure function of them; None takes
                torch's generator. Networks without dropout ignore it.

        Raises:
            InputShapeError: no stream, or frames of another shape than the network's.
        """
        given = [(stream, frames) for stream, frames in enumerate((static, event)) if frames is not None]
        self._check_frames([frames for _, frames in given])
        streams = [stream for stream, _ in given]
        sequences = [frames for _, frames in given]
        if self._runs_on_triton(sequences[0]):
            with recompute_offered():
                hidden, features = self.encode(self._fold_for_gpu(sequences), streams, dropout_seeds)
        else:
            hidden, features = self.encode(fold(sequences, self.coefficients.dtype), streams, dropout_seeds)
        logits: list[Tensor | None] = [None, None]
        # taken apart at once, see `TransferOutput`
        for stream, own in zip(streams, hidden.unbind(1), strict=True):
            logits[stream] = self.classify(own, stream).transpose(0, 1)  # [T,B,K]
        rates = {name: node.rate for name, node in self._nodes().items() if node.rate is not None}
        return TransferOutput(logits[0], logits[1], features, rates if self._record else {})

    def _runs_on_triton(self, frames: Tensor) -> bool:
        """Say whether these frames' neurons will be computed by Triton."""
        x = frames[:, :, :1, 0, 0].transpose(0, 1)[:, None].to(self.coefficients.dtype)  # [B,1,T,1]
        return any(backends.choose(x, node.rule) == "triton" for node in self._nodes().values())

    def _fold_for_gpu(self, sequences: Sequence[Tensor]) -> Tensor:
        """Fold both streams to [B,S,T,C,H,W]; for a `FrameConv2d` in 16 bits, C is what tensor cores are fast with."""
        kind = sequences[0].device.type
        if not torch.is_autocast_enabled(kind) or not any(isinstance(each, FrameConv2d) for each in self.modules()):
            return fold(sequences, self.coefficients.dtype)
        channels = -(-sequences[0].shape[2] // FULL_CHANNELS) * FULL_CHANNELS
        return fold_padded(sequences, torch.get_autocast_dtype(kind), channels=channels)

    def _check_frames(self, sequences: Sequence[Tensor]) -> None:
        if not sequences:
            raise InputShapeError("Both streams are None; give static frames, event frames, or both.")
        settings = self.settings
        for frames in sequences:
            expected = (settings.time_steps, sequences[0].shape[1], settings.in_channels, *settings.input_size)
            if tuple(frames.shape) != expected or 0 in expected:
                raise InputShapeError(
                    f"Found frames {tuple(frames.shape)}, expected {expected} [T,B,C,H,W] with B of at least 1. "
                    f"Build {settings.name} for this size, or prepare the frames for it."
                )

    def load_published(self, state: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
        """Take the weights of a published state dictionary: see `models.published.load_published`."""
        return load_published(self, state, strict=strict)
