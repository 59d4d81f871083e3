"""Augmentation of event frames: one draw per sample, the same for all its time steps.

Axes: B batch, T time, P polarity, H height, W width. The draws come from `train.order.augmentation_uniforms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEG = 15.0

Augmentation = Callable[[Tensor, Tensor], Tensor]
AUGMENTATIONS: dict[str, Augmentation] = {}


def _register(function: Augmentation) -> Augmentation:
    if function.__name__ in AUGMENTATIONS:
        raise ValueError(f"augmentation {function.__name__} is registered twice")
    AUGMENTATIONS[function.__name__] = function
    return function


def augment(name: str, frames: Tensor, draws: Tensor) -> Tensor:
    """Apply one of `AUGMENTATIONS`.

    Args:
        name: `none`, `crop` or `crop_flip_rotate`.
        frames: [B,T,P,H,W], any dtype; an empty batch is returned as it is.
        draws: float64 [B,4] in [0, 1): shift down, shift right, flip, rotation.

    Returns:
        Same shape and dtype.

    Raises:
        ValueError: unknown name, or draws of another batch size.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}: expected one of {', '.join(AUGMENTATIONS)}")
    if draws.shape != (len(frames), 4):
        raise ValueError(f"draws {tuple(draws.shape)} for {len(frames)} samples: expected [B,4]")
    return AUGMENTATIONS[name](frames, draws) if len(frames) else frames


@_register
def none(frames: Tensor, draws: Tensor) -> Tensor:
    """Frames as they are."""
    return frames


@_register
def crop(frames: Tensor, draws: Tensor) -> Tensor:
    """Random crop after zero padding by H // 12 on all sides: a shift of up to that many pixels.

    Source: He et al., AAAI 2024 (padding 4 at 48 pixels).
    """
    B, T, P, H, W = frames.shape
    pad = H // 12
    top = (draws[:, 0] * (2 * pad + 1)).long()  # [B] in 0..2*pad
    left = (draws[:, 1] * (2 * pad + 1)).long()  # [B]
    rows = (torch.arange(H, device=frames.device) + top[:, None])[:, :, None]  # [B,H,1]
    columns = (torch.arange(W, device=frames.device) + left[:, None])[:, None, :]  # [B,1,W]
    padded = F.pad(frames.flatten(1, 2), (pad, pad, pad, pad))  # [B,T*P,H+2*pad,W+2*pad]
    places = (rows * (W + 2 * pad) + columns).view(B, 1, H * W)  # [B,1,H*W]
    cut = padded.flatten(2).gather(2, places.expand(-1, T * P, -1))  # [B,T*P,H*W]
    return cut.view(B, T, P, H, W)


@_register
def crop_flip_rotate(frames: Tensor, draws: Tensor) -> Tensor:
    """Crop, then horizontal flip with probability 1/2, then rotation by up to 15 degrees about the centre.

    Rotation takes the nearest pixel, so counts stay counts; what comes from outside is 0.

    Source: He et al., AAAI 2024 ("DVS-DA").
    """
    frames = crop(frames, draws)
    B, T, P, H, W = frames.shape
    flip = (draws[:, 2] < 0.5).view(B, 1, 1, 1, 1)
    frames = torch.where(flip, frames.flip(-1), frames)
    angle = (2 * draws[:, 3] - 1) * math.radians(MAX_ROTATION_DEG)  # [B]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]  # [B,1,1]
    y = (torch.arange(H, device=frames.device, dtype=angle.dtype) - (H - 1) / 2)[:, None]  # [H,1]
    x = (torch.arange(W, device=frames.device, dtype=angle.dtype) - (W - 1) / 2)[None, :]  # [1,W]
    rows = (cos * y + sin * x + (H - 1) / 2).round().long()  # [B,H,W]
    columns = (cos * x - sin * y + (W - 1) / 2).round().long()  # [B,H,W]
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)  # [B,H,W]
    places = (rows.clamp(0, H - 1) * W + columns.clamp(0, W - 1)).view(B, 1, H * W)  # [B,1,H*W]
    turned = frames.flatten(1, 2).flatten(2).gather(2, places.expand(-1, T * P, -1)).view(B, T, P, H, W)
    return torch.where(inside[:, None, None], turned, torch.zeros((), dtype=frames.dtype, device=frames.device))
