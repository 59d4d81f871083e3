"""Static images as light: what a simulated camera sees before anything moves.

Axes: B samples, C channels, H, W of an image, h, w of a map of light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.train.config.simulation_ranges import (
    LEAST_BLUR_PX2,
    SOFTNESS_PX2,
    SUPERSAMPLE,
    Profile,
    blur_px2,
)

BLUR_REACH = 3
"""Standard deviations of a blur that are summed over."""


class Light(NamedTuple):
    """What a sensor sees of images, before it moves."""

    cells: Tensor
    """[B,1,h,w], black at 0, white at 1."""
    ground: Tensor | None
    """[B,1,1,1], the light around them; None where the images' border goes on."""
    wider: float = 1.0
    """Width of `cells` relative to the image's: some of the ground may be among them."""
    higher: float = 1.0
    """The same of the height."""


def light_of(images: Tensor, s: Mapping[str, Tensor], sign: Tensor, profile: Profile, grid: tuple[int, int]) -> Light:
    """Return the light of images [B,C,H,W] in [0, 1], sharpened or blurred.

    Where the profile blurs light, there are `SUPERSAMPLE` cells or more per pixel that sees it and axis, as many per
    pixel of the image, and a margin of what lies around.

    Args:
        images: of any C, which are averaged.
        s: see `scale_settings`.
        sign: [B] in [0, 1), by which samples show the negative where nobody knows the sign.
        profile: camera.
        grid: (h, w) pixels that see the images.
    """
    grey = images.float().mean(1, keepdim=True)  # [B,1,H,W]
    if profile.either_sign:
        grey = torch.where(negative(sign), 1 - grey, grey)
    around = None if profile.surround is None else torch.full_like(grey[..., :1, :1], profile.surround)
    ground = None if around is None else seen(around, s, profile)
    if not profile.blurs_light:
        return Light(seen(_softened(grey, s["softness"], around), s, profile), ground)
    sides = grey.shape[2:]
    # Pixels of the image for one that sees it, once it is as large as in the fit: its blur is made larger with it.
    sizes = zip(sides, grid, reversed(profile.fitted_size), strict=True)
    per_pixel = [side / pixels / larger for side, pixels, larger in sizes]
    finer = max(1, *(math.ceil(SUPERSAMPLE / each - 1e-6) for each in per_pixel))
    reach = BLUR_REACH * math.sqrt(blur_px2(profile.ranges.softness[1]))
    down, across = (0 if ground is None else math.ceil(reach * each) for each in per_pixel)
    if ground is not None:
        grey = F.pad(grey, (across, across, down, down), value=profile.surround)
    if finer > 1:
        grey = F.interpolate(grey, scale_factor=finer, mode="bicubic", align_corners=False).clamp_(0, 1)
    cells = per_pixel[0] * finer, per_pixel[1] * finer
    blurred = _blurred(seen(grey, s, profile), s["softness"], reach, cells, ground)
    return Light(blurred, ground, 1 + 2 * across / sides[1], 1 + 2 * down / sides[0])


def negative(sign: Tensor) -> Tensor:
    """Return which samples show the negative, [B,1,1,1]."""
    return sign.view(-1, 1, 1, 1) < 0.5


def _blurred(
    light: Tensor, softness: Tensor, reach: float, cells: tuple[float, float], ground: Tensor | None
) -> Tensor:
    """Return light [B,1,H,W] as a softness [B] blurs it; `ground` or its border lies around it.

    The blur reaches over `reach` pixels, of which each has so many cells down and across.
    """
    pixels_squared = (LEAST_BLUR_PX2 + SOFTNESS_PX2 * softness).clamp(min=1e-6)  # [B]
    down, across = (math.ceil(reach * each) for each in cells)
    edges = (across, across, down, down)
    sides = light.shape[2:]
    light = F.pad(light, edges, mode="replicate") if ground is None else F.pad(light - ground, edges)
    for axis, size, far, per_pixel in zip((2, 3), sides, (down, across), cells, strict=True):
        variance = pixels_squared * per_pixel**2  # [B], cells squared
        away = torch.arange(far + 1, device=light.device)
        weights = torch.exp(-0.5 * away**2 / variance[:, None])  # [B,far + 1]
        weights = weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])
        near = [light.narrow(axis, far + way, size) for way in range(-far, far + 1)]
        blurred = near[far] * weights[:, 0, None, None, None]
        for i in range(1, far + 1):
            blurred.addcmul_(near[far - i] + near[far + i], weights[:, i, None, None, None])
        light = blurred
    return light if ground is None else light + ground


def _softened(values: Tensor, softness: Tensor, around: Tensor | None) -> Tensor:
    """Return values [B,1,H,W] in 0 to 1, blurred by a share `softness` [B]; beyond their edge are [B,1,1,1] or they."""
    edge = F.pad(values, (1, 1, 1, 1), mode="replicate")
    if around is not None:
        edge[..., (0, -1), :] = around
        edge[..., (0, -1)] = around
    rows = edge[..., 1:-1, :] / 2 + (edge[..., :-2, :] + edge[..., 2:, :]) / 4
    soft = rows[..., 1:-1] / 2 + (rows[..., :-2] + rows[..., 2:]) / 4
    return (values + softness.view(-1, 1, 1, 1) * (soft - values)).clamp(0, 1)


def seen(grey: Tensor, s: Mapping[str, Tensor], profile: Profile) -> Tensor:
    """Return the light [B,1,H,W] of grey values as the camera saw them."""
    return (1 - grey if profile.inverted else grey).pow(s["light_gamma"].view(-1, 1, 1, 1))
