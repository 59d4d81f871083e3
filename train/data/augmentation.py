"""Augmentation of event frames: one draw per sample, the same for all its time steps.

Axes: B batch, T time, P polarity, H height, W width. Every augmentation is a pure function of frames and numbers in
[0, 1); a recipe joins several with `+`, and they are applied in that order. Static images are left alone.

Labels stay what they are. What mixes samples and labels, CutMix and EventMix, is in `train.data.mixing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.pipeline.base.names import register
from spikebridge.train.config.settings import JOIN
from spikebridge.train.data.draws import Epoch, many_uniforms, uniforms

MAX_ROTATION_DEG = 15.0
MAX_ZOOM = 0.15
LARGEST_AREA = 0.4
"""Side of the largest erased square, share of the frame's."""
MOST_DROPPED = 0.5
"""Share of the events, or of the time bins, that is dropped at most."""
LONGEST_DELAY = 0.1
"""Largest shift in time, share of the bins; one bin at least."""
MAX_TEMPO = 0.2


@dataclass(frozen=True)
class Augmentation:
    """One registered augmentation."""

    apply: Callable[[Tensor, Tensor], Tensor]
    """Frames [B,T,P,H,W] of any dtype and numbers [B,n] float64, or [B,T,P,H,W] float32 with `cells`, to frames."""
    numbers: int
    """Uniform numbers per sample, n."""
    cells: bool = False
    """Takes a number per cell instead."""
    purpose: str = ""
    """What its numbers are drawn for; the published ones share theirs."""


AUGMENTATIONS: dict[str, Augmentation] = {}


def _register(numbers: int, *, cells: bool = False, purpose: str = "") -> Callable[..., Callable[..., Tensor]]:
    def add(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        name = function.__name__
        register(AUGMENTATIONS, name, Augmentation(function, numbers, cells, purpose or f"augmentation {name}"))
        return function

    return add


def augment(names: str, frames: Tensor, *, seed: int, epoch: Epoch, draws: Tensor) -> Tensor:
    """Apply `AUGMENTATIONS`; a pure function of its arguments.

    Args:
        names: one of them, or several joined with `+`, e.g. `crop+drop_area`; applied from left to right.
        frames: [B,T,P,H,W], any dtype; an empty batch is returned as it is.
        seed: root seed of the run.
        epoch: see `draws.Epoch`.
        draws: int64 [B] positions within the epoch; their random numbers are made on the device that they are on.

    Returns:
        Same shape and dtype.

    Raises:
        ValueError: unknown name, or draws of another batch size.
    """
    steps = names.split(JOIN)
    for name in steps:
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {name!r}: expected one of {', '.join(AUGMENTATIONS)}")
    if draws.shape != (len(frames),):
        raise ValueError(f"draws {tuple(draws.shape)} for {len(frames)} samples: expected [B]")
    if not len(frames):
        return frames
    for name in steps:
        step = AUGMENTATIONS[name]
        if step.cells:
            numbers = many_uniforms(seed, step.purpose, epoch, draws, frames[0].numel()).view(frames.shape)
        else:
            numbers = uniforms(seed, step.purpose, epoch, draws, step.numbers)  # [B,n]
        frames = step.apply(frames, numbers.to(frames.device))
    return frames


@_register(0)
def none(frames: Tensor, draws: Tensor) -> Tensor:
    """Return the frames unchanged."""
    return frames


@_register(2, purpose="augmentation")
def crop(frames: Tensor, draws: Tensor) -> Tensor:
    """Crop at random after zero padding by H // 12 on all sides: a shift of up to that many pixels.

    Source: He et al., AAAI 2024 (padding 4 at 48 pixels).
    """
    pad = frames.shape[-2] // 12
    top, left = ((draws[:, axis] * (2 * pad + 1)).long() for axis in (0, 1))  # [B] in 0..2*pad
    if frames.device.type == "cpu":
        return shift_one_by_one(frames, top, left, pad)
    return shift_together(frames, top, left, pad)


def shift_together(frames: Tensor, top: Tensor, left: Tensor, pad: int) -> Tensor:
    """Cut samples padded by `pad` pixels, each at its own int64 [B] in 0..2*pad; the host waits for none.

    Returns:
        [B,T,P,H,W] as `frames`.
    """
    B, T, P, H, W = frames.shape
    rows = (torch.arange(H, device=frames.device) + top[:, None])[:, :, None]  # [B,H,1]
    columns = (torch.arange(W, device=frames.device) + left[:, None])[:, None, :]  # [B,1,W]
    padded = F.pad(frames.flatten(1, 2), (pad, pad, pad, pad))  # [B,T*P,H+2*pad,W+2*pad]
    places = (rows * (W + 2 * pad) + columns).view(B, 1, H * W)  # [B,1,H*W]
    cut = padded.flatten(2).gather(2, places.expand(-1, T * P, -1))  # [B,T*P,H*W]
    return cut.view(B, T, P, H, W)


def shift_one_by_one(frames: Tensor, top: Tensor, left: Tensor, pad: int) -> Tensor:
    """Return what `shift_together` returns, on a CPU in a quarter of its time."""
    H, W = frames.shape[-2:]
    shifted = torch.zeros_like(frames, memory_format=torch.contiguous_format)
    for before, after, y, x in zip(frames, shifted, (pad - top).tolist(), (pad - left).tolist(), strict=True):
        kept = before[..., max(0, -y) : H - max(0, y), max(0, -x) : W - max(0, x)]
        after[..., max(0, y) : H - max(0, -y), max(0, x) : W - max(0, -x)] = kept
    return shifted


@_register(4, purpose="augmentation")
def crop_flip_rotate(frames: Tensor, draws: Tensor) -> Tensor:
    """Crop, then horizontal flip with probability 1/2, then rotation by up to 15 degrees about the centre.

    Source: He et al., AAAI 2024 ("DVS-DA").
    """
    return rotate(flip(crop(frames, draws), draws[:, 2:3]), draws[:, 3:4])


@_register(1)
def flip(frames: Tensor, draws: Tensor) -> Tensor:
    """Flip horizontally with probability 1/2; not for digits or letters.

    Source: Li et al., "Neuromorphic data augmentation for training spiking neural networks", ECCV 2022.
    """
    return torch.where(_per_sample(draws[:, 0] < 0.5), frames.flip(-1), frames)


@_register(1)
def rotate(frames: Tensor, draws: Tensor) -> Tensor:
    """Rotate by up to 15 degrees about the centre.

    Source: Li et al., ECCV 2022.
    """
    angle = (2 * draws[:, 0] - 1) * math.radians(MAX_ROTATION_DEG)  # [B]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]  # [B,1,1]
    y, x = _from_centre(frames, angle.dtype)
    return _nearest(frames, cos * y + sin * x, cos * x - sin * y)


@_register(1)
def scale(frames: Tensor, draws: Tensor) -> Tensor:
    """Zoom about the centre by up to 15 % either way.

    Every cell shows the nearest one, so enlarged frames have more events.
    """
    factor = (1 + MAX_ZOOM * (2 * draws[:, 0] - 1))[:, None, None]  # [B,1,1]
    y, x = _from_centre(frames, factor.dtype)
    return _nearest(
        frames, (y / factor).expand(-1, -1, frames.shape[-1]), (x / factor).expand(-1, frames.shape[-2], -1)
    )


@_register(3)
def drop_area(frames: Tensor, draws: Tensor) -> Tensor:
    """Erase a square in all time bins: side up to 40 % of the frame's, centred anywhere (Cutout).

    Source: DeVries and Taylor, arXiv 1708.04552; Gu et al., "EventDrop", IJCAI 2021 (drop by area).
    """
    H, W = frames.shape[-2:]
    side = draws[:, 0] * LARGEST_AREA  # [B], share of the frame
    rows = inside(H, draws[:, 1], side, frames)  # [B,H]
    columns = inside(W, draws[:, 2], side, frames)  # [B,W]
    return frames.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None, None], 0)


@_register(2)
def drop_time(frames: Tensor, draws: Tensor) -> Tensor:
    """Empty a run of time bins, up to half of them, anywhere.

    Source: Gu et al., "EventDrop", IJCAI 2021 (drop by time).
    """
    T = frames.shape[1]
    length = (draws[:, 0] * (math.floor(MOST_DROPPED * T) + 1)).long()  # [B]
    first = (draws[:, 1] * (T - length + 1)).long()  # [B]
    bins = torch.arange(T, device=frames.device)
    dropped = (bins >= first[:, None]) & (bins < (first + length)[:, None])  # [B,T]
    return frames.masked_fill(dropped[:, :, None, None, None], 0)


@_register(0, cells=True)
def drop_events(frames: Tensor, draws: Tensor) -> Tensor:
    """Drop up to half of a sample's events, each cell on its own; the first cell's number says how many.

    A count of 1 stays with the kept share's probability; larger ones are rounded up or down at random, so that the
    mean is right. Cells that hold weights instead of counts stay or go as a whole.

    Source: Gu et al., "EventDrop", IJCAI 2021 (random drop).
    Differs: counts above 1 vary less than if each event were drawn.
    """
    kept = _per_sample(1 - MOST_DROPPED * draws.flatten(1)[:, 0])  # [B,1,1,1,1]
    dropped = torch.floor(frames * kept + draws).to(frames.dtype).minimum(frames)
    if not frames.dtype.is_floating_point:
        return dropped
    counts = (frames == frames.round()).all()  # not looked at: the host would wait for the device
    return torch.where(counts, dropped, frames.masked_fill(draws >= kept, 0))


@_register(1)
def time_shift(frames: Tensor, draws: Tensor) -> Tensor:
    """Begin earlier or later by up to a tenth of the bins, one at least; what moves in is empty."""
    T = frames.shape[1]
    most = max(1, math.floor(LONGEST_DELAY * T))
    late = (draws[:, 0] * (2 * most + 1)).long() - most  # [B]
    return _from_bins(frames, torch.arange(T, device=frames.device) - late[:, None])


@_register(1)
def time_stretch(frames: Tensor, draws: Tensor) -> Tensor:
    """Play faster or slower by up to 20 % about the middle; each bin shows the nearest one, nothing beyond the ends."""
    T = frames.shape[1]
    tempo = (1 + MAX_TEMPO * (2 * draws[:, 0] - 1))[:, None]  # [B,1]
    middle = (T - 1) / 2
    source = (torch.arange(T, device=frames.device, dtype=tempo.dtype) - middle) * tempo + middle  # [B,T]
    return _from_bins(frames, source.round().long())


@_register(1)
def polarity_flip(frames: Tensor, draws: Tensor) -> Tensor:
    """Exchange ON and OFF with probability 1/2, as if bright and dark were exchanged."""
    return torch.where(_per_sample(draws[:, 0] < 0.5), frames.flip(2), frames)


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


def _from_centre(frames: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return rows [H,1] and columns [1,W] counted from the centre."""
    H, W = frames.shape[-2:]
    y = (torch.arange(H, device=frames.device, dtype=dtype) - (H - 1) / 2)[:, None]
    x = (torch.arange(W, device=frames.device, dtype=dtype) - (W - 1) / 2)[None, :]
    return y, x


def _nearest(frames: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample the nearest cell to (y, x) [B,H,W] from the centre: counts stay counts; beyond the edge is 0."""
    B, T, P, H, W = frames.shape
    rows = (y + (H - 1) / 2).round().long()  # [B,H,W]
    columns = (x + (W - 1) / 2).round().long()  # [B,H,W]
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)  # [B,H,W]
    places = (rows.clamp(0, H - 1) * W + columns.clamp(0, W - 1)).view(B, 1, H * W)  # [B,1,H*W]
    turned = frames.flatten(1, 2).flatten(2).gather(2, places.expand(-1, T * P, -1)).view(B, T, P, H, W)
    return torch.where(inside[:, None, None], turned, torch.zeros((), dtype=frames.dtype, device=frames.device))


def inside(length: int, centre: Tensor, side: Tensor, frames: Tensor) -> Tensor:
    """Return which of `length` pixels lie within `side` around `centre`, both shares [B]: bool [B,length]."""
    pixel = (torch.arange(length, device=frames.device) + 0.5) / length
    return (pixel - centre[:, None]).abs() < side[:, None] / 2


def _from_bins(frames: Tensor, source: Tensor) -> Tensor:
    """Fill each time bin from bin `source` [B,T]; empty where there is none."""
    B, T = source.shape
    moved = frames[torch.arange(B, device=frames.device)[:, None], source.clamp(0, T - 1)]  # [B,T,P,H,W]
    return moved.masked_fill(((source < 0) | (source >= T))[:, :, None, None, None], 0)
