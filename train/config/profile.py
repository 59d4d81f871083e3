"""Profiles: one camera and its movement as a TOML file, checked as recipes are.

    schema, sensor, duration_us, inverted, free, undecided      what holds for all
    surround          what lies around images, see `Profile`; left out where their border goes on
    rest, rest_spread, appeared     where pixels begin, see `Profile`; left out where as by default
    blind_after       whether pixels are blind after an event, see `Profile`; left out where they are not
    blurs_light       whether light is blurred, not grey values, see `Profile`; left out where it is not
    either_sign       whether training draws both signs of the light, see `Profile`; left out where it does not
    either_begin      whether it draws both ways in which pixels begin, see `Profile`; left out where it does not
    hot_pixels        pixels of the sensor that fire by themselves, [x, y, OFF events, ON events] in a recording; left
                      out where there are none
    steps, lateness   what the path does beside its legs, pairs [x, y] in sensor pixels, and how much its legs differ in
                      time, see `Profile`; left out where as by default
    [[legs]]          the path: x, y in sensor pixels, start, duration as shares of the recording
    [ranges]          lowest and highest value of every setting that training draws
    [camera]          the most likely value of every setting that was fitted
    [uncertainty]     standard deviations of these values, and of the path's
    [alternatives]    of what is one thing or another: distance of the nearest fit with another, relative to this one's
    [microseconds]    the same camera in the units of the simulator behind `spikebridge simulate`
    [source]          recordings and static images: how many, whether simulated, from which folders or set; seed
    [fidelity]        share of held-out recordings that are told from simulated ones, its interval, others' beside it

Numbers that only inform ([camera] and all below it) decide nothing about training, but for `shown_fraction`
and `image_aspect` under [source], to which `scale` is relative; they are checked, since reports show them
(`train.config.informing`). `simulate --camera` takes [microseconds]. A recipe that
names the file takes all else into itself, as a text that begins with `INLINE`: a run needs no other file, and its
settings hold what was simulated. The whole file lies in its folder, too, as `CAMERA_FILE`.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.settings import field_problems, is_finite, setting
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.train.config.informing import ASPECT, IMAGES, INFORMING, SHOWN, informing_problems
from spikebridge.train.config.simulation_ranges import (
    BY_LOGARITHM,
    LANES,
    LATENESS,
    LIMITS,
    LIMITS_IN_TIME,
    MOST_LEGS,
    MOST_STEPS,
    PROFILES,
    Leg,
    Profile,
    SimulationRanges,
)
from spikebridge.train.config.toml_values import toml_value
from spikebridge.train.errors import RecipeError

SCHEMA = 1
INLINE = "profile "
"""Begins the text of a profile inside a recipe; JSON follows."""
AUTO = "auto"
"""In place of a profile: it is calibrated to the shard set when a run begins, whose recipe then holds it."""
FILE = ".toml"
"""Ends the name of a profile's file in a recipe."""
CAMERA_FILE = "camera.toml"
"""Name of the profile in the folder of a run."""
MOST_BYTES = 2**20
"""Longest file that is read."""
PATH, SIGN, START, SURROUND, BEGIN = "path", "inverted", "rest", "surround", "appeared"
"""What may be undecided besides the values that have ranges."""
LONGEST_US = 2**39 - 1
"""Of a recording: longer ones are not read, see `pipeline.events.packing`, which needs numpy."""
FARTHEST = 2**14
"""Of a place or a displacement, sensor pixels."""
MOST_EVENTS = 10**6
"""Of a hot pixel in a recording."""
WIDEST: dict[str, tuple[float, float]] = {
    "x_start": (-FARTHEST, FARTHEST), "y_start": (-FARTHEST, FARTHEST), "amplitude_spread": (0.0, FARTHEST),
    "turn": (-2 * math.pi, 2 * math.pi), "delay": (-10.0, 10.0), "pace": (0.05, 100.0), "stretch": (-0.9, 9.0),
    "rotation": (-2 * math.pi, 2 * math.pi), "shear": (-10.0, 10.0),
}  # fmt: skip
"""Limits of other ranges: far from any camera, near enough for numbers of 32 bits, which make no recording of more."""
VALUES_WITHIN = WIDEST | LIMITS | LIMITS_IN_TIME
"""Limits of all ranges, and of the values that were fitted."""


@dataclass(frozen=True)
class _Head:
    """What stands above the tables."""

    schema: int = setting(choices=(SCHEMA,))
    sensor: tuple[int, ...] = setting(low=1, high=2**14)
    duration_us: int = setting(low=1, high=LONGEST_US)
    inverted: bool = setting()
    free: bool = setting()
    undecided: tuple[str, ...] = setting(
        (), choices=(*LIMITS, "x_start", "y_start", PATH, SIGN, START, SURROUND, BEGIN)
    )
    surround: float = setting(0.0, low=0.0, high=1.0)
    rest: float = setting(0.0, low=0.0, high=1.0)
    rest_spread: float = setting(0.0, low=0.0, high=1.0)
    appeared: bool = setting(False)
    blind_after: bool = setting(False)
    blurs_light: bool = setting(False)
    lateness: float = setting(LATENESS, low=0.0, high=1.0)
    either_sign: bool = setting(False)
    either_begin: bool = setting(False)


@dataclass(frozen=True)
class _LegTable:
    """A table of `[[legs]]`."""

    x: float = setting(low=-FARTHEST, high=FARTHEST)
    y: float = setting(low=-FARTHEST, high=FARTHEST)
    start: float = setting(low=-1.0, high=1.0)
    duration: float = setting(low=0.001, high=2.0)


_OPTIONAL = [field.name for field in fields(_Head) if field.default is not MISSING]
_OWN = {field.name: field.default for field in fields(Profile)}
_SAID = [field.name for field in fields(_Head) if field.name in _OWN]
"""Keys that are fields of `Profile`, too."""
_KEYS = (*(field.name for field in fields(_Head)), "hot_pixels", "steps", "legs", "ranges", *INFORMING)
_GONE = ("late", "longer", "skew")
"""Keys of legs that one version of the calibration wrote."""


@dataclass(frozen=True)
class CameraProfile:
    """A profile as it is read and written."""

    profile: Profile
    """What training simulates."""
    sensor: tuple[int, int]
    """(W, H) in pixels of the recordings."""
    duration_us: int
    """Median length of a recording, at most the longest that can be read, `LONGEST_US`."""
    undecided: tuple[str, ...]
    """Values about which the recordings decide nothing; their ranges are wide."""
    informing: dict[str, dict[str, Any]]
    """The tables that decide nothing."""

    @property
    def shown_fraction(self) -> float | None:
        """Share of the sensor that static images fill where `scale` is 1; None where nobody wrote it down."""
        shown: float | None = self.informing.get("source", {}).get(SHOWN)
        return shown

    @property
    def image_aspect(self) -> tuple[float, ...] | None:
        """Widths of the fit's images relative to their heights, least, middle, greatest; None where nobody wrote it."""
        found = self.informing.get("source", {}).get(ASPECT)
        return None if found is None else tuple(map(float, found))

    @property
    def fitted_to_recordings(self) -> bool:
        """Whether it is of recordings, which a shard set may be parts of, and not of a shard set's frames.

        Of those that were made before images' shapes were written down, nobody knows.
        """
        return self.image_aspect is not None or self.fitted_without_images

    @property
    def fitted_without_images(self) -> bool:
        """Whether the fit saw no static image, so that nothing is known of their shape."""
        return self.informing.get("source", {}).get(IMAGES) == 0

    def inline(self) -> str:
        """Return what decides about recordings as one line of text; see `profile_named`."""
        tables = {
            "sensor": self.sensor,
            "inverted": self.profile.inverted,
            "free": self.profile.free,
            "legs": [asdict(leg) for leg in self.profile.legs],
            "ranges": {name: getattr(self.profile.ranges, name) for name in LANES},
            **_given(self.profile),
            **({"source": placed} if (placed := self._placed()) else {}),
        }
        return INLINE + json.dumps(tables, separators=(",", ":"))

    def _placed(self) -> dict[str, Any]:
        """Return what decides how large the images of a shard set are, relative to those of the fit, if there were."""
        source = self.informing.get("source", {})
        names = (SHOWN, ASPECT, *([IMAGES] if self.fitted_without_images else ()))
        return {name: source[name] for name in names if name in source}

    def dump(self) -> str:
        """Return the profile as TOML; reading it back gives an equal profile."""
        p = self.profile
        head = {
            "schema": SCHEMA, "sensor": list(self.sensor), "duration_us": self.duration_us, "inverted": p.inverted,
            "free": p.free, "undecided": list(self.undecided), **_given(p),
        }  # fmt: skip
        lines = ["# Camera and movement of recordings, made by `spikebridge calibrate`.", *_lines(head), ""]
        for leg in p.legs:
            lines += ["[[legs]]", *_lines(asdict(leg)), ""]
        ranges = {name: list(getattr(p.ranges, name)) for name in LANES}
        for table, content in {"ranges": ranges, **self.informing}.items():
            lines += [f"[{table}]", *_lines(content), ""]
        return "\n".join(lines[:-1]) + "\n"


def profile_named(text: str) -> tuple[Profile, CameraProfile | None]:
    """Return the profile of a recipe's `simulation`, shipped or inline, and all that an inline one says.

    Raises:
        RecipeError: an inline one is damaged, with every problem at once; or a file that no recipe took over.
    """
    if text.endswith(FILE):
        raise RecipeError("in the recipe", [f"{text} is a file; read the recipe with load_recipe"], what="profile")
    if text == AUTO:
        problem = "auto stands for a profile that a run fits when it begins; train with it, or name a profile"
        raise RecipeError("in the recipe", [problem], what="profile")
    if not text.startswith(INLINE):
        return PROFILES[text], None
    try:
        tables = json.loads(text.removeprefix(INLINE))
    except (ValueError, RecursionError) as error:
        raise RecipeError("in the recipe", [f"not valid JSON: {error}"], what="profile") from error
    if not isinstance(tables, dict):
        raise RecipeError("in the recipe", ["expected tables of settings"], what="profile")
    made = profile_from({"schema": SCHEMA, "duration_us": 1} | tables, name="in the recipe")
    return made.profile, made


def read_profile(path: Path) -> CameraProfile:
    """Read a profile.

    Raises:
        RecipeError: no plain file, no TOML, or every problem of its content at once.
    """
    return read_profile_file(path)[0]


def read_profile_file(path: Path) -> tuple[CameraProfile, str]:
    """Read a profile, and return the text of its file beside it, line ends as they are; errors as `read_profile`."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe waits for whoever writes into it
            raise RecipeError(
                str(path), ["no plain file; expected one that `spikebridge calibrate` made"], what="profile"
            )
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(str(path), [f"longer than {MOST_BYTES:,} bytes; expected a profile"], what="profile")
        text = path.read_bytes().decode()
        tables = tomllib.loads(text)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); make one with `spikebridge calibrate`"
        raise RecipeError(str(path), [problem], what="profile") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, too
        raise RecipeError(str(path), [f"not valid TOML: {error}"], what="profile") from error
    return profile_from(tables, name=str(path)), text


def profile_from(tables: Mapping[str, Any], *, name: str) -> CameraProfile:
    """Check plain tables and make them a profile.

    Raises:
        RecipeError: every problem at once.
    """
    problems = [f"{key}: unknown key{suggest(key, _KEYS)}" for key in tables if key not in _KEYS]
    head = {field.name: tables[field.name] for field in fields(_Head) if field.name in tables}
    problems += [f"{key.name}: missing" for key in fields(_Head) if key.name not in (*tables, *_OPTIONAL)]
    problems += field_problems(_Head, head)
    if isinstance(sensor := head.get("sensor"), list) and len(sensor) != 2:
        problems.append(f"sensor: found {len(sensor)} numbers, expected width and height in pixels")
    legs = _checked_legs(tables.get("legs"), problems)
    steps = _checked_steps(tables.get("steps", []), problems)
    if steps and head.get("free") is True:
        problems.append(
            "steps: found some beside free = true; where recordings move each in its own way there are none"
        )
    hot_pixels = _checked_hot_pixels(tables.get("hot_pixels", []), sensor, problems)
    ranges = _checked_ranges(tables.get("ranges"), problems)
    informing = {key: tables[key] for key in INFORMING if key in tables}
    problems += informing_problems(informing, VALUES_WITHIN)
    if problems:
        raise RecipeError(name, problems, what="profile")
    said: dict[str, Any] = {name: head[name] for name in _SAID if name in head}
    said = {name: value if isinstance(value, bool) else float(value) for name, value in said.items()}
    made = Profile(
        SimulationRanges(**ranges),
        legs,
        steps=steps,
        hot_pixels=hot_pixels,
        **said,
    )
    return CameraProfile(made, tuple(head["sensor"]), head["duration_us"], tuple(head.get("undecided", ())), informing)


def _given(profile: Profile) -> dict[str, Any]:
    """Return the keys that profiles made before have not, where they say more than those."""
    names = ("steps", "hot_pixels", *(name for name in _SAID if name in _OPTIONAL))
    given = {name: value for name in names if (value := getattr(profile, name)) != _OWN[name]}
    return {name: [list(row) for row in value] if isinstance(value, tuple) else value for name, value in given.items()}


def _checked_legs(given: Any, problems: list[str]) -> tuple[Leg, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_LEGS or not all(isinstance(t, dict) for t in given):
        problems.append(f"legs: expected one to {MOST_LEGS} tables [[legs]]")
        return ()
    names, legs = [field.name for field in fields(_LegTable)], []
    for number, table in enumerate(given, 1):
        found = [_unknown_key(key, names) for key in table if key not in names]
        found += [f"{key}: missing" for key in names if key not in table]
        found += field_problems(_LegTable, table)
        problems += [f"legs, number {number}, {problem}" for problem in found]
        if not found:
            legs.append(Leg(**{key: float(value) for key, value in table.items()}))
    return tuple(legs)


def _unknown_key(key: str, names: Sequence[str]) -> str:
    if key in _GONE:
        return f"{key}: legs have none any more, `steps` say what a path does beside them; calibrate again"
    return f"{key}: unknown key{suggest(key, names)}"


def _checked_steps(given: Any, problems: list[str]) -> tuple[tuple[float, float], ...]:
    if (
        not isinstance(given, list)
        or len(given) > MOST_STEPS
        or not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_place, pair)) for pair in given)
    ):
        problems.append(f"steps: expected up to {MOST_STEPS} pairs of numbers [x, y] in sensor pixels")
        return ()
    return tuple((float(x), float(y)) for x, y in given)


def _checked_hot_pixels(given: Any, sensor: Any, problems: list[str]) -> tuple[HotPixel, ...]:
    if (
        not isinstance(given, list)
        or not all(isinstance(row, list) and len(row) == len(HotPixel._fields) for row in given)
        or not all(is_finite(value) and 0 <= value <= MOST_EVENTS for row in given for value in row)
        or not all(isinstance(place, int) for row in given for place in row[:2])
    ):
        problems.append(
            f"hot_pixels: expected rows [x, y, OFF events, ON events] of whole x and y and of events in a recording, "
            f"0 to {MOST_EVENTS:,}"
        )
        return ()
    if isinstance(sensor, list) and len(sensor) == 2 and all(map(is_finite, sensor)):
        outside = [row[:2] for row in given if row[0] >= sensor[0] or row[1] >= sensor[1]]
        if outside:
            problems.append(f"hot_pixels: {outside[0]} is outside the sensor of {sensor[0]}x{sensor[1]} pixels")
    return tuple(HotPixel(x, y, float(off), float(on)) for x, y, off, on in given)


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
        elif not isinstance(pair, list) or len(pair) != 2 or not all(is_finite(value) for value in pair):
            problems.append(f"[ranges] {name}: found {pair}, expected the lowest and the highest value, [low, high]")
        else:
            low, high = VALUES_WITHIN[name]
            if pair[0] > pair[1]:
                problems.append(f"[ranges] {name}: the lowest value {pair[0]} is above the highest, {pair[1]}")
            elif pair[0] < low or pair[1] > high or (name in BY_LOGARITHM and pair[0] <= 0):
                problems.append(f"[ranges] {name}: {pair} is not within {low:g} to {high:g}")
            ranges[name] = (float(pair[0]), float(pair[1]))
    return ranges


def _is_place(value: Any) -> bool:
    return is_finite(value) and abs(value) <= FARTHEST


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in table.items()]
