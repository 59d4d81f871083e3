"""The training side of this machine: torch, GPUs, threads, backends of the neurons, runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spikebridge.models.backends import BACKENDS, choose
from spikebridge.models.neurons import FiringRule
from spikebridge.models.surrogates import get_surrogate
from spikebridge.train.errors import TrainError
from spikebridge.train.networks.precision import cpu_computes
from spikebridge.train.runs.folder import RunFolder, read_result

UNTRIED = "; its kernels are tested in Triton's interpreter, never yet on a GPU: --backend torch does without"


def examine(runs: Path) -> dict[str, Any]:
    """Return all sections, as plain JSON; the folder of the runs need not exist."""
    built = "with CUDA " + str(torch.version.cuda) if torch.version.cuda else "without CUDA"
    count = torch.get_num_threads()
    threads = f"{count} thread{'' if count == 1 else 's'}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "torch": f"{torch.__version__}, built {built}, {threads}",
        "gpus": gpus(),
        "fast_paths": fast_paths(),
        "runs": run_folders(runs),
    }


def gpus() -> list[str]:
    """Return name and memory of every CUDA device that torch can use."""
    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{device.name}, {device.total_memory / 2**30:,.1f} GiB" for device in devices]


def fast_paths() -> list[dict[str, Any]]:
    """List what makes training fast: name, whether it is active on this machine, and why not or how."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.zeros(1, 1, 1, 1, 1, 1, device=device)
    rule = FiringRule(get_surrogate("QGateGrad"))
    selected = choose(x, rule)
    paths: list[tuple[str, bool, str]] = []
    for name, obstacle in BACKENDS.items():
        why = obstacle(x, rule)
        if name == selected:
            why = f"what train takes on {device}" + UNTRIED * (name == "triton")
        elif not why:
            why = "can run, is slower" if name == "torch" else "can run, where asked for with --backend"
        paths.append((f"neurons on {name}", name == selected, why))
    cuda, onednn = device == "cuda", torch.backends.mkldnn.is_available()
    able = [name for name in ("bf16", "fp16") if cpu_computes(name)]
    instructions = f"instructions for {' and '.join(able)}" if able else "no instructions for it: slow"
    precision = "where the recipe says so (precision)" if cuda else f"this CPU has {instructions}"
    resident = "on CUDA, for sets up to a quarter of its memory" if cuda else "for CUDA; here in memory"
    graph = "one process, whole batches, methods that allow it" if cuda else "needs CUDA"
    paths += [
        ("frames and batches on the device", cuda, resident),
        ("the step as one CUDA graph", cuda, graph),
        ("training in 16 bits", cuda or bool(able), precision),
        ("channels-last frames", True, "in convolutions and fused neurons"),
        ("convolutions by oneDNN", onednn, "CPU" if onednn else "torch was built without it"),
    ]
    return [{"path": path, "active": active, "why": why} for path, active, why in paths]


def run_folders(runs: Path) -> list[dict[str, Any]]:
    """Return name and state of every run in a folder: finished with its accuracy, diverged or unfinished."""
    rows = []
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        run = RunFolder(folder)
        if not run.config.exists():
            continue  # a comparison, or something else
        try:
            accuracy = read_result(folder).get("test_accuracy")
            state = "finished" if accuracy is None else f"test {accuracy:.1%}"
        except TrainError:
            state = "diverged" if run.diverged.exists() else "unfinished"
        rows.append({"name": folder.name, "state": state})
    return rows
