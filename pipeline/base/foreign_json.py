"""JSON that others wrote: bounded when it is parsed, and held against declared types before a value of it is used.

The types are those that the code has anyway: `TypedDict` (other keys than its own may be there), `list`, `dict`,
`tuple` (a list of that many values), `Literal`, unions, `str`, `int`, `float`, `bool`, `None` and `Any`. `Annotated`
narrows one of them by a `Range` or a `Pattern`. Numbers are finite everywhere, no name stands twice in an object, and
nothing is nested deeper than `MAX_DEPTH`, whatever the type. Texts may hold anything: `display` shows them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from spikebridge.pipeline.base.display import show

MAX_BYTES = 2**26
"""Largest file that is read unless the caller says otherwise: the manifest of some 500,000 files."""
MAX_DEPTH = 32
"""Most objects and lists inside each other."""

Form = TypeVar("Form")


@dataclass(frozen=True)
class Range:
    """Limits of a number, both inclusive."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low:,} or more" if self.high == math.inf else f"from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Pattern:
    """What the whole of a text must match, as a regular expression and in words."""

    expression: str
    words: str

    def __str__(self) -> str:
        return self.words


Count = Annotated[int, Range(0, 2**53 - 1)]
"""A whole number that counts something."""
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")]


class _MismatchError(Exception):
    """What stands at a place is not what must stand there."""

    def __init__(self, place: str, found: str, expected: str) -> None:
        super().__init__(f"{place or 'its content'} is {found}; expected {expected}")


def read_json(
    path: Path, form: type[Form], *, error: Callable[[str], Exception], remedy: str, most_bytes: int = MAX_BYTES
) -> Form:
    """Read a JSON file and check it, see `parse_json`.

    Raises:
        Exception: what `error` makes; also of a file that cannot be read.
    """
    try:
        with open(path, "rb") as file:  # which takes memory for as many bytes as it is asked for
            data = file.read(min(most_bytes, os.fstat(file.fileno()).st_size or most_bytes) + 1)
    except OSError as failed:
        raise error(f"{path}: cannot be read ({failed.strerror}). {remedy}") from failed
    return parse_json(data, form, source=str(path), error=error, remedy=remedy, most_bytes=most_bytes)


def parse_json(
    data: bytes | str,
    form: type[Form],
    *,
    source: str,
    error: Callable[[str], Exception],
    remedy: str,
    most_bytes: int = MAX_BYTES,
) -> Form:
    """Parse JSON and check its types, ranges and depth.

    Args:
        data: the JSON text.
        form: the type of its content.
        source: where it comes from: the file or address that messages name.
        error: makes the exception of a message.
        remedy: what to do about it: a sentence.
        most_bytes: longer texts are refused before they are parsed.

    Raises:
        Exception: what `error` makes: not JSON, too long or too deep, or a value that does not fit, by its place.
    """
    if len(data) > most_bytes:
        raise error(f"{source}: longer than {most_bytes:,} bytes; expected a shorter JSON file. {remedy}")
    try:
        value = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as failed:
        what = "nested too deeply" if isinstance(failed, RecursionError) else show(str(failed), most=200)
        raise error(f"{source}: not JSON that can be read ({what}). {remedy}") from failed
    return check_json(value, form, source=source, error=error, remedy=remedy)


def check_json(value: Any, form: type[Form], *, source: str, error: Callable[[str], Exception], remedy: str) -> Form:
    """Check values that came out of a JSON text, see `parse_json`; returns them as they are.

    Raises:
        Exception: what `error` makes: a value that does not fit, by its place.
    """
    try:
        _check_bounds(value, "", MAX_DEPTH)
        _check(value, form, "")
    except _MismatchError as mismatch:
        raise error(f"{source}: {mismatch}. {remedy}") from mismatch
    checked: Form = value
    return checked


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{show(next(name for name in names if names.count(name) > 1))} stands twice in one object")
    return values


def _inside(value: Any, place: str) -> Iterator[tuple[Any, str]]:
    """Yield the values of a list or object, each with its place."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield inner, f"{place}.{show(name)}" if place else show(name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield inner, f"{place}[{number}]"


def _check_bounds(value: Any, place: str, depth: int) -> None:
    """Check what holds for JSON of any type: depth and finite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _MismatchError(place, "infinite", "a finite number")
    if isinstance(value, dict | list):
        if not depth:
            raise _MismatchError(show(place), "nested too deeply", f"{MAX_DEPTH} levels at most")
        for inner, inner_place in _inside(value, place):
            _check_bounds(inner, inner_place, depth - 1)


def _check(value: Any, form: Any, place: str) -> None:
    """Hold a value against a type."""
    origin, arguments = get_origin(form), get_args(form)
    if origin is Annotated:
        _check(value, arguments[0], place)
        _check_limits(value, arguments[1:], place)
    elif origin in (Union, UnionType):
        _check_union(value, arguments, place)
    elif origin is Literal:
        if not any(type(value) is type(one) and value == one for one in arguments):
            raise _MismatchError(place, _found(value), _words(form))
    elif is_typeddict(form):
        _check_fields(value, form, place)
    elif (origin or form) in (list, dict):
        _require(value, origin or form, form, place)
        for inner, inner_place in _inside(value, place) if arguments else ():
            _check(inner, arguments[-1], inner_place)
    elif origin is tuple:
        if type(value) is not list or len(value) != len(arguments):
            raise _MismatchError(place, _found(value), _words(form))
        for (inner, inner_place), one in zip(_inside(value, place), arguments, strict=True):
            _check(inner, one, inner_place)
    elif form is not Any:
        kinds = (int, float) if form is float else (NoneType,) if form is None else (form,)
        if type(value) not in kinds:
            raise _MismatchError(place, _found(value), _words(form))


def _check_limits(value: Any, limits: tuple[Any, ...], place: str) -> None:
    """Hold a value of the right type against a range or a pattern."""
    for limit in limits:
        if isinstance(limit, Pattern):
            fits = re.fullmatch(limit.expression, value) is not None
        else:
            fits = limit.low <= value <= limit.high
        if not fits:
            raise _MismatchError(place, _found(value), str(limit))


def _check_fields(value: Any, form: Any, place: str) -> None:
    """Hold an object against a TypedDict."""
    _require(value, dict, form, place)
    for name, (inner, required) in _fields(form).items():
        inner_place = f"{place}.{name}" if place else name
        if name in value:
            _check(value[name], inner, inner_place)
        elif required:
            raise _MismatchError(inner_place, "missing", _words(inner))


def _check_union(value: Any, forms: tuple[Any, ...], place: str) -> None:
    """Hold a value against several types; one that alone could fit says what is wrong."""
    if value is None and (NoneType in forms or None in forms):
        return
    others = [form for form in forms if form not in (NoneType, None)]
    if len(others) == 1:
        return _check(value, others[0], place)
    for form in others:
        try:
            return _check(value, form, place)
        except _MismatchError:
            continue
    raise _MismatchError(place, _found(value), " or ".join(map(_words, forms)))


def _require(value: Any, kind: type, form: Any, place: str) -> None:
    if type(value) is not kind:
        raise _MismatchError(place, _found(value), _words(form))


@cache
def _fields(form: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of every key of a TypedDict, and whether it must be there."""
    fields = {}
    for name, inner in get_type_hints(form, include_extras=True).items():
        optional = get_origin(inner) is NotRequired
        fields[name] = get_args(inner)[0] if optional else inner, not optional and name not in form.__optional_keys__
    return fields


def _found(value: Any) -> str:
    """Describe a value: what it is, and as much of it as fits."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f'the text "{show(value)}"'
    if isinstance(value, int | float):
        try:
            return f"the number {show(str(value))}"
        except ValueError:  # Python refuses to write whole numbers of thousands of digits
            return "a number of thousands of digits"
    return f"a list of {len(value):,}" if isinstance(value, list) else f"an object of {len(value):,}"


def _words(form: Any) -> str:
    """Describe a type."""
    origin, arguments = get_origin(form), get_args(form)
    if origin is Annotated:
        limit = arguments[1]
        return str(limit) if isinstance(limit, Pattern) else f"{_words(arguments[0])}, {limit}"
    if origin in (Union, UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return f"one of {', '.join(json.dumps(one) for one in arguments)}"
    if is_typeddict(form) or (origin or form) is dict:
        return "an object"
    if origin is tuple:
        return f"a list of {len(arguments)}"
    kinds: dict[Any, str] = {None: "null", NoneType: "null", Any: "a value", list: "a list"}
    kinds |= {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return kinds[origin or form]
