"""The first convolution, whose input is data: its weight gradient alone, and quickly on a CPU.

Axes: N frames, C channels, H, W.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _DataConv(torch.autograd.Function):
    """conv2d of frames that need no gradient; the weight's is computed channels-last."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(frames, weight)
        ctx.padding = padding
        return F.conv2d(frames, weight, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        frames, weight = ctx.saved_tensors
        frames = frames.contiguous(memory_format=torch.channels_last)
        found = torch.ops.aten.convolution_backward(
            grad, frames, weight, None, [1, 1], ctx.padding, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return None, found[1].contiguous(), None


class InputConv(nn.Conv2d):
    """Convolution with stride 1 and no bias for the SCNN's first layer.

    oneDNN takes the weight gradient of a few input channels about twice as fast from channels-last frames as from
    others (21 to 10 ms for 400 frames of 2x28x28 and 15 5x5 kernels on one core); forward gains nothing, so only
    backward does it. The other networks, with 64 and more output channels, gain nothing either. Elsewhere than on a
    CPU, under autocast, and for frames that need a gradient it is nn.Conv2d.
    """

    def __init__(self, channels: int, out: int, kernel_size: int, *, padding: int = 0) -> None:
        super().__init__(channels, out, kernel_size, padding=padding, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C',H',W']."""
        plain = input.device.type != "cpu" or input.requires_grad or torch.is_autocast_enabled("cpu")
        if plain or not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        result: Tensor = _DataConv.apply(input, self.weight, self.padding)
        return result
