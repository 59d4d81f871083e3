"""Run our NIR files in a stock importer, by every convention, and print how well it agrees with us as a table.

    python tests/bench/nir_importer.py LIBRARY                                # small networks with random weights
    python tests/bench/nir_importer.py LIBRARY --run RUN --shards SHARDS      # a run, on its test recordings

The importers are no dependencies. Give each an environment to throw away, which borrows the project's packages:

    python -m venv nir-env
    echo "$PWD"/.venv/lib/python3.11/site-packages > nir-env/lib/python3.11/site-packages/project.pth
    nir-env/bin/pip install --no-deps snntorch==1.0.0 nirtorch==2.6
    nir-env/bin/pip install --no-deps spikingjelly==2.0.0 nirtorch==2.6 loguru
    nir-env/bin/pip install --no-deps norse==1.1.0 nirtorch==2.6
    nir-env/bin/pip install --no-deps sinabs==3.1.3 nirtorch==2.6
    nir-env/bin/pip install --no-deps rockpool==3.1.0 nirtorch==2.6
    nir-env/bin/pip install --no-deps snn-mlir==1.0.0
    nir-env/bin/pip install spyx==1.0.0
    nir-env/bin/pip install jaxpike==0.1.4
    nir-env/bin/python tests/bench/nir_importer.py snntorch

"Equal steps" are (sample, time step) pairs whose logits differ by less than 1e-4: in float32 a spike within 1e-7 of the
threshold may flip, and then everything behind it differs. Axes: T time, B batch, P polarity, C, H, W, K classes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]

import nir  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from lively import frames, lively  # noqa: E402
from torch import Tensor  # noqa: E402

from spikebridge.models import ModelError, TransferNetwork  # noqa: E402
from spikebridge.models.nir_conventions import CONVENTIONS  # noqa: E402
from spikebridge.models.run_nir import NIRProgram  # noqa: E402
from spikebridge.models.to_nir import EVENT_PATHS, to_nir  # noqa: E402

EQUAL = 1e-4


def snntorch(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]; one sample after the other, because its Flatten takes the batch for data."""
    from snntorch import Leaky
    from snntorch.import_nir import import_from_nir

    net = import_from_nir(graph)  # takes no time step
    samples = []
    for sample in events.unbind(1):
        for module in net.modules():
            if isinstance(module, Leaky):
                module.reset_mem()
        samples.append(_stepped(net, sample))
    return torch.stack(samples, dim=1)


def spikingjelly(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return _stepped(import_from_nir(graph, dt=dt), events)


def norse(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]; one sample after the other, because its Flatten takes the batch for data."""
    from norse.torch import from_nir

    net = from_nir(graph, dt=dt)
    return torch.stack([_stepped(net, sample) for sample in events.unbind(1)], dim=1)


def sinabs(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]."""
    from sinabs import from_nir

    T, B = events.shape[:2]
    net = from_nir(graph, batch_size=B)  # takes no time step
    logits = net(events.transpose(0, 1).flatten(0, 1))
    return (logits[0] if isinstance(logits, tuple) else logits).unflatten(0, (B, T)).transpose(0, 1)


def rockpool(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]."""
    from rockpool.nn.modules.torch.nir import from_nir

    return _stepped(from_nir(graph), events)


def snn_mlir(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]: what its front end reads, run here as its dialect defines it, because its compiler is on no registry."""
    from snn_mlir._graph import parse_graph

    x = events
    for layer in parse_graph(graph):
        kind = type(layer).__name__
        if kind == "ConvInfo":
            weight, bias = torch.tensor(layer.float_weights).float(), torch.tensor(layer.float_bias).float()
            x = _per_frame(x, F.conv2d, weight, bias, layer.stride, layer.padding)
        elif kind in ("AvgPool2dInfo", "SumPool2dInfo"):
            divisor = 1 if kind == "SumPool2dInfo" else None
            x = _per_frame(x, F.avg_pool2d, layer.kernel, layer.stride, layer.padding, divisor_override=divisor)
        elif kind == "FlattenInfo":
            x = x.flatten(2)
        elif kind == "LinearInfo":
            bias = layer.float_bias
            weight = torch.tensor(layer.float_weights).float()
            x = F.linear(x, weight, None if bias is None else torch.tensor(bias).float())
        else:
            assert kind == "LIFInfo", kind
            v, steps = torch.zeros_like(x[0]), []
            for step in x:
                v = layer.decay * v + step
                fired = v > layer.threshold
                v = v.masked_fill(fired, layer.v_reset)
                steps.append(fired.float())
            x = torch.stack(steps)
    return x


def spyx(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]; it wants channels last."""
    from spyx.nir import from_nir

    _, logits = from_nir(graph, events.permute(0, 1, 3, 4, 2).numpy(), dt=dt)
    return torch.from_numpy(np.array(logits))


def jaxpike(graph: nir.NIRGraph, events: Tensor, dt: float) -> Tensor:
    """[T,B,K]; it wants channels last."""
    from jaxpike import unroll
    from jaxpike.nir import from_nir

    logits, _ = unroll(from_nir(graph, dt_seconds=dt), events.permute(0, 1, 3, 4, 2).numpy())
    return torch.from_numpy(np.array(logits))


def _stepped(net: Callable[..., tuple[Tensor, object]], events: Tensor) -> Tensor:
    """Run a network of nirtorch step by step, its state handed on."""
    state, steps = None, []
    for frame in events:
        logits, state = net(frame) if state is None else net(frame, state)
        steps.append(logits)
    return torch.stack(steps)


def _per_frame(x: Tensor, function: Callable[..., Tensor], *args: object, **options: object) -> Tensor:
    return function(x.flatten(0, 1), *args, **options).unflatten(0, x.shape[:2])


IMPORTERS: dict[str, Callable[[nir.NIRGraph, Tensor, float], Tensor]] = {
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "norse": norse,
    "sinabs": sinabs,
    "rockpool": rockpool,
    "snn-mlir": snn_mlir,
    "spyx": spyx,
    "jaxpike": jaxpike,
}
"""By the name on PyPI. Lava is not among them: lava-dl 0.6.0 and lava-nc 0.10.0 import no NIR."""


@torch.no_grad()
def compare(library: str, network: TransferNetwork, events: Tensor, labels: np.ndarray | None = None) -> Iterator[str]:
    """Yield a row of the table for each convention, with thresholds as they are and with the next float above."""
    for convention in CONVENTIONS:
        for nudge in (False, True):
            name = f"{convention}{', nudged' if nudge else ''}"
            try:
                graph, _ = to_nir(network, convention=convention, nudge=nudge)
            except ModelError as error:
                yield f"| {name} | not written: {error} | | |"
                break
            with tempfile.TemporaryDirectory() as folder:
                nir.write(Path(folder) / "net.nir", graph)
                graph = nir.read(Path(folder) / "net.nir")
            read = graph.metadata
            ours = NIRProgram(graph, time_step=read["dt"], integration=read["integration"], fires=read["fires"])(events)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    theirs = IMPORTERS[library](graph, events, read["dt"])
                apart = (theirs - ours).abs().amax(2)  # [T,B]
            except Exception as error:
                reason = str(error).strip().partition("\n")[0][:150]
                yield f"| {name} | failed: {type(error).__name__}: {reason} | | |"
                break
            decided, expected = (logits.mean(0).argmax(1) for logits in (theirs, ours))
            same = int((decided == expected).sum())
            row = f"| {name} | {int((apart < EQUAL).sum()):,} of {apart.numel():,} | {same:,} of {len(decided):,} |"
            if labels is not None:
                row += f" {np.mean(decided.numpy() == labels):.1%}, ours {np.mean(expected.numpy() == labels):.1%}"
            yield row + " |"


def main() -> None:
    """Compare a run on recordings, or every network on random counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", choices=IMPORTERS)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--networks", nargs="+", choices=EVENT_PATHS, default=list(EVENT_PATHS))
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        version = importlib.metadata.version(chosen.library)
    except importlib.metadata.PackageNotFoundError:
        version = "which is not installed"
    print(f"{chosen.library} {version}, torch {torch.__version__}, nir {importlib.metadata.version('nir')}")
    head = "\n| convention | equal steps | equal decisions | accuracy |\n|---|---|---|---|"
    if chosen.run is not None:
        from spikebridge.pipeline.shards.reader import ShardSet
        from spikebridge.train.networks.build import load_network
        from spikebridge.train.runs.folder import RunFolder

        network, _ = load_network(RunFolder(chosen.run).best, device=torch.device("cpu"))
        split = ShardSet(chosen.shards).split("test")
        rows = np.arange(min(chosen.samples, len(split)))
        events = torch.from_numpy(split.read(rows).astype(np.float32)).transpose(0, 1)
        print(f"{head.replace('convention', chosen.run.name)}")
        print("\n".join(compare(chosen.library, network, events, split.labels[rows])), flush=True)
        return
    for neuron in ("LIF", "PLIF", "IF"):
        for name in chosen.networks:
            network = lively(name, neuron=neuron)
            print(f"{head.replace('convention', f'{name} {neuron}')}")
            print("\n".join(compare(chosen.library, network, frames(network))), flush=True)


if __name__ == "__main__":
    main()
