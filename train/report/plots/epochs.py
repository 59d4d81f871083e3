"""Plots over epochs. Axes: E epochs, T time steps, R curves of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.ui.style import CATEGORIES, MUTED
from spikebridge.train.report.plots.drawing import (
    PANEL,
    Drawing,
    Values,
    colour_bar,
    colours,
    house_style,
    painter,
    sequential,
)
from spikebridge.train.report.records import RunRecord

FEW_LAYERS = 8
"""More layers than this are told apart by a colour bar instead of a legend."""


@painter
def lines(
    drawing: Drawing,
    epochs: Values,
    curves: Mapping[str, Values],
    *,
    label: str,
    dashed: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> None:
    """Draw named curves [E] over epochs [E] from 1; NaN where a value is absent.

    Curves on other data than the rest are dashed; `marks` are horizontal lines by name, e.g. the level of chance. The
    label is that of the vertical axis, with its unit.
    """
    axes = drawing.axes[0]
    for (name, values), colour in zip(curves.items(), colours(len(curves)), strict=True):
        style = {"color": MUTED, "linestyle": "--"} if name in dashed else {"color": colour}
        curve(axes, epochs, values, label=name, **style)
    for name, level in (marks or {}).items():
        axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=":", label=name)
    epoch_axis(axes, epochs)
    axes.set_ylabel(label)
    if limits:
        axes.set_ylim(*limits)
    drawing.legend()


@painter
def schedules(drawing: Drawing, epochs: Values, curves: Mapping[str, Values]) -> None:
    """Draw one small panel per curve, above each other; the key is the label of its vertical axis."""
    for axes, (label, values) in zip(drawing.axes, curves.items(), strict=True):
        curve(axes, epochs, values, color=CATEGORIES[0])
        axes.set_ylabel(label)
        axes.margins(y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    epoch_axis(drawing.axes[-1], epochs)


@painter
def graded(drawing: Drawing, epochs: Values, rows: Values, *, names: Sequence[str], label: str, scale: str) -> None:
    """Draw curves [E,R] of an ordered family (time steps, layers), dark to light; of many, with a colour bar."""
    axes, ramp = drawing.axes[0], sequential()
    count = rows.shape[1]
    for k in range(count):
        curve(axes, epochs, rows[:, k], color=ramp(k / max(count - 1, 1)), label=names[k], linewidth=1.1)
    epoch_axis(axes, epochs)
    axes.set_ylabel(label)
    if count <= FEW_LAYERS:
        drawing.legend()
    else:
        colour_bar(drawing, ramp, Normalize(1, count), scale)


@painter
def heat_map(drawing: Drawing, epochs: Values, rows: Values, *, label: str, scale: str) -> None:
    """Draw values [E,T] as colours, epochs to the right, time steps upwards from 1."""
    axes, ramp = drawing.axes[0], sequential()
    known = rows[np.isfinite(rows)]
    low, high = float(known.min()), float(known.max())
    span = Normalize(low, high if high > low else low + 1e-6)
    edges = (float(epochs[0]) - 0.5, float(epochs[-1]) + 0.5, 0.5, rows.shape[1] + 0.5)
    axes.imshow(
        np.ma.masked_invalid(rows.T),
        extent=edges,
        origin="lower",
        aspect="auto",
        cmap=ramp,
        norm=span,
        interpolation="none",
    )
    axes.grid(visible=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    colour_bar(drawing, ramp, span, scale)


@painter
def bundles(
    drawing: Drawing,
    groups: Mapping[str, Sequence[tuple[Values, Values]]],
    *,
    label: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw curves of groups of runs, each run a pair of epochs [E] and values [E].

    A run is a thin line, the mean of a group of more than one a thick one.
    """
    axes = drawing.axes[0]
    for (name, runs), colour in zip(groups.items(), colours(len(groups)), strict=True):
        alone = len(runs) == 1
        for epochs, values in runs:
            width = {"label": name} if alone else {"linewidth": 0.6, "alpha": 0.55}
            curve(axes, epochs, values, color=colour, **width)
        if not alone:
            curve(axes, *mean_curve(runs), color=colour, label=name, linewidth=2.0)
    epoch_axis(axes, np.concatenate([epochs for runs in groups.values() for epochs, _ in runs]))
    axes.set_ylabel(label)
    if limits:
        axes.set_ylim(*limits)
    drawing.legend()


def curve(axes: Axes, epochs: Values, values: Values, **style: Any) -> None:
    """Draw one curve through the known values; points where they are so few that a line shows nothing."""
    known = np.isfinite(values)
    if known.any():
        axes.plot(epochs[known], values[known], marker="o" if known.sum() <= 3 else None, **style)


def epoch_axis(axes: Axes, epochs: Values) -> None:
    """Set up the horizontal axis of everything over epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = float(epochs.min()), float(epochs.max())
    margin = 0.03 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)


def mean_curve(runs: Sequence[tuple[Values, Values]]) -> tuple[Values, Values]:
    """Return the mean at the epochs where every run has a value."""
    by_epoch = [dict(zip(epochs.tolist(), values.tolist(), strict=True)) for epochs, values in runs]
    common = sorted(set.intersection(*(set(one) for one in by_epoch)))
    return np.array(common), np.array([float(np.mean([one[epoch] for one in by_epoch])) for epoch in common])


def run_panels(record: RunRecord, kind: type[Figure], *, title: str) -> Figure:
    """Return a figure, of a class of figures, with the losses and the accuracies of a run over its epochs."""
    losses = {name: record.column(f"loss_{name}") for name in ("total", "static", "event")}
    losses["validation"] = record.column("validation_loss")
    splits = ("train", "validation", "test")
    accuracies = {name: 100 * record.column(f"{name}_accuracy") for name in splits}
    panels = {"loss (nats)": losses, "accuracy in %": accuracies}
    with house_style():
        figure = kind(figsize=(2 * PANEL[0], PANEL[1]), layout="constrained")
        for axes, (label, curves) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            known = {name: values for name, values in curves.items() if np.nansum(np.abs(values)) > 0}
            for colour, (name, values) in zip(colours(len(known)), known.items(), strict=True):
                curve(axes, record.epochs, values, label=name, color=colour)
            if len(record.epochs):
                epoch_axis(axes, record.epochs)
            axes.set_ylabel(label)
            if known:
                axes.legend(frameon=False)
        figure.suptitle(show(title))
        return figure
