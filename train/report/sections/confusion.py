"""Confusion matrix and per-class table. Axes: K classes; rows are labels."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.ui.html import figure, folded, paragraph, table
from spikebridge.pipeline.ui.style import ramp
from spikebridge.train.report.plots.drawing import Drawing, is_collecting
from spikebridge.train.report.plots.points import shares
from spikebridge.train.report.records import RunRecord

MOST_NUMBERS = 12
"""More classes than this are drawn without numbers."""
MOST_CONFUSIONS = 10
MOST_CLASSES = 20
"""More classes than this are folded behind those with the lowest recall."""
WEAKEST = 10


def confusion(record: RunRecord, *, prefix: str) -> str:
    """Return the matrix with counts and row percentages; of many classes a plot and the commonest confusions."""
    matrix = _counts(record)
    if matrix is None:
        return paragraph("The test split is empty.")
    classes = record.result["classes"]
    caption = "Rows: label. Columns: prediction."
    if len(classes) <= MOST_NUMBERS:
        if is_collecting():  # the page has the numbers, a paper a figure
            shares(Drawing(f"{prefix}-confusion", "Confusion matrix"), _row_shares(matrix), names=classes)
        note = "Upper number: samples. Lower, and the colour: per cent of the row."
        return f'<div class="scroll">{_cells(matrix, classes)}</div>' + paragraph(note, note=True)
    drawing = Drawing(f"{prefix}-confusion", "Confusion matrix", size=(5.6, 5.0))
    plot = figure(shares(drawing, _row_shares(matrix), names=classes), title="Confusion.", caption=caption)
    return f'<div class="single">{plot}</div><h3>Commonest confusions</h3>' + _commonest(matrix, classes)


def per_class(record: RunRecord) -> str:
    """Return recall with its bar, precision, and the number of samples of every class; of many, the weakest first."""
    matrix = _counts(record)
    if matrix is None:
        return paragraph("The test split is empty.")
    rows = []
    for k, name in enumerate(record.result["classes"]):
        right, labelled, predicted = int(matrix[k, k]), int(matrix[k].sum()), int(matrix[:, k].sum())
        recall = f"{100 * right / labelled:.1f}" if labelled else "–"
        precision = f"{100 * right / predicted:.1f}" if predicted else "–"
        width = f"{100 * right / labelled:.1f}" if labelled else "0"
        cells = (escape(name), str(labelled), str(right), recall, precision)
        bar = f'<span class="bar"><i style="width:{width}%"></i></span>'
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"<td>{bar}</td></tr>")
    note = paragraph(
        "n: test samples of the class. Recall: right among them. Precision: right among the samples given this class.",
        note=True,
    )
    if len(rows) <= MOST_CLASSES:
        return _class_table(rows) + note
    recalls = np.where(matrix.sum(1) > 0, _row_shares(matrix).diagonal(), np.inf)  # [K]
    weakest = [rows[k] for k in np.argsort(recalls, kind="stable")[:WEAKEST]]
    title = f"<h3>The {WEAKEST} of {len(rows):,} with the lowest recall</h3>"
    return title + _class_table(weakest) + folded(f"All {len(rows):,} classes", _class_table(rows)) + note


def _class_table(rows: list[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("class", "n", "right", "recall %", "precision %", ""))
    body = "\n".join(rows)
    table_html = f'<table class="per-class"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    return f'<div class="scroll">{table_html}</div>'


def _counts(record: RunRecord) -> NDArray[np.int64] | None:
    counts = record.result.get("confusion")
    return np.array(counts, np.int64) if counts else None


def _row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide rows by their sums; a class without samples stays 0."""
    shared: NDArray[np.float64] = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return shared


def _cells(matrix: NDArray[np.int64], classes: list[str]) -> str:
    shared = _row_shares(matrix)
    long = ' class="long"' if max(map(len, classes)) > 3 else ""
    head = "".join(f"<th{long}><span>{escape(name)}</span></th>" for name in classes)
    rows = []
    for k, name in enumerate(classes):
        cells = []
        for j in range(len(classes)):
            background, ink = ramp(float(shared[k, j]))
            mark = ' class="hit"' if j == k else ""
            inside = f"{matrix[k, j]}<small>{100 * shared[k, j]:.0f}</small>" if matrix[k, j] or j == k else ""
            cells.append(f'<td{mark} style="background:{background};color:{ink}">{inside}</td>')
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    names = f'<col style="width:{min(max(5, *map(len, classes)), 12) + 1}ch">'
    top = f'<tr><th></th><th colspan="{len(classes)}">prediction</th></tr>\n<tr><th>label</th>{head}</tr>'
    head = f"<colgroup>{names}</colgroup>\n<thead>{top}</thead>"
    return f'<table class="confusion">{head}\n<tbody>\n{body}\n</tbody></table>'


def _commonest(matrix: NDArray[np.int64], classes: list[str]) -> str:
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [(int(i) // len(classes), int(i) % len(classes)) for i in order]
    totals = matrix.sum(1)
    rows = [
        (classes[k], classes[j], f"{off[k, j]} of {totals[k]}", f"{100 * off[k, j] / totals[k]:.0f}")
        for k, j in pairs
        if off[k, j]
    ]
    return table(("label", "prediction", "samples", "%"), rows) if rows else paragraph("No sample is wrong.")
