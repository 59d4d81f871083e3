"""JSON files of this program that carry the SHA-256 of their content and are held against declared types when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.base.foreign_json import read_json

MOST_BYTES = 2**31
"""Largest file that is read."""
SEAL = "self_sha256"

Form = TypeVar("Form")


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file with its sum, whole or not at all."""
    write_bytes(path, json.dumps({**values, SEAL: hash_json(values)}, allow_nan=False).encode())


def read_sealed(path: Path, form: type[Form], *, error: Callable[[str], Exception], remedy: str) -> Form:
    """Read a JSON file that `write_sealed` wrote, and check its types and its sum.

    Returns:
        Its values, without the sum.

    Raises:
        FileNotFoundError: there is none.
        Exception: what `error` makes, of a file that is damaged; ends with `remedy`.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    values: Any = read_json(path, form, error=error, remedy=remedy, most_bytes=MOST_BYTES)
    if values.pop(SEAL, None) != hash_json(values):
        raise error(f"{path}: damaged; its content has another SHA-256 than it carries. {remedy}")
    checked: Form = values
    return checked


def hash_json(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
