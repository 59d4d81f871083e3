"""Finds what is not finite in a step: names the loss terms and the layer."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikebridge.train.errors import NonFiniteError
from spikebridge.train.losses import TransferLoss

ADVICE = "Lower lr or add warmup_epochs and train again; the last checkpoint is unharmed"
CHECK_EVERY = 50
"""Steps between two checks of the loss where a check makes the host wait for the device."""
SATURATED = 0.99
"""Firing rate from which a layer passes on next to nothing but ones."""

log = logging.getLogger(__name__)


class FiniteWatch:
    """Finds the first step whose loss is not finite: at once on a CPU, every `CHECK_EVERY` steps on a device."""

    NEVER = 2**62

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._waits = network, device.type != "cpu"
        self._never = torch.full((), self.NEVER, dtype=torch.int64, device=device)
        self.first = self._never.clone()
        """0-d, the first step that was noted."""

    def check_loss(self, loss: TransferLoss, streams: tuple[Tensor | None, Tensor | None], *, step: int) -> None:
        """Take note of a step's loss, before its update.

        Raises:
            NonFiniteError: see `require_finite` and `raise_if_broken`.
        """
        if not self._waits:
            return require_finite(loss, self._network, streams, step=step)
        self.note(loss, step)
        self.check_noted(step=step)

    def note(self, loss: TransferLoss, step: int | Tensor) -> None:
        """Keep the step (0-d int64, or a number) if its loss is not finite; waits for nothing."""
        finite = loss.total.detach().abs() < torch.inf  # not of a NaN either
        self.first.copy_(torch.minimum(self.first, torch.where(finite, self._never, step)))

    def check_noted(self, *, step: int) -> None:
        """Call `raise_if_broken` every `CHECK_EVERY` steps."""
        if (step + 1) % CHECK_EVERY == 0:
            self.raise_if_broken(step=step)

    def raise_if_broken(self, *, step: int) -> None:
        """Raise where a loss was noted as not finite; call it before anything is written.

        Raises:
            NonFiniteError: with the step, when it was noticed, and the weights that have become NaN since.
        """
        if int(self.first) == self.NEVER:
            return
        weights = broken_weights(self._network)
        where = f"; not finite by now: {', '.join(weights[:3])}" if weights else ""
        raise NonFiniteError(
            f"step {int(self.first)}: the loss is not finite (noticed after step {step}{where}). {ADVICE}. "
            "On the CPU the layer would be named at once"
        )


class FiringWatch:
    """Names layers that have stopped telling anything apart: no spikes, or hardly a step without; each of them once."""

    def __init__(self) -> None:
        self._named: set[tuple[str, str]] = set()

    def warn(self, rates: Mapping[str, float], *, epoch: int, step: int, where: str) -> list[tuple[str, str]]:
        """Warn of layers that are dead or saturated and were not named before; returns them with the word for it.

        The rates are spikes per neuron and time step, by layer, over the recordings `where`.
        """
        warned = []
        for layer, rate in rates.items():
            word = "dead" if rate == 0 else "saturated" if rate >= SATURATED else ""
            if word and (layer, word) not in self._named:
                self._named.add((layer, word))
                warned.append((layer, word))
                log.warning(
                    "after step %d (epoch %d): layer %s is %s, firing rate %.3g over %s",
                    *(step, epoch, layer, word, rate, where),
                )
        return warned


def require_finite(
    loss: TransferLoss, network: nn.Module, streams: tuple[Tensor | None, Tensor | None], *, step: int
) -> None:
    """Pass a finite loss; otherwise run the batch (static and event frames) again and say where it broke.

    The network is in training mode, and its weights are not changed.

    Raises:
        NonFiniteError: with the step, the terms, and the first layer whose weights or output are not finite.
    """
    if bool(torch.isfinite(loss.total)):
        return
    parts = {name: getattr(loss, name) for name in ("static", "event", "domain")} | dict(loss.extra)
    terms = {name: float(part.detach()) for name, part in parts.items()}
    broken = [f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value)]
    weights = broken_weights(network)
    where = f"the weights {weights[0]}" if weights else first_broken_layer(network, streams)
    raise NonFiniteError(
        f"step {step}: the loss is not finite ({', '.join(broken) or 'total'}); first found in {where}. {ADVICE}"
    )


def require_finite_weights(network: nn.Module, *, step: int) -> None:
    """Refuse weights that are not finite: a NaN never crosses a threshold, so the loss of a later layer hides it.

    Raises:
        NonFiniteError: with the step and the names.
    """
    if names := broken_weights(network):
        raise NonFiniteError(f"after step {step}: {', '.join(names[:3])} not finite. {ADVICE}")


def broken_weights(network: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers that hold a NaN or infinity, in the order of the layers."""
    return [name for name, value in network.state_dict().items() if not bool(torch.isfinite(value).all())]


@torch.no_grad()
def first_broken_layer(network: nn.Module, streams: tuple[Tensor | None, Tensor | None]) -> str:
    """Return the first layer whose output is not finite, `the input` or `the loss` where no layer is to blame."""
    if any(stream is not None and not bool(torch.isfinite(stream).all()) for stream in streams):
        return "the input frames"
    broken: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                broken.append(name)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    try:
        network(*streams)
    finally:
        for hook in hooks:
            hook.remove()
        for name, value in network.named_buffers():  # this second pass moved the running statistics
            value.copy_(buffers[name])
    return f"layer {broken[0]}" if broken else "the loss itself"
