"""Settings that are sought: what is expected before any recording is seen, and within which limits.

Source: the middles and widths of `train.config.simulation_ranges`, made wider; N-MNIST's camera lies well inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spikebridge.train.calibration.start import Start
from spikebridge.train.config.simulation_ranges import (
    LANES,
    LATENESS,
    LIMITS,
    LIMITS_IN_TIME,
    WANDER,
    Leg,
    Profile,
    SimulationRanges,
)

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One number that is sought; on a logarithmic scale middle and deviation are those of the logarithm's."""

    name: str
    middle: float
    deviation: float
    """Standard deviation of what is expected; of the natural logarithm where `logarithmic`."""
    low: float
    high: float
    logarithmic: bool = False

    def value(self, z: float) -> float:
        """Return the value at so many deviations from the middle, within the limits."""
        moved = self.middle * math.exp(z * self.deviation) if self.logarithmic else self.middle + z * self.deviation
        return min(max(moved, self.low), self.high)

    def place(self, value: float) -> float:
        """Return how many deviations a value lies from the middle."""
        if self.logarithmic:
            return math.log(value / self.middle) / self.deviation
        return (value - self.middle) / self.deviation


CAMERA = (
    Parameter("light_gamma", 1.2, 0.3, *LIMITS["light_gamma"], True),
    Parameter("dark_level", 0.06, 0.7, *LIMITS["dark_level"], True),
    Parameter("softness", 0.3, 0.4, *LIMITS["softness"]),
    Parameter("threshold_on", 0.22, 0.4, *LIMITS["threshold_on"], True),
    Parameter("off_ratio", 1.0, 0.25, *LIMITS["off_ratio"], True),
    Parameter("threshold_spread", 0.1, 0.07, *LIMITS["threshold_spread"]),
    Parameter("bandwidth", 500.0, 0.9, *LIMITS["bandwidth"], True),
    Parameter("dead_time", 0.004, 0.8, *LIMITS["dead_time"], True),
    Parameter("leak", 0.15, 0.15, *LIMITS["leak"]),
    Parameter("noise", 0.015, 0.03, *LIMITS["noise"]),
    Parameter("scale", 1.0, 0.1, *LIMITS["scale"], True),
)
IN_TIME = {"bandwidth": 1, "leak": 1, "noise": 1, "dead_time": -1}
"""Which of these a camera has more of in a longer recording, in proportion, and which less."""
MOST_NOISE = 5.0
"""Factor on the noise that is expected, at most."""
USUAL_S, MIDDLE_S = (0.1, 0.75), 0.3
"""Lengths of recordings, seconds, for which these hold as they are; and the one for which they were chosen."""
ANY_SCALE = 0.25
"""Deviation of `scale` where nobody said which share of the sensor shows the images."""
CHOSEN = {
    **{"amplitude": (0.95, 1.05), "amplitude_spread": (0.0, 0.05), "turn": (-0.05, 0.05), "delay": (-0.01, 0.01)},
    **{"pace": (0.95, 1.05), "stretch": (-0.03, 0.03), "rotation": (-0.05, 0.05), "shear": (-0.05, 0.05)},
}
"""Ranges of what makes recordings differ from one another, which is not fitted: narrow, as of one camera on a mount."""
FREE = {"amplitude_spread": (0.0, 0.5), "x_start": (-1.5, 1.5), "y_start": (-1.5, 1.5)}
"""Those that differ where recordings move each in its own way."""
REST = Parameter("rest", 0.5, 0.5, 0.0, 1.0)
"""State of the pixels at the start, see `Profile`: nobody says how long before the image appeared."""
AMPLITUDE = Parameter("amplitude", 1.0, 0.5, *LIMITS["amplitude"], True)
"""Length of a free path, whose legs have no place and time of their own."""
LEG = ("x", "y", "start", "duration")
PLACE_PX, TURN_PX, START_SHARE, DURATION = 1.5, 1.5, 0.04, 0.3
"""Deviations of the guessed path: its start and its legs, in sensor pixels of a sensor of 34; times; log durations."""
STEP_PX = 0.1
"""Deviation of each of a path's steps, sensor pixels of a sensor of 34."""
STEADY = 0.005
"""Lateness of the legs of a path that all recordings share, see `Profile`: the delays of 20 real N-MNIST recordings,
measured with their static images, have a standard deviation of 0.0048."""
WIDTH_PX = 34
BLIND = 0.7
"""Dead time in shares of the shortest inter-event times: that much in simulated recordings of known cameras."""


def longer_than_usual(duration_us: int) -> float:
    """Return how many times as long as those of which a camera's values are expected recordings are; near 0.3 s 1.

    Values are in shares of a recording: what a camera does in a second it does three times as often in three.
    """
    seconds, (short, long) = duration_us / 1e6, USUAL_S
    if seconds < short:
        return max((seconds / short) ** 2, seconds / MIDDLE_S)
    return min(max(seconds / long, 1.0) ** 2, max(seconds / MIDDLE_S, 1.0))


def _in_time(parameter: Parameter, longer: float) -> Parameter:
    """Return what is expected in recordings that are so many times as long as usual, within what profiles may hold."""
    factor, high = longer ** IN_TIME.get(parameter.name, 0), parameter.high
    if parameter.name == "noise":  # in the model no pixel fires more than once
        factor = min(factor, MOST_NOISE)
    else:
        high *= factor
    deviation = parameter.deviation if parameter.logarithmic else parameter.deviation * factor
    least, most = LIMITS_IN_TIME.get(parameter.name, (-math.inf, math.inf))
    middle, low, high = (
        min(max(each, least), most) for each in (parameter.middle * factor, parameter.low * factor, high)
    )
    return replace(parameter, middle=middle, deviation=deviation, low=low, high=high)


def limits_of(name: str, duration_us: int) -> tuple[float, float]:
    """Return the least and the most of a camera's value that a fit to recordings of a length tries."""
    longer = longer_than_usual(duration_us)
    limited = {parameter.name: _in_time(parameter, longer) for parameter in (*CAMERA, AMPLITUDE)}
    return (limited[name].low, limited[name].high) if name in limited else (-math.inf, math.inf)


@dataclass(frozen=True)
class Unknowns:
    """The parameters of one search, and how their values make a profile."""

    parameters: tuple[Parameter, ...]
    legs: int
    """Legs that are sought, 0 for a free path."""
    inverted: bool
    surround: float | None = None
    """See `Profile`."""
    steps: int = 0
    """Steps that are sought."""
    appeared: bool = True
    """See `Profile`; where images fill the frame nobody knows on which ground."""

    @classmethod
    def from_start(
        cls,
        start: Start,
        *,
        sensor: tuple[int, int],
        inverted: bool,
        floor: float | None = None,
        fills: bool = False,
        surround: float | None = None,
    ) -> Unknowns:
        """Return what is unknown once the movement has been guessed.

        Args:
            start: the guess.
            sensor: (W, H) in pixels.
            inverted: sign of the light.
            floor: the shortest time between two events of a pixel, as a share of the recording: a little more than the
                time in which it is blind.
            fills: whether static images fill the frame, so that nobody said which share of the sensor shows them.
            surround: see `Profile`.
        """
        px = max(1.0, max(sensor) / WIDTH_PX)
        place = PLACE_PX * px
        known = {p.name: _in_time(p, start.longer) for p in CAMERA}
        if floor:
            dead = known["dead_time"]
            middle = min(max(BLIND * floor, dead.low), dead.high)
            known["dead_time"] = replace(dead, middle=middle, deviation=0.5)
        if fills:
            known["scale"] = replace(known["scale"], deviation=ANY_SCALE)
        sought = [
            *known.values(),
            *(
                Parameter(name, getattr(start, name), place, -max(sensor), max(sensor))
                for name in ("x_start", "y_start")
            ),
            REST,
        ]
        if start.free:
            sought = [p for p in sought if p.name not in ("x_start", "y_start")] + [AMPLITUDE]
            return cls(tuple(sought), 0, inverted, surround, appeared=not fills)
        turn = TURN_PX * px
        for number, leg in enumerate(start.legs, 1):
            sought += [
                Parameter(f"leg_{number}_x", leg.x, turn, -max(sensor), max(sensor)),
                Parameter(f"leg_{number}_y", leg.y, turn, -max(sensor), max(sensor)),
                Parameter(f"leg_{number}_start", leg.start, START_SHARE, -0.5, 1.0),
                Parameter(f"leg_{number}_duration", leg.duration, DURATION, 0.01, 1.5, True),
            ]
        return cls(tuple(sought), number, inverted, surround, appeared=not fills)

    def with_steps(self, count: int, *, sensor: tuple[int, int]) -> Unknowns:
        """Return these, and the steps of a path in so many parts of the recording; of no length in the middle."""
        deviation = STEP_PX * max(1.0, max(sensor) / WIDTH_PX)
        names = [f"step_{i}_{axis}" for i in range(1, count + 1) for axis in "xy"]
        sought = [Parameter(name, 0.0, deviation, -max(sensor), max(sensor)) for name in names]
        return replace(self, parameters=(*self.parameters, *sought), steps=count)

    def values(self, z: Vector) -> dict[str, float]:
        """Return all values by name at a place [K], in deviations from the middles."""
        return {p.name: p.value(float(place)) for p, place in zip(self.parameters, z, strict=True)}

    def path(self, values: Mapping[str, float]) -> tuple[Leg, ...]:
        """Return the legs of some values."""
        found = []
        for i in range(1, self.legs + 1):
            found.append(Leg(**{part: values[f"leg_{i}_{part}"] for part in LEG}))
        return tuple(found)

    def beside(self, values: Mapping[str, float]) -> tuple[tuple[float, float], ...]:
        """Return the steps of some values."""
        return tuple((values[f"step_{i}_x"], values[f"step_{i}_y"]) for i in range(1, self.steps + 1))

    def deviations(self, z: Vector, spread: Vector) -> dict[str, float]:
        """Return the standard deviations by name, in the values' own units, of a spread [K] in deviations."""
        found = {}
        for p, place, width in zip(self.parameters, z, spread, strict=True):
            found[p.name] = width * p.deviation * (p.value(float(place)) if p.logarithmic else 1.0)
        return found

    def bounds(self) -> tuple[Vector, Vector]:
        """Return the limits as places, [K] each."""
        low = [p.place(p.low) for p in self.parameters]
        high = [p.place(p.high) for p in self.parameters]
        return np.array(low), np.array(high)

    def profile(self, z: Vector) -> Profile:
        """Return the one camera, with one movement, at a place [K]: what is sought has ranges of no width."""
        values, free = self.values(z), not self.legs
        sought = {name: (value, value) for name, value in values.items() if name in LANES}
        return Profile(
            SimulationRanges(**CHOSEN | (FREE if free else {}) | sought),
            self.path(values) or WANDER,
            free=free,
            inverted=self.inverted,
            surround=self.surround,
            rest=values["rest"],
            appeared=self.appeared,
            steps=self.beside(values),
            blind_after=True,
            blurs_light=True,
            lateness=STEADY if self.legs else LATENESS,
        )
