"""Values as TOML writes them."""

from __future__ import annotations

import json
from typing import Any


def toml_value(value: Any) -> str:
    """Return one flat TOML value."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)  # shortest text that reads back to the same double
    # JSON writes text, booleans and integers as TOML does, but leaves DEL unescaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
