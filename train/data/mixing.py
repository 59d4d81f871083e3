"""Augmentation that mixes two recordings and their classes: CutMix and EventMix, on frames.

A mixed sample shows its partner's cells inside a mask and its own elsewhere, in both polarities. Its label is a pair of
classes with a share (`losses.Mixture`). The partner is another sample of the same batch, as it looks after the
augmentations that stand before the mixing in the recipe; those behind it see the mixed frames. Half of the samples are
mixed, the others stay what they are. Training accuracies in logs count the own class.

Not every method can (`settings.MIXING_METHODS`). Those with a static stream cannot: alignment and sliding training pair
a recording with a static image of its class, and a mixed one has two. Their way of mixing is time-step mixup (method
`tsm`), which mixes domains along time and no classes.

Axes: B batch, T time, P polarity, H height, W width. Pure functions of frames and numbers in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikebridge.pipeline.base.names import register
from spikebridge.train.config.settings import JOIN
from spikebridge.train.data.augmentation import augment, inside
from spikebridge.train.data.draws import Epoch, uniforms

MIXED = 0.5
"""Share of the samples that are mixed, as in the published runs of CutMix on CIFAR."""
FEWEST_BLOBS, MOST_BLOBS = 2, 4
"""Gaussians of EventMix."""
LEAST_SPREAD, MOST_SPREAD = 0.05, 0.5
"""Standard deviation of a Gaussian, share of the axis."""


@dataclass(frozen=True)
class Mixing:
    """One registered way of mixing."""

    apply: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """Frames [B,T,P,H,W], partners' frames and numbers [B,n] float64, to the mask (bool, of a shape that expands to
    [B,T,1,H,W]) of the partner's cells, and the share [B] float64 of the own class in the label."""
    numbers: int
    """Uniform numbers per sample, n."""


MIXINGS: dict[str, Mixing] = {}


def _register(numbers: int) -> Callable[..., Callable[..., tuple[Tensor, Tensor]]]:
    def add(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        register(MIXINGS, function.__name__, Mixing(function, numbers))
        return function

    return add


@dataclass(frozen=True)
class AugmentationPlan:
    """The augmentation of a recipe, split at its mixing."""

    before: str
    """Augmentations of every sample on its own, joined with `+`."""
    mixing: str | None
    """One of `MIXINGS`, or None."""
    after: str
    """Augmentations of what was mixed; `none` without mixing."""

    @classmethod
    def parse(cls, names: str) -> AugmentationPlan:
        """Read setting `augmentation`, e.g. `crop+cutmix`, which names one mixing at most."""
        steps = names.split(JOIN)
        mixing = next((i for i, name in enumerate(steps) if name in MIXINGS), None)
        if mixing is None:
            return cls(names, None, "none")
        before, after = steps[:mixing], steps[mixing + 1 :]
        return cls(JOIN.join(before) or "none", steps[mixing], JOIN.join(after) or "none")

    def apply(
        self,
        take: Callable[[Tensor], Tensor],
        *,
        seed: int,
        epoch: Epoch,
        draws: Tensor,
        partners: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Return augmented frames [B,T,P,H,W] of draws, and the shares [B] of their own classes; None without mixing.

        `take` returns the stored frames of draws; `partners`, int64 [B] of the same epoch, count with mixing only.
        """
        frames = augment(self.before, take(draws), seed=seed, epoch=epoch, draws=draws)
        if self.mixing is None:
            return frames, None
        others = augment(self.before, take(partners), seed=seed, epoch=epoch, draws=partners)
        frames, shares = mix(self.mixing, frames, others, seed=seed, epoch=epoch, draws=draws)
        return augment(self.after, frames, seed=seed, epoch=epoch, draws=draws), shares


def mix(name: str, own: Tensor, partner: Tensor, *, seed: int, epoch: Epoch, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mix half of the samples `own` [B,T,P,H,W] of any dtype with their partners; a pure function of its arguments.

    Returns:
        Frames as `own`, and float64 [B] in [0, 1], the share of the own class in the label; the partner's has the rest.
    """
    mixing = MIXINGS[name]
    numbers = uniforms(seed, f"mixing {name}", epoch, draws, 1 + mixing.numbers).to(own.device)
    mask, shares = mixing.apply(own, partner, numbers[:, 1:])
    mixed = numbers[:, 0] < MIXED  # [B]
    frames = torch.where(mask & mixed.view(-1, 1, 1, 1, 1), partner, own)
    return frames, torch.where(mixed, shares, torch.ones_like(shares))


@_register(3)
def cutmix(own: Tensor, partner: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mask a box in space, the same in all time bins, of a uniform share of the area, cut off at the edges.

    Classes weigh by area.

    Source: Yun et al., "CutMix", ICCV 2019 (with Beta(1, 1)).
    """
    H, W = own.shape[-2:]
    side = draws[:, 0].sqrt()  # [B], share of either side
    rows, columns = inside(H, draws[:, 1], side, own), inside(W, draws[:, 2], side, own)  # [B,H], [B,W]
    area = rows.sum(1) * columns.sum(1)
    mask = rows[:, :, None] & columns[:, None, :]  # [B,H,W]
    return mask[:, None, None], 1 - area.double() / (H * W)


@_register(2 + 7 * MOST_BLOBS)
def eventmix(own: Tensor, partner: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mask the densest cells of a mixture of two to four Gaussians in time and space, a uniform share of all cells.

    Classes weigh by events: with a the share of its own events that a recording keeps, and b the share of its events
    that the partner gives, the own class has a / (a + b). Without any event in either the own class has all.

    Source: Shen, Zhao and Zeng, "EventMix", Information Sciences 2023.
    Differs: no salt-and-pepper noise on top.
    """
    B, T, _, H, W = own.shape
    density = _density(draws[:, 2:].view(B, MOST_BLOBS, 7), draws[:, 1], (T, H, W)).flatten(1)  # [B,T*H*W]
    cells = (draws[:, :1] * (density.shape[1] + 1)).long()  # [B,1], 0 to all of them
    densest = density.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(densest.shape[1], device=own.device).expand(B, -1)
    rank = torch.empty_like(densest).scatter_(1, densest, ranks)
    mask = (rank < cells).view(B, T, 1, H, W)
    kept, given = _event_share(own, ~mask), _event_share(partner, mask)  # [B]
    known = kept + given
    return mask, torch.where(known > 0, kept / known.where(known > 0, torch.ones_like(known)), torch.ones_like(known))


def _density(draws: Tensor, number: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Sum Gaussians along the axes, float64 [B,T,H,W], from numbers [B,N,7] and one [B] that decides how many.

    Exponentials are rounded to float32: their last bits in float64 depend on where in memory a sample lies.
    """
    weights, centres, spreads = draws[..., 0], draws[..., 1:4], draws[..., 4:7]  # [B,N], [B,N,3]
    blobs = FEWEST_BLOBS + (number * (MOST_BLOBS - FEWEST_BLOBS + 1)).long()  # [B]
    weights = weights * (torch.arange(MOST_BLOBS, device=draws.device) < blobs[:, None])
    spreads = LEAST_SPREAD + spreads * (MOST_SPREAD - LEAST_SPREAD)
    along = []
    for axis, length in enumerate(shape):
        cell = (torch.arange(length, device=draws.device, dtype=draws.dtype) + 0.5) / length
        distance = (cell - centres[..., axis, None]) / spreads[..., axis, None]  # [B,N,length]
        along.append(torch.exp(-distance.square() / 2).float().double())
    t, y, x = along
    density = draws.new_zeros(len(draws), *shape)
    for n in range(MOST_BLOBS):  # one after the other, in the order of the numbers
        plane = y[:, n, :, None] * x[:, n, None, :]  # [B,H,W]
        density += weights[:, n, None, None, None] * (t[:, n, :, None, None] * plane[:, None])
    return density


def _event_share(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the share of the events [B,T,P,H,W] inside a mask, float64 [B]; 0 without events."""
    whole = frames.flatten(1).sum(1, dtype=torch.float64)
    part = frames.masked_fill(~mask, 0).flatten(1).sum(1, dtype=torch.float64)
    return torch.where(whole > 0, part / whole.where(whole > 0, torch.ones_like(whole)), torch.zeros_like(whole))
