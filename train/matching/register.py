"""The camera again, now from recordings whose static image is known: rendered, and compared cell by cell.

Axes: n recordings, F features, K parameters.

A fit to means over a set leaves the path unsure by a pixel and times by some hundredths; where an image must be told
from others that differ by as little, that decides. Damped Gauss-Newton steps, with differences of the simulator in
place of derivatives, bring the renderings of the images to the recordings; ranges move with their middles.

Source: Marquardt 1963.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.train.config.simulation_ranges import LIMITS, Profile
from spikebridge.train.matching.gallery import Shown

Vector = NDArray[np.float64]
Render = Callable[[Profile], Tensor]
"""Makes features [n,F] of the images at the middle of a camera's ranges."""

FACTORS = {
    **{"light_gamma": 0.1, "dark_level": 0.2, "threshold_on": 0.1, "off_ratio": 0.1, "bandwidth": 0.3},
    **{"dead_time": 0.3, "scale": 0.02},
}
"""Settings that are multiplied, and the natural logarithm of a unit's factor."""
SHIFTS = {"softness": 0.1, "threshold_spread": 0.03, "leak": 0.05, "x_start": 0.3, "y_start": 0.3}
"""Settings that are added to, and a unit; positions in sensor pixels."""
PLACES = ("x_start", "y_start")
"""Those of these in pixels."""
LEG_UNITS = {"x": 0.3, "y": 0.3, "start": 0.01, "duration": 0.02}
"""Parts of a leg that are added to, and a unit: pixels, and shares of the recording."""
PULL = 1e-3
"""Part of the mean square of the slopes by which the steps are drawn to where the fit was."""
DAMPING = (0.1, 0.2, 6.0)
"""At first; its factor behind a step that comes nearer, and behind one that does not."""
STEPS, ATTEMPTS, GAIN, LONGEST = 6, 4, 0.005, 4.0
"""Steps and attempts at each, at most; part of the distance that a step has to gain; longest step in units."""


def register(
    profile: Profile, recordings: Tensor, render: Render, *, px: float = 1.0, shown: Shown = lambda *_: lambda: None
) -> tuple[Profile, float]:
    """Bring a camera nearer to recordings.

    Args:
        profile: the camera as it is known; a free path and steps stay as they are.
        recordings: features [n,F].
        render: of the images that they show, in their order.
        px: factor on units of pixels: how many a sensor has for one of N-MNIST's, or 1.
        shown: progress.

    Returns:
        The camera, and the part of the mean square difference that is left.
    """
    count = len(_units(profile))

    def difference(place: Vector) -> Vector:
        made: Vector = (recordings - render(_moved(profile, place, px))).flatten().double().numpy()
        return made

    place, left = np.zeros(count), difference(np.zeros(count))
    before = distance = float(left @ left)
    damping, advance, done = DAMPING[0], shown(STEPS, "camera"), 0
    while done < STEPS:
        slopes = np.stack([left - difference(place + unit) for unit in np.eye(count)])  # [K,nF]
        normal = slopes @ slopes.T
        normal += PULL * np.trace(normal) / count * np.eye(count)
        gradient, start = slopes @ left, distance
        for _ in range(ATTEMPTS):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
            tried = place + np.clip(step, -LONGEST, LONGEST)
            there = difference(tried)
            if float(there @ there) < distance:
                place, left, distance = tried, there, float(there @ there)
                damping *= DAMPING[1]
                break
            damping *= DAMPING[2]
        for _ in range(1 if start - distance >= GAIN * start else STEPS - done):  # nothing is gained by more
            advance()
            done += 1
    return _moved(profile, place, px), distance / max(before, 1e-12)


def _units(profile: Profile) -> list[str]:
    """Return what is sought, by name."""
    legs = [] if profile.free else [f"{i} {part}" for i in range(len(profile.legs)) for part in LEG_UNITS]
    return [*FACTORS, *SHIFTS, *legs]


def _moved(profile: Profile, place: Vector, px: float) -> Profile:
    """Return the camera with all ranges moved by so many units, within the limits."""
    by = dict(zip(_units(profile), place.tolist(), strict=True))
    ranges = {}
    for name in (*FACTORS, *SHIFTS):
        low, high = getattr(profile.ranges, name)
        if name in FACTORS:
            factor = math.exp(by[name] * FACTORS[name])
            low, high = low * factor, high * factor
        else:
            shift = by[name] * SHIFTS[name] * (px if name in PLACES else 1.0)
            low, high = low + shift, high + shift
        least, most = LIMITS.get(name, (-math.inf, math.inf))
        own = getattr(profile.ranges, name)  # of long and short recordings they may lie beyond
        least, most = min(least, own[0]), max(most, own[1])
        ranges[name] = (min(max(low, least), most), min(max(high, least), most))
    legs = profile.legs
    if not profile.free:
        legs = tuple(
            replace(leg, **{part: _leg_value(part, getattr(leg, part), by[f"{i} {part}"], px) for part in LEG_UNITS})
            for i, leg in enumerate(profile.legs)
        )
    return replace(profile, ranges=replace(profile.ranges, **ranges), legs=legs)


def _leg_value(part: str, value: float, units: float, px: float) -> float:
    moved = value + units * LEG_UNITS[part] * (px if part in ("x", "y") else 1.0)
    return max(moved, LEG_UNITS["duration"]) if part == "duration" else moved
