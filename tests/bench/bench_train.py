"""Speed and memory of a training step beside the step-by-step network, in bf16 beside fp32, and training from shards.

Command:   make bench-train
           (python tests/bench/bench_train.py [--rounds 5] [--json FILE] [--spikingjelly PYTHON])
Theirs:    `step_by_step.py`, the published way in eager PyTorch; with --spikingjelly, the Python of an environment that
           has it, SpikingJelly's multi-step network too (`spikingjelly_frames.py` says how to make one)

Both sides compute the same, SpikingJelly aside: asserted in float64 before anything is timed, to 1e-9. The timed steps
are float32, where one spike at the threshold may flip and change every number after it, or bf16, which rounds. A step
is forward, loss, backward and AdamW. Steps in bf16 are timed where the processor has instructions for it, with a bar
where `precision = "auto"` takes it; what they keep is the same everywhere.

Axes: T time, B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rounds import Row, arguments, compare, report  # isort: skip  (sets the number of threads)

import torch
from made_shards import write_shards
from step_by_step import StepByStep
from torch.utils.data import DataLoader
from training import DOMAIN, LR, Case, Peer, check_equal, kept, our_loss, stepper

from spikebridge.models import backends
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.data.dataset import ShardDataset
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, make_optimizer, network_arguments
from spikebridge.train.networks.precision import Precision, cpu_computes, resolve_precision

CPU = torch.device("cpu")
CASES = (
    Case("quarter VGG-SNN, T=10, B=8, 48x48", "vgg_snn", K=101, T=10, B=8, size=48, width=0.25),
    Case("SCNN, T=10, B=20, 28x28", "scnn", K=10, T=10, B=20, size=28, width=1.0),
)
SMALL_CASES = (
    Case("VGG-SNN, T=2, B=4, 16x16", "vgg_snn", K=3, T=2, B=4, size=16, width=0.05),
    Case("SCNN, T=2, B=4, 16x16", "scnn", K=3, T=2, B=4, size=16, width=0.2),
)


def step_rows(case: Case, *, rounds: int, repeats: int, spikingjelly: str | None) -> list[Row]:
    """One network: speed of a step, and bytes kept for backward."""
    check_equal(case)
    batch = case.batch(case.B, torch.float32)
    net = case.build()
    published = StepByStep(net)
    with backends.record() as ran, kept(list(net.parameters())) as our_bytes:
        mine = our_loss(net, *batch)
    with kept(list(published.parameters())) as their_bytes:
        loss = published.loss(*batch, domain_coefficient=DOMAIN)
    del mine, loss
    megabytes = sum(our_bytes.values()) / 1e6, sum(their_bytes.values()) / 1e6

    kernel = f"({'+'.join(sorted(ran))})"
    our_step = stepper(lambda: our_loss(net, *batch), net.parameters())
    their_step = stepper(lambda: published.loss(*batch, domain_coefficient=DOMAIN), published.parameters())
    barred = case.name == "vgg_snn"
    row = Row(f"step: {case.what}", kernel, "step by step", "samples", case.B, bars=(None, 1.4 if barred else None))
    compare(row, our_step, their_step, rounds=rounds, our_repeats=repeats, their_repeats=repeats)
    most = (None, 0.55 if barred else None)
    rows = [row, Row(f"kept for backward: {case.what}", "", "step by step", "MB", quantities=megabytes, bars=most)]
    if spikingjelly and case.name == "vgg_snn":
        with Peer(spikingjelly, case, threads=1) as peer:
            row = Row(f"step: {case.what}", kernel, "SpikingJelly multi-step", "samples", case.B, bars=(None, 1.0))
            rows.append(compare(row, our_step, peer.step, rounds=rounds, our_repeats=repeats, their_repeats=repeats))
            quantities = megabytes[0], peer.megabytes
            rows.append(Row(f"kept for backward: {case.what}", "", "SpikingJelly", "MB", quantities=quantities))
    return rows


def bf16_rows(case: Case, *, rounds: int, repeats: int) -> list[Row]:
    """One network in bf16: bytes kept for backward, and speed where this CPU has instructions for it."""
    batch = case.batch(case.B, torch.float32)
    nets = {name: case.build() for name in ("bf16", "fp32")}
    losses = {name: partial(our_loss, net, *batch, precision=Precision(name, CPU)) for name, net in nets.items()}
    with backends.record() as ran, kept(list(nets["bf16"].parameters())) as our_bytes:
        mine = losses["bf16"]()
    with kept(list(nets["fp32"].parameters())) as their_bytes:
        loss = losses["fp32"]()
    del mine, loss
    megabytes = sum(our_bytes.values()) / 1e6, sum(their_bytes.values()) / 1e6
    barred = case.name == "vgg_snn"
    most = (None, 0.6 if barred else None)
    kernel = f"({'+'.join(sorted(ran))}) in bf16"
    rows = [Row(f"kept for backward: {case.what}", kernel, "in fp32", "MB", quantities=megabytes, bars=most)]
    if not cpu_computes("bf16"):
        return rows

    steps = {name: stepper(losses[name], net.parameters()) for name, net in nets.items()}
    published = StepByStep(case.build())
    their_step = stepper(lambda: published.loss(*batch, domain_coefficient=DOMAIN), published.parameters())
    least = 1.8 if barred and resolve_precision("auto", CPU) == "bf16" else None
    for theirs, step, bar in (("in fp32", steps["fp32"], least), ("step by step, in fp32", their_step, None)):
        row = Row(f"step: {case.what}", kernel, theirs, "samples", case.B, bars=(None, bar))
        rows.append(compare(row, steps["bf16"], step, rounds=rounds, our_repeats=repeats, their_repeats=repeats))
    return rows


def left_out() -> dict[str, str]:
    """What this CPU cannot show, and what it trains in; empty where it shows everything."""
    if cpu_computes("bf16"):
        return {}
    kept_in = resolve_precision("auto", CPU)
    return {"left out": f'steps in bf16, for which this CPU has no units; precision = "auto" stays in {kept_in} here'}


def learner(shards: ShardSet, settings: TrainSettings, *, steps: int) -> Callable[[Batch, int], None]:
    """Return what learns from a batch at a step, with a new network."""
    method = find_method("kt")(settings, steps=steps)
    net = make_network(network_arguments(settings, shards), seed=0).train()
    optimizer, precision = make_optimizer(net, settings, device=CPU), Precision(settings.precision, CPU)

    def learn(batch: Batch, step: int) -> None:
        inputs = method.inputs(batch, step)
        out = precision.forward(net, inputs.static, inputs.event, inputs.dropout_seeds)
        optimizer.zero_grad(set_to_none=True)
        precision.backward(method.loss(out, inputs, net.coefficients, {}).total)
        precision.update(optimizer)

    return learn


def events_row(shards: ShardSet, *, batch_size: int, rounds: int) -> Row:
    """Batches made of stored events by two processes, against the step that takes them, on one core."""
    settings = TrainSettings(method="kt", model="scnn", epochs=1, batch_size=batch_size, lr=LR, augmentation="crop")
    ready = TrainingBatches(shards, settings, device=CPU, needs_static=True).batch(0, 0)
    learn = learner(shards, settings, steps=rounds + 1)
    data = ShardDataset(shards.path, "train")
    loader = DataLoader(data, batch_size, num_workers=2, persistent_workers=True, drop_last=True)

    def load(_: int) -> int:
        return sum(len(labels) for _, labels in loader)

    amount = load(0)
    row = Row(f"batches of {batch_size} of stored events", "2 processes", "SCNN step", "samples", amount, batch_size)
    row.bars = (None, 0.95)
    return compare(row, load, lambda number: learn(ready, number), rounds=rounds)


def batch_rows(shards: ShardSet, *, steps: int, rounds: int) -> list[Row]:
    """Training from the disk and from memory at every step, against batches that are there."""
    settings = TrainSettings(method="kt", model="scnn", epochs=rounds + 2, batch_size=20, lr=LR, augmentation="crop")
    from_disk, from_memory = (
        TrainingBatches(shards, settings, device=CPU, needs_static=True, residence=residence)
        for residence in ("disk", "host")
    )
    steps = min(steps, from_disk.steps_per_epoch)
    ready = [from_memory.batch(0, index) for index in range(steps)]
    for index, batch in enumerate(ready):
        again = from_disk.batch(0, index)
        assert torch.equal(again.events, batch.events)
        assert torch.equal(again.images, batch.images)

    learn = learner(shards, settings, steps=settings.epochs * steps)

    def training(data: TrainingBatches | None) -> Callable[[int], None]:
        def run(number: int) -> None:
            for index in range(steps):
                batch = ready[index] if data is None else data.batch(number, index)
                learn(batch, number * steps + index)

        return run

    amount = sum(len(batch.labels) for batch in ready)
    rows = []
    for where, data in (("on disk", from_disk), ("read once", from_memory)):
        row = Row(
            f"SCNN training, shards {where}", f"shards {where}", "batches in memory", "samples", amount,
            bars=(None, 0.95),
        )  # fmt: skip
        rows.append(compare(row, training(data), training(None), rounds=rounds))
    return rows


def main() -> None:
    """Check, time, print."""
    given = arguments(
        "Speed and memory of training beside the step-by-step network.",
        lambda parser: parser.add_argument("--spikingjelly", metavar="PYTHON", help="of an environment that has it"),
    )
    warnings.filterwarnings("ignore", module="torch")
    logging.disable(logging.WARNING)  # that bf16 is slow here: the report says it
    torch.set_num_threads(1)
    rows = []
    for case in SMALL_CASES if given.small else CASES:
        repeats = 3 if case.name == "scnn" else 1
        rows += step_rows(case, rounds=given.rounds, repeats=repeats, spikingjelly=given.spikingjelly)
        rows += bf16_rows(case, rounds=given.rounds, repeats=repeats)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        size = {"recordings": 30, "time_bins": 10} if given.small else {"recordings": 400, "time_bins": 10}
        shards = write_shards(Path(folder) / "shards", size=28, classes=10, images=50, **size)
        rows += batch_rows(shards, steps=1 if given.small else 10, rounds=given.rounds)
        size |= {"recordings": 24, "events": 300} if given.small else {"recordings": 2_400, "events": 4_000}
        shards = write_shards(Path(folder) / "events", size=28, classes=10, images=50, **size)
        rows.append(events_row(shards, batch_size=12 if given.small else 120, rounds=given.rounds))
    report(rows, packages=("torch", "numpy", "numba"), given=given, more=left_out())


if __name__ == "__main__":
    sys.exit(main())
