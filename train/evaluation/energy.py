"""What a network costs: multiplications and accumulations of its layers, counted while it runs, and their energy.

Axes: N frames (samples times time steps), C channels, H, W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACCUMULATE_PJ, MULTIPLY_ACCUMULATE_PJ = 0.9, 4.6
"""Energy in picojoule of a 32-bit floating-point addition, and of a multiplication (3.7) with addition, in 45 nm.

Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9.
"""


@dataclass
class LayerCost:
    """Sums over all frames that a layer has seen."""

    dense: int = 0
    """Multiply-accumulates if every input counted, padding included: those of an ANN with this layer."""
    accumulates: int = 0
    """Accumulations that spikes cause: each spike once per connection."""
    by_step: list[int] = field(default_factory=list)
    """The same in each time step, where `counting` was told how many there are."""
    spiking: bool = True
    """Whether every input so far was a spike, or a mean over 2x2 spikes; else the layer needs multiplications."""


@dataclass(frozen=True)
class Cost:
    """What one recording costs, on average."""

    steps: int
    layers: Mapping[str, LayerCost]
    """By name, in the order of computation."""
    recordings: int
    """That were counted."""

    def accumulates(self, layer: str) -> float:
        """Return the accumulations of a layer per recording; 0 where it multiplies."""
        cost = self.layers[layer]
        return cost.accumulates / self.recordings if cost.spiking else 0.0

    def multiplies(self, layer: str) -> float:
        """Return the multiply-accumulates of a layer per recording; 0 where its input is spikes."""
        cost = self.layers[layer]
        return 0.0 if cost.spiking else cost.dense / self.recordings

    def dense(self, layer: str) -> float:
        """Return the multiply-accumulates per recording of the same layer in an ANN that computes every time step."""
        return self.layers[layer].dense / self.recordings

    @property
    def energy_nj(self) -> float:
        """Nanojoule per recording of the spiking network."""
        return sum(energy_nj(self.accumulates(name), self.multiplies(name)) for name in self.layers)

    @property
    def dense_energy_nj(self) -> float:
        """Return the nanojoules per recording of an ANN with the same layers that computes every time step."""
        return sum(energy_nj(0.0, self.dense(name)) for name in self.layers)


def energy_nj(accumulates: float, multiplies: float) -> float:
    """Return the nanojoules of so many accumulations and multiply-accumulates: 0.9 and 4.6 pJ each."""
    return (accumulates * ACCUMULATE_PJ + multiplies * MULTIPLY_ACCUMULATE_PJ) / 1000


@contextmanager
def counting(network: nn.Module, *, time_steps: int = 1) -> Iterator[dict[str, LayerCost]]:
    """Count the operations of every convolution and linear layer that runs inside the block, by name in running order.

    `time_steps` is that of the recordings, for counts in each of them.

    The first layer reads the frames themselves: it multiplies, and all of its inputs count, zeros included. A later
    layer whose inputs are spikes needs one accumulation per spike and connection; behind an average over 2x2 neurons
    each of their spikes counts. A later layer with any other input multiplies, too.
    """
    layers: dict[str, LayerCost] = {}

    def count(name: str, layer: nn.Conv2d | nn.Linear, x: Tensor) -> None:
        first = not layers or next(iter(layers)) == name
        cost = layers.setdefault(name, LayerCost(by_step=[0] * time_steps))
        cost.dense += count_connections(layer, torch.ones_like(x[:1]), padded=True) * len(x)
        quarters = x * 4
        cost.spiking &= not first and bool(((quarters == quarters.round()) & (x >= 0) & (x <= 1)).all())
        if cost.spiking:
            averaged = bool((x != x.round()).any())
            spikes = quarters if averaged else x
            spikes = spikes.flatten(0, -2) if isinstance(layer, nn.Linear) else spikes  # [N,F] or [N,C,H,W]
            for step in range(time_steps):  # sample by sample, the steps of each lie one after the other
                cost.by_step[step] += count_connections(layer, spikes[step::time_steps], padded=False)
            cost.accumulates = sum(cost.by_step)

    def hook(name: str) -> object:
        return lambda layer, inputs: count(name, layer, inputs[0].detach())

    handles = [
        layer.register_forward_pre_hook(hook(name))  # type: ignore[arg-type]
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def count_connections(layer: nn.Conv2d | nn.Linear, x: Tensor, *, padded: bool) -> int:
    """Sum over the inputs [N,C,H,W] or [...,F] of value times connections; with `padded`, padding counts as inputs."""
    if isinstance(layer, nn.Linear):
        return round(float(x.sum(dtype=torch.float64)) * layer.out_features)
    if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ValueError(f"{layer}: grouped convolutions and named paddings are not counted")
    frames = x.sum(1, keepdim=True, dtype=torch.float64)  # [N,1,H,W]
    padding = layer.padding
    if padded:
        rows, columns = padding
        frames = F.pad(frames, (columns, columns, rows, rows), value=float(x.shape[1]))
        padding = (0, 0)
    kernel = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64, device=x.device)
    reached = F.conv2d(frames, kernel, None, layer.stride, padding, layer.dilation)
    return round(float(reached.sum()) * layer.out_channels)
