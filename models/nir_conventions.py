"""How the step of a neuron is written as a node of NIR: one step, in the equations that this or that importer reads.

An equation in continuous time says a step only together with a way to integrate it and a time step, and importers
differ in both, and in which parameters they look at. `docs/tutorials/exporting.md` has what each of them does, as
measured. A convention changes no spike of the network, to a rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import nir
import numpy as np
from numpy.typing import NDArray

from spikebridge.models.errors import ExportError

TIME_STEP = 1e-4
"""Seconds that one time step stands for. NIR states none; importers that take no argument for it assume this one."""
UNIT_STEP = 1.0
"""The same for IF with r = 1, which many importers add to the potential whatever they take for the time step."""
NO_LEAK = 2.0**100
"""Time constant in time steps of a LIF that leaks nothing: a power of two, so that no rounding comes of it."""

Array = NDArray[np.float64]
Integration = Literal["euler", "exponential"]
"""How a time step follows from the equations: explicit Euler, or the exact solution for an input that stays."""


@dataclass(frozen=True)
class Step:
    """What a neuron does in a time step: v += gain (x - v), or v += x; above the threshold it spikes, and v is 0."""

    gain: float | None
    """Above 0, up to 1; None: no leak."""
    threshold: float


def _lif(*, tau: float, r: float, threshold: float) -> nir.LIF:
    tau_, r_, zero, threshold_ = (np.full(1, value) for value in (tau, r, 0.0, threshold))
    return nir.LIF(tau=tau_, r=r_, v_leak=zero, v_threshold=threshold_, v_reset=zero)


def whole_input(step: Step) -> tuple[nir.LIF, float]:
    """Write v / gain for v, so that a step adds its whole input: LIF with r = tau / dt, for IF one without leak."""
    if step.gain is None:
        return _lif(tau=TIME_STEP * NO_LEAK, r=NO_LEAK, threshold=step.threshold), TIME_STEP
    return _lif(tau=TIME_STEP / step.gain, r=1 / step.gain, threshold=step.threshold / step.gain), TIME_STEP


def r_one(step: Step) -> tuple[nir.LIF | nir.IF, float]:
    """Write v as it is, with r = 1; for IF a time step is 1 s."""
    if step.gain is None:
        return nir.IF(r=np.ones(1), v_threshold=np.full(1, step.threshold), v_reset=np.zeros(1)), UNIT_STEP
    return _lif(tau=TIME_STEP / step.gain, r=1.0, threshold=step.threshold), TIME_STEP


def exponential(step: Step) -> tuple[nir.LIF, float]:
    """Write the time constant of which the exact solution keeps 1 - gain over a time step.

    Raises:
        ExportError: a step that no time constant gives: without leak, or without memory.
    """
    if step.gain is None or step.gain >= 1:
        what = "IF neurons, which do not leak" if step.gain is None else "neurons that forget all in a time step"
        raise ExportError(f"convention 'exponential' has no time constant for {what}; choose whole-input or r-one")
    return _lif(tau=-TIME_STEP / math.log1p(-step.gain), r=1.0, threshold=step.threshold), TIME_STEP


@dataclass(frozen=True)
class Convention:
    """One way to write a network.

    Args:
        says: what it does, for notes and cards.
        neuron: node (of one value) and time step in seconds of a neuron's step.
        integration: by which the equations give the step.
        sum_pools: average pools are sums, and their factor is in the weights behind them.
        same_in_words: a padding that keeps the sides is `same`.
    """

    says: str
    neuron: Callable[[Step], tuple[nir.LIF | nir.IF, float]]
    integration: Integration = "euler"
    sum_pools: bool = False
    same_in_words: bool = False


CONVENTIONS = {
    "whole-input": Convention(
        "LIF with r = tau / dt, a step adds its whole input; IF is a LIF without leak", whole_input
    ),
    "r-one": Convention("LIF with r = 1; IF with r = 1, a step of 1 s", r_one),
    "sum-pools": Convention("as r-one; pools are sums, their factor is in the weights behind", r_one, sum_pools=True),
    "exponential": Convention(
        "LIF with r = 1, tau for the exact solution over a step; padding `same` where it is",
        exponential,
        integration="exponential",
        same_in_words=True,
    ),
}
"""By name, the default first."""
DEFAULT = "whole-input"


def write_neurons(
    step: Step, shape: tuple[int, ...], convention: str, *, nudge: bool
) -> tuple[nir.LIF | nir.IF, float]:
    """Return neurons of a shape, and the time step in seconds.

    Args:
        step: what each of them does.
        shape: (C,H,W) or (F,).
        convention: a key of `CONVENTIONS`.
        nudge: thresholds are the next float32 above, so that a reader in float32 that fires AT the threshold fires
            where this network does.

    Raises:
        ExportError: the convention has no words for such a step.
    """
    node, time_step = CONVENTIONS[convention].neuron(step)
    if nudge:
        node.v_threshold = next_above(node.v_threshold)
    values = {name: np.full(shape, value) for name, value in vars(node).items() if isinstance(value, np.ndarray)}
    return type(node)(**values), time_step


def next_above(values: Array) -> Array:
    """Return the next float32 above each value, as float64."""
    above: Array = np.nextafter(values.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    return above
