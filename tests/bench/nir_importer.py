"""Run exported NIR files in stock importers, snnTorch and SpikingJelly, and print how well they agree with us.

    python tests/bench/nir_importer.py                             # small networks with random weights
    python tests/bench/nir_importer.py FILE.nir --shards SHARDS    # an exported run, on its test recordings

The importers are no dependencies, because they bring their own torch. Give them an environment to throw away:

    python3 -m venv nir-env
    nir-env/bin/pip install torch==2.13.0 nir==1.0.8 nirtorch==2.6 h5py loguru tqdm
    nir-env/bin/pip install --no-deps snntorch==1.0.0 spikingjelly==2.0.0
    nir-env/bin/python tests/bench/nir_importer.py

"Equal steps" are (sample, time step) pairs whose logits differ by less than 1e-4: in float32 a spike within 1e-7 of the
threshold may flip, and then everything behind it differs. Axes: T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]

import nir  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lively import frames, lively  # noqa: E402
from torch import Tensor  # noqa: E402

from spikebridge.models.run_nir import NIRProgram, read_graph  # noqa: E402
from spikebridge.models.to_nir import EVENT_PATHS, TIME_STEP, to_nir  # noqa: E402

EQUAL = 1e-4


def snntorch_logits(path: Path, events: Tensor) -> Tensor:
    """[T,B,K]; one sample after the other, because its Flatten takes the batch for data."""
    from snntorch import Leaky
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):  # it prints every time constant
        net = import_from_nir(nir.read(path))
    samples = []
    for sample in events.unbind(1):
        for module in net.modules():
            if isinstance(module, Leaky):
                module.reset_mem()
        state, steps = None, []
        for frame in sample:
            logits, state = net(frame) if state is None else net(frame, state)
            steps.append(logits)
        samples.append(torch.stack(steps))
    return torch.stack(samples, dim=1)


def spikingjelly_logits(path: Path, events: Tensor) -> Tensor:
    """[T,B,K]."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    net = import_from_nir(nir.read(path), dt=TIME_STEP)
    state, steps = None, []
    for frame in events:
        logits, state = net(frame, state)
        steps.append(logits)
    return torch.stack(steps)


IMPORTERS: dict[str, Callable[[Path, Tensor], Tensor]] = {
    "snnTorch": snntorch_logits,
    "SpikingJelly": spikingjelly_logits,
}


@torch.no_grad()
def compare(name: str, path: Path, events: Tensor, labels: np.ndarray | None = None) -> None:
    """Print a line for each importer."""
    graph = read_graph(path)
    ours = NIRProgram(graph, time_step=float(graph.metadata["dt"]))(events)
    for importer, run in IMPORTERS.items():
        try:
            theirs = run(path, events)
        except Exception as error:
            print(f"{name:17} {importer:12} failed: {type(error).__name__}: {error}")
            continue
        apart = (theirs - ours).abs().amax(2)  # [T,B]
        same = int((theirs.mean(0).argmax(1) == ours.mean(0).argmax(1)).sum())
        line = f"{name:17} {importer:12} equal steps {int((apart < EQUAL).sum()):5} of {apart.numel():5}"
        line += f"   largest difference {float(apart.max()):.1e}   same decision {same:4} of {events.shape[1]:4}"
        if labels is not None:
            line += f"   accuracy {np.mean(theirs.mean(0).argmax(1).numpy() == labels):.4f}"
            line += f", ours {np.mean(ours.mean(0).argmax(1).numpy() == labels):.4f}"
        print(line)


def main() -> None:
    """Compare a file on recordings, or every network on random counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    if chosen.file is not None:
        from spikebridge.pipeline.shards.reader import ShardSet

        split = ShardSet(chosen.shards).split("test")
        rows = np.arange(min(chosen.samples, len(split)))
        events = torch.from_numpy(split.read(rows).astype(np.float32)).transpose(0, 1)
        compare(chosen.file.name, chosen.file, events, split.labels[rows])
        return
    with tempfile.TemporaryDirectory() as folder:
        for neuron in ("LIF", "PLIF", "IF"):
            for name in EVENT_PATHS:
                net = lively(name, neuron=neuron)
                graph, _ = to_nir(net)
                graph.metadata = {"description": json.dumps(net.config), "dt": TIME_STEP}
                path = Path(folder) / f"{name}.nir"
                nir.write(path, graph)
                compare(f"{name} {neuron}", path, frames(net))


if __name__ == "__main__":
    main()
