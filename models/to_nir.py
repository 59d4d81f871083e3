"""The event path of a network as a graph of NIR, the interchange format of the spiking field.

Source: Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 15, 2024; package `nir`.

What a NIR node computes is an equation in continuous time; `models.nir_conventions` has the ways to write the step of a
neuron as one. The graph computes what the network computes in evaluation mode, in float64; folding moves roundings,
nothing else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import nir
import numpy as np
import torch
from torch import nn

from spikebridge.models.errors import ExportError
from spikebridge.models.network import TransferNetwork
from spikebridge.models.neurons import IF, LIF, PLIF, Neuron, ReLU
from spikebridge.models.nir_conventions import CONVENTIONS, DEFAULT, TIME_STEP, Array, Step, write_neurons
from spikebridge.models.nmnist import NMNISTSNN, VOTERS
from spikebridge.models.normalization import EVENT, StepNorm
from spikebridge.models.resnet import Block, Shortcut, SpikingResNet
from spikebridge.models.scnn import SCNN
from spikebridge.models.speck import SPIKE, SpeckSNN
from spikebridge.models.vgg import CONVOLUTIONS, POOLED, VGGSNN, SpikingConv


@dataclass(frozen=True)
class Signal:
    """What flows into a node: the sum of some nodes' outputs, of shape (C,H,W) or (F,)."""

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    factor: float = 1.0
    """What the values are to be multiplied with: the weights behind take it in."""


class GraphBuilder:
    """Nodes and edges, added layer by layer; names of layers with `_` for dots.

    Args:
        network: whose event path is drawn.
        convention: a key of `CONVENTIONS`.
        nudge: thresholds are the next float32 above.
    """

    def __init__(self, network: TransferNetwork, convention: str = DEFAULT, *, nudge: bool = False) -> None:
        settings = network.settings
        self.name, self.convention, self.nudge = convention, CONVENTIONS[convention], nudge
        self.time_step = TIME_STEP
        shape = (settings.in_channels, *settings.input_size)
        self.nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array(shape))}
        self.edges: list[tuple[str, str]] = []
        self.notes: dict[str, None] = {}  # in order, each once
        self.events = Signal(("input",), shape)

    def add(self, name: str, node: nir.NIRNode, x: Signal, shape: tuple[int, ...]) -> Signal:
        """Enter a node that reads `x` and gives `shape`."""
        name = name.replace(".", "_")
        self.nodes[name] = node
        self.edges += [(source, name) for source in x.sources]
        return Signal((name,), shape)

    def note(self, text: str) -> None:
        """Say what became of something that the format has no word for."""
        self.notes[text] = None

    def conv(self, name: str, x: Signal, layer: nn.Module, norm: StepNorm | None = None) -> Signal:
        """Add a convolution, the BatchNorm behind it folded in."""
        assert isinstance(layer, nn.Conv2d)
        weight = _array(layer.weight)
        bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
        if norm is not None:
            scale, shift = self._affine(norm)
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        stride, padding = _pair(layer.stride), _pair(layer.padding)
        sides = tuple(
            (side + 2 * p - kernel) // s + 1
            for side, kernel, s, p in zip(x.shape[1:], weight.shape[2:], stride, padding, strict=True)
        )
        return self.add(name, self._conv(x, weight, stride, padding, bias), x, (len(weight), *sides))

    def _conv(
        self, x: Signal, weight: Array, stride: tuple[int, int], padding: tuple[int, int], bias: Array
    ) -> nir.Conv2d:
        """Return a convolution of `x`, its padding in the convention's words."""
        keeps = stride == (1, 1) and all(2 * p + 1 == side for p, side in zip(padding, weight.shape[2:], strict=True))
        words = "same" if keeps and self.convention.same_in_words else padding
        return nir.Conv2d(x.shape[1:], weight * x.factor, stride, words, 1, 1, bias)

    def norm(self, name: str, x: Signal, norm: StepNorm) -> Signal:
        """Add BatchNorm that has nothing to fold into: a 1x1 convolution with a diagonal weight, which all can read."""
        scale, shift = self._affine(norm)
        node = self._conv(x, np.diag(scale)[:, :, None, None], (1, 1), (0, 0), shift)
        return self.add(name, node, x, x.shape)

    def _affine(self, norm: StepNorm) -> tuple[Array, Array]:
        """Return scale and shift [C] that BatchNorm is to event frames in evaluation mode.

        Raises:
            ExportError: running statistics of another kind, of every time step for example.
        """
        if norm.statistics not in ("per_step", "pooled", "domain") or norm.running([EVENT])[0].ndim != 2:
            raise ExportError(
                f"BatchNorm statistics {norm.statistics!r} have no translation to NIR, which knows none of time steps. "
                "Train with per_step, pooled or domain (all time steps share their running ones), or export with "
                "--format torch."
            )
        self.note(
            "BatchNorm: folded into convolutions with its running statistics, which all time steps share in evaluation"
            + (" (those of the event stream)" if norm.statistics == "domain" else "")
        )
        mean, variance = (_array(values[0]) for values in norm.running([EVENT]))
        scale = _array(norm.weight) / np.sqrt(variance + norm.eps)
        return scale, _array(norm.bias) - mean * scale

    def fire(self, name: str, x: Signal, node: nn.Module) -> Signal:
        """Add neurons.

        Raises:
            ExportError: a reset or a step that NIR, or the convention, has no neuron for.
        """
        assert isinstance(node, Neuron)
        assert x.factor == 1
        if isinstance(node, ReLU):
            raise ExportError(
                f"{name}: with ReLU for neurons a network is an ANN, and NIR is for spiking ones. Export with --format "
                "torch."
            )
        if type(node) not in (LIF, PLIF, IF):
            raise ExportError(
                f"{name}: no translation of {type(node).__name__} neurons to NIR; there is one for LIF, PLIF and IF. "
                "Export with --format torch."
            )
        rule = node.rule
        if not rule.hard_reset:
            raise ExportError(
                f"{name}: reset is 'soft', and NIR knows the reset to a value only. Train with reset 'hard', or export "
                "with --format torch."
            )
        if rule.surrogate.fires_at_threshold:
            raise ExportError(
                f"{name}: with the surrogate {rule.surrogate.name} a neuron spikes at the threshold itself, in NIR "
                "above it. Train with another surrogate, or export with --format torch."
            )

        gain = node.gain() if rule.leaky else None
        if isinstance(gain, torch.Tensor):
            self.note("PLIF: the learned time constant of each layer is the tau of its LIF")
        step = Step(None if gain is None else float(gain), rule.threshold)
        try:
            neurons, self.time_step = write_neurons(step, x.shape, self.name, nudge=self.nudge)
        except ExportError as error:
            raise ExportError(f"{name}: {error}") from error
        return self.add(name, neurons, x, x.shape)

    def pool(self, name: str, x: Signal, kernel: tuple[int, int] = (2, 2)) -> Signal:
        """Add an average over windows that do not overlap; what is left at the edge is dropped."""
        sides = tuple(side // k for side, k in zip(x.shape[1:], kernel, strict=True))
        kind, factor = (nir.SumPool2d, 1 / math.prod(kernel)) if self.convention.sum_pools else (nir.AvgPool2d, 1.0)
        node = kind(np.array(kernel), np.array(kernel), np.array([0, 0]))
        pooled = self.add(name, node, x, (x.shape[0], *sides))
        return replace(pooled, factor=x.factor * factor)

    def flatten(self, name: str, x: Signal) -> Signal:
        """Flatten (C,H,W) to (F,)."""
        flat = self.add(name, nir.Flatten(np.array(x.shape), 0, -1), x, (int(np.prod(x.shape)),))
        return replace(flat, factor=x.factor)

    def linear(self, name: str, x: Signal, layer: nn.Module, norm: StepNorm | None = None) -> Signal:
        """Add a linear layer, a BatchNorm in front of it folded in."""
        assert isinstance(layer, nn.Linear)
        weight = _array(layer.weight)
        bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
        if norm is not None:
            scale, shift = self._affine(norm)
            weight, bias = weight * scale, bias + weight @ shift
        return self.add(name, nir.Affine(weight * x.factor, bias), x, (len(weight),))

    def counted(self, name: str, x: Signal, factor: float) -> Signal:
        """Multiply what neurons of the classes give."""
        return self.add(name, nir.Linear(np.eye(x.shape[0]) * factor), x, x.shape)  # importers know no Scale

    def finish(self, x: Signal) -> nir.NIRGraph:
        """Return the graph, with `x` as its output; its metadata say how to read the equations."""
        assert x.factor == 1
        self.add("output", nir.Output(np.array(x.shape)), x, x.shape)
        graph = nir.NIRGraph(self.nodes, self.edges)
        graph.metadata = {
            "dt": self.time_step,
            "convention": self.name,
            "integration": self.convention.integration,
            "fires": "at" if self.nudge else "above",
        }
        return graph


def _array(values: torch.Tensor) -> Array:
    array: Array = values.detach().cpu().double().numpy()
    return array


def _pair(values: object) -> tuple[int, int]:
    assert isinstance(values, tuple)
    return int(values[0]), int(values[1])


def _vgg(net: VGGSNN, graph: GraphBuilder) -> Signal:
    x = graph.events
    for index, _ in CONVOLUTIONS:
        layer = net.feature[str(index)]
        assert isinstance(layer, SpikingConv)
        x = graph.conv(f"feature.{index}.conv", x, layer.conv, layer.bn)
        x = graph.fire(f"feature.{index}.node", x, layer.node)
        if index in POOLED:
            x = graph.pool(f"feature.{index}.pool", x)
    return graph.linear("event_head", graph.flatten("flatten", x), net.event_head)


def _resnet(net: SpikingResNet, graph: GraphBuilder) -> Signal:
    x = graph.conv("conv1", graph.events, net.conv1)
    blocks = {name: module for name, module in net.named_modules() if isinstance(module, Block)}
    for name, block in blocks.items():
        y = graph.fire(f"{name}.node1", graph.norm(f"{name}.bn1", x, block.bn1), block.node1)
        y = graph.conv(f"{name}.conv1", y, block.conv1, block.bn2)
        y = graph.conv(f"{name}.conv2", graph.fire(f"{name}.node2", y, block.node2), block.conv2)
        if block.downsample is not None:
            x = _shortcut(f"{name}.downsample", x, block.downsample, graph)
        x = Signal(x.sources + y.sources, y.shape)
    pooled = graph.flatten("flatten", graph.pool("pool", x, kernel=x.shape[1:]))  # type: ignore[arg-type]
    return graph.linear("event_head", pooled, net.event_head, net.bn1)


def _shortcut(name: str, x: Signal, shortcut: Shortcut, graph: GraphBuilder) -> Signal:
    norm, node, conv = shortcut
    assert isinstance(norm, StepNorm)
    return graph.conv(f"{name}.2", graph.fire(f"{name}.1", graph.norm(f"{name}.0", x, norm), node), conv)


def _scnn(net: SCNN, graph: GraphBuilder) -> Signal:
    x = graph.events
    for conv, node in (("0", "1"), ("3", "4")):
        x = graph.fire(f"feature.{node}", graph.conv(f"feature.{conv}", x, net.feature[conv]), net.feature[node])
        x = graph.pool(f"feature.{int(node) + 1}", x)
    x = graph.fire("node1", graph.linear("fc1", graph.flatten("flatten", x), net.fc1), net.node1)
    return graph.linear("fc2", x, net.fc2)


def _nmnist(net: NMNISTSNN, graph: GraphBuilder) -> Signal:
    x = graph.pool("pool1", graph.fire("node1", graph.conv("conv1", graph.events, net.conv1, net.bn1), net.node1))
    x = graph.pool("pool2", graph.fire("node2", graph.conv("conv2", x, net.conv2, net.bn2), net.node2))
    x = graph.fire("node3", graph.linear("fc", graph.flatten("flatten", x), net.fc), net.node3)
    graph.note("dropout: left out, it does nothing in evaluation")
    x = graph.fire("event_node", graph.linear("event_head", x, net.event_head), net.event_node)
    K = net.settings.num_classes
    votes = np.kron(np.eye(K), np.ones(VOTERS))  # [K,10K]
    graph.note("votes: a Linear that counts the spikes of each class, and one that divides by ten")
    x = graph.add("votes", nir.Linear(votes), x, (K,))  # counts are exact, so equal votes stay equal
    return graph.counted("share", x, 1 / VOTERS)


def _speck(net: SpeckSNN, graph: GraphBuilder) -> Signal:
    x = graph.pool("pool1", graph.fire("node1", graph.conv("conv1", graph.events, net.conv1), net.node1))
    x = graph.pool("pool2", graph.fire("node2", graph.conv("conv2", x, net.conv2), net.node2))
    x = graph.fire("node3", graph.linear("fc", graph.flatten("flatten", x), net.fc), net.node3)
    x = graph.fire("event_node", graph.linear("event_head", x, net.event_head), net.event_node)
    return graph.counted("logits", x, SPIKE)


EVENT_PATHS: dict[str, Callable[..., Signal]] = {
    "vgg_snn": _vgg,
    "resnet18_snn": _resnet,
    "resnet34_snn": _resnet,
    "scnn": _scnn,
    "nmnist_snn": _nmnist,
    "speck_snn": _speck,
}
"""What draws each network's event path, by the network's registry name."""


TRANSLATED = (
    *("name", "num_classes", "time_steps", "in_channels", "input_size", "width"),
    *("surrogate", "neuron", "reset", "statistics", "feature"),
)
"""Settings of a network that are translated, refused by their value, or without effect on the event path."""


@torch.no_grad()
def to_nir(
    network: TransferNetwork, *, convention: str = DEFAULT, nudge: bool = False
) -> tuple[nir.NIRGraph, tuple[str, ...]]:
    """Translate the event path of a network in evaluation mode into a graph; weights in float64.

    Args:
        network: any of `models.NETWORKS`; untouched.
        convention: how neurons and pools are written, a key of `CONVENTIONS`.
        nudge: thresholds are the next float32 above, for readers that fire AT the threshold.

    Returns:
        The graph, from one frame (P,H,W) to logits (K,), and what became of what NIR has no word for, a sentence each.
        Its metadata: `dt`, `convention`, `integration` and `fires`, which is `at` or `above` the threshold.

    Raises:
        ExportError: the format cannot say what the network computes; names what, and what to do.
    """
    graph = GraphBuilder(network, convention, nudge=nudge)
    graph.note(f"convention {convention}: {graph.convention.says}")
    if nudge:
        graph.note("thresholds: the next float32 above, for a reader that fires AT the threshold")
    return draw(network, graph)


def draw(network: TransferNetwork, graph: GraphBuilder) -> tuple[nir.NIRGraph, tuple[str, ...]]:
    """Draw the event path of a network with `graph`: see `to_nir`."""
    name = network.settings.name
    if name not in EVENT_PATHS:
        raise ExportError(
            f"{name}: no translation to NIR; there is one for {', '.join(EVENT_PATHS)}. Export with --format torch."
        )
    for field in fields(network.settings):
        value = getattr(network.settings, field.name)
        if field.name not in TRANSLATED and value != field.default:
            raise ExportError(
                f"{name}: {field.name} is {value!r}, and no translation to NIR knows it. Use --format torch."
            )
    output = EVENT_PATHS[name](network, graph)
    graph.note("the static stream and the coefficients of the time steps: left out, they serve training alone")
    return graph.finish(output), tuple(graph.notes)


def nir_file(graph: nir.NIRGraph, metadata: dict[str, str | float | int]) -> bytes:
    """Return the content of a file of NIR (HDF5) with a graph and plain values beside those of the graph."""
    graph.metadata = {**graph.metadata, **metadata}
    file = io.BytesIO()
    nir.write(file, graph)
    return file.getvalue()
