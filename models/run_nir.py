"""A graph of NIR run from the definitions of its nodes: linear ones as they stand, neurons by Euler or exactly.

Axes: T time, B batch, C channels, H, W, F features, K classes.

Source: the docstrings of package `nir`, which are the definitions. A node at which several edges end reads their sum.
"""

from __future__ import annotations

import graphlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.models.errors import ExportError
from spikebridge.models.nir_conventions import Integration
from spikebridge.models.nir_file import read_values

Step = Callable[[Tensor], Tensor]
MOST_VALUES = 2**24
"""What a node may give for a frame; the largest network here gives 2**22, for frames of 256 x 256 pixels."""


def read_graph(path: Path) -> nir.NIRGraph:
    """Read the graph in a file of NIR (HDF5: nothing in it is executed).

    Raises:
        ExportError: not such a file, or one whose graph contradicts itself.
    """
    try:
        graph = nir.dict2NIRNode({**read_values(path), "type_check": True})
    except Exception as error:  # nir and h5py raise several kinds, by content
        raise ExportError(f"{path}: cannot be read as NIR ({error}); export it again") from error
    if not isinstance(graph, nir.NIRGraph):
        raise ExportError(f"{path}: holds a {type(graph).__name__}; expected a graph")
    return graph


class NIRProgram:
    """An acyclic graph with one input and one output, ready to run.

    Args:
        graph: of Input, Output, Conv2d, AvgPool2d, SumPool2d, Flatten, Linear, Affine, LIF and IF nodes.
        time_step: dt in the unit of the graph's time constants.
        integration: how a time step follows from the equation of a LIF.
        fires: a neuron spikes `above` its threshold, which is NIR's definition, or `at` it, too; `counts`: IF neurons
            are those of `models.to_speck`, which give several spikes in a step.
        dtype: in which everything is computed.
        device: where.

    Raises:
        ExportError: a cycle, several inputs or outputs, or a node of another type.
    """

    def __init__(
        self,
        graph: nir.NIRGraph,
        *,
        time_step: float,
        integration: Integration = "euler",
        fires: Literal["above", "at", "counts"] = "above",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self._dtype, self._device, self._dt = dtype, torch.device(device), time_step
        self._exact = integration == "exponential"
        self._counts = fires == "counts"
        self._spikes = torch.ge if fires == "at" else torch.gt
        ends = {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        if any(len(names) != 1 for names in ends.values()):
            raise ExportError(f"a graph with {ends}; expected one of each")
        (self._input,), (self._output,) = ends.values()
        self._sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self._sources[target].append(source)
        try:
            self._order = tuple(graphlib.TopologicalSorter(self._sources).static_order())
        except graphlib.CycleError as error:
            raise ExportError(f"a graph with a cycle ({error.args[1]}); expected layers without feedback") from error
        for name, node in graph.nodes.items():
            self._require_bounded(name, node)
        self._last_reader = {source: name for name in self._order for source in self._sources[name]}
        self._nodes = {name: self._translate(name, node) for name, node in graph.nodes.items()}

    @staticmethod
    def _require_bounded(name: str, node: nir.NIRNode) -> None:
        """Refuse a node that gives a frame more values than any network needs, such as a padding of millions."""
        for shape in (node.output_type or {}).values():
            values = math.prod(int(side) for side in np.atleast_1d(shape))
            if values > MOST_VALUES:
                raise ExportError(f"node {name} gives {values:,} values a frame; expected {MOST_VALUES:,} at most")

    @torch.no_grad()
    def run(self, events: Tensor) -> dict[str, Tensor]:
        """Compute what every node gives at every time step, potentials 0 before the first: name -> [T,B,...].

        Args:
            events: [T,B,P,H,W] of any numeric type.
        """
        return self._run(events, keep=frozenset(self._order))

    @torch.no_grad()
    def __call__(self, events: Tensor) -> Tensor:
        """Return the logits [T,B,K] of event frames [T,B,P,H,W]."""
        return self._run(events, keep=frozenset({self._output}))[self._output]

    def _run(self, events: Tensor, *, keep: frozenset[str]) -> dict[str, Tensor]:
        """Run node by node; what is not to be kept is let go of behind its last reader."""
        values: dict[str, Tensor] = {}
        for name in self._order:
            sources = self._sources[name]
            x = sum((values[source] for source in sources[1:]), values[sources[0]]) if sources else events
            values[name] = self._nodes[name](x.to(self._device, self._dtype))
            for source in sources:
                if self._last_reader[source] == name and source not in keep:
                    del values[source]
        return values

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(values).to(self._device, self._dtype)

    def _translate(self, name: str, node: nir.NIRNode) -> Step:
        """Return the function of x [T,B,...] that a node is."""
        for kind, make in TRANSLATIONS.items():
            if type(node) is kind:
                return make(self, node)
        known = ", ".join(kind.__name__ for kind in TRANSLATIONS)
        raise ExportError(f"node {name} is a {type(node).__name__}; expected one of {known}")

    def _conv(self, node: nir.Conv2d) -> Step:
        weight, bias = self._tensor(node.weight), self._tensor(node.bias)
        stride, dilation = _ints(node.stride), _ints(node.dilation)
        padding = node.padding if isinstance(node.padding, str) else _ints(node.padding)
        groups = int(node.groups)
        return _per_frame(lambda x: F.conv2d(x, weight, bias, stride, padding, dilation, groups))

    def _pool(self, node: nir.AvgPool2d | nir.SumPool2d) -> Step:
        kernel, stride, padding = (_ints(v) for v in (node.kernel_size, node.stride, node.padding))
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return _per_frame(lambda x: F.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor))

    def _flatten(self, node: nir.Flatten) -> Step:
        start, end = (int(dim) + 2 if dim >= 0 else int(dim) for dim in (node.start_dim, node.end_dim))
        return lambda x: x.flatten(start, end)  # NIR counts neither T nor B

    def _linear(self, node: nir.Linear | nir.Affine) -> Step:
        weight = self._tensor(node.weight)
        bias = self._tensor(node.bias) if isinstance(node, nir.Affine) else None
        return lambda x: F.linear(x, weight, bias)

    def _lif(self, node: nir.LIF) -> Step:
        """Integrate tau dv/dt = (v_leak - v) + r x: v moves by dt / tau of the right side, or by 1 - exp(-dt / tau)."""
        share, r, leak = self._dt / self._tensor(node.tau), self._tensor(node.r), self._tensor(node.v_leak)
        share = -torch.expm1(-share) if self._exact else share
        return self._fire(lambda v, x: v + ((leak - v) + r * x) * share, node)

    def _if(self, node: nir.IF) -> Step:
        """Integrate dv/dt = r x."""
        r = self._tensor(node.r) * self._dt
        if self._counts:
            return self._count(r, self._tensor(node.v_threshold))
        return self._fire(lambda v, x: v + r * x, node)

    @staticmethod
    def _count(r: Tensor, threshold: Tensor) -> Step:
        """Spike as often as the threshold fits in v, which loses it each time and never falls below minus that.

        Source: sinabs 3.1.3, what `from_nir` makes of IF: IAF with MultiSpike, MembraneSubtract and min_v_mem.
        """

        def step(x: Tensor) -> Tensor:
            v, spikes = torch.zeros_like(x[0]), []
            for t in range(len(x)):
                v = v + r * x[t]
                fired = torch.div(v.clamp_min(0), threshold, rounding_mode="trunc")
                v = torch.maximum(v - fired * threshold, -threshold)
                spikes.append(fired)
            return torch.stack(spikes)  # [T,B,...]

        return step

    def _fire(self, charge: Callable[[Tensor, Tensor], Tensor], node: nir.LIF | nir.IF) -> Step:
        threshold, start, spikes_at = self._tensor(node.v_threshold), self._tensor(node.v_reset), self._spikes

        def step(x: Tensor) -> Tensor:
            v, spikes = torch.zeros_like(x[0]), []
            for t in range(len(x)):
                v = charge(v, x[t])
                fired = spikes_at(v, threshold)
                v = torch.where(fired, start, v)
                spikes.append(fired.to(x.dtype))
            return torch.stack(spikes)  # [T,B,...]

        return step


TRANSLATIONS: Mapping[type, Callable[[NIRProgram, nir.NIRNode], Step]] = {
    nir.Input: lambda _, __: lambda x: x,
    nir.Output: lambda _, __: lambda x: x,
    nir.Conv2d: NIRProgram._conv,
    nir.AvgPool2d: NIRProgram._pool,
    nir.SumPool2d: NIRProgram._pool,
    nir.Flatten: NIRProgram._flatten,
    nir.Linear: NIRProgram._linear,
    nir.Affine: NIRProgram._linear,
    nir.LIF: NIRProgram._lif,
    nir.IF: NIRProgram._if,
}


def _per_frame(layer: Step) -> Step:
    """Apply to [T,B,C,H,W] what knows [N,C,H,W]."""
    return lambda x: layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _ints(values: object) -> tuple[int, int]:
    """Read a number of NIR for height and width; a single one serves both."""
    numbers = [int(v) for v in torch.as_tensor(values).reshape(-1)]
    assert math.prod(torch.as_tensor(values).shape) in (1, 2)
    return numbers[0], numbers[-1]
