"""What the benchmarks of training share: cases, a step of either side, what is kept for backward.

Axes: T time, B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from step_by_step import StepByStep
from torch import Tensor, nn

from spikebridge.models import TransferNetwork, build_model
from spikebridge.train.losses import transfer_loss
from spikebridge.train.networks.adamw import AdamW
from spikebridge.train.networks.precision import Precision

DOMAIN = 0.5
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


def our_loss(
    net: TransferNetwork, static: Tensor, event: Tensor, labels: Tensor, *, precision: Precision | None = None
) -> Tensor:
    """Forward and loss, in the type of the weights or in a precision."""
    out = net(static, event) if precision is None else precision.forward(net, static, event, None)
    return transfer_loss(out, labels, net.coefficients, domain_coefficient=DOMAIN).total


def check_equal(case: Case, *, device: str = "cpu") -> None:
    """Loss, every gradient and running statistic of both sides in float64, on a batch of 4."""
    batch = [each.to(device) for each in case.batch(4, torch.float64)]
    net = case.build().double().to(device)
    published = StepByStep(net)
    ours, theirs = our_loss(net, *batch), published.loss(*batch, domain_coefficient=DOMAIN)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for name, parameter in net.named_parameters():
        grad = published.weights[name.replace(".", "/")].grad
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffer, published.get_buffer(name.replace(".", "/")), rtol=1e-9, atol=1e-9)


def stepper(loss: Callable[[], Tensor], parameters: Iterable[Tensor], **how: object) -> Callable[[int], None]:
    """A training step: forward, loss, backward and AdamW; the argument is ignored."""
    optimizer = AdamW(parameters, lr=LR, **how)  # type: ignore[arg-type]

    def run(_: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return run


@contextmanager
def kept(parameters: Iterable[nn.Parameter]) -> Iterator[dict[int, int]]:
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


class Peer:
    """SpikingJelly in its own process.

    Args:
        python: of an environment that has it.
        case: network and batch.
        how: more of its task, see `spikingjelly_train.py`.
    """

    def __init__(self, python: str, case: Case, **how: object) -> None:
        script = Path(__file__).with_name("spikingjelly_train.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        task = {name: getattr(case, name) for name in ("B", "T", "K", "size", "width")}
        found = self._ask(json.dumps({**task, **how}))
        self.megabytes, self.backend = found["bytes"] / 1e6, found["backend"]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise ChildProcessError("SpikingJelly's process ended: run spikingjelly_train.py by hand to see why")
        found: dict[str, Any] = json.loads(answer)
        return found

    def step(self, _: int) -> None:
        """One training step."""
        self._ask("1")

    def steps(self, number: int) -> None:
        """Several, waited for at the end."""
        self._ask(str(number))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
