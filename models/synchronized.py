"""BatchNorm whose statistics are those of the batches of several processes.

Axes: N frames of one group, G groups (a channel of one stream and time step), P pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikebridge.models.errors import InputShapeError


@dataclass
class Partners:
    """The processes that normalise together; every one of them must make the same calls in the same order."""

    total: Callable[[Tensor], Tensor]
    """The sum of a tensor over all processes, the same everywhere; its argument is left alone."""
    counted: bool = True
    """Whether this process's frames count; not set where it has no sample and only takes part."""


class SynchronizedNorm(torch.autograd.Function):
    """Normalise x [N,G,P] by mean and variance over (N,P) of every counted process."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, partners: Partners, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalised x, mean [G] and unbiased variance [G]; weight and bias are [G] too.

        Two sums over the processes: of values and their number, then of squared distances to the common mean, which
        does not cancel as a mean of squares does.
        """
        counted = float(partners.counted)
        here = torch.cat([x.sum((0, 2)), x.new_full((1,), float(x.shape[0] * x.shape[2]))]) * counted  # [G+1]
        everywhere = partners.total(here)
        count = everywhere[-1]
        if x.device.type == "cpu" and float(count) < 2:  # elsewhere a look would wait for the device
            raise InputShapeError("BatchNorm found one value per channel over all processes; use a larger batch.")
        mean = everywhere[:-1] / count
        centred = x - mean[:, None]
        spread = partners.total(centred.square().sum((0, 2)) * counted)
        inverse = (spread / count + eps).rsqrt()
        y = centred * (inverse * weight)[:, None] + bias[:, None]  # [N,G,P]
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.partners = partners
        variance = spread / (count - 1)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _mean: Tensor, _variance: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the sum of all processes' losses; of weight and bias this process's part of them."""
        x, weight, mean, inverse, count = ctx.saved_tensors
        normalized = (x - mean[:, None]) * inverse[:, None]
        sums = torch.stack([grad.sum((0, 2)), (grad * normalized).sum((0, 2))])  # [2,G]
        plain, slanted = ctx.partners.total(sums) / count
        through = grad
        if ctx.partners.counted:  # otherwise these frames moved no statistics
            through = grad - plain[:, None] - normalized * slanted[:, None]
        return through * (inverse * weight)[:, None], sums[1], sums[0], None, None
