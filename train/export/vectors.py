"""Test vectors beside a graph of NIR: frames, and what every neuron and the output give for them at each time step.

Whoever runs the graph elsewhere, on a chip or in another library, sees at which node and step its answer parts from
the definitions, by which `models.run_nir` computes these in float64. The frames are drawn: a run folder has no others.

Axes: n samples, T time, B batch, P polarity, H, W, N values of a node.
"""

from __future__ import annotations

import io

import nir
import numpy as np
import torch

from spikebridge.models.run_nir import NIRProgram

SAMPLES = 2
RATE = 0.5
"""Mean of the Poisson counts of which frames are drawn."""


def encode_vectors(graph: nir.NIRGraph, *, time_steps: int) -> bytes:
    """Return a file of NIR data (HDF5) for a graph: observable `input` of the input, `spikes` of neurons, `output`.

    Each is [n,T,N], N in C order of (P,H,W), (C,H,W) or (F,): counts and logits as float64, spikes as booleans, or as
    int32 where neurons may give several in a step. The frames are the same for graphs of one shape, whatever their
    weights. The graph's metadata say how it is read.
    """
    (shape,) = (tuple(int(side) for side in graph.nodes[name].input_type["input"]) for name in graph.inputs)
    rates = torch.full((time_steps, SAMPLES, *shape), RATE, dtype=torch.float64)
    frames = torch.poisson(rates, generator=torch.Generator().manual_seed(0))  # [T,B,P,H,W]
    read = graph.metadata
    program = NIRProgram(
        graph, time_step=read["dt"], integration=read["integration"], fires=read["fires"], dtype=torch.float64
    )
    values = program.run(frames)
    ends = {**dict.fromkeys(graph.inputs, "input"), **dict.fromkeys(graph.outputs, "output")}
    nodes = {}
    for name, node in graph.nodes.items():
        observable = ends.get(name, "spikes" if isinstance(node, nir.LIF | nir.IF) else "")
        if observable:
            data = values[name].transpose(0, 1).flatten(2).numpy()  # [n,T,N]
            data = data.astype(np.int32 if read["fires"] == "counts" else bool) if observable == "spikes" else data
            gridded = nir.TimeGriddedData(np.ascontiguousarray(data), read["dt"])
            nodes[name] = nir.NIRNodeData({observable: gridded})
    file = io.BytesIO()
    nir.write_data(file, nir.NIRGraphData(nodes))
    return file.getvalue()
