"""Speed and memory of a training step beside the step-by-step network, and of batches beside tensors in memory.

Command:   python tests/bench/bench_train.py [--rounds 5] [--json FILE]
Theirs:    the oracle of tests/models/oracle.py, as the method is published: a loop over time inside a loop over the
           streams, eager, one library call per layer, step and stream

Both sides compute the same: asserted in float64 before anything is timed, to 1e-9. The timed steps are float32, where
one spike at the threshold may flip and change every number after it. A step is forward, loss, backward and AdamW.

Axes: T time, B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rounds import Row, arguments, compare, report  # isort: skip  (sets the number of threads)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

import oracle
import torch
from recordings import convert_nmnist, write_nmnist
from torch import Tensor, nn

from models import TransferNetwork, backends, build_model
from pipeline.shardset import ShardSet
from train.batches import Batch, TrainingBatches
from train.losses import transfer_loss
from train.methods import find_method
from train.networks import make_network, make_optimizer, network_arguments
from train.settings import TrainSettings

LOSS = {"domain_coefficient": 0.5, "tet": True, "regularization": True}
LR = 1e-3


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    what: str
    name: str
    K: int
    T: int
    B: int
    size: int
    width: float

    def build(self) -> TransferNetwork:
        """The network, with the same weights at each call."""
        torch.manual_seed(0)
        net = build_model(self.name, num_classes=self.K, time_steps=self.T, input_size=self.size, width=self.width)
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2)  # deep layers should fire: the published CKA has no gradient without variance
        return net.train()

    def batch(self, B: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Static frames and event frames [T,B,C,H,W], labels [B]."""
        generator = torch.Generator().manual_seed(1)
        image = torch.rand((1, B, 1, self.size, self.size), generator=generator, dtype=dtype)
        event = torch.poisson(torch.full((self.T, B, 2, self.size, self.size), 0.3, dtype=dtype), generator)
        labels = torch.randint(0, self.K, (B,), generator=generator)
        return image.expand(self.T, -1, 2, -1, -1).contiguous(), event, labels


CASES = (
    Case("SCNN, T=10, B=20, 28x28", "scnn", K=10, T=10, B=20, size=28, width=1.0),
    Case("quarter VGG-SNN, T=10, B=8, 48x48", "vgg_snn", K=101, T=10, B=8, size=48, width=0.25),
)
SMALL_CASES = (
    Case("SCNN, T=2, B=4, 16x16", "scnn", K=3, T=2, B=4, size=16, width=0.2),
    Case("VGG-SNN, T=2, B=4, 16x16", "vgg_snn", K=3, T=2, B=4, size=16, width=0.05),
)


class Published:
    """The step-by-step network with the weights of one of ours."""

    def __init__(self, net: TransferNetwork) -> None:
        self.weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        self.network = oracle.Oracle(net.settings.name, {**buffers, **self.weights})

    def loss(self, static: Tensor, event: Tensor, labels: Tensor) -> Tensor:
        """Forward and loss."""
        total: Tensor = oracle.loss(*self.network(static, event), labels, self.weights["coefficients"], **LOSS)
        return total


def our_loss(net: TransferNetwork, static: Tensor, event: Tensor, labels: Tensor) -> Tensor:
    """Forward and loss."""
    return transfer_loss(net(static, event), labels, net.coefficients, **LOSS).total


def check_equal(case: Case) -> None:
    """Loss and every gradient in float64, on a batch of 4."""
    batch = case.batch(4, torch.float64)
    net = case.build().double()
    published = Published(net)
    ours, theirs = our_loss(net, *batch), published.loss(*batch)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, published.weights[name].grad, rtol=1e-7, atol=1e-9)


@contextmanager
def kept(parameters: list[nn.Parameter] | list[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes by address of all that autograd keeps for backward inside the block, less the parameters.

    Memory that several operations keep counts once. As long as the graph lives no address is used twice.
    """
    found: dict[int, int] = {}
    known = {p.untyped_storage().data_ptr() for p in parameters}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield found


def step_rows(case: Case, *, rounds: int, repeats: int) -> list[Row]:
    """One network: speed of a step, and bytes kept for backward."""
    check_equal(case)
    batch = case.batch(case.B, torch.float32)
    net = case.build()
    published = Published(net)
    weights = list(published.weights.values())

    with backends.record() as ran, kept(list(net.parameters())) as our_bytes:
        mine = our_loss(net, *batch)
    with kept(weights) as their_bytes:
        loss = published.loss(*batch)
    del mine, loss
    megabytes = sum(our_bytes.values()) / 1e6, sum(their_bytes.values()) / 1e6

    def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[int], None]:
        def run(_: int) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

        return run

    row = Row(f"step: {case.what}", f"({'+'.join(sorted(ran))})", "step by step", "samples", case.B)
    compare(
        row,
        step(lambda: our_loss(net, *batch), torch.optim.AdamW(net.parameters(), lr=LR)),
        step(lambda: published.loss(*batch), torch.optim.AdamW(weights, lr=LR)),
        rounds=rounds,
        our_repeats=repeats,
        their_repeats=repeats,
    )
    return [row, Row(f"kept for backward: {case.what}", "", "", "MB", quantities=megabytes)]


def batch_rows(shards: ShardSet, *, steps: int, rounds: int) -> list[Row]:
    """Batches read from the disk at every step, against batches that are there: alone, and with the training step."""
    settings = TrainSettings(method="kt", model="scnn", epochs=rounds + 2, batch_size=20, lr=LR, augmentation="crop")
    on_disk, in_memory = (
        TrainingBatches(shards, settings, device=torch.device("cpu"), needs_static=True, residence=residence)
        for residence in ("disk", "host")
    )
    steps = min(steps, on_disk.steps_per_epoch)
    ready = [in_memory.batch(0, index) for index in range(steps)]
    for index, batch in enumerate(ready):
        again = on_disk.batch(0, index)
        assert torch.equal(again.events, batch.events)
        assert torch.equal(again.images, batch.images)

    method = find_method("kt")(settings, steps=settings.epochs * steps)
    net = make_network(network_arguments(settings, shards), seed=0).train()
    optimizer = make_optimizer(net, settings)

    def learn(batch: Batch, step: int) -> None:
        inputs = method.inputs(batch, step)
        out = net(inputs.static, inputs.event, dropout_seeds=inputs.dropout_seeds)
        loss = method.loss(out, inputs, net.coefficients, {})
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()

    def make(data: TrainingBatches) -> Callable[[int], None]:
        def run(number: int) -> None:
            for index in range(steps):
                data.batch(number, index)

        return run

    def train_from_disk(number: int) -> None:
        for index in range(steps):
            learn(on_disk.batch(number, index), number * steps + index)

    def train_from_memory(number: int) -> None:
        for index, batch in enumerate(ready):
            learn(batch, number * steps + index)

    amount = sum(len(batch.labels) for batch in ready)
    alone = Row("batches, with augmentation", "shards on disk", "split in memory", "samples", amount)
    compare(alone, make(on_disk), make(in_memory), rounds=rounds, our_repeats=5, their_repeats=5)
    training = Row("SCNN training", "shards on disk", "batches in memory", "samples", amount)
    return [alone, compare(training, train_from_disk, train_from_memory, rounds=rounds)]


def main() -> None:
    """Check, time, print."""
    given = arguments("Speed and memory of training beside the step-by-step network.")
    warnings.filterwarnings("ignore", module="torch")
    torch.set_num_threads(1)
    rows = []
    for case in SMALL_CASES if given.small else CASES:
        rows += step_rows(case, rounds=given.rounds, repeats=3 if case.name == "scnn" else 1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        count, events = (30, 300) if given.small else (150, 4_000)
        raw = write_nmnist(Path(folder) / "raw", train=count, test=10, events=events)
        shards = convert_nmnist(raw, Path(folder) / "shards", size=28)
        rows += batch_rows(shards, steps=1 if given.small else 5, rounds=given.rounds)
    report(rows, packages=("torch", "numpy", "numba"), given=given)


if __name__ == "__main__":
    main()
