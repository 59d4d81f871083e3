"""Run a file of `export --target speck` in sinabs, nothing changed, and print how far it agrees with us.

    python tests/bench/sinabs_speck.py FILE.nir --shards SHARDS --sinabs sinabs-env/bin/python

sinabs is no dependency: it wants nir 1.0.4, ours is newer. Give it an environment to throw away:

    python3 -m venv sinabs-env
    sinabs-env/bin/pip install torch==2.14.1 sinabs==3.1.3 nir==1.0.4 nirtorch==2.0.2 samna==0.48.6

Its backend for the chip imports samna, whose package on PyPI fetches the library from another index at import.
Where that is out of reach a stand-in takes its place: sinabs's own rounding and its choice of cores need nothing of it.
Axes: T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an empty module for every import of samna."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Return a specification for samna and its parts."""
        ours = fullname.partition(".")[0] in ("samna", "samnagui")
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Make a module that has every name."""
        module = MagicMock()
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing."""


def in_sinabs(file: Path, frames: Path) -> dict[str, Any]:
    """Run in the other environment: spikes of the classes, and what sinabs makes of the layers for the chip."""
    import importlib.metadata as installed

    import nir
    from sinabs.layers import IAFSqueeze
    from sinabs.nir import from_nir

    events = torch.from_numpy(np.load(frames)).float()  # [B,T,P,H,W]
    B, T = events.shape[:2]
    with torch.no_grad():
        spikes, _ = from_nir(nir.read(file), num_timesteps=T)(events.flatten(0, 1))  # [B*T,K]
    np.save(frames, spikes.unflatten(0, (B, T)).numpy())

    sys.meta_path.insert(0, StandIn())
    from sinabs.backend.dynapcnn import DynapcnnNetwork
    from sinabs.backend.dynapcnn.chips.speck2f import Speck2FConfigBuilder

    net = from_nir(nir.read(file), batch_size=1)
    for layer in net.modules():
        if isinstance(layer, IAFSqueeze):  # the backend takes one threshold for all neurons of a layer
            threshold = layer.spike_threshold.flatten()[0].float()
            layer.spike_threshold = torch.nn.Parameter(threshold, requires_grad=False)
            layer.min_v_mem = torch.nn.Parameter(-threshold, requires_grad=False)
    layers = DynapcnnNetwork(net, input_shape=tuple(events.shape[2:]), batch_size=1).dynapcnn_layers
    return {
        "versions": {name: installed.version(name) for name in ("sinabs", "nir", "nirtorch", "torch")},
        "layers": [
            {
                "weights": layer.conv.weight.double().flatten().tolist(),
                "threshold": float(layer.spk.spike_threshold),
                "memory": [int(layer.memory_summary()[kind]) for kind in ("kernel", "neuron")],
            }
            for layer in layers.values()
        ],
        "cores": list(Speck2FConfigBuilder.map_layers_to_cores(layers).values()),
    }


def main() -> None:
    """Compare a file on the test recordings of its shard set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--sinabs", help="a Python with sinabs")
    parser.add_argument("--frames", type=Path, help="[B,T,P,H,W]; run in sinabs, and put the spikes in their place")
    chosen = parser.parse_args()
    if chosen.frames is not None:
        print(json.dumps(in_sinabs(chosen.file, chosen.frames)))
        return

    sys.path.insert(0, str(ROOT / "src"))
    import nir

    from spikebridge.models.run_nir import NIRProgram, read_graph
    from spikebridge.pipeline.shards.reader import ShardSet

    split, graph = ShardSet(chosen.shards).split("test"), read_graph(chosen.file)
    events = split.read(np.arange(len(split)))
    ours = NIRProgram(graph, time_step=float(graph.metadata["dt"]), fires="counts")(
        torch.from_numpy(events).transpose(0, 1)
    )
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.npy"
        np.save(frames, events)
        command = [chosen.sinabs, "-W", "ignore", __file__, str(chosen.file), "--frames", str(frames)]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # its packages, not ours
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
        said = json.loads(done.stdout.splitlines()[-1])
        theirs = torch.from_numpy(np.load(frames)).transpose(0, 1)  # [T,B,K]
    print(", ".join(f"{name} {version}" for name, version in said["versions"].items()))
    T, B, _ = ours.shape
    same = (ours == theirs).all(2)  # [T,B]
    agreed = (ours.sum(0).argmax(1) == theirs.sum(0).argmax(1)).sum()
    decisions = [spikes.sum(0).argmax(1).numpy() for spikes in (ours, theirs)]
    print(f"equal steps {int(same.sum()):,} of {T * B:,}; equal decisions {int(agreed)} of {B}")
    print("accuracy " + ", ".join(f"{np.mean(decision == split.labels):.4f}" for decision in decisions))
    for name, node in graph.nodes.items():
        if isinstance(node, nir.Conv2d | nir.Affine):
            threshold = next(graph.nodes[to].v_threshold.flat[0] for source, to in graph.edges if source == name)
            same_layer = [
                layer["memory"]
                for layer in said["layers"]
                if layer["threshold"] == threshold and np.array_equal(np.ravel(node.weight), layer["weights"])
            ]
            print(f"{name}: weights and threshold as in the file in memory {same_layer or 'of no layer there'}")
    print("cores", said["cores"])


if __name__ == "__main__":
    main()
