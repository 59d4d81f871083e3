"""Two streams and their time steps as one batch.

Axes: B batch, S streams, T time. Every tensor between two layers is [B,S,T,...]: with the batch outermost, the frames
of one sample lie together, and a layer sees B*S*T frames. Frames lie channels-last in memory, [B,S,T,H,W,C], which is
what convolutions are fastest with, and what the fused kernels read and write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def fold(sequences: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return [B,S,T,C,H,W] in `dtype`, channels-last, from S sequences [T,B,C,H,W]."""
    return channels_last(torch.stack([frames.transpose(0, 1).to(dtype) for frames in sequences], dim=1))


def fold_padded(sequences: Sequence[Tensor], dtype: torch.dtype, *, channels: int) -> Tensor:
    """Do as `fold`, with channels of zeros behind those of the frames, up to a number of `channels`."""
    T, B, C, H, W = sequences[0].shape
    folded = empty_channels_last(sequences[0], (B, len(sequences), T, channels, H, W), dtype)
    if channels > C:
        folded.zero_()
    for stream, frames in enumerate(sequences):
        folded[:, stream, :, :C].copy_(frames.transpose(0, 1))
    return folded


def channels_last(x: Tensor) -> Tensor:
    """Lay [B,S,T,C,H,W] out in memory as [B,S,T,H,W,C], copied unless it is so already; [B,S,T,F] contiguous."""
    if x.ndim != 6:
        return x.contiguous()
    return x.flatten(0, 2).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:3])


def empty_channels_last(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Make room for [B,S,T,C,H,W] channels-last, or for [B,S,T,F], where x is, and in its type unless given."""
    dtype = x.dtype if dtype is None else dtype
    if len(shape) != 6:
        return x.new_empty(shape, dtype=dtype)
    frames = torch.empty(
        (math.prod(shape[:3]), *shape[3:]), dtype=dtype, device=x.device, memory_format=torch.channels_last
    )
    return frames.unflatten(0, tuple(shape[:3]))


def over_frames(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that knows no time to every frame of x [B,S,T,...]."""
    return layer(x.flatten(0, 2)).unflatten(0, x.shape[:3])
