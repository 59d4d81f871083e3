"""Tables as text - aligned for a terminal, Markdown, CSV - and the figures in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from spikebridge.pipeline.base.display import csv_cell, show
from spikebridge.train.statistics import mean_and_std

MOST_SHOWN = 200
"""Characters of a cell."""

Rows = Sequence[Sequence[str]]
"""The head first."""


def aligned(rows: Rows) -> str:
    """Format columns beneath each other, two blanks between them."""
    rows = [[show(cell, most=MOST_SHOWN) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(rows: Rows) -> str:
    """Format a Markdown table, the first column left, the others right; a bar inside a cell is escaped."""
    head, *body = [[show(cell, most=MOST_SHOWN).replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Format CSV with a head, numbers in full, None empty; columns in the order in which keys first appear."""
    text = io.StringIO()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(
        {key: csv_cell(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows
    )
    return text.getvalue()


def spread(mean: float | None, std: float | None, *, sign: str = "") -> str:
    """Format a share as per cent and its standard deviation where there is one; empty without a mean."""
    if mean is None:
        return ""
    return f"{100 * mean:{sign}.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def mean_text(values: Sequence[float | None], form: str) -> str:
    """Format mean and standard deviation (n - 1) of the known values; empty without any."""
    mean, std = mean_and_std(values)
    return "" if mean is None else f"{mean:{form}}" + ("" if std is None else f" ± {std:{form}}")


def percent(share: float | None) -> str:
    """Format a share as per cent; a dash for none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Format a difference of shares in percentage points, with a real minus."""
    return f"{100 * share:+.1f}".replace("-", "−")


def protocol_words(protocol: str) -> str:
    """Return a protocol as tables name it; `leaky` is marked as no result."""
    return "LEAKY (static images of held-out recordings in the pool: no result)" if protocol == "leaky" else protocol
