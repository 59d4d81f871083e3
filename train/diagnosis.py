"""What went wrong inside a step: names the loss terms and the layer where numbers stopped being finite."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from train.errors import NonFiniteError

ADVICE = "Lower lr or add warmup_epochs and train again; the checkpoint of the last epoch is unharmed"


def require_finite(loss: Any, network: nn.Module, streams: tuple[Tensor | None, Tensor | None], *, step: int) -> None:
    """Pass a finite loss; otherwise run the batch again and say where it broke.

    Args:
        loss: terms `.total .static .event .domain`.
        network: in training mode; its weights are not changed.
        streams: static and event frames of the batch.
        step: 0-based, over the run.

    Raises:
        NonFiniteError: with the step, the terms, and the first layer whose weights or output are not finite.
    """
    if bool(torch.isfinite(loss.total)):
        return
    terms = {name: float(getattr(loss, name).detach()) for name in ("static", "event", "domain")}
    broken = [f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value)]
    weights = broken_weights(network)
    where = f"the weights {weights[0]}" if weights else first_broken_layer(network, streams)
    raise NonFiniteError(
        f"step {step}: the loss is not finite ({', '.join(broken) or 'total'}); first found in {where}. {ADVICE}"
    )


def require_finite_weights(network: nn.Module, *, step: int) -> None:
    """Refuse weights that are not finite: a NaN never crosses a threshold, so the loss of a later layer hides it.

    Args:
        network: parameters and buffers are looked at.
        step: the last one taken, 0-based, over the run.

    Raises:
        NonFiniteError: with the step and the names.
    """
    if names := broken_weights(network):
        raise NonFiniteError(f"after step {step}: {', '.join(names[:3])} not finite. {ADVICE}")


def broken_weights(network: nn.Module) -> list[str]:
    """Names of the parameters and buffers that hold a NaN or infinity, in the order of the layers."""
    return [name for name, value in network.state_dict().items() if not bool(torch.isfinite(value).all())]


@torch.no_grad()
def first_broken_layer(network: nn.Module, streams: tuple[Tensor | None, Tensor | None]) -> str:
    """Name of the first layer whose output is not finite, `the input` or `the loss` where no layer is to blame."""
    if any(stream is not None and not bool(torch.isfinite(stream).all()) for stream in streams):
        return "the input frames"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    kept = {name: value.clone() for name, value in network.named_buffers()}
    try:
        network(*streams)
    finally:
        for hook in hooks:
            hook.remove()
        for name, value in network.named_buffers():  # running statistics moved by this second look
            value.copy_(kept[name])
    return f"layer {found[0]}" if found else "the loss itself"
