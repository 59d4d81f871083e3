"""Checks of the tables of a profile that only inform: what reports and messages show of them is what it says it is.

A key that this version does not know shows nothing and is left alone; one that may be missing is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spikebridge.pipeline.base.fitting import STATED_SHOWN
from spikebridge.pipeline.base.settings import describe, field_problems, is_finite, setting

INFORMING = ("camera", "uncertainty", "alternatives", "microseconds", "source", "fidelity")
SHOWN = "shown_fraction"
"""Key under [source]: the share of the sensor that static images filled in the fit, to which `scale` is relative."""
ASPECT = "image_aspect"
"""Another: widths of images relative to their heights, where the fit kept them: least of most, middle, greatest."""
IMAGES = "static_images"
"""Another: how many of them the fit saw; none without --static."""
CELLS = "cells"
"""Another: columns and rows of cells, each simulated as one pixel, where the sensor has many more pixels."""
MOST_ASPECT = 1e4
"""Of an image, the one way or the other."""
MOST = 1e15
"""Of a number that only informs, the one way or the other: a unit is a microsecond or more."""
REMEDY = "leave the key out, or calibrate again"
PAIRS = ("steps", "hot_pixels")
"""Keys under [uncertainty] that hold pairs of deviations, not one."""


@dataclass(frozen=True)
class _Source:
    """What is known under [source]."""

    recordings: int = setting(0, low=0)
    held_out: int = setting(0, low=0)
    static_images: int = setting(0, low=0)
    pairs: int = setting(0, low=0)
    seed: int = setting(0, low=0)
    version: int = setting(0, low=0)
    simulated: bool = setting(False)
    recordings_from: tuple[str, ...] = setting(())
    static_images_from: str = setting("")
    shard_set: str = setting("")


def informing_problems(tables: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return what is wrong with tables that only inform, one sentence each.

    Args:
        tables: by name, as a TOML file has them.
        limits: of the values of a camera.
    """
    problems = []
    for name, table in tables.items():
        if isinstance(table, dict):
            problems += [f"[{name}] {problem}" for problem in _problems(name, table, limits)]
        else:
            problems.append(f"{name}: found a value, expected a table [{name}]")
    return problems


def _problems(name: str, table: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> list[str]:
    if name == "source":
        return _source_problems(table)
    problems = []
    for key, value in table.items():
        if name == "uncertainty" and key in PAIRS:
            good = isinstance(value, list) and all(_is_pair(one) for one in value)
            expected = f"pairs of standard deviations, 0 to {MOST:g}"
        elif name == "fidelity" and key == "asked":
            good = isinstance(value, int) and _is_within(value, 0, MOST)
            expected = "a whole number of recordings"
        else:
            low, high = _limits(name, key, limits)
            good, expected = _is_within(value, low, high), f"a number within {low:g} to {high:g}"
        if not good:
            problems.append(f"{key}: found {describe(value)}, expected {expected}; {REMEDY}")
    return problems


def _limits(table: str, key: str, limits: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    if table == "camera":
        return limits.get(key, (-MOST, MOST))
    if table == "fidelity":  # a share, of this camera or of another way to make recordings
        return 0.0, 1.0
    return (-MOST if table == "microseconds" else 0.0), MOST


def _source_problems(source: Mapping[str, Any]) -> list[str]:
    known = {field.name: source[field.name] for field in fields(_Source) if field.name in source}
    problems = [f"{problem}; {REMEDY}" for problem in field_problems(_Source, known)]
    least, most = STATED_SHOWN
    for key, good, expected in (
        (SHOWN, _is_within(source.get(SHOWN, 1), least, most),
         f"the share of the sensor that images fill, {least:g} to {most:g}"),
        (ASPECT, _is_aspect(source.get(ASPECT, [1, 1, 1])), "three numbers above 0 that do not fall"),
        (CELLS, _is_cells(source.get(CELLS, [1, 1])), "columns and rows, two whole numbers above 0"),
    ):  # fmt: skip
        if not good:
            problems.append(f"{key}: found {describe(source[key])}, expected {expected}; {REMEDY}")
    return problems


def _is_within(value: Any, low: float, high: float) -> bool:
    return is_finite(value) and low <= value <= high


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_within(one, 0, MOST) for one in value)


def _is_aspect(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 3
        and all(map(is_finite, found))
        and 1 / MOST_ASPECT <= found[0] <= found[1] <= found[2] <= MOST_ASPECT
    )


def _is_cells(found: Any) -> bool:
    whole = isinstance(found, list) and len(found) == 2 and all(isinstance(side, int) for side in found)
    return whole and all(_is_within(side, 1, MOST) for side in found)
