"""Recipes and grids under odd paths, some of which are none, and JSON with odd values."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

NAMES = (
    "with space",
    "quote's",
    'double"quote',
    "new\nline",
    "tab\there",
    "ünïcödé 事件",
    "-dash",
    "--option",
    "%s%d{0}{x}",
    "$(touch MARK)",
    "; touch MARK #",
    "*?[a-z]",
    "\x1b[31mred\x1b[2J",
    "=HYPERLINK(0)",
    "not\udcffutf8",
    "a" * 200,
    "..../x",
    "back\\slash",
    "\u202egnp",
)
"""Names of folders that are good, whatever they look like."""
NONE = ("missing", "folder", "device", "pipe", "loop", "huge", "deep", "bytes", "long", "empty")
"""Kinds of paths that lead to no recipe."""
ODD = (None, True, -1, 0, 2**70, 1e300, "", "x\ny", "../../../etc", [], {}, [[[[]]]], {"a": None}, [1, "2"], "0" * 64)


def lay_none(folder: Path, kind: str) -> str:
    """Make what is no recipe; returns its path below the folder."""
    path = folder / f"{kind}.toml"
    if kind == "device":
        return "/dev/zero"
    if kind == "long":
        return "x" * 5000
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(2**36)
    elif kind == "deep":
        path.write_text("a = " + "[" * 100_000)
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe\x00a\x00=")
    elif kind == "empty":
        path.write_bytes(b"")
    return path.name


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Return JSON with one of its values replaced by an odd one."""
    value = json.loads(data)
    places = list(_places(value))
    inside, key = places[rng.randrange(len(places))]
    inside[key] = ODD[rng.randrange(len(ODD))]
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
