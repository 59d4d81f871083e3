"""Cost of a network by the definitions of NeuroBench, so that papers can compare it.

Counted in evaluation mode, on the network that scores recordings: event stream, all time steps of a batch in one pass.
Activation sparsity and membrane updates are those of the neurons, before any pooling; synaptic operations are those of
convolutions and linear layers. An operation is effective where neither input nor weight is 0, and an accumulation where
all inputs of the layer in that pass are -1, 0 or 1; behind an average over 2x2 spikes they are not, so those count as
multiply-accumulates.

Source: Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems", 2025, and
the program neurobench 2.3.0, whose figures on our networks are the same.
Differs: neurobench sums operations in float32, which rounds beyond 2^24; here they are exact.

Axes: N frames (samples times time steps), T time, B recordings, C channels, P polarity, H, W, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikebridge.models.neurons import Neuron
from spikebridge.train.evaluation.energy import count_connections
from spikebridge.train.runs.result import NeuroBench

VERSION = "2.3"
"""Of the definitions."""
DIGITS = 4
"""Of the connection sparsity, as neurobench rounds it."""


@dataclass
class Work:
    """Sums over what a network has computed."""

    effective_macs: int = 0
    effective_acs: int = 0
    dense: int = 0
    """Synaptic operations if nothing were 0; padding is no input."""
    outputs: int = 0
    """Of neurons, at every time step."""
    active: int = 0
    """Outputs that are not 0."""
    membrane_updates: int = 0

    def add(self, other: Work) -> None:
        """Add what a network computed in another pass."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@contextmanager
def watching(network: nn.Module) -> Iterator[Work]:
    """Count what a network computes in one pass inside the block; complete behind it."""
    work = Work()

    def count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        x = inputs[0].detach()
        operations = _effective(layer, x)
        work.dense += count_connections(layer, torch.ones_like(x[:1]), padded=False) * len(x)
        if bool(((x == 0) | (x.abs() == 1)).all()):
            work.effective_acs += operations
        else:
            work.effective_macs += operations

    neurons = [module for module in network.modules() if isinstance(module, Neuron)]
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    for node in neurons:
        node.watch, node.work = True, None
    try:
        yield work
        for node in neurons:
            if node.work is not None:
                outputs, active, updates = node.work.tolist()
                work.outputs += outputs
                work.active += active
                work.membrane_updates += updates
    finally:
        for node in neurons:
            node.watch, node.work = False, None
        for handle in handles:
            handle.remove()


def _effective(layer: nn.Conv2d | nn.Linear, x: Tensor) -> int:
    """Count the pairs of an input [N,C,H,W] or [...,F] and a weight that meet, neither of them 0."""
    used = layer.weight.detach() != 0
    inputs = (x != 0).float()
    if bool(used.all()):
        return count_connections(layer, inputs, padded=False)
    reached = used.sum(0).float()  # outputs by [F], or by [C,H,W] of a kernel
    if isinstance(layer, nn.Linear):
        return round(float((inputs * reached).sum(dtype=torch.float64)))
    assert not isinstance(layer.padding, str)
    maps = F.conv2d(inputs, reached[None], None, layer.stride, layer.padding, layer.dilation)  # [N,1,H,W], exact
    return round(float(maps.sum(dtype=torch.float64)))


def footprint(network: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    return sum(one.numel() * one.element_size() for one in [*network.parameters(), *network.buffers()])


def connection_sparsity(network: nn.Module) -> float:
    """Return the share of weights of convolutions and linear layers that are 0."""
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return round(zeros / sum(weight.numel() for weight in weights), DIGITS)


def figures(network: nn.Module, work: Work, *, recordings: int, execution_rate: float | None) -> NeuroBench:
    """Return the figures of a network, operations and updates per recording.

    Args:
        network: that did the work.
        work: from `watching`.
        recordings: in it, at least 1.
        execution_rate: see `NeuroBench`.
    """
    return {
        "version": VERSION,
        "recordings": recordings,
        "footprint": footprint(network),
        "connection_sparsity": connection_sparsity(network),
        "activation_sparsity": (work.outputs - work.active) / work.outputs if work.outputs else 0.0,
        "effective_macs": work.effective_macs / recordings,
        "effective_acs": work.effective_acs / recordings,
        "dense": work.dense / recordings,
        "membrane_updates": work.membrane_updates / recordings,
        "execution_rate": execution_rate,
    }
