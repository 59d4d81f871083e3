"""From a fit to a profile: values, uncertainties, ranges, and what is not decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.train.calibration.fit import Fit
from spikebridge.train.calibration.parameters import BLIND, CHOSEN, FREE, STEADY
from spikebridge.train.config.informing import CELLS
from spikebridge.train.config.profile import BEGIN, PATH, SIGN, START, VALUES_WITHIN, CameraProfile
from spikebridge.train.config.simulation_ranges import LANES, LATENESS, WANDER, Leg, Profile, SimulationRanges, blur_px2

UNDECIDED = 0.6
"""Deviation, relative to what was expected beforehand, from which on recordings decide nothing about a value."""
UNDECIDED_PATH = 0.25
"""Error of the movements' displacements, relative to them, from which on the path is not decided."""


def profile_of(
    found: Fit,
    *,
    sensor: tuple[int, int],
    duration_us: int,
    source: dict[str, Any],
    hot_pixels: Sequence[HotPixel] = (),
    cell_px: float = 1.0,
    shortest_us: float | None = None,
) -> CameraProfile:
    """Make the profile of a fit: ranges one standard deviation to either side, undecided values one of theirs.

    `cell_px` is the side of a frame's cell in sensor pixels. Where `source` has `CELLS`, of which each was simulated as
    one pixel, no blur of the camera is known, and its dead time is that of `shortest_us` between events of a pixel.
    """
    unknowns = found.unknowns
    values = unknowns.values(found.place)
    deviations = unknowns.deviations(found.place, found.spread)
    low = unknowns.values(found.place - found.spread)
    high = unknowns.values(found.place + found.spread)
    free = not unknowns.legs
    ranges = CHOSEN | (FREE if free else {}) | {name: (low[name], high[name]) for name in values if name in LANES}
    legs = unknowns.path({name: _short(value) for name, value in values.items()})
    undecided = [
        p.name for p, spread in zip(unknowns.parameters, found.spread, strict=True)
        if spread > UNDECIDED and p.name in (*LANES, START)
    ]  # fmt: skip
    if legs:
        length, late, long = _path_errors(legs, deviations)
        if length > UNDECIDED_PATH:
            undecided.append(PATH)
        # Of a path of no length any error is without end.
        most = VALUES_WITHIN["amplitude_spread"][1]
        ranges["amplitude_spread"] = (0.0, min(max(CHOSEN["amplitude_spread"][1], length), most))
        ranges["delay"] = _around(0.0, max(CHOSEN["delay"][1], late))
        ranges["pace"] = _around(1.0, max(CHOSEN["pace"][1] - 1, long))
    unsure: dict[str, Any] = {name: _short(value) for name, value in deviations.items() if not name.startswith("step_")}
    if unknowns.steps:
        unsure["steps"] = [[_short(x), _short(y)] for x, y in unknowns.beside(deviations)]
    if hot_pixels:  # their events come at random
        learnt = source["recordings"] - source["held_out"]
        unsure["hot_pixels"] = [
            [_short(math.sqrt(events / learnt)) for events in (pixel.off, pixel.on)] for pixel in hot_pixels
        ]
    undecided += [name for name in found.others if not found.decides(name)]
    profile = Profile(
        SimulationRanges(**{name: _rounded(ranges[name]) for name in LANES}),
        legs or WANDER,
        free=free,
        inverted=unknowns.inverted,
        surround=unknowns.surround,
        rest=_short(values[START]),
        appeared=unknowns.appeared,
        rest_spread=_short(deviations[START]) if START in undecided else 0.0,
        steps=tuple((_short(x), _short(y)) for x, y in unknowns.beside(values)),
        blind_after=True,
        blurs_light=True,
        lateness=STEADY if legs else LATENESS,
        either_sign=not found.decides(SIGN),
        either_begin=BEGIN in undecided,
        hot_pixels=tuple(HotPixel(pixel.x, pixel.y, _short(pixel.off), _short(pixel.on)) for pixel in hot_pixels),
    )
    return CameraProfile(
        profile,
        sensor,
        duration_us,
        tuple(undecided),
        {
            "camera": {name: _short(value) for name, value in values.items() if name in LANES},
            "uncertainty": unsure,
            "alternatives": {name: _short(other) for name, other in found.others.items()},
            "microseconds": _of_pixels(
                in_microseconds(values, duration_us, shown_fraction=source["shown_fraction"], cell_px=cell_px),
                source,
                shortest_us,
            ),
            "source": source,
        },
    )


def _of_pixels(camera: dict[str, float], source: Mapping[str, Any], shortest_us: float | None) -> dict[str, float]:
    """Return what is known of pixels, where cells of many were fitted; see `profile_of`."""
    if CELLS not in source:
        return camera
    if shortest_us is not None:
        camera["refractory_us"] = max(1, round(BLIND * shortest_us))
    return {name: value for name, value in camera.items() if name != "blur_px"}


def _path_errors(legs: tuple[Leg, ...], deviations: Mapping[str, float]) -> tuple[float, float, float]:
    """Return the errors of a path, root mean square over its legs by the squares of their lengths.

    Of displacements and durations they are relative, of starts shares of the recording.
    """
    squares = [leg.x**2 + leg.y**2 + 1e-18 for leg in legs]

    def mean(errors: list[float]) -> float:
        return math.sqrt(sum(a * b for a, b in zip(squares, errors, strict=True)) / sum(squares))

    def error(number: int, part: str) -> float:
        return deviations[f"leg_{number}_{part}"]

    along = [(error(i, "x") ** 2 + error(i, "y") ** 2) / 2 / squares[i - 1] for i in range(1, len(legs) + 1)]
    late = [error(i, "start") ** 2 for i in range(1, len(legs) + 1)]
    long = [(error(i, "duration") / legs[i - 1].duration) ** 2 for i in range(1, len(legs) + 1)]
    return mean(along), mean(late), mean(long)


def _around(middle: float, width: float) -> tuple[float, float]:
    return middle - width, middle + width


def in_microseconds(
    values: Mapping[str, float], duration_us: int, *, shown_fraction: float = 1.0, cell_px: float = 1.0
) -> dict[str, float]:
    """Return the quantities that the simulator of `spikebridge simulate` has too, under its names and in its units.

    `shown_fraction` is the share of the sensor that static images fill, `cell_px` the side of an image's pixel in
    sensor pixels.
    """
    seconds = duration_us * 1e-6
    return {
        "gamma": _short(values["light_gamma"]),
        "dark_level": _short(values["dark_level"]),
        "blur_px": _short(math.sqrt(blur_px2(values["softness"])) * values["scale"] * cell_px),
        "threshold_on": _short(values["threshold_on"]),
        "threshold_off": _short(values["threshold_on"] * values["off_ratio"]),
        # Uniform over +- the spread here, normal there.
        "threshold_spread": _short(values["threshold_spread"] / math.sqrt(3)),
        "bandwidth_hz": _short(values["bandwidth"] / (2 * math.pi * seconds)),
        "refractory_us": max(1, round(values["dead_time"] * duration_us)),
        "leak_hz": _short(values["leak"] / seconds),
        "shot_hz": _short(values["noise"] / seconds),
        "shown_fraction": _short(values["scale"] * shown_fraction),
        "x_offset_px": _short(values.get("x_start", 0.0)),
        "y_offset_px": _short(values.get("y_start", 0.0)),
    }


def _short(value: float) -> float:
    """Round to four digits: more is never known."""
    return float(f"{value:.4g}")


def _rounded(pair: tuple[float, float]) -> tuple[float, float]:
    return _short(pair[0]), _short(pair[1])
