"""The curves of one run, as a grid of figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.ui.html import figure, figures, paragraph
from spikebridge.train.report.plots.drawing import Drawing
from spikebridge.train.report.plots.epochs import graded, heat_map, lines, schedules
from spikebridge.train.report.records import RunRecord

Values = NDArray[np.float64]
LOSSES = {"total": "loss_total", "static": "loss_static", "event": "loss_event", "domain": "loss_domain"}


def curves(record: RunRecord, *, prefix: str) -> str:
    """Draw everything in metrics.jsonl over epochs; what a run has not recorded is left out."""
    if not record.metrics:
        return paragraph("metrics.jsonl holds no epochs.")
    panels = (_losses, _accuracies, _schedules, _coefficients, _alignment, _firing_rates)
    notes = []
    coefficients = record.rows("coefficients")
    if coefficients is not None and not _changes(coefficients):
        notes.append(
            paragraph("The coefficients per time step were not trained: this method does not use them.", note=True)
        )
    return figures(html for panel in panels if (html := panel(record, prefix))) + "".join(notes)


def _losses(record: RunRecord, prefix: str) -> str:
    names = {key for line in record.metrics for key in line if key.startswith("loss_")}
    further = {key.removeprefix("loss_").replace("_", " "): key for key in sorted(names - set(LOSSES.values()))}
    curves = {name: record.column(key) for name, key in (LOSSES | further).items()}
    curves = {name: values for name, values in curves.items() if np.nansum(np.abs(values)) > 0}
    split = record.result.get("selection_split") or "validation"
    checked = record.column(f"{split}_loss")
    if {"event", "total"} <= set(curves) and np.array_equal(curves["event"], curves["total"]):
        del curves["event"]  # one stream alone: its loss is the total
    if np.isfinite(checked).any():
        curves[split] = checked
    if not curves:
        return ""
    drawing = Drawing(f"{prefix}-losses", "Losses over epochs")
    svg = lines(drawing, record.epochs, curves, label="loss (nats)", dashed=[split])
    parts = ", ".join(name for name in curves if name not in ("total", split))
    caption = f"Training, mean over the samples of an epoch{f': total, and its parts {parts}' if parts else ''}."
    if {"static", "domain"} <= set(curves):
        weight = record.result.get("recipe", {}).get("train", {}).get("domain_coefficient")
        caption += f" The domain loss enters the total times {weight}." if weight is not None else ""
    if split in curves:
        caption += f" Dashed: cross entropy on the {split} split."
    return figure(svg, title="Losses.", caption=caption)


def _accuracies(record: RunRecord, prefix: str) -> str:
    names = {"train": "train_accuracy", "validation": "validation_accuracy", "test": "test_accuracy"}
    curves = {name: 100 * record.column(key) for name, key in names.items()}
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    if not curves:
        return ""
    classes = record.result.get("classes")  # an unfinished run does not say
    chance = {"chance": 100 / len(classes)} if classes else {}
    drawing = Drawing(f"{prefix}-accuracy", "Accuracy over epochs")
    svg = lines(drawing, record.epochs, curves, label="accuracy in %", limits=(0, 102), marks=chance)
    best = record.result.get("best_epoch")
    caption = "Training accuracy is taken on augmented batches, before each update."
    return figure(svg, title="Accuracy.", caption=caption + (f" Chosen: epoch {best}." if best is not None else ""))


def _schedules(record: RunRecord, prefix: str) -> str:
    curves = {
        "replacement\nprobability": record.column("replacement_probability"),
        "learning rate": record.column("lr"),
    }
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    if not curves:
        return ""
    drawing = Drawing(f"{prefix}-schedules", "Schedules over epochs", rows=len(curves))
    svg = schedules(drawing, record.epochs, curves)
    replaced = "replacement\nprobability" in curves
    caption = (
        "Probability at the epoch's last step that a static sequence is replaced by an event sequence; learning rate."
        if replaced
        else "Learning rate of each epoch."
    )
    return figure(svg, title="Schedules." if replaced else "Schedule.", caption=caption)


def _coefficients(record: RunRecord, prefix: str) -> str:
    rows = record.rows("coefficients")
    if rows is None or not _changes(rows):
        return ""
    weights = 1 / (1 + np.exp(-rows))
    drawing = Drawing(f"{prefix}-coefficients", "Learned coefficients per time step over epochs")
    names = [f"step {t}" for t in range(1, rows.shape[1] + 1)]
    svg = graded(drawing, record.epochs, weights, names=names, label="sigmoid(coefficient)", scale="time step")
    low, high = weights[-1].min(), weights[-1].max()
    caption = (
        "Weight of the alignment per time step; the event loss is weighted by 1 minus this. "
        f"In the last epoch {low:.4f} to {high:.4f}."
    )
    return figure(svg, title="Learned coefficients.", caption=caption)


def _alignment(record: RunRecord, prefix: str) -> str:
    rows = record.rows("cka")
    if rows is None:
        return ""
    drawing = Drawing(f"{prefix}-cka", "Alignment of static and event features per time step over epochs")
    svg = heat_map(drawing, record.epochs, rows, label="time step", scale="CKA")
    caption = "Similarity of static and event features of training batches (linear CKA, 1 is equal)."
    return figure(svg, title="Alignment.", caption=caption)


def _firing_rates(record: RunRecord, prefix: str) -> str:
    layers = next((list(line["firing_rates"]) for line in record.metrics if line.get("firing_rates")), [])
    if not layers:
        return ""
    missing = dict.fromkeys(layers)
    lists = [[(line.get("firing_rates") or missing).get(layer) for layer in layers] for line in record.metrics]
    rows = np.array(lists, np.float64)  # None becomes NaN
    drawing = Drawing(f"{prefix}-rates", "Firing rate per layer over epochs")
    svg = graded(
        drawing, record.epochs, rows, names=layers, label="spikes per neuron and step", scale="layer, from the input"
    )
    split = record.result.get("selection_split") or "validation"
    caption = f"Mean over the {split} split, by layer, dark to light from the input on."
    return figure(svg, title="Firing rate.", caption=caption)


def _changes(rows: Values) -> bool:
    known = rows[np.isfinite(rows).all(1)]
    return len(known) > 0 and bool((known != 1).any())
