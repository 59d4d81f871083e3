"""Which code computes the neurons: `torch` (everywhere), `numba` (CPU) or `triton` (CUDA), the two fused ones.

Fused are normalisation, neurons and pooling. Without a choice, numba runs on the CPU and Triton on CUDA, where each is
installed and knows the neurons, else torch. The Triton kernels agree with the others in Triton's interpreter and
compile for sm_75, sm_90, sm_120 and gfx942 with 128 registers at most (T=10), but were never run on a GPU;
`use("torch")` does without them. Triton's interpreter runs only where it is asked for. A backend asked for runs or
raises; nothing falls back in silence.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from spikebridge.models.errors import BackendError
from spikebridge.models.neurons import FiringRule
from spikebridge.models.registry import lookup

SURROGATE_CODES = {"QGateGrad": 0, "BackEIGateGrad": 1, "GateGrad": 2, "SigmoidGrad": 3, "AtanGrad": 4}
"""Surrogates that the fused kernels know, and the number by which they know them."""

MOST_TRITON_STEPS = 16
"""T up to which the Triton kernels run: backward keeps T potentials in registers, and its loops are unrolled. At T=32
it spills, and one kernel takes minutes to compile."""

NUMBA_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What the numba kernels store; with 16 bits they compute in float32."""

_chosen: ContextVar[str] = ContextVar("backend", default="auto")
_launches: ContextVar[Counter[str] | None] = ContextVar("launches", default=None)


def _torch_obstacle(x: Tensor, rule: FiringRule) -> str:
    return ""


def _rule_obstacle(rule: FiringRule, backend: str) -> str:
    if not rule.spiking:
        return f"the neurons do not spike, {backend} knows spiking ones only"
    if rule.surrogate.name not in SURROGATE_CODES:
        return f"the surrogate {rule.surrogate.name!r} has no {backend} code"
    return ""


def _numba_obstacle(x: Tensor, rule: FiringRule) -> str:
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    if x.device.type != "cpu":
        return f"the tensor is on {x.device}, numba needs the CPU"
    if x.dtype not in NUMBA_TYPES:
        return f"the tensor is {x.dtype}, numba takes floating point of 16 to 64 bits"
    return _rule_obstacle(rule, "numba")


def _triton_obstacle(x: Tensor, rule: FiringRule) -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensor is on {x.device}, triton needs CUDA (or its interpreter, TRITON_INTERPRET=1)"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"the tensor is {x.dtype}, triton takes floating point of 16 to 64 bits"
    if x.shape[2] > MOST_TRITON_STEPS:
        return f"there are {x.shape[2]} time steps, triton takes {MOST_TRITON_STEPS}"
    return _rule_obstacle(rule, "triton")


BACKENDS = {"numba": _numba_obstacle, "triton": _triton_obstacle, "torch": _torch_obstacle}
"""By preference: name, and what keeps it from running on (x, rule), empty if nothing does."""


def _preferred(x: Tensor, rule: FiringRule) -> str:
    """Return the first that can run, Triton's interpreter aside."""
    offered = (name for name in BACKENDS if name != "triton" or x.device.type == "cuda")
    return next(name for name in offered if not BACKENDS[name](x, rule))


def choose(x: Tensor, rule: FiringRule) -> str:
    """Return the name of the backend that will run on `x`.

    Raises:
        BackendError: the one asked for with `use` cannot.
    """
    name = _chosen.get()
    if name == "auto":
        return _preferred(x, rule)
    if why := BACKENDS[name](x, rule):
        raise BackendError(f"The backend {name!r} cannot run: {why}. Use 'auto' or 'torch'.")
    return name


def computes_by_triton(device: torch.device) -> bool:
    """Say whether Triton computes on a device what is no neuron: where it is asked for, and by default on CUDA."""
    chosen = _chosen.get() == "triton" or (_chosen.get() == "auto" and device.type == "cuda")
    return chosen and importlib.util.find_spec("triton") is not None


def computes_by_numba(device: torch.device) -> bool:
    """Say whether numba computes on a device what is no neuron: on a CPU, unless another is asked for."""
    return _chosen.get() in ("auto", "numba") and device.type == "cpu" and importlib.util.find_spec("numba") is not None


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run every spiking layer inside the block on this backend ("auto", "torch", "numba", "triton").

    Raises:
        UnknownNameError: no such backend.
    """
    if name != "auto":
        lookup(BACKENDS, name, kind="backend")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextmanager
def record() -> Iterator[Counter[str]]:
    """Count the layers of neurons that ran inside the block, by backend: `{"numba": 8}`. Blocks may be nested."""
    counter: Counter[str] = Counter()
    around = _launches.get()
    token = _launches.set(counter)
    try:
        yield counter
    finally:
        _launches.reset(token)
        if around is not None:
            around.update(counter)


def count_launch(name: str) -> None:
    """Count a layer; the kernels' own entry points do, so that the count says what ran and not what was planned."""
    if (counter := _launches.get()) is not None:
        counter[name] += 1
