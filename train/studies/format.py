"""Tables as text: aligned for a terminal, Markdown, CSV, and the cells in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

Rows = Sequence[Sequence[str]]
"""The head first."""


def aligned(rows: Rows) -> str:
    """Columns beneath each other, two blanks between them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(rows: Rows) -> str:
    """A Markdown table, the first column left, the others right; a bar inside a cell is escaped."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Comma-separated values with a head, numbers in full, None empty; the union of the keys in order of appearance."""
    text = io.StringIO()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def spread(mean: float | None, std: float | None, *, sign: str = "") -> str:
    """Share as per cent with one decimal, and its standard deviation where there is one; empty without a mean."""
    if mean is None:
        return ""
    return f"{100 * mean:{sign}.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def protocol_words(protocol: str) -> str:
    """A protocol as tables name it: what is no result says so."""
    return "LEAKY (photographs of held-out recordings in the pool: no result)" if protocol == "leaky" else protocol
