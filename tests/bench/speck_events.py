"""Run a file of `export --target speck` event by event, as a chip without time steps does, and print what that changes.

    python tests/bench/speck_events.py FILE.nir --shards SHARDS

Every event adds its weights to the neurons that it reaches; a neuron at its threshold spikes at once, its spike goes on
before the next event. Events of a time bin come in an order that is drawn (seed 0): the shards keep none. That is a
model of the chip, written here and not asked of one. Axes: P polarity, C channels, H, W, K classes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import nir
import numba
import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.models.run_nir import NIRProgram, read_graph  # noqa: E402
from spikebridge.pipeline.shards.reader import ShardSet  # noqa: E402


@dataclass
class Layer:
    """A core: int64 weights [C',C,H,W], the threshold, potentials [C',H,W], and the side of the pool behind it."""

    weight: NDArray[np.int64]
    threshold: int
    potential: NDArray[np.int64]
    pool: int


@numba.njit
def feed(
    weight: NDArray[np.int64], threshold: int, potential: NDArray[np.int64], event: tuple[int, int, int], pool: int
) -> list[tuple[int, int, int]]:
    """Add what an event (c, y, x) weighs, and return the spikes that it makes, pooled."""
    spikes = [(0, 0, 0) for _ in range(0)]
    channel, y, x = event
    features, height, width = potential.shape
    for f in range(features):
        for row in range(max(0, y - weight.shape[2] + 1), min(height, y + 1)):
            for column in range(max(0, x - weight.shape[3] + 1), min(width, x + 1)):
                v = potential[f, row, column] + weight[f, channel, y - row, x - column]
                while v >= threshold:
                    v -= threshold
                    if row // pool < height // pool and column // pool < width // pool:
                        spikes.append((f, row // pool, column // pool))
                potential[f, row, column] = max(v, -threshold)
    return spikes


def layers_of(graph: nir.NIRGraph) -> list[Layer]:
    """Return the layers of a chain, its convolutions unpadded and with a stride of 1, as those of speck_snn are."""
    after = dict(graph.edges)
    name, layers = after["input"], []
    shape = tuple(int(side) for side in graph.nodes["input"].input_type["input"])
    while name != "output":
        node = graph.nodes[name]
        if isinstance(node, nir.Conv2d | nir.Affine):
            weight = np.ascontiguousarray(node.weight, np.int64)
            weight = weight if weight.ndim == 4 else weight.reshape(-1, *shape)
            map_ = (len(weight), *(side - k + 1 for side, k in zip(shape[1:], weight.shape[2:], strict=True)))
            threshold = int(graph.nodes[after[name]].v_threshold.flat[0])
            layers.append(Layer(weight, threshold, np.zeros(map_, np.int64), 1))
            shape = map_
        elif isinstance(node, nir.SumPool2d):
            layers[-1].pool = int(node.kernel_size[0])
            shape = (shape[0], *(side // layers[-1].pool for side in shape[1:]))
        name = after[name]
    return layers


def count(layers: list[Layer], event: tuple[int, int, int], counts: NDArray[np.int64]) -> None:
    """Send an event through the layers, depth first, and count the spikes of the last."""
    if not layers:
        counts[event[0]] += 1
        return
    first = layers[0]
    for spike in feed(first.weight, first.threshold, first.potential, event, first.pool):
        count(layers[1:], spike, counts)


def main() -> None:
    """Compare events with time steps on the test recordings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--shards", type=Path, required=True)
    chosen = parser.parse_args()
    graph, split = read_graph(chosen.file), ShardSet(chosen.shards).split("test")
    frames, draws = split.read(np.arange(len(split))), np.random.default_rng(0)
    program = NIRProgram(graph, time_step=float(graph.metadata["dt"]), fires="counts")
    stepped = program(torch.from_numpy(frames).transpose(0, 1)).sum(0).argmax(1).numpy()
    layers, decisions = layers_of(graph), []
    for recording in frames:
        for layer in layers:
            layer.potential[...] = 0
        counts = np.zeros(len(layers[-1].weight), np.int64)
        for step in recording:
            places = np.argwhere(step)  # [n,3]
            events = np.repeat(places, step[tuple(places.T)], axis=0)
            for channel, y, x in draws.permutation(events).tolist():
                count(layers, (channel, y, x), counts)
        decisions.append(int(counts.argmax()))
    same = np.mean(np.array(decisions) == stepped)
    print(f"accuracy in time steps {np.mean(stepped == split.labels):.4f}, event by event ", end="")
    print(
        f"{np.mean(np.array(decisions) == split.labels):.4f}; equal decisions {same:.4f} of {len(stepped)} recordings"
    )


if __name__ == "__main__":
    main()
