"""One checker for dataclasses of settings: types, limits and choices, with every problem at once.

A field declared with `setting` carries its limits; `field_problems` holds values against types and limits.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any

from spikebridge.pipeline.base.names import suggest

EXPECTED = {
    "str": 'text in quotation marks, e.g. "name"',
    "bool": "true or false",
    "int": "a whole number",
    "float": "a finite number",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[float, ...]": "a list of finite numbers",
    "tuple[str, ...]": "a list of texts",
}
"""Types of settings, in words."""


def setting(default: Any = MISSING, **limits: Any) -> Any:
    """Declare a dataclass field with limits; those of a tuple hold for each of its values.

    Args:
        default: value of a field that may be left out.
        limits: `choices`; or `low` and `high` (inclusive), or `above` (exclusive). With `joined`, a text may hold
            several choices with that sign between them; with `otherwise`, one that this pattern matches passes, too,
            which messages name as `called` does. With `distinct`, a tuple holds at least one value and none twice.
    """
    return field(metadata=limits) if default is MISSING else field(default=default, metadata=limits)


def field_problems(table: type, values: Mapping[str, Any]) -> list[str]:
    """Return the type and range problems of the values whose keys the table knows, one sentence each."""
    problems = []
    for declared in fields(table):
        if declared.name in values:
            value = values[declared.name]
            problem = _type_problem(str(declared.type), value) or _limit_problem(declared, value)
            if problem:
                problems.append(f"{declared.name}: {problem}")
    return problems


def describe(value: Any) -> str:
    """Return a value as a TOML file would show it, with its type in words."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f'the text "{value}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"the {type(value).__name__} {value}"


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that a float holds; text and booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _type_problem(kind: str, value: Any) -> str | None:
    """Return why a value is not of a type, or None; an integer passes for a float, a boolean for no number."""
    single = kind.removeprefix("tuple[").removesuffix(", ...]")
    values = value if single != kind and isinstance(value, list | tuple) else [value]
    fits = (single == kind or isinstance(value, list | tuple)) and all(_fits(single, one) for one in values)
    return None if fits else f"found {describe(value)}, expected {EXPECTED[kind]}"


def _fits(kind: str, value: Any) -> bool:
    if kind in ("str", "bool"):
        return isinstance(value, str if kind == "str" else bool)
    if isinstance(value, bool):
        return False
    return is_finite(value) if kind == "float" else isinstance(value, int)


def _limit_problem(declared: Field[Any], value: Any) -> str | None:
    limits = declared.metadata
    values = value if isinstance(value, list | tuple) else [value]
    for part in value.split(limits["joined"]) if "joined" in limits else values:
        if "otherwise" in limits and re.fullmatch(limits["otherwise"], part, re.DOTALL):
            continue
        if "choices" in limits and part not in limits["choices"]:
            known = [str(choice) for choice in limits["choices"]]
            expected = [f"one of {', '.join(known)}"] if any(known) else []
            expected += [limits["called"]] if "called" in limits else []
            return f'"{part}" is not known; expected {" or ".join(expected)}{suggest(str(part), known)}'
    if "distinct" in limits and (not values or len(set(values)) < len(values)):
        return "a value is given twice" if values else "found an empty list, expected at least one value"
    for one in values:
        if "low" in limits and one < limits["low"]:
            return f"{one} is too small; expected at least {limits['low']}"
        if "above" in limits and one <= limits["above"]:
            return f"{one} is too small; expected more than {limits['above']}"
        if "high" in limits and one > limits["high"]:
            return f"{one} is too large; expected at most {limits['high']}"
    return None
