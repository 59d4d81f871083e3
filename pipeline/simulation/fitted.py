"""Cameras that `spikebridge calibrate` fitted, as settings of this simulator.

A profile is a TOML file (`train.config.profile`). Read here are `sensor`, `duration_us`, `inverted`, `undecided`, the
path `[[legs]]` (x, y in sensor pixels; start, duration in shares of the recording), its `steps` (x and y of what it
does beside the legs in each of so many equal parts of the recording) and `[microseconds]`, whose keys are fields of
`SimulatorSettings`; where recordings move each in its own way (`free`), also `amplitude` of `[camera]`, the length of
their legs relative to `[[legs]]`; `surround`, the grey value around the image, black without; `rest` and `appeared`,
where pixels begin; and `hot_pixels`, rows of x, y, OFF and ON events in a recording.
What a profile does not hold is as in N-MNIST: how recordings differ, and in older ones blur and where pixels begin.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.settings import field_problems, is_finite, setting
from spikebridge.pipeline.formats.bin40 import MAX_TIME_US
from spikebridge.pipeline.simulation.settings import Saccade, SimulatorSettings

MOST_BYTES = 2**20
"""Longest file that is read."""
NEEDED = (
    *("gamma", "dark_level", "threshold_on", "threshold_off", "threshold_spread", "bandwidth_hz", "refractory_us"),
    *("leak_hz", "shot_hz", "shown_fraction", "x_offset_px", "y_offset_px"),
)
"""Keys of `[microseconds]`."""
BLUR = "blur_px"
"""Another, which profiles of before version 11 of the calibration have not."""
BEGIN = ("rest", "appeared")
"""Keys above the tables, which older profiles have not."""
LEG = ("x", "y", "start", "duration")
"""Keys of `[[legs]]`."""
TIMED = ("timing_jitter_us", "duration_jitter_us")
"""Settings that go with the length of a recording."""
FARTHEST = 2**14
"""Of a leg or a step, pixels or lengths of the recording: more is no path."""
MOST_DEAD = 0.95
"""Share of the time in which a hot pixel is dead, at most: the dead time is known roughly."""
MOST_SAMPLES = 310
"""Samples of the light in a recording that is shorter than N-MNIST's; of longer ones there is one each millisecond."""


@dataclass(frozen=True)
class _Head:
    """What is read above the tables."""

    sensor: tuple[int, ...] = setting(low=1)
    duration_us: int = setting(low=1, high=MAX_TIME_US)
    inverted: bool = setting()
    free: bool = setting()
    undecided: tuple[str, ...] = setting(())
    surround: float = setting(0.0, low=0.0, high=1.0)
    rest: float = setting(1.0, low=0.0, high=1.0)
    appeared: bool = setting(False)


@dataclass(frozen=True)
class _Source:
    """What is read of [source]."""

    cells: tuple[int, ...] = setting((), low=1)


@dataclass(frozen=True)
class FittedCamera:
    """A camera, and what the recordings behind it did not tell."""

    settings: SimulatorSettings
    undecided: tuple[str, ...]
    """Names of values that are guesses: what one expects of any camera; of the sign of the light, the nearer one."""
    cells: tuple[int, int] | None = None
    """Columns and rows of cells of which the fit simulated each as one pixel; None where it simulated pixels."""


def read_camera(path: Path) -> FittedCamera:
    """Read the camera of a profile; see `camera_of`."""
    return camera_of(_read(path), path)


def camera_of(tables: Mapping[str, Any], path: Path) -> FittedCamera:
    """Return the camera of a profile's tables, which are those of a file, to be named in errors.

    Raises:
        SettingsError: no profile, or every problem of it at once.
    """
    problems = field_problems(_Head, tables)
    names = ("sensor", "duration_us", "inverted", "free", "legs", "microseconds")
    problems += [f"{name}: missing" for name in names if name not in tables]
    if problems:
        raise SettingsError(_problem(path, problems))
    if len(tables["sensor"]) != 2:
        problems.append(f"sensor: found {len(tables['sensor'])} numbers, expected width and height in pixels")
    camera, legs = tables["microseconds"], tables["legs"]
    if not isinstance(camera, dict):
        problems.append("microseconds: expected a table")
    else:
        problems += [f"[microseconds] {name}: missing; calibrate again" for name in NEEDED if name not in camera]
        problems += [f"[microseconds] {problem}" for problem in field_problems(SimulatorSettings, camera)]
    if not isinstance(legs, list) or not legs or not all(_is_leg(leg) for leg in legs):
        problems.append("legs: expected tables [[legs]] with the numbers x, y, start and duration; calibrate again")
    steps = tables.get("steps", [])
    if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
        problems.append("steps: expected pairs of numbers [x, y]")
    elif steps and tables["free"]:
        problems.append(
            "steps: found some beside free = true; where recordings move each in its own way there are none"
        )
    hot_pixels = tables.get("hot_pixels", [])
    if not isinstance(hot_pixels, list) or not all(_is_hot_pixel(row) for row in hot_pixels):
        problems.append("hot_pixels: expected rows [x, y, OFF events, ON events], x and y whole")
    length: Any = 1.0
    if tables["free"]:
        length = fitted.get("amplitude") if isinstance(fitted := tables.get("camera"), dict) else None
    if not is_finite(length) or length <= 0:
        problems.append("[camera] amplitude: expected a number above 0; calibrate again")
    cells = _checked_cells(tables.get("source"), problems)
    if problems:
        raise SettingsError(_problem(path, problems))
    duration = tables["duration_us"]
    usual = {field.name: field.default for field in fields(SimulatorSettings)}
    try:
        made = SimulatorSettings(
            sensor_width_px=tables["sensor"][0],
            sensor_height_px=tables["sensor"][1],
            inverted=tables["inverted"],
            duration_us=duration,
            background=round(255 * tables.get("surround", 0.0)),
            free=tables["free"],
            **{name: tables[name] for name in BEGIN if name in tables},
            saccades=saccades_of(
                [(length * leg["x"], length * leg["y"], leg["start"], leg["duration"]) for leg in legs], steps, duration
            ),
            hot_pixels=tuple(_firing(row, duration, camera["refractory_us"]) for row in hot_pixels),
            sample_us=max(1, min(usual["sample_us"], round(duration / MOST_SAMPLES))),
            **{name: usual[name] * duration / usual["duration_us"] for name in TIMED},
            **{name: camera[name] for name in (*NEEDED, BLUR) if name in camera},
        )
    except SettingsError as error:  # what no single value shows
        raise SettingsError(_problem(path, [str(error)])) from error
    return FittedCamera(made, tuple(tables.get("undecided", ())), cells)


def _checked_cells(source: Any, problems: list[str]) -> tuple[int, int] | None:
    """Return what the table [source] says of cells, which is shown."""
    cells = source.get("cells") if isinstance(source, dict) else None
    if cells is None:
        return None
    if (found := field_problems(_Source, {"cells": cells})) or len(cells) != 2:
        problems += [f"[source] {problem}" for problem in found or ["cells: expected columns and rows, two numbers"]]
        return None
    return cells[0], cells[1]


def saccades_of(
    legs: Sequence[tuple[float, ...]], steps: Sequence[Sequence[float]], duration_us: int
) -> tuple[Saccade, ...]:
    """Return the saccades of a path in a recording of `duration_us`: one for each leg, and one for each step.

    Args:
        legs: (x, y, start, duration), times in shares of the recording.
        steps: (x, y), one for each of so many equal parts of the recording; each lasts two parts, about its own.
        duration_us: see above.
    """
    n = len(steps)
    made = []
    for x, y, start, lasts in (*legs, *((*step, (i - 0.5) / n, 2 / n) for i, step in enumerate(steps))):
        timing = round(start * duration_us), max(1, round(lasts * duration_us))
        made.append(Saccade(float(x), float(y), *timing, *timing))
    return tuple(made)


def _firing(row: Sequence[float], duration_us: int, refractory_us: int) -> tuple[int, int, float, float]:
    """Return a hot pixel with rates in Hz; those that are recorded are fewer, by what falls into dead time."""
    x, y, off, on = row
    seconds = duration_us * 1e-6 * (1 - min((off + on) * refractory_us / duration_us, MOST_DEAD))
    return int(x), int(y), off / seconds, on / seconds


def _read(path: Path) -> Mapping[str, Any]:
    remedy = "expected a profile that `spikebridge calibrate` made"
    try:
        if path.exists() and not path.is_file():  # reading a pipe waits for whoever writes into it
            raise SettingsError(f"{path}: no plain file; {remedy}")
        if path.stat().st_size > MOST_BYTES:
            raise SettingsError(f"{path}: longer than {MOST_BYTES:,} bytes; {remedy}")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, too
        raise SettingsError(f"{path}: not valid TOML ({error}); {remedy}") from error


def _is_leg(leg: Any) -> bool:
    return isinstance(leg, dict) and set(leg) == set(LEG) and all(map(_is_place, leg.values()))


def _is_step(step: Any) -> bool:
    return isinstance(step, list) and len(step) == 2 and all(map(_is_place, step))


def _is_place(value: Any) -> bool:
    return is_finite(value) and abs(value) <= FARTHEST


def _is_hot_pixel(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 4
        and all(isinstance(place, int) for place in row[:2])
        and all(map(is_finite, row))
    )


def _problem(path: Path, problems: list[str]) -> str:
    return f"{path}: no camera that `simulate` could take:\n" + "\n".join(f"  - {problem}" for problem in problems)
