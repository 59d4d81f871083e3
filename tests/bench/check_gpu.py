"""Whether training works on this machine's GPU: one verdict a line, and an exit code.

Command:   make check-gpu GPU_PYTHON=python          (python tests/bench/check_gpu.py [--json FILE]; under 8 minutes)
Needs:     torch with CUDA (which brings Triton), numpy, h5py, click, tqdm, safetensors; for one item pytest and
           hypothesis, and for a part of it numba and Pillow

Every item runs in a process of its own, because an error of CUDA stays in the process that met it. An item that cannot
run here, or does not fit into the card's memory, is SKIPPED and says why; one that fails does not keep the others from
running. Exit code 0: nothing failed.
--device cpu --small runs what of it a CPU can, on tiny sizes; no verdict about a GPU comes of that.

Axes: T time, B batch, S streams, C channels, H, W.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "support"), str(ROOT / "src")]

SKIPPED = 3
"""Exit code of an item that cannot run here."""
STEPS = 20


def skip(why: str) -> int:
    """Say why an item cannot run here."""
    print(why)
    return SKIPPED


def not_installed(*names: str) -> str:
    """Those of some packages that are not installed, in words; empty where all are."""
    return " and ".join(name for name in names if importlib.util.find_spec(name) is None)


def item(name: str, given: argparse.Namespace) -> int:
    """Run an item in this process, and return its exit code."""
    try:
        return ITEMS[name][0](given)
    except Exception as error:
        from bench_gpu import BARRED, torch

        from spikebridge.train.trainer.memory import is_out_of_memory

        large = torch.cuda.is_available() and BARRED in torch.cuda.get_device_name()
        if large or not is_out_of_memory(error):
            raise
        return skip("does not fit into the memory of this card")


def probe(given: argparse.Namespace) -> int:
    """What doctor finds, and one launch of Triton in every type that the card computes in."""
    import torch

    from spikebridge.models.neurons import make_neuron
    from spikebridge.train.doctor import fast_paths, gpus
    from spikebridge.train.networks.build import choose_device
    from spikebridge.train.networks.precision import resolve_precision

    for line in (*gpus(), *(f"{path['path']}: {path['why']}" for path in fast_paths() if path["active"])):
        print(line)
    device = choose_device(given.device)
    precision = resolve_precision("auto", device)
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, precision auto is {precision}")
    if device.type != "cuda":
        return 0
    from spikebridge.models.fire_triton import try_triton
    from spikebridge.train.networks.precision import TYPES

    for name in dict.fromkeys(("fp32", precision)):
        node = make_neuron("LIF", surrogate="QGateGrad", reset="hard")
        try_triton(node, device=device, dtype=TYPES[name] or torch.float32)
    print("Triton compiles and launches")
    return 0


def golden_figures(given: argparse.Namespace, backend: str) -> int:
    """The published figures in float64, to 1e-9."""
    import golden
    import torch
    from bench_gpu import GOLDEN_CASES, runnable

    device = torch.device(given.device)
    if backend not in runnable(device, torch.float64):
        return skip(f"{backend} does not run on {device}")
    for name in GOLDEN_CASES[-1:] if given.small else GOLDEN_CASES:
        golden.check(name, backend, device=device.type)
        print(f"{name}: equal to 1e-9")
    return 0


def kernel_tests(given: argparse.Namespace) -> int:
    """The tests of the Triton kernels, on the GPU; those of stored events are beside numba's loops."""
    if given.device != "cuda":
        return skip("needs a CUDA device")
    if absent := not_installed("pytest", "hypothesis", "triton"):
        return skip(f"{absent} not installed")
    numba_absent = not_installed("numba", "PIL")
    environment = {**os.environ, "SPIKEBRIDGE_TEST_DEVICE": "cuda"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long"]
    files = ["tests/models/test_triton.py", "tests/train/data/test_simulation_triton.py"]
    files += [] if numba_absent else ["tests/train/data/test_binning_triton.py"]
    code = subprocess.run([*command, *files], cwd=ROOT, env=environment, check=False).returncode
    if numba_absent and code == 0:
        print(f"all but those of stored events: {numba_absent} not installed")
    return code


def replays(given: argparse.Namespace) -> int:
    """Twenty recorded steps leave the weights that twenty eager ones leave, in fp32 without choices of algorithm."""
    import torch
    from bench_gpu import CASES, SMALL_CASES, our_step
    from made_shards import write_shards

    from spikebridge.train.data.batches import TrainingBatches
    from spikebridge.train.trainer.cuda_graph import CudaGraphStep, DeviceStep

    device = torch.device(given.device)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    for case in SMALL_CASES[2:] if given.small else (replace(CASES[0], B=16, width=0.5), CASES[2]):
        with tempfile.TemporaryDirectory() as folder:
            shards = write_shards(
                Path(folder) / "set", recordings=3 * case.B + 1, classes=min(case.K, 3), images=9, size=case.size,
                time_bins=case.T,
            )  # fmt: skip
            left = []
            for kind in (DeviceStep, CudaGraphStep if device.type == "cuda" else DeviceStep):
                step = our_step(case, shards, TrainingBatches, precision="fp32", device=device, kind=kind)
                for number in range(STEPS):
                    step(number)
                left.append({name: value.cpu() for name, value in step.network.state_dict().items()})
        for name, value in left[0].items():
            torch.testing.assert_close(left[1][name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        print(f"{case.what}: {STEPS} replays equal {STEPS} eager steps to 1e-5")
    return 0


def layers(given: argparse.Namespace) -> int:
    """Each layer's neurons on the same 16-bit input, stored in 16 bits and in 32: the same spikes, close gradients."""
    import torch
    from bench_gpu import runnable

    from spikebridge.models import backends, build_model
    from spikebridge.models.layers import fire
    from spikebridge.models.vgg import POOLED
    from spikebridge.train.networks.precision import TYPES, resolve_precision

    device = torch.device(given.device)
    chosen = resolve_precision("auto", device) if device.type == "cuda" else "bf16"
    narrow = TYPES[chosen]
    if narrow is None:
        return skip("this card computes in fp32 alone")
    T, B, size, width = (2, 4, 16, 0.1) if given.small else (10, 16, 48, 0.5)
    net = build_model("vgg_snn", num_classes=5, time_steps=T, input_size=size, width=width).to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((B, 2, T, 2, size, size), 0.5), generator).to(device)  # [B,S,T,C,H,W]
    for backend in runnable(device, narrow):
        now = x
        for index, layer in net.feature.items():
            with torch.no_grad(), torch.autocast(device.type, dtype=narrow):
                current = layer.conv(now.flatten(0, 2).contiguous(memory_format=torch.channels_last))
            current = current.unflatten(0, now.shape[:3])
            found = []
            for kind in (narrow, torch.float32):
                given_input = current.detach().to(kind).requires_grad_()
                with backends.use(backend):
                    spikes, _ = fire(given_input, layer.node, layer.bn, streams=(0, 1), pool=int(index) in POOLED)
                mix = torch.linspace(-1, 2, spikes.numel(), device=device).view(spikes.shape)
                (spikes.float() * mix).sum().backward()
                found.append((spikes.detach().float(), given_input.grad.float()))
            flipped = (found[0][0] != found[1][0]).float().mean().item()
            size_of = found[1][1].abs().max()
            far = ((found[0][1] - found[1][1]).abs().max() / size_of).item()
            # a mean that is summed in another order may move a potential across the threshold, once in a million
            assert flipped <= 1e-5, f"{backend}, layer {index}: {flipped:.2e} of the spikes differ"
            assert flipped or far <= 4 * torch.finfo(narrow).eps, f"{backend}, layer {index}: gradients {far:.2e} apart"
            now = found[1][0]
        print(f"{backend}: spikes in {chosen} are those in fp32 in every layer")
    return 0


def stop_and_go(given: argparse.Namespace) -> int:
    """A run from the command line with a partial batch, stopped by SIGTERM and continued, equals one that was not."""
    import torch
    from made_shards import write_shards
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        shards, runs = Path(folder) / "set", Path(folder)
        write_shards(shards, recordings=45, classes=10, images=20, size=28, time_bins=10)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "spikebridge", "train", "--shards", str(shards), "--recipe", "nmnist"]
        command += ["--device", given.device, "--checkpoint-every", "1", "--set", "events_per_class=0"]
        command += ["--set", f"epochs={4 if given.small else 20}"]

        def start(name: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*command, "--run", str(runs / name)], env=environment, stderr=subprocess.PIPE, text=True
            )

        def finish(process: subprocess.Popen[str], code: int) -> None:
            said = process.communicate()[1]
            assert process.returncode == code, f"exit code {process.returncode}, expected {code}\n{said[-2000:]}"

        finish(start("whole"), 0)
        stopped = start("parts")
        while stopped.poll() is None and not any((runs / "parts" / "checkpoint").glob("*.safetensors")):
            time.sleep(0.02)
        stopped.send_signal(signal.SIGTERM)
        finish(stopped, 128 + signal.SIGTERM)
        finish(start("parts"), 0)
        whole, parts = (load_file(runs / name / "weights" / "last.safetensors") for name in ("whole", "parts"))
        close = {"rtol": 0.0, "atol": 0.0} if given.device == "cpu" else {"rtol": 1e-3, "atol": 1e-4}
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, **close, msg=lambda m, n=name: f"{n}: {m}")
    print("stopped at SIGTERM, continued, and ended as the run that was not stopped")
    return 0


def bench(given: argparse.Namespace) -> int:
    """make bench-gpu; its rows are written as they come."""
    command = [sys.executable, HERE / "bench_gpu.py", "--device", given.device]
    command += ["--small", "--rounds", "1"] if given.small else ["--rounds", "3"]
    command += ["--json", given.json] if given.json else []
    return subprocess.run(command, check=False).returncode


ITEMS: dict[str, tuple[Callable[[argparse.Namespace], int], int]] = {
    "probe": (probe, 60),
    "golden triton": (lambda given: golden_figures(given, "triton"), 120),
    "golden torch": (lambda given: golden_figures(given, "torch"), 60),
    "kernel tests": (kernel_tests, 150),
    "replays": (replays, 120),
    "layers": (layers, 90),
    "stop and go": (stop_and_go, 120),
    "bench": (bench, 420),
}
"""By name: what to do, and seconds after which it is given up on a GPU."""
PATIENCE = 10
"""Factor on those seconds where speed says nothing (--small)."""


def verdict(name: str, given: argparse.Namespace) -> tuple[str, str]:
    """PASSED, FAILED or SKIPPED, and the last line that the item said."""
    command = [sys.executable, __file__, "--item", name, "--device", given.device]
    command += ["--small"] if given.small else []
    command += ["--json", str(given.json)] if given.json else []
    seconds = ITEMS[name][1] * (PATIENCE if given.small else 1)
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started goes along
        said = process.communicate()[0] + f"\ngiven up after {seconds} seconds"
    word = {0: "PASSED", SKIPPED: "SKIPPED"}.get(process.returncode, "FAILED")
    if word == "FAILED":
        print(said, file=sys.stderr)
    lines = [line for line in said.splitlines() if line.strip()]
    return word, lines[-1] if lines else ""


def main() -> int:
    """Run every item, print a verdict for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only with --small")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows of the benchmark")
    parser.add_argument("--item", choices=tuple(ITEMS), action="append", help="this one alone, in this process")
    given = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print("check-gpu needs a Python whose torch has CUDA: make check-gpu GPU_PYTHON=...", file=sys.stderr)
        return 1
    if given.item and len(given.item) == 1:
        return item(given.item[0], given)
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("check-gpu needs a CUDA device that torch can use, and this machine has none.", file=sys.stderr)
        return 1
    began, failed = time.monotonic(), []
    for name in given.item or ITEMS:
        word, line = verdict(name, given)
        print(f"{word:8}{name:15}{line}", flush=True)
        failed += [name] * (word == "FAILED")
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'nothing failed'}, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
