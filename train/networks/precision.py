"""Arithmetic of the forward and backward pass: fp32, or convolutions and linear layers in 16 bits.

In bf16 and fp16 weights are rounded for each convolution and linear layer (autocast). Everything else stays in fp32:
membrane potential, BatchNorm statistics, alignment, losses, gradients of the weights, optimiser, running statistics;
and so does scoring, so that a run is scored alike whatever it was trained in.

fp16 has no room for small gradients, so its loss is scaled: the factor halves when a gradient overflows (that update
is left out) and doubles after 2,000 updates without. It is part of a checkpoint, and a function of the steps before.
bf16 has the range of fp32 and needs none of it.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spikebridge.models import TransferNetwork, TransferOutput

log = logging.getLogger(__name__)

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16", "fphp", "asimdhp")}
"""Flags of /proc/cpuinfo, one of which a CPU has that computes in this precision."""


class Precision:
    """How a step computes.

    Args:
        name: `fp32`, `bf16` or `fp16`.
        device: where.
    """

    def __init__(self, name: str, device: torch.device) -> None:
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
    """Return whether this CPU has instructions for a 16-bit precision; False where that cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return any(word in INSTRUCTIONS[name] for line in flags for word in line.split())
