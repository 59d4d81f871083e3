"""Surrogate gradients: what stands in for the derivative of the spike.

Forward is always the step; `u` is the membrane potential minus the threshold, in any shape. A surrogate is one
function of u and its sharpness alpha. One that the numba kernels do not know runs on the torch backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikebridge.models.registry import lookup, register


@dataclass(frozen=True)
class Surrogate:
    """A spike's forward step and backward derivative."""

    name: str
    """Name in the registry, and in published settings."""
    derivative: Callable[[Tensor, float], Tensor]
    """(u, alpha) -> stand-in derivative, elementwise."""
    fires_at_threshold: bool
    """Whether u = 0 spikes; if not, the step is strict."""
    alpha: float = 2.0
    """Sharpness, positive; unused by shapes without one."""

    def fires(self, u: Tensor) -> Tensor:
        """Say where spikes are: bool, shape of `u`."""
        return u >= 0 if self.fires_at_threshold else u > 0


SURROGATES: dict[str, Surrogate] = {}


def surrogate(
    name: str, *, fires_at_threshold: bool = False
) -> Callable[[Callable[[Tensor, float], Tensor]], Callable[[Tensor, float], Tensor]]:
    """Register a derivative as the surrogate `name`, as a decorator; a name that is taken raises ValueError."""

    def enter(derivative: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
        register(SURROGATES, name)(Surrogate(name, derivative, fires_at_threshold))
        return derivative

    return enter


def get_surrogate(name: str) -> Surrogate:
    """Return the surrogate of that name; an unknown one raises UnknownNameError with near matches."""
    return lookup(SURROGATES, name, kind="surrogate")


@surrogate("QGateGrad")
def triangle(u: Tensor, alpha: float) -> Tensor:
    """Compute a triangle of height alpha and half-width 1 / alpha."""
    return (alpha - alpha * alpha * u.abs()).clamp_min(0)


@surrogate("BackEIGateGrad")
def unit_box(u: Tensor, alpha: float) -> Tensor:
    """Compute a box of height 1 and half-width 0.5, edges excluded; alpha has no part in it."""
    return (u.abs() < 0.5).to(u.dtype)


@surrogate("GateGrad")
def box(u: Tensor, alpha: float) -> Tensor:
    """Compute a box of height 1 and half-width 1 / alpha, edges excluded."""
    return (u.abs() < 1 / alpha).to(u.dtype)


@surrogate("SigmoidGrad", fires_at_threshold=True)
def sigmoid_slope(u: Tensor, alpha: float) -> Tensor:
    """Compute the slope of sigmoid(alpha u); the only one whose step includes u = 0."""
    s = torch.sigmoid(alpha * u)
    return alpha * s * (1 - s)


@surrogate("AtanGrad")
def atan_slope(u: Tensor, alpha: float) -> Tensor:
    """Compute the slope of atan(pi / 2 alpha u) / pi + 1 / 2."""
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u).square())
