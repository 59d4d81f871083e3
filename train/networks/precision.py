"""Arithmetic of the forward and backward pass: fp32, or convolutions and linear layers in 16 bits.

In bf16 and fp16, convolutions and linear layers take their input and weights rounded, and return 16 bits (autocast); so
do the gradients of their weights, which are then kept in fp32, and the residual sums of the ResNets. Everything else
is in fp32: membrane potential, BatchNorm statistics, alignment, losses, optimiser, running statistics; and so is
scoring, so that a run is scored alike whatever it was trained in. With bf16, Muon orthogonalises in it, too.

fp16 has no room for small gradients, so its loss is scaled: the factor halves when a gradient overflows (that update
is left out) and doubles after 2,000 updates without. It is part of a checkpoint, and a function of the steps before.
bf16 has the range of fp32 and needs none of it.

`auto` takes what the device is fast in: bf16 on a GPU from compute capability 8.0 on, fp16 on one of 7.5, fp32 on
others and on a CPU, unless that has matrix units for bf16 (AMX). "fp32" on a GPU means
TF32 (10 bits of mantissa, where the GPU has it) for the products inside convolutions, fp32 for matrix products; both
are set, whatever torch's defaults are, and stand in result.json.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spikebridge.models import TransferNetwork, TransferOutput
from spikebridge.train.errors import DeviceError

log = logging.getLogger(__name__)

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16", "fphp", "asimdhp")}
"""Flags of /proc/cpuinfo, one of which a CPU has that computes in this precision."""
MATRIX_UNITS = ("amx_bf16",)
"""Flags of a CPU that multiplies matrices of bf16 in units of their own."""
BF16_FROM, FP16_FROM = (8, 0), (7, 5)
"""Compute capability from which a GPU computes in each; Triton compiles for nothing below 7.5."""


def resolve_precision(name: str, device: torch.device) -> str:
    """Return what a run computes in: the setting, or for `auto` what the device is fast in, which is logged once.

    Args:
        name: `fp32`, `bf16`, `fp16` or `auto`.
        device: of the network.

    Raises:
        DeviceError: bf16 on a GPU that has no units for it.
    """
    on_cuda = device.type == "cuda"
    capability = torch.cuda.get_device_capability(device) if on_cuda else (0, 0)
    named = f"{torch.cuda.get_device_name(device)}, " if on_cuda else ""
    card = f"{named}compute capability {'.'.join(map(str, capability))}"
    if name == "bf16" and on_cuda and capability < BF16_FROM:
        raise DeviceError(
            f"precision bf16: {card} has no units for it, they begin at 8.0; use precision = "
            f'"{"fp16" if capability >= FP16_FROM else "fp32"}"'
        )
    if name != "auto":
        if name == "fp32" and on_cuda and capability >= FP16_FROM:
            _say_once(f"precision fp32 on {card}: 16 bits are faster there, --set precision=auto")
        return name
    if on_cuda:
        fast = "bf16" if capability >= BF16_FROM else "fp16" if capability >= FP16_FROM else "fp32"
        why = card
    else:
        units = _cpu_has(MATRIX_UNITS)
        fast = "bf16" if units else "fp32"
        why = f"this CPU has {'' if units else 'no '}matrix units for bf16"
    _say_once(f"precision auto: {fast} ({why})")
    return fast


@cache
def _say_once(what: str) -> None:
    """Log a line, the first time in this process; studies train many runs."""
    log.info("%s", what)


def set_up_cuda(device: torch.device) -> None:
    """Tell torch what "fp32" means on CUDA, and that it may try which convolution is the fastest: shapes are few."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def tf32(device: torch.device) -> dict[str, bool] | None:
    """Return where "fp32" is multiplied in TF32; None on a CPU."""
    if device.type != "cuda":
        return None
    has = torch.cuda.get_device_capability(device) >= BF16_FROM
    return {
        "convolutions": has and torch.backends.cudnn.allow_tf32,
        "matrix_products": has and torch.backends.cuda.matmul.allow_tf32,
    }


class Precision:
    """How a step computes.

    Args:
        name: `fp32`, `bf16`, `fp16` or `auto`.
        device: where.

    Raises:
        DeviceError: see `resolve_precision`.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name = resolve_precision(name, device)
        """What it computes in, never `auto`."""
        self._type, self._device = TYPES[name], device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        if device.type == "cpu" and self._type is not None and not cpu_computes(name):
            log.warning("precision %s: this CPU has no instructions for it and is several times slower than fp32", name)

    def forward(
        self, network: TransferNetwork, static: Tensor | None, event: Tensor | None, dropout_seeds: Tensor | None
    ) -> TransferOutput:
        """Compute the network's output; logits in the type of the weights, for losses that are not in 16 bits."""
        if self._type is None:
            out: TransferOutput = network(static, event, dropout_seeds=dropout_seeds)
            return out
        with torch.autocast(self._device.type, dtype=self._type):
            out = network(static, event, dropout_seeds=dropout_seeds)
        weights = network.coefficients.dtype
        static_logits, event_logits = (
            None if logits is None else logits.to(weights) for logits in (out.static_logits, out.event_logits)
        )
        return dataclasses.replace(out, static_logits=static_logits, event_logits=event_logits)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a loss, scaled where the precision asks for it."""
        self._scaler.scale(loss).backward()

    def update(self, optimizer: Optimizer) -> None:
        """Do the optimiser's step, unless a scaled gradient overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of a checkpoint: nothing, or `loss_scale` [2] float64: factor, updates since it changed."""
        state: dict[str, Any] = self._scaler.state_dict()
        if not state:
            return {}
        return {"loss_scale": torch.tensor([state["scale"], state["_growth_tracker"]], dtype=torch.float64)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what `tensors` gave; a checkpoint without it leaves things as they are."""
        if self._scaler.is_enabled() and "loss_scale" in tensors:
            scale, good = tensors["loss_scale"].tolist()
            state = {**self._scaler.state_dict(), "scale": scale, "_growth_tracker": int(good)}
            self._scaler.load_state_dict(state)


def cpu_computes(name: str) -> bool:
    """Say whether this CPU has instructions for a 16-bit precision; False where that cannot be read."""
    return _cpu_has(INSTRUCTIONS[name])


def _cpu_has(words: tuple[str, ...]) -> bool:
    """Say whether one of the words is among the flags of this CPU; False where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return any(word in words for line in flags for word in line.split())
