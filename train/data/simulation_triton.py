"""The training simulator on a GPU: two kernels for a batch, the light between them, and not a number from the host.

Axes: N samples, C channels, H, W of an image, h, w of the sensor grid, T time bins, S = T * INSTANTS instants. The
figures are those of `train.data.simulation` but for roundings, which tip a count here and there.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import triton
from torch import Tensor

from spikebridge.train.config.simulation_ranges import (
    ALL_LANES,
    BEGIN_LANE,
    BY_LOGARITHM,
    FREEDOM_LANE,
    INSTANTS,
    LANES,
    LEG_LANES,
    SIGN_LANE,
    STILL,
    Profile,
    step_spans,
)
from spikebridge.train.data import kernels_triton as kernels
from spikebridge.train.data.images.light import light_of
from spikebridge.train.data.order import derived_seed

SETTINGS = len(LANES)
TILE = 128
"""Grid pixels of a program."""


def _lanes(**names: str) -> dict[str, int]:
    """Return the lanes of settings under the names of a kernel's constants."""
    return {constant: LANES[name] for constant, name in names.items()}


PATH = _lanes(
    AMPLITUDE="amplitude", AMPLITUDE_SPREAD="amplitude_spread", TURN="turn", PACE="pace", DELAY="delay",
    X_START="x_start", Y_START="y_start",
)  # fmt: skip
PIXEL = _lanes(
    THRESHOLD_ON="threshold_on", OFF_RATIO="off_ratio", THRESHOLD_SPREAD="threshold_spread", BANDWIDTH="bandwidth",
    DEAD_TIME="dead_time", LEAK="leak", NOISE="noise", SCALE="scale", STRETCH="stretch", ROTATION="rotation",
    SHEAR="shear", DARK="dark_level", GAMMA="light_gamma",
)  # fmt: skip
SEEN = ("light_gamma", "softness")
"""Settings that decide the light of an image."""


@cache
def _tables(profile: Profile, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the ranges [3,L] of a profile and its legs and steps [n,4] on a device, copied once."""
    rows = []
    for name in LANES:
        low, high = getattr(profile.ranges, name)
        by_logarithm = name in BY_LOGARITHM
        rows.append((math.log(low), math.log(high), 1.0) if by_logarithm else (low, high, 0.0))
    rows += [(0.0, 1.0, 0.0)] * (ALL_LANES - len(rows))
    rows[FREEDOM_LANE] = (*profile.freedom, 0.0)
    legs = [(leg.x, leg.y, leg.start, leg.duration) for leg in profile.legs]
    legs += [(*step, *span) for step, span in zip(profile.steps, step_spans(len(profile.steps)), strict=True)]
    return torch.tensor(rows).t().contiguous().to(device), torch.tensor(legs).to(device)


@torch.no_grad()
def simulate_counts(
    images: Tensor,
    *,
    seed: int,
    epoch: Tensor,
    draws: Tensor,
    grid: tuple[int, int],
    moves: tuple[float, float],
    time_bins: int,
    profile: Profile,
) -> Tensor:
    """Count the events of static images on the sensor grid: float32 [T,N,2,h,w], OFF before ON.

    Args:
        images: float32 [N,C,H,W] in [0, 1].
        seed: root seed of the run.
        epoch: 0-d int64.
        draws: int64 [N].
        grid: (h, w).
        moves: half widths of the grid in a sensor pixel, along x and y.
        time_bins: T.
        profile: camera and movement.
    """
    N, around = len(images), profile.surround
    (h, w), S = grid, time_bins * INSTANTS
    ranges, legs = _tables(profile, images.device)
    settings, places = images.new_empty(N, ALL_LANES), images.new_empty(N, 2, S + 1)
    counts = images.new_empty(time_bins, N, 2, h, w)
    draws = draws.contiguous()
    kernels.cameras[(N,)](
        *(ranges, legs, epoch, draws, derived_seed(seed, "simulation"), settings, places, *moves),
        S=S,
        LANES=ALL_LANES,
        SETTINGS=SETTINGS,
        LEG_LANES=LEG_LANES,
        LEGS=len(profile.legs),
        STEPS=len(profile.steps),
        FREE=profile.free,
        LATENESS=profile.lateness,
        BLOCK_L=triton.next_power_of_2(ALL_LANES),
        BLOCK_S=triton.next_power_of_2(S + 1),
        **PATH,
    )
    s = {name: settings[:, LANES[name]] for name in SEEN}
    light = light_of(images, s, settings[:, SIGN_LANE], profile, grid)
    sizes = *light.cells.shape[2:], h, w
    kernels.events[(N, triton.cdiv(h * w, TILE))](
        *(light.cells, settings, places, epoch, draws, derived_seed(seed, "simulation pixels"), counts, N, *sizes),
        T=time_bins,
        INSTANTS=INSTANTS,
        LANES=ALL_LANES,
        GROUND=float(-1 if around is None else 1 - around if profile.inverted else around),
        FREEDOM=FREEDOM_LANE,
        APPEARED=profile.appeared or profile.either_begin,
        BEGIN=BEGIN_LANE if profile.either_begin else -1,
        BLIND=profile.blind_after,
        WIDER=light.wider,
        HIGHER=light.higher,
        STILL=STILL,
        BLANK=(1.0 if profile.inverted else 0.0) if around is None else -1.0,
        SIGN=SIGN_LANE if profile.either_sign and around is None else -1,
        BLOCK=TILE,
        **PIXEL,
    )
    return counts
