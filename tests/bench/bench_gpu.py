"""Training on a CUDA machine: from shards, beside the step-by-step network and beside batches that are in memory.

Command:   make bench-gpu
           (python tests/bench/bench_gpu.py [--rounds 5] [--precision bf16] [--json FILE]; under 8 minutes)
Needs:     torch with CUDA (which brings Triton), numpy, h5py, click, tqdm, safetensors; it makes its own shards
Ours:      frames and static pool on the device, the whole step one CUDA graph, by Triton where it runs
Theirs:    `step_by_step.py`, the published way in eager PyTorch, in fp32 and under autocast in the same 16-bit type;
           where SpikingJelly is installed (or --spikingjelly names a Python that has it) its multi-step network on
           recordings alone, as in its own case of CIFAR10-DVS (T=10, batches of 16 and 128), for which it publishes
           429 samples/s and 15.8 GB on an RTX 4090 by Triton

First the golden figures in float64 on the device by every backend; one that fails is named, left out of what follows,
and makes the exit code 1. Before each comparison both sides of it in float64. Every row is written as soon as it is
measured; one that fails is named in the report, and makes the exit code 1; so does a missed bar on the card that they
are for. A reference that does not fit into memory gets half the batch, and so on, and the row says so. Where ours does
not fit, the report says so, and that fails nothing but on the card that the bars are for.
--device cpu --small runs all of it, unrecorded, on tiny sizes: its times mean nothing.

Axes: T time, B batch, H and W pixels, K classes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rounds import Row, arguments, compare, machine, report, save  # isort: skip  (sets the number of threads)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

if importlib.util.find_spec("torch") is None:
    sys.exit("bench-gpu needs a Python whose torch has CUDA: make bench-gpu GPU_PYTHON=...")

import golden
import torch
from made_shards import write_shards
from step_by_step import StepByStep
from torch import Tensor
from training import DOMAIN, Case, Peer, check_equal, stepper

from spikebridge.models import TransferNetwork, backends
from spikebridge.models.neurons import FiringRule
from spikebridge.models.surrogates import get_surrogate
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, make_optimizer, network_arguments
from spikebridge.train.networks.precision import TYPES, set_up_cuda
from spikebridge.train.runs.state import EpochSums
from spikebridge.train.trainer.cuda_graph import CudaGraphStep, DeviceStep
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch
from spikebridge.train.trainer.memory import is_out_of_memory
from spikebridge.train.trainer.step import TrainStep

CASES = (
    Case("VGG-SNN, T=10, B=120, 48x48", "vgg_snn", K=101, T=10, B=120, size=48, width=1.0),
    Case("ResNet-18, T=6, B=120, 48x48", "resnet18_snn", K=20, T=6, B=120, size=48, width=1.0),
    Case("SCNN, T=12, B=16, 28x28", "scnn", K=1623, T=12, B=16, size=28, width=1.0),
)
SMALL_CASES = (
    Case("VGG-SNN, T=2, B=4, 16x16", "vgg_snn", K=3, T=2, B=4, size=16, width=0.05),
    Case("ResNet-18, T=2, B=4, 16x16", "resnet18_snn", K=3, T=2, B=4, size=16, width=0.05),
    Case("SCNN, T=2, B=4, 16x16", "scnn", K=3, T=2, B=4, size=16, width=0.2),
)
ONE_STREAM = (
    Case("VGG-SNN, recordings alone, T=10, B=16, 48x48", "vgg_snn", K=10, T=10, B=16, size=48, width=1.0),
    Case("VGG-SNN, recordings alone, T=10, B=128, 48x48", "vgg_snn", K=10, T=10, B=128, size=48, width=1.0),
)
SMALL_ONE_STREAM = (Case("VGG-SNN, recordings alone, T=2, B=4, 16x16", "vgg_snn", K=3, T=2, B=4, size=16, width=0.05),)
BARS_ONE_STREAM = 1.5, 1 / 3
"""To be reached beside SpikingJelly: the ratio of speeds, and the most that ours may need of its memory."""
BARS: dict[str, tuple[float | None, float]] = {"vgg_snn": (2000, 3), "resnet18_snn": (None, 2.5), "scnn": (None, 30)}
"""To be reached on an H200: samples per second, and the ratio to the published step, which is in fp32."""
BARRED = "H200"
"""In the name of the card that the bars are for; on others they are shown, and a missed one fails nothing."""
MOST_MEGABYTES = {"vgg_snn": 8000}
GFLOP = {"vgg_snn": 163.3, "resnet18_snn": 89.8}
"""Of a training sample of `CASES`, both streams, forward and backward; the SCNN is bound by launches."""
PEAKS = {
    "H200": (790.0, "measured, dense bf16"),
    "H100": (989.0, "data sheet, dense bf16"),
    "A100": (312.0, "data sheet, dense bf16"),
    "RTX 4090": (165.2, "data sheet, dense bf16"),
    "T4": (65.0, "data sheet, fp16"),
}
"""Arithmetic peak in TFLOP/s of cards by what is in their names."""
PACKAGES = ("torch", "numpy", "h5py")
SECONDS = 1.2
"""About as long does a side take in a round."""
LAST_START = 330
"""Seconds after which no further network is begun."""
GOLDEN_CASES = ("vgg_full", "resnet18_full", "scnn_omniglot")


def runnable(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Backends that run on the device in a type, the fastest first."""
    x, rule = torch.zeros(1, 1, 1, 1, 1, 1, device=device, dtype=dtype), FiringRule(get_surrogate("QGateGrad"))
    found = [name for name, obstacle in backends.BACKENDS.items() if not obstacle(x, rule)]
    return sorted(found, key=lambda name: name == "torch")


class FirstBatch(TrainingBatches):
    """Batches that are in memory: always the first one, already made."""

    _made: Batch | None = None

    def batch_of(self, epoch: Tensor, draws: Tensor, *, number: Tensor | None = None) -> Batch:
        """The same batch at every step."""
        if self._made is None:
            self._made = super().batch_of(epoch, draws)
        return dataclasses.replace(self._made, number=number)


def our_step(
    case: Case,
    shards: ShardSet,
    data_class: type[TrainingBatches],
    *,
    precision: str,
    device: torch.device,
    kind: type[DeviceStep] | None = None,
    method: str = "kt",
) -> OurStep:
    """A whole step of a method as a run takes it; `kind` is recorded on CUDA unless given."""
    settings = TrainSettings(
        method=method, model=case.name, epochs=100, batch_size=case.B, lr=1e-3, width=case.width, precision=precision,
        augmentation="crop",
    )  # fmt: skip
    chosen = find_method(method)
    data = data_class(shards, settings, device=device, needs_static=chosen.needs_static, residence="device")
    made = chosen(settings, steps=settings.epochs * data.steps_per_epoch)
    net = make_network(network_arguments(settings, shards), seed=0).to(device).train()
    optimizer = make_optimizer(net, settings, device=device)
    update = TrainStep(net, optimizer, made, data, settings, Distributed(), device)
    kind = kind or (CudaGraphStep if device.type == "cuda" else DeviceStep)
    sums, finite = EpochSums(case.T, device), FiniteWatch(net, device)
    step = kind(update, sums, finite, batch_size=case.B, device=device)
    if isinstance(data, FirstBatch):
        data.begin_epoch(0)
        data.batch_of(torch.zeros((), dtype=torch.int64, device=device), torch.arange(case.B, device=device))
    return OurStep(net, step, full=len(data) // case.B, epochs=settings.epochs)


class OurStep:
    """Takes one step of a run after the other.

    Args:
        network: what is trained.
        step: of it.
        full: full batches of an epoch.
        epochs: after which the run begins again.
    """

    def __init__(self, network: TransferNetwork, step: DeviceStep, *, full: int, epochs: int) -> None:
        self.network, self._step, self._full, self._epochs, self._taken = network, step, full, epochs, 0

    def __call__(self, _: int) -> None:
        """Take the next step; the argument is ignored."""
        taken = self._taken
        self._step.step(taken // self._full % self._epochs, taken % self._full, taken)
        self._taken += 1


def their_step(case: Case, *, precision: str, device: torch.device) -> Callable[[int], None]:
    """The step-by-step network on a batch in memory."""
    batch = [each.to(device) for each in case.batch(case.B, torch.float32)]
    published = StepByStep(case.build()).to(device)
    kind = TYPES[precision]
    fused = {"fused": True} if device.type == "cuda" else {}

    def loss() -> Tensor:
        around = torch.autocast(device.type, dtype=kind) if kind is not None else contextlib.nullcontext()
        with around:
            return published.loss(*batch, domain_coefficient=DOMAIN)

    return stepper(loss, published.parameters(), **fused)


@contextlib.contextmanager
def peak(device: torch.device) -> Iterator[list[float]]:
    """Megabytes that were allocated at most inside the block, what was there before included."""
    found = [0.0]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        found[0] = torch.cuda.max_memory_allocated(device) / 1e6


def timed(step: Callable[[int], None], device: torch.device, repeats: int) -> Callable[[int], None]:
    """Several steps, waited for."""

    def run(number: int) -> None:
        for _ in range(repeats):
            step(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def repeats_for(step: Callable[[int], None], device: torch.device) -> int:
    """Steps that take about `SECONDS`, after a warm-up of three."""
    timed(step, device, 3)(0)
    started = time.perf_counter()
    timed(step, device, 2)(0)
    return max(1, min(2000, round(SECONDS / ((time.perf_counter() - started) / 2))))


class Bench:
    """Rows as they come: each is written at once, and one that fails is named and costs the others nothing.

    Args:
        given: the command line.
        device: where.
        facts: about the machine.
        failed: backends that are left out.
    """

    def __init__(self, given: argparse.Namespace, device: torch.device, facts: Mapping[str, str]) -> None:
        self.given, self.device, self.facts = given, device, facts
        self.failed: Collection[str] = ()
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.left_out: list[str] = []

    def attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """Do something; what it raises is shown and noted, and None returned."""
        try:
            return action()
        except Exception as error:  # whatever it is, the rest can still be measured
            if is_out_of_memory(error) and BARRED not in self.facts.get("gpu", ""):
                self.left_out.append(f"{what}: does not fit into the memory of this card")
                print(f"left out: {self.left_out[-1]}", file=sys.stderr)
                return None
            traceback.print_exc()
            self.note(f"{what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            return None

    def note(self, failure: str) -> None:
        """Keep what failed."""
        self.failures.append(failure)
        print(f"FAILED: {failure}", file=sys.stderr)

    def add(self, row: Row) -> None:
        """Keep a finished row, and write all rows so far."""
        self.rows.append(row)
        save(self.rows, self.known(), self.given)

    def known(self) -> dict[str, str]:
        """What is known of the machine, and what failed on it."""
        left_out = {"left out": "; ".join(self.left_out)} if self.left_out else {}
        return {**self.facts, "failed": "; ".join(self.failures) or "nothing", **left_out}

    def case(self, case: Case, shards: ShardSet) -> None:
        """One network: against both eager steps and against memory, and the peak memory of a step."""
        precision, device = self.given.precision, self.device
        backend = next(name for name in runnable(device, TYPES[precision] or torch.float32) if name not in self.failed)
        with backends.use(backend), backends.record() as ran:
            self.attempt(f"{case.what}: equal in float64", lambda: check_equal(few_steps(case), device=device.type))
            ours = self.attempt(f"{case.what}: our step", lambda: self._first(case, shards, precision))
            if ours is None:
                return
            if set(ran) != {backend}:
                self.note(f"{case.what}: ran on {sorted(ran)}, not on {backend}")
            step, our_peak = ours
            how = f"({backend}, {precision}{', graph' if device.type == 'cuda' else ''}, from shards)"
            many = 1 if self.given.small else repeats_for(step, device)
            for theirs in dict.fromkeys(("fp32", precision)):
                self.attempt(
                    f"{case.what}: step by step, {theirs}",
                    lambda theirs=theirs: self._against(case, theirs, step, how, many, our_peak),
                )
            self.attempt(f"{case.what}: from memory", lambda: self._against_memory(case, shards, step, how, many))

    def one_stream(self, case: Case, shards: ShardSet, python: str | None) -> None:
        """Recordings alone: beside SpikingJelly where there is a Python that has it, and against memory."""
        precision, device = self.given.precision, self.device
        backend = next(name for name in runnable(device, TYPES[precision] or torch.float32) if name not in self.failed)
        with backends.use(backend):
            first = self.attempt(
                f"{case.what}: our step", lambda: self._first(case, shards, precision, method="event_only")
            )
            if first is None:
                return
            how = f"({backend}, {precision}{', graph' if device.type == 'cuda' else ''}, from shards)"
            many = 1 if self.given.small else repeats_for(first[0], device)
            if python:
                self.attempt(f"{case.what}: SpikingJelly", lambda: self._beside(python, case, *first, how, many))
            else:
                self.attempt(
                    f"{case.what}: from memory",
                    lambda: self._against_memory(case, shards, first[0], how, many, method="event_only"),
                )

    def _beside(
        self, python: str, case: Case, ours: Callable[[int], None], our_peak: float, how: str, many: int
    ) -> None:
        precision, device = self.given.precision, self.device
        speed, memory = BARS_ONE_STREAM
        with Peer(python, case, streams=1, device=device.type, precision=precision) as peer:
            peer.steps(1)
            started = time.perf_counter()
            peer.steps(1)
            few = 1 if self.given.small else max(1, min(2000, round(SECONDS / (time.perf_counter() - started))))
            label = f"SpikingJelly ({peer.backend}, {precision})"
            row = Row(case.what, how, label, "samples", case.B * many, case.B * few, bars=(None, speed))
            compare(row, timed(ours, device, many), lambda _: peer.steps(few), rounds=self.given.rounds)
            row.peak = share_of_peak(case, statistics.median(row.speeds[0]), self.facts.get("gpu", ""), streams=1)
            self.add(row)
            if device.type == "cuda":
                quantities = our_peak, peer.megabytes
                self.add(Row(f"peak memory: {case.what}", "", label, "MB", quantities=quantities, bars=(None, memory)))

    def _first(
        self, case: Case, shards: ShardSet, precision: str, *, method: str = "kt"
    ) -> tuple[Callable[[int], None], float]:
        """Our step, taken once, and the peak memory of that."""
        with peak(self.device) as our_peak:
            step = our_step(case, shards, TrainingBatches, precision=precision, device=self.device, method=method)
            step(0)
        return step, our_peak[0]

    def _against(
        self, case: Case, theirs: str, ours: Callable[[int], None], how: str, many: int, our_peak: float
    ) -> None:
        device, small = self.device, self.given.small
        our_share = torch.cuda.memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
        B, (step, their_peak) = largest(case, lambda fitting: self._their_first(fitting, theirs))
        few = 1 if small else repeats_for(step, device)
        label = f"step by step, {theirs}" + (f", B={B}: {case.B} do not fit" if B < case.B else "")
        bars = BARS[case.name] if theirs == "fp32" else (None, None)
        row = Row(case.what, how, label, "samples", case.B * many, B * few, bars=bars)
        compare(row, timed(ours, device, many), timed(step, device, few), rounds=self.given.rounds)
        row.peak = share_of_peak(case, statistics.median(row.speeds[0]), self.facts.get("gpu", ""))
        self.add(row)
        if device.type == "cuda" and theirs == "fp32":
            quantities = our_peak, (their_peak - our_share) * case.B / B
            most = MOST_MEGABYTES.get(case.name), None
            label = "step by step" + (f", {case.B / B:g} times that of B={B}" if B < case.B else "")
            self.add(Row(f"peak memory: {case.what}", "", label, "MB", quantities=quantities, bars=most))

    def _their_first(self, case: Case, precision: str) -> tuple[Callable[[int], None], float]:
        with peak(self.device) as their_peak:
            step = their_step(case, precision=precision, device=self.device)
            step(0)
        return step, their_peak[0]

    def _against_memory(
        self, case: Case, shards: ShardSet, ours: Callable[[int], None], how: str, many: int, *, method: str = "kt"
    ) -> None:
        held = our_step(case, shards, FirstBatch, precision=self.given.precision, device=self.device, method=method)
        row = Row(case.what, how, "batches in memory", "samples", case.B * many, bars=(None, 0.95))
        compare(row, timed(ours, self.device, many), timed(held, self.device, many), rounds=self.given.rounds)
        streams = 2 if method == "kt" else 1
        row.peak = share_of_peak(case, statistics.median(row.speeds[0]), self.facts.get("gpu", ""), streams=streams)
        self.add(row)


def few_steps(case: Case) -> Case:
    """The case with two time steps: Triton compiles T=10 in float64 for minutes, and nothing else has use for it."""
    return dataclasses.replace(case, T=min(2, case.T))


Made = TypeVar("Made")


def largest(case: Case, make: Callable[[Case], Made]) -> tuple[int, Made]:
    """What `make` gives for the largest batch that fits, and that batch: all of it, or a half, a quarter ...

    Raises:
        torch.OutOfMemoryError: not even one sample fits.
    """
    B = case.B
    while True:
        try:
            return B, make(dataclasses.replace(case, B=B))
        except torch.OutOfMemoryError:
            if B == 1:
                raise
        B //= 2  # behind the except block: until then the traceback keeps the tensors alive
        print(f"{case.what}: out of memory, now with {B} samples", file=sys.stderr)


def share_of_peak(case: Case, samples_per_second: float, gpu: str, *, streams: int = 2) -> str:
    """Which part of the card's arithmetic is used, in words; empty for a card whose peak is not known here."""
    found = next(((card, peak, kind) for card, (peak, kind) in PEAKS.items() if card in gpu), None)
    if found is None or case.name not in GFLOP:
        return ""
    card, teraflops, kind = found
    reached = samples_per_second * GFLOP[case.name] * streams / 2 / 1e3
    return f"{reached / teraflops:.0%} of {teraflops:g} TFLOP/s ({card}, {kind})"


def failing(device: torch.device, cases: Sequence[str]) -> list[str]:
    """Backends that do not give the golden figures on the device; says how each did."""
    failed = []
    for backend in runnable(device, torch.float64):
        try:
            for name in cases:
                golden.check(name, backend, device=device.type)
        except Exception:  # whatever it is, the others can still be measured
            traceback.print_exc()
            failed.append(backend)
        how = "FAILED, see above; it is not measured" if backend in failed else "equal to 1e-9"
        print(f"golden figures on {device.type} by {backend}: {how}", file=sys.stderr)
    return failed


def more_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark has besides."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only with --small")
    parser.add_argument("--spikingjelly", metavar="PYTHON", help="of an environment that has it (default: this one)")
    parser.add_argument("--precision", choices=tuple(TYPES), default="bf16", help="of ours (default: bf16)")


def main() -> int:
    """Check, time, print."""
    given = arguments("Speed of training on a GPU.", more_arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench-gpu needs a CUDA device that torch can use, and this machine has none.", file=sys.stderr)
        return 1
    warnings.filterwarnings("ignore", module="torch")
    device = torch.device(given.device)
    set_up_cuda(device)
    facts = {**machine(PACKAGES), "torch cuda": str(torch.version.cuda)}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    bench, began = Bench(given, device, facts), time.monotonic()
    bench.failed = failing(device, GOLDEN_CASES[-1:] if given.small else GOLDEN_CASES)
    for name in bench.failed:
        bench.note(f"golden figures by {name}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        python = given.spikingjelly or (sys.executable if importlib.util.find_spec("spikingjelly") else None)
        one_stream = SMALL_ONE_STREAM if given.small else ONE_STREAM
        for number, case in enumerate((*(SMALL_CASES if given.small else CASES), *one_stream)):
            if time.monotonic() - began > LAST_START:
                bench.note(f"{case.what}: left out, the others took too long")
                continue
            shards = write_shards(
                Path(folder) / str(number),
                recordings=2 * case.K if given.small else max(10 * case.B, case.K),
                classes=case.K, images=2 * case.K, size=case.size, time_bins=case.T,
            )  # fmt: skip
            if case in one_stream:
                bench.one_stream(case, shards, python)
            else:
                bench.case(case, shards)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            print(f"{case.what}: done after {time.monotonic() - began:.0f} s", file=sys.stderr)
    report(bench.rows, packages=PACKAGES, given=given, more=bench.known())
    missed = [row.what for row in bench.rows if "missed" in row.judged() and BARRED in facts.get("gpu", "")]
    for what in missed:
        print(f"MISSED a bar: {what}", file=sys.stderr)
    return 1 if bench.failures or missed else 0


if __name__ == "__main__":
    sys.exit(main())
