"""Profiles: one camera and its movement as a TOML file, checked as recipes are.

    schema, sensor, duration_us, inverted, free, undecided      what holds for all
    [[legs]]          the path: x, y in sensor pixels, start, duration as shares of the recording
    [ranges]          lowest and highest value of every setting that training draws
    [camera]          the most likely value of every setting that was fitted
    [uncertainty]     standard deviations of these values, and of the path's
    [microseconds]    the same camera in the units of the simulator behind `spikebridge simulate`
    [source]          recordings, static images, seed

Numbers that only inform ([camera], [uncertainty], [microseconds], [source]) decide nothing.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.settings import field_problems, setting
from spikebridge.train.calibration.fit import Fit
from spikebridge.train.calibration.parameters import AMPLITUDE, CAMERA, LEG
from spikebridge.train.config.recipes import toml_value
from spikebridge.train.config.shipped import MOST_BYTES
from spikebridge.train.data.simulation_ranges import (
    BY_LOGARITHM,
    LANES,
    MOST_LEGS,
    WANDER,
    Leg,
    Profile,
    SimulationRanges,
)
from spikebridge.train.errors import RecipeError

SCHEMA = 1
PATH, SIGN = "path", "inverted"
"""What may be undecided besides the values that have ranges."""
UNDECIDED = 0.6
"""Deviation, relative to what was expected beforehand, from which on recordings decide nothing about a value."""
CHOSEN = {
    **{"amplitude": (0.95, 1.05), "amplitude_spread": (0.0, 0.05), "turn": (-0.05, 0.05), "delay": (-0.01, 0.01)},
    **{"pace": (0.95, 1.05), "stretch": (-0.03, 0.03), "rotation": (-0.05, 0.05), "shear": (-0.05, 0.05)},
}
"""Ranges of what makes recordings differ from one another, which is not fitted: narrow, as of one camera on a mount."""
FREE = {"amplitude_spread": (0.0, 0.5), "x_start": (-1.5, 1.5), "y_start": (-1.5, 1.5)}
"""Ranges that differ where recordings move each in its own way."""
_LIMITS = {p.name: (p.low, p.high) for p in (*CAMERA, AMPLITUDE)}
_LOWEST = {"amplitude": 0.01, "pace": 0.05, "amplitude_spread": 0.0}
"""Limits of the ranges that are not fitted; others may have any finite value."""


@dataclass(frozen=True)
class _Head:
    """What stands above the tables."""

    schema: int = setting(choices=(SCHEMA,))
    sensor: tuple[int, ...] = setting(low=1, high=2**14)
    duration_us: int = setting(low=1)
    inverted: bool = setting()
    free: bool = setting()
    undecided: tuple[str, ...] = setting((), choices=(*_LIMITS, "x_start", "y_start", PATH, SIGN))


@dataclass(frozen=True)
class _LegTable:
    """A table of `[[legs]]`."""

    x: float = setting(low=-(2**14), high=2**14)
    y: float = setting(low=-(2**14), high=2**14)
    start: float = setting(low=-1.0, high=1.0)
    duration: float = setting(low=0.001, high=2.0)


INFORMING = ("camera", "uncertainty", "microseconds", "source")
_KEYS = (*(field.name for field in fields(_Head)), "legs", "ranges", *INFORMING)


@dataclass(frozen=True)
class CameraProfile:
    """A profile as it is read and written."""

    profile: Profile
    """What training simulates."""
    sensor: tuple[int, int]
    """(W, H) in pixels of the recordings."""
    duration_us: int
    """Median length of a recording."""
    undecided: tuple[str, ...]
    """Values about which the recordings decide nothing; their ranges are wide."""
    informing: dict[str, dict[str, Any]]
    """The tables that decide nothing."""

    @classmethod
    def from_fit(
        cls, found: Fit, *, sensor: tuple[int, int], duration_us: int, source: dict[str, Any]
    ) -> CameraProfile:
        """Make the profile of a fit: ranges one standard deviation to either side, undecided values one of theirs."""
        unknowns = found.unknowns
        values = unknowns.values(found.place)
        deviations = unknowns.deviations(found.place, found.spread)
        low = unknowns.values(found.place - found.spread)
        high = unknowns.values(found.place + found.spread)
        free = not unknowns.legs
        ranges = CHOSEN | (FREE if free else {}) | {name: (low[name], high[name]) for name in values if name in LANES}
        legs = tuple(Leg(*(_short(values[f"leg_{i}_{part}"]) for part in LEG)) for i in range(1, unknowns.legs + 1))
        undecided = [
            p.name for p, spread in zip(unknowns.parameters, found.spread, strict=True)
            if spread > UNDECIDED and p.name in LANES
        ]  # fmt: skip
        if any(
            spread > UNDECIDED and p.name.startswith("leg")
            for p, spread in zip(unknowns.parameters, found.spread, strict=True)
        ):
            undecided.append(PATH)
        if not found.sign_known:
            undecided.append(SIGN)
        profile = Profile(
            SimulationRanges(**{name: _rounded(ranges[name]) for name in LANES}),
            legs or WANDER,
            free=free,
            inverted=unknowns.inverted,
        )
        return cls(
            profile,
            sensor,
            duration_us,
            tuple(undecided),
            {
                "camera": {name: _short(value) for name, value in values.items() if name in LANES},
                "uncertainty": {name: _short(value) for name, value in deviations.items()},
                "microseconds": in_microseconds(values, duration_us),
                "source": source,
            },
        )

    def dump(self) -> str:
        """Return the profile as TOML; reading it back gives an equal profile."""
        p = self.profile
        head = {
            "schema": SCHEMA, "sensor": list(self.sensor), "duration_us": self.duration_us, "inverted": p.inverted,
            "free": p.free, "undecided": list(self.undecided),
        }  # fmt: skip
        lines = ["# Camera and movement of recordings, made by `spikebridge calibrate`.", *_lines(head), ""]
        for leg in p.legs:
            lines += ["[[legs]]", *_lines(asdict(leg)), ""]
        ranges = {name: list(getattr(p.ranges, name)) for name in LANES}
        for table, content in {"ranges": ranges, **self.informing}.items():
            lines += [f"[{table}]", *_lines(content), ""]
        return "\n".join(lines[:-1]) + "\n"


def in_microseconds(values: Mapping[str, float], duration_us: int) -> dict[str, float]:
    """Return the quantities that the simulator of `spikebridge simulate` has too, under its names and in its units."""
    seconds = duration_us * 1e-6
    return {
        "gamma": _short(values["light_gamma"]),
        "dark_level": _short(values["dark_level"]),
        "threshold_on": _short(values["threshold_on"]),
        "threshold_off": _short(values["threshold_on"] * values["off_ratio"]),
        # Uniform over +- the spread here, normal there.
        "threshold_spread": _short(values["threshold_spread"] / math.sqrt(3)),
        "bandwidth_hz": _short(values["bandwidth"] / (2 * math.pi * seconds)),
        "refractory_us": round(values["dead_time"] * duration_us),
        "leak_hz": _short(values["leak"] / seconds),
        "shot_hz": _short(values["noise"] / seconds),
    }


def read_profile(path: Path) -> CameraProfile:
    """Read a profile.

    Raises:
        RecipeError: no such file, no TOML, or every problem of its content at once.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(str(path), [f"longer than {MOST_BYTES:,} bytes; expected a profile"], what="profile")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); make one with `spikebridge calibrate`"
        raise RecipeError(str(path), [problem], what="profile") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(str(path), [f"not valid TOML: {error}"], what="profile") from error
    return profile_from(tables, name=str(path))


def profile_from(tables: Mapping[str, Any], *, name: str) -> CameraProfile:
    """Check plain tables and make them a profile.

    Raises:
        RecipeError: every problem at once.
    """
    problems = [f"{key}: unknown key{suggest(key, _KEYS)}" for key in tables if key not in _KEYS]
    head = {field.name: tables[field.name] for field in fields(_Head) if field.name in tables}
    problems += [f"{key.name}: missing" for key in fields(_Head) if key.name not in tables and key.name != "undecided"]
    problems += field_problems(_Head, head)
    if isinstance(sensor := head.get("sensor"), list) and len(sensor) != 2:
        problems.append(f"sensor: found {len(sensor)} numbers, expected width and height in pixels")
    legs = _checked_legs(tables.get("legs"), problems)
    ranges = _checked_ranges(tables.get("ranges"), problems)
    informing = {key: tables[key] for key in INFORMING if key in tables}
    problems += [
        f"{key}: found a value, expected a table [{key}]"
        for key, table in informing.items()
        if not isinstance(table, dict)
    ]
    if problems:
        raise RecipeError(name, problems, what="profile")
    made = Profile(SimulationRanges(**ranges), legs, free=head["free"], inverted=head["inverted"])
    return CameraProfile(made, tuple(head["sensor"]), head["duration_us"], tuple(head.get("undecided", ())), informing)


def _checked_legs(given: Any, problems: list[str]) -> tuple[Leg, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_LEGS or not all(isinstance(t, dict) for t in given):
        problems.append(f"legs: expected one to {MOST_LEGS} tables [[legs]]")
        return ()
    names, legs = [field.name for field in fields(_LegTable)], []
    for number, table in enumerate(given, 1):
        found = [f"{key}: unknown key{suggest(key, names)}" for key in table if key not in names]
        found += [f"{key}: missing" for key in names if key not in table] + field_problems(_LegTable, table)
        problems += [f"legs, number {number}, {problem}" for problem in found]
        if not found:
            legs.append(Leg(**{key: float(value) for key, value in table.items()}))
    return tuple(legs)


def _checked_ranges(given: Any, problems: list[str]) -> dict[str, tuple[float, float]]:
    if not isinstance(given, dict):
        problems.append("ranges: expected a table [ranges]")
        return {}
    problems += [f"[ranges] {key}: unknown key{suggest(key, LANES)}" for key in given if key not in LANES]
    ranges = {}
    for name in LANES:
        pair = given.get(name)
        if name not in given:
            problems.append(f"[ranges] {name}: missing")
        elif not isinstance(pair, list) or len(pair) != 2 or not all(_is_number(value) for value in pair):
            problems.append(f"[ranges] {name}: found {pair}, expected the lowest and the highest value, [low, high]")
        else:
            low, high = _LIMITS.get(name, (_LOWEST.get(name, -math.inf), math.inf))
            if pair[0] > pair[1]:
                problems.append(f"[ranges] {name}: the lowest value {pair[0]} is above the highest, {pair[1]}")
            elif pair[0] < low or pair[1] > high or (name in BY_LOGARITHM and pair[0] <= 0):
                problems.append(f"[ranges] {name}: {pair} is not within {low} to {high}")
            ranges[name] = (float(pair[0]), float(pair[1]))
    return ranges


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in table.items()]


def _short(value: float) -> float:
    """Round to four digits: more is never known."""
    return float(f"{value:.4g}")


def _rounded(pair: tuple[float, float]) -> tuple[float, float]:
    return _short(pair[0]), _short(pair[1])
