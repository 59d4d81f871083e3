"""Muon: weight matrices move by their orthogonalised momentum, all else by AdamW.

Axes: O outputs of a layer, I its inputs (of a convolution, channels times places of the kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spikebridge.train.networks.adamw import AdamW

MOMENTUM = 0.95
"""Share of the momentum that a step leaves."""
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton-Schulz iteration: singular values end between 0.7 and 1.2, those below a thousandth or so excepted."""
UPDATE_RMS = 0.2
"""Root mean square of an update of rate 1, as of AdamW's: rate and weight decay of AdamW carry over."""
LARGEST_BLOCK = 128
"""Outputs (or inputs, where there are fewer of them) that are orthogonalised together; the time grows with it."""


class Muon(AdamW):
    """Compute AdamW, but in groups with `orthogonal` true the momentum, orthogonalised, decides.

    With a matrix W [O,I] (of a convolution [O, I of the rest]), its gradient G and the momentum M:
    M = 0.95 M + 0.05 G; U = 0.05 G + 0.95 M; W = (1 - rate decay) W - rate 0.2 sqrt(max(O, I)) orthogonalize(U).
    State: `momentum_buffer` of the parameter's shape. A tensor as rate, and the scale of fp16's gradients on a GPU, are
    taken as AdamW takes them, without a look at their values.

    Args:
        groups: as AdamW's; those with `orthogonal` have tensors of two or more dimensions alone.
        dtype: in which the iteration is computed.
        adamw: AdamW's own arguments.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; scale of the update: Liu et
    al., "Muon is scalable for LLM training", arXiv 2502.16982, 2.2.
    Differs: a matrix of more than 128 outputs and inputs is orthogonalised in blocks.
    """

    def __init__(self, groups: list[dict[str, Any]], *, dtype: torch.dtype = torch.float32, **adamw: Any) -> None:
        for group in groups:
            if group.setdefault("orthogonal", False) and any(parameter.ndim < 2 for parameter in group["params"]):
                raise ValueError("a group with orthogonal = true holds a tensor that is no matrix")
        super().__init__(groups, **adamw)
        self._dtype = dtype

    @contextmanager
    def _others(self) -> Iterator[None]:
        """Leave AdamW the groups that are its own."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            yield
        finally:
            self.param_groups = groups

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with self._others():
            super().__setstate__({})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient."""
        with self._others():
            loss = super().step(closure)
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, rate=group["lr"], decay=group["weight_decay"])
        return loss

    def _move(self, parameter: Tensor, *, rate: float | Tensor, decay: float) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"]
        # torch's GradScaler sets both for the step of a fused optimiser, which is to leave out one that overflowed
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is not None:
            gradient = gradient / scale
        if overflow is not None:
            gradient = torch.where(overflow > 0, momentum, gradient)
            rate = torch.where(overflow > 0, 0.0, rate)
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalize(gradient.lerp(momentum, MOMENTUM).flatten(1), dtype=self._dtype)  # [O,I]
        parameter.mul_(1 - rate * decay)
        parameter.sub_(update.view_as(parameter) * (rate * UPDATE_RMS * max(update.shape) ** 0.5))


def orthogonalize(matrix: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a matrix [O,I] with its singular vectors, and singular values near 1, by Newton-Schulz iteration.

    Of a matrix with more than 128 outputs and inputs each block of rows, or of columns where they are fewer, is
    orthogonalised by itself; blocks are as equal as can be.

    Args:
        matrix: floating point; zeros stay zeros.
        dtype: in which it is computed; what is returned is of the matrix's own.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T, dtype=dtype).T
    a, b, c = COEFFICIENTS
    blocks = []
    for block in matrix.to(dtype).tensor_split(-(-len(matrix) // LARGEST_BLOCK)):
        X = block / block.norm().clamp(min=1e-7)  # no singular value is above 1
        for _ in range(ITERATIONS):
            gram = X @ X.T
            X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
        blocks.append(X)
    return torch.cat(blocks).to(matrix.dtype)
