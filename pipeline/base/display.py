"""Text that others wrote, as people may see it: on a terminal, in a message, in a table that a spreadsheet opens."""

from __future__ import annotations

import re

MOST_SHOWN = 80
"""Characters of a name in a message or table."""
_CONTROLS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_HIDDEN = re.compile(f"[{_CONTROLS}]")
"""What moves the cursor, changes colours or the direction of writing, or cannot be encoded; not tab and line feed."""
_HIDDEN_IN_NAMES = re.compile(f"[\t\n{_CONTROLS}]")
_FORMULA = ("=", "+", "-", "@", "\t")
"""Beginnings that spreadsheets compute.

Source: OWASP, "CSV Injection".
"""


def printable(text: str) -> str:
    """Return a text of any number of lines with its control characters escaped, as in Python's literals."""
    return _HIDDEN.sub(_escape, text)


def show(name: str, *, most: int = MOST_SHOWN) -> str:
    """Return a name on one line: control characters escaped, and of a long one beginning and end."""
    if len(name) > most:
        kept = most - 3
        name = f"{name[: kept - kept // 3]}...{name[-(kept // 3) :]}"
    return _HIDDEN_IN_NAMES.sub(_escape, name)


def csv_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe goes before what might be one.

    Control characters, and what cannot be encoded, are escaped: a carriage return alone would end the row.
    """
    cell = printable(text)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
