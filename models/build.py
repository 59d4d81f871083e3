"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spikebridge.models.errors import ModelError
from spikebridge.models.network import NetworkSettings, TransferNetwork
from spikebridge.models.registry import lookup, register

NETWORKS: dict[str, type[TransferNetwork]] = {}


def network(name: str) -> Callable[[type[TransferNetwork]], type[TransferNetwork]]:
    """Register a network class, as a decorator; a name that is taken raises ValueError."""
    return register(NETWORKS, name)


def build_model(
    name: str,
    *,
    num_classes: int,
    time_steps: int,
    surrogate: str = "QGateGrad",
    width: float = 1.0,
    neuron: str = "LIF",
    reset: str = "hard",
    statistics: str = "per_step",
    in_channels: int = 2,
    input_size: int | Sequence[int] | None = None,
    feature: str = "published",
) -> TransferNetwork:
    """Build a network with fresh weights.

    Args:
        name: "vgg_snn", "resnet18_snn", "resnet34_snn", "scnn", "nmnist_snn" or "speck_snn".
        num_classes: K.
        time_steps: T.
        surrogate: one of `models.surrogates.SURROGATES`.
        width: factor on the number of channels of every layer.
        neuron: "LIF" (published), "PLIF", "IF", or "ReLU" (no spikes, the ANN with the same layers).
        reset: "hard" (published) or "soft".
        statistics: of BatchNorm, "per_step" (published), "pooled" over time, or "domain" (own running statistics
            for each stream).
        in_channels: channels of a frame.
        input_size: side in pixels, or (H, W); the published one if None.
        feature: what the alignment compares, one of `models.features.FEATURES`; "published" is the network's own.

    Raises:
        UnknownNameError: a name is unknown; near matches are listed.
        InputShapeError: the input is too small; the smallest is named.
        ModelError: another setting is out of range.
    """
    cls = lookup(NETWORKS, name, kind="network")
    if input_size is None:
        input_size = cls.default_size
    sides = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(sides) != 2:
        raise ModelError(f"input_size is {input_size}; expected a side in pixels, or (H, W).")
    return cls(
        NetworkSettings(
            name=name,
            num_classes=num_classes,
            time_steps=time_steps,
            surrogate=surrogate,
            width=width,
            neuron=neuron,
            reset=reset,
            statistics=statistics,
            in_channels=in_channels,
            input_size=(int(sides[0]), int(sides[1])),
            feature=feature,
        )
    )
