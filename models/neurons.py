"""Spiking neurons: the rule they follow, and the module that holds what they learn.

Charge, fire, reset, once per time step, from a potential of 0 at the start of every sequence:

    v <- v + (x - v) * k   (LIF: k = 1 / tau; PLIF: k = sigmoid(w); IF: v <- v + x)
    spike = v above the threshold
    v <- 0 (hard reset) or v - threshold (soft reset) where it spiked; the spike carries no gradient in the reset.

ReLU does none of this: it passes on what is above 0 of its input, step by step, so that the same layers are an ANN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikebridge.models.errors import ModelError
from spikebridge.models.registry import lookup, register
from spikebridge.models.surrogates import Surrogate, get_surrogate

THRESHOLD = 0.5
TAU = 2.0  # membrane time constant in time steps


@dataclass(frozen=True)
class FiringRule:
    """All that a kernel must know about a neuron, apart from k."""

    surrogate: Surrogate
    """Step and derivative of the spike."""
    leaky: bool = True
    """v + (x - v) k if set, else v + x k."""
    hard_reset: bool = True
    """To 0 if set, else down by the threshold."""
    threshold: float = THRESHOLD
    """Potential above which a neuron spikes."""
    spiking: bool = True
    """If not, the output is max(x, 0) and the potential, before and after, is x; none of the above has a meaning."""


class Neuron(nn.Module):
    """A layer's neurons: the rule, and k.

    The computation over time is a backend's (`models.layers.fire`), together with the normalisation before it and
    the pooling behind it.
    """

    leaky = True
    spiking = True

    def __init__(self, surrogate: str, reset: str) -> None:
        super().__init__()
        if reset not in ("hard", "soft"):
            raise ModelError(f"reset is {reset!r}; expected 'hard' (published) or 'soft'.")
        self.rule = FiringRule(
            get_surrogate(surrogate), leaky=self.leaky, hard_reset=reset == "hard", spiking=self.spiking
        )
        self.record = False
        self.rate: Tensor | None = None  # of the last pass, when `record` is set
        self.count = 0  # neurons, likewise
        self.watch = False
        self.work: Tensor | None = None  # of the last pass, when `watch` is set: see `models.layers.count_work`

    def gain(self) -> Tensor | float:
        """Return the share k of the input that a step takes in: a number, or a 0-d tensor where it is learned."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return surrogate and reset, for `print(net)`."""
        return f"{self.rule.surrogate.name}, reset={'hard' if self.rule.hard_reset else 'soft'}"


NEURONS: dict[str, type[Neuron]] = {}


@register(NEURONS, "LIF")
class LIF(Neuron):
    """Leaky integrate and fire with tau = 2."""

    def gain(self) -> float:
        """Return 1 / tau."""
        return 1 / TAU


@register(NEURONS, "PLIF")
class PLIF(Neuron):
    """LIF whose time constant is learned, one per layer: k = sigmoid(w), starting at 1 / tau."""

    def __init__(self, surrogate: str, reset: str) -> None:
        super().__init__(surrogate, reset)
        self.w = nn.Parameter(torch.tensor(-math.log(TAU - 1)))

    def gain(self) -> Tensor:
        """Return sigmoid(w)."""
        return self.w.sigmoid()


@register(NEURONS, "IF")
class IF(Neuron):
    """Integrate and fire, no leak."""

    leaky = False

    def gain(self) -> float:
        """Return 1."""
        return 1.0


@register(NEURONS, "ReLU")
class ReLU(Neuron):
    """No spikes and no state: the ANN with the same layers. Surrogate and reset are ignored."""

    spiking = False

    def gain(self) -> float:
        """Return 1: all of the input."""
        return 1.0

    def extra_repr(self) -> str:
        """Return nothing that matters."""
        return ""


def make_neuron(name: str, *, surrogate: str, reset: str) -> Neuron:
    """Make neurons by name ("LIF", "PLIF", "IF", "ReLU"), surrogate name and reset ("hard" or "soft").

    Raises:
        UnknownNameError: neuron or surrogate unknown.
        ModelError: reset is neither.
    """
    return lookup(NEURONS, name, kind="neuron")(surrogate, reset)
