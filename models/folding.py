"""Two streams and their time steps as one batch.

Axes: B batch, S streams, T time. Every tensor between two layers is [B,S,T,...]: with the batch outermost, the frames
of one sample lie together, a layer sees B*S*T frames, and [B, S*T*C, H, W] is a view that BatchNorm takes in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def fold(sequences: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """[B,S,T,C,H,W] in `dtype` from S sequences [T,B,C,H,W]."""
    return torch.stack([frames.transpose(0, 1).to(dtype) for frames in sequences], dim=1)


def over_frames(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that knows no time to every frame of x [B,S,T,...]."""
    return layer(x.flatten(0, 2)).unflatten(0, x.shape[:3])
