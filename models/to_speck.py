"""A network as the cores of a Speck chip compute it: sums for pools, weights of 8 bits, or what does not fit.

A core is a convolution (or a Linear, which is one over the whole map), its integrate-and-fire neurons, and a sum pool
toward each core that reads it. Weights, bias and threshold of a core share one scale, which changes no spike.

Source: sinabs 3.1.3, package `sinabs.backend.dynapcnn`: `chips/dynapcnn.py` (memories), `dynapcnn_layer.py` (what a
layer takes of them), `discretize.py` (the scale), `exceptions.py` (two destinations); and
`sinabs/validate_memory_speck.py` (kernel, stride, features, pools), `sinabs/nir.py` (which nodes are read, and how).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import h5py
import nir
import numpy as np
import torch
from torch import nn

from spikebridge.models.errors import ExportError
from spikebridge.models.network import TransferNetwork
from spikebridge.models.neurons import IF
from spikebridge.models.nir_conventions import UNIT_STEP
from spikebridge.models.to_nir import GraphBuilder, Signal, draw, nir_file

KIBI = 1024
CORES = (
    *((16 * KIBI, 64 * KIBI),) * 3,
    *((32 * KIBI, 32 * KIBI),) * 2,
    *((64 * KIBI, 16 * KIBI),) * 2,
    *((16 * KIBI, 16 * KIBI),) * 2,
)
"""Words for weights and for neurons of each core."""
FEATURES = 1024
"""Of a core at most: its neurons' channels, and biases."""
KERNEL, STRIDES, POOLS = 16, (1, 2, 4, 8), (1, 2, 4)
"""Largest side of a kernel; strides; sides of a sum pool."""
DESTINATIONS = 2
"""Cores that may read a core."""
WEIGHT, STATE = 2**7, 2**15
"""Weights and biases lie in [-WEIGHT, WEIGHT), thresholds and potentials in [-STATE, STATE)."""
CLASSES = (
    "the answer: the class whose neuron spikes most over all time steps, the first of equals; the network's logits are "
    "a multiple of it"
)


@dataclass(frozen=True)
class Core:
    """What a layer asks of a core, and the core that it gets."""

    name: str
    """Of the weights, in the graph."""
    kernel: tuple[int, int]
    """Height and width in pixels."""
    stride: tuple[int, int]
    channels: int
    """Of the input."""
    neurons: tuple[int, int, int]
    """Channels, height and width of its neurons."""
    pools: tuple[int, ...]
    """Side of the sum pool toward each core that reads it; none for the output."""
    number: int = -1
    """The core, from 0; -1: none yet."""

    @property
    def weights(self) -> int:
        """Return the words of weights: rows of kernels and features are filled up to powers of two."""
        return self.channels * _filled(self.kernel[0] * self.kernel[1]) * _filled(self.neurons[0])

    @property
    def states(self) -> int:
        """Return the words of neurons: rows and columns are filled up to powers of two."""
        return self.neurons[0] * _filled(self.neurons[1]) * _filled(self.neurons[2])

    def facts(self) -> dict[str, object]:
        """Return plain values, for tables and descriptions."""
        weights, states = CORES[self.number]
        return {
            "layer": self.name,
            "core": self.number,
            "weights": self.weights,
            "weights_of": weights,
            "neurons": self.states,
            "neurons_of": states,
            "kernel": "x".join(map(str, self.kernel)),
            "pools": list(self.pools),
        }


@dataclass(frozen=True)
class Speck:
    """A network for the chip."""

    graph: nir.NIRGraph
    """Conv2d, Affine, IF, SumPool2d and Flatten; weights, biases and thresholds are whole numbers."""
    cores: tuple[Core, ...]
    notes: tuple[str, ...]


class SpeckGraph(GraphBuilder):
    """A graph whose neurons are those of the chip."""

    def fire(self, name: str, x: Signal, node: nn.Module) -> Signal:
        """Add neurons without leak that a spike takes the threshold from.

        Raises:
            ExportError: others.
        """
        if type(node) is not IF or node.rule.hard_reset:
            kind = type(node).__name__ + (" neurons with reset 'hard'" if type(node) is IF else " neurons")
            raise ExportError(
                f"{name}: {kind}; a core of Speck, as sinabs reads it from NIR, has neurons without leak, from which a "
                'spike takes the threshold. Train with neuron = "IF" and reset = "soft", or export with --format nir.'
            )
        self.time_step = UNIT_STEP  # an IF with r = 1 then adds its input, whether a reader looks at r or not
        threshold = np.full(x.shape, node.rule.threshold)
        return self.add(name, nir.IF(np.ones(x.shape), threshold, np.zeros(x.shape)), x, x.shape)

    def counted(self, name: str, x: Signal, factor: float) -> Signal:
        """Leave out a factor on all classes, which decides nothing."""
        self.note(CLASSES)
        return x


@torch.no_grad()
def to_speck(network: TransferNetwork, *, whole: bool = True) -> Speck:
    """Translate the event path of a network in evaluation mode, and give each layer a core.

    Args:
        network: any of `models.NETWORKS`; untouched.
        whole: round to whole numbers of 8 bits; if not, weights and thresholds stay as they are.

    Raises:
        ExportError: the first layer that no core takes: which limit, what was found, what is allowed.
    """
    graph, notes = draw(network, SpeckGraph(network, "sum-pools"))
    graph.metadata = {"dt": graph.metadata["dt"], "fires": "counts", "integration": "euler"}
    cores = _cores(graph)
    scales = {core.name: _round(core.name, graph) if whole else 1.0 for core in cores}
    said = [
        "sum pools of the chip for average pools: their share is in the weights behind them, a power of two and exact",
        "neurons: a step gives as many spikes as thresholds fit in the potential, each takes one away, and below minus "
        "the threshold no potential falls",
    ]
    if whole:
        shown = ", ".join(f"{name} {scale:.4g}" for name, scale in scales.items())
        said.append(f"weights, biases and thresholds in whole numbers of 8 and 16 bits, times: {shown}")
    if any(np.any(node.bias) for node in graph.nodes.values() if isinstance(node, nir.Conv2d | nir.Affine)):
        said.append("biases: added at each time step here, by its own clock on the chip; set that to a time step")
    return Speck(graph, cores, (*notes, *said))


def _filled(number: int) -> int:
    """Return the smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class _Feed:
    """What reaches a node: spikes of a core (None: the chip's input), and how they were pooled."""

    core: str | None
    map: tuple[int, ...]
    pool: int = 1


class _Walk:
    """A graph in the order of its nodes, turned into layers of the chip."""

    def __init__(self, graph: nir.NIRGraph) -> None:
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.sources[target].append(source)
        self.feeds: dict[str, list[_Feed]] = {}
        self.waiting: set[str] = set()
        """Layers whose neurons have not come yet."""
        self.cores: dict[str, Core] = {}

    def node(self, name: str, node: nir.NIRNode) -> list[_Feed]:
        """Take a node in, and return what it gives.

        Raises:
            ExportError: it has no place in a core.
        """
        reads = [feed for source in self.sources[name] for feed in self.feeds[source]]
        if isinstance(node, nir.IF):
            return self.fire(name)
        if bare := [source for source in self.sources[name] if source in self.waiting]:
            raise ExportError(
                f"{bare[0]}: found {type(node).__name__} {name} behind it; expected neurons, in which each core of "
                "Speck ends, that of the classes, too. speck_snn is a network that fits"
            )
        if isinstance(node, nir.Input):
            return [_Feed(None, tuple(map(int, node.input_type["input"])))]
        if isinstance(node, nir.SumPool2d):
            return [_pooled(name, node, feed) for feed in reads]
        if isinstance(node, nir.Conv2d | nir.Affine):
            return self.weigh(name, node, reads)
        if isinstance(node, nir.Flatten | nir.Output):
            return reads
        raise ExportError(
            f"{name}: found a {type(node).__name__}; a core of Speck has a convolution or a Linear with neurons behind "
            "it, and pools. speck_snn is a network that fits"
        )

    def weigh(self, name: str, node: nir.Conv2d | nir.Affine, reads: list[_Feed]) -> list[_Feed]:
        """Open a layer."""
        if len(reads) > 1 and any(feed.pool > 1 for feed in reads):
            raise ExportError(f"{name}: reads several pools, whose shares cannot be folded into its weights")
        self.cores[name] = _layer(name, node, reads[0])
        self.waiting.add(name)
        for feed in reads:
            if feed.core is not None:
                core = self.cores[feed.core]
                self.cores[feed.core] = replace(core, pools=(*core.pools, feed.pool))
        return []

    def fire(self, name: str) -> list[_Feed]:
        """Close a layer with its neurons."""
        layers = self.sources[name]
        if len(layers) != 1 or layers[0] not in self.waiting:
            raise ExportError(
                f"{name}: neurons behind {' and '.join(layers)}; those of a core of Speck read one convolution or "
                "Linear. speck_snn is a network that fits"
            )
        self.waiting.remove(layers[0])
        return [_Feed(layers[0], self.cores[layers[0]].neurons)]


def _cores(graph: nir.NIRGraph) -> tuple[Core, ...]:
    """Return the layers of a graph of sum pools, with their cores.

    Raises:
        ExportError: as `to_speck`.
    """
    walk = _Walk(graph)
    for name, node in graph.nodes.items():
        walk.feeds[name] = walk.node(name, node)
    for core in walk.cores.values():
        _require_possible(core)
    return _placed(tuple(walk.cores.values()))


def _pooled(name: str, node: nir.SumPool2d, feed: _Feed) -> _Feed:
    """Return what a pool makes of a core's spikes.

    Raises:
        ExportError: a pool that a core cannot do for those who read it.
    """
    sides = {int(side) for values in (node.kernel_size, node.stride) for side in np.atleast_1d(values)}
    side = sides.pop()
    if sides or np.any(node.padding) or side not in POOLS or feed.core is None or feed.pool != 1:
        raise ExportError(
            f"{name}: pool of {np.array(node.kernel_size).tolist()} with stride {np.array(node.stride).tolist()}; a "
            f"core of Speck sums squares of {', '.join(map(str, POOLS))} pixels behind its neurons, once, without "
            "overlap"
        )
    channels, height, width = feed.map
    return _Feed(feed.core, (channels, height // side, width // side), side)


def _layer(name: str, node: nir.Conv2d | nir.Affine, feed: _Feed) -> Core:
    """Return what weights ask of a core; a Linear is a convolution over the whole map."""
    if isinstance(node, nir.Affine):
        channels, *sides = (*feed.map, 1, 1)[:3]
        return Core(name, (sides[0], sides[1]), (1, 1), channels, (len(node.weight), 1, 1), ())
    features, channels, *kernel = node.weight.shape
    stride, padding = node.stride, node.padding
    height, width = (
        (side + 2 * int(p) - k) // int(s) + 1
        for side, k, s, p in zip(feed.map[1:], kernel, stride, padding, strict=True)
    )
    step = (int(stride[0]), int(stride[1]))
    return Core(name, (kernel[0], kernel[1]), step, channels, (features, height, width), ())


def _require_possible(core: Core) -> None:
    """Refuse a layer that no core of the chip takes, even alone.

    Raises:
        ExportError: names layer and limit.
    """
    most_weights, most_states = (max(limits) for limits in zip(*CORES, strict=True))
    problems = [
        (core.kernel[0] != core.kernel[1], f"kernel {core.kernel[0]}x{core.kernel[1]}", "square ones"),
        (max(core.kernel) > KERNEL, f"kernel {core.kernel[0]}x{core.kernel[1]}", f"{KERNEL}x{KERNEL} at most"),
        (
            not set(core.stride) <= set(STRIDES),
            f"stride {core.stride[0]}x{core.stride[1]}",
            f"{', '.join(map(str, STRIDES))}",
        ),
        (core.neurons[0] > FEATURES, f"{core.neurons[0]:,} features", f"{FEATURES:,} at most"),
        (len(core.pools) > DESTINATIONS, f"{len(core.pools)} layers read it", f"{DESTINATIONS} at most"),
        (core.weights > most_weights, f"{core.weights:,} words of weights", f"{most_weights:,} at most"),
        (core.states > most_states, f"{core.states:,} words of neurons", f"{most_states:,} at most"),
    ]
    for broken, found, allowed in problems:
        if broken:
            raise ExportError(_does_not_fit(core, found, f"a core of Speck takes {allowed}"))
    if not _takers(core):
        raise ExportError(
            _does_not_fit(
                core,
                f"{core.weights:,} words of weights with {core.states:,} of neurons",
                "the cores of Speck take " + ", ".join(f"{w:,} with {n:,}" for w, n in dict.fromkeys(CORES)),
            )
        )


def _does_not_fit(core: Core, found: str, allowed: str) -> str:
    return f"{core.name} does not fit: {found}; {allowed}. Train with a smaller width, or with frames of fewer pixels"


def _takers(core: Core) -> list[int]:
    """Return the numbers of the cores that can hold a layer."""
    return [n for n, (weights, states) in enumerate(CORES) if core.weights <= weights and core.states <= states]


def _placed(cores: tuple[Core, ...]) -> tuple[Core, ...]:
    """Give each layer a core of its own: those that have one move where that makes room.

    Raises:
        ExportError: the first layer for which there is none left.
    """
    holders: dict[int, Core] = {}

    def place(core: Core, tried: set[int]) -> bool:
        for number in sorted(_takers(core), key=lambda number: number in holders):  # the free ones first
            if number not in tried:
                tried.add(number)
                if number not in holders or place(holders[number], tried):
                    holders[number] = core
                    return True
        return False

    for core in cores:
        if not place(core, set()):
            taken = ", ".join(holders[number].name for number in _takers(core))
            raise ExportError(
                _does_not_fit(
                    core,
                    f"{core.weights:,} words of weights and {core.states:,} of neurons",
                    f"the cores of Speck that take it are taken, by {taken}",
                )
            )
    numbers = {core.name: number for number, core in holders.items()}
    return tuple(replace(core, number=numbers[core.name]) for core in cores)


def _round(layer: str, graph: nir.NIRGraph) -> float:
    """Round a layer and its threshold to whole numbers, in place, and return what they were multiplied with.

    The scale is the largest that the bits hold, so that sinabs, which looks for it again, finds 1.

    Raises:
        ExportError: the threshold is too small against the weights to be seen.
    """
    node = graph.nodes[layer]
    (neurons,) = (graph.nodes[target] for source, target in graph.edges if source == layer)
    values = np.concatenate([node.weight.ravel(), node.bias.ravel()])
    threshold = float(neurons.v_threshold.flat[0])
    limits = [((WEIGHT - 1), values.max()), (WEIGHT, -values.min()), (STATE - 1, threshold)]
    scale = float(min(most / value for most, value in limits if value > 0))
    if round(threshold * scale) < 1:
        raise ExportError(
            f"{layer}: with weights up to {np.abs(values).max():.3g} in 8 bits a threshold of {threshold:g} is less "
            "than one of their steps. Train with weight decay, or smaller first weights"
        )
    node.weight, node.bias = np.rint(node.weight * scale), np.rint(node.bias * scale)
    neurons.v_threshold = np.rint(neurons.v_threshold * scale)
    return scale


def speck_file(graph: nir.NIRGraph, metadata: Mapping[str, str | float | int]) -> bytes:
    """Return a file's content for nir 1.0.4, too, to which sinabs is pinned: it knows no reset potential."""
    file = io.BytesIO(nir_file(graph, dict(metadata)))
    with h5py.File(file, "r+") as content:
        for name, node in graph.nodes.items():
            if isinstance(node, nir.IF):
                del content[f"node/nodes/{name}/v_reset"]
    return file.getvalue()
