"""The pictures of a report as SVG inside the page; the only file that needs matplotlib.

Axes: E epochs, T time steps.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.ui.style import CATEGORIES, FONT, INK, MATPLOTLIB, MUTED, SEQUENTIAL_END

Values = NDArray[np.float64]
PANEL = (4.3, 2.7)
"""Inches; shown at about 440 pixels, so 8 points are 11 pixels there and 9 on a phone."""
LEGEND_LETTERS = 75
"""Letters of a legend's line in a panel, a handle counted as five."""
FEW_LAYERS = 8
"""More layers than this are told apart by a colour bar instead of a legend."""


class Drawing:
    """One SVG: a matplotlib figure without pyplot, and so without global state.

    Args:
        name: letters, digits and `-`; unique in the page, because identifiers inside it begin with it.
        description: what a screen reader says.
        rows: panels above each other that share the horizontal axis.
        size: inches.
    """

    def __init__(self, name: str, description: str, *, rows: int = 1, size: tuple[float, float] = PANEL) -> None:
        self.name, self.description = name, description
        with matplotlib.rc_context(MATPLOTLIB):
            self.figure = Figure(figsize=size, layout="constrained")
            self.axes: list[Axes] = list(self.figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])

    def legend(self) -> None:
        """Names above the panels, where they hide nothing, in as many columns as fit."""
        handles, labels = self.axes[0].get_legend_handles_labels()
        if handles:
            with matplotlib.rc_context(MATPLOTLIB):
                self.figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns(labels))

    def file(self, kind: str) -> bytes:
        """The figure as a file of its own, `svg` or `png`, on white."""
        data = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {"Software": None}
        with matplotlib.rc_context(MATPLOTLIB):
            self.figure.savefig(data, format=kind, dpi=200, facecolor="white", metadata=nothing)
        return data.getvalue()

    def svg(self) -> str:
        """The figure as an `<svg>` element that scales with its container."""
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with matplotlib.rc_context(MATPLOTLIB):
            self.figure.savefig(text, format="svg", metadata=nothing)
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].strip()
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        # Several figures share one document: without the prefix, equal identifiers would point into each other.
        svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", svg)
        svg = svg.replace("'DejaVu Sans', sans-serif", escape(FONT)).replace("'DejaVu Sans'", escape(FONT))
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(self.description)}"', 1)
        return re.sub(r"\n\s*", "\n", svg)


def legend_columns(labels: Sequence[str]) -> int:
    """How many of a legend's names stand beside each other in a panel."""
    return max(1, min(len(labels), int(LEGEND_LETTERS / (max(map(len, labels)) + 5))))


def painted(paint: Callable[[Drawing], None], drawing: Drawing) -> Drawing:
    """Paint with the house settings in force; matplotlib reads some when an artist is made, some when it is drawn."""
    with matplotlib.rc_context(MATPLOTLIB):
        paint(drawing)
    return drawing


def draw(paint: Callable[[Drawing], None], drawing: Drawing) -> str:
    """Paint, and the figure as an `<svg>` element."""
    return painted(paint, drawing).svg()


def lines(
    drawing: Drawing,
    epochs: Values,
    curves: Mapping[str, Values],
    *,
    label: str,
    dashed: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> str:
    """Named curves over epochs.

    Args:
        drawing: an empty one with a panel.
        epochs: [E], from 1.
        curves: [E] each; NaN where a value is absent.
        label: of the vertical axis, with its unit.
        dashed: curves on other data than the rest.
        limits: of the vertical axis.
        marks: horizontal lines by name, e.g. the level of chance.
    """

    def paint(drawing: Drawing) -> None:
        axes = drawing.axes[0]
        for (name, values), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
            style = {"color": MUTED, "linestyle": "--"} if name in dashed else {"color": colour}
            curve(axes, epochs, values, label=name, **style)
        for name, level in (marks or {}).items():
            axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=":", label=name)
        epoch_axis(axes, epochs)
        axes.set_ylabel(label)
        if limits:
            axes.set_ylim(*limits)
        drawing.legend()

    return draw(paint, drawing)


def schedules(drawing: Drawing, epochs: Values, curves: Mapping[str, Values]) -> str:
    """One small panel per curve, above each other; the key is the label of its vertical axis."""

    def paint(drawing: Drawing) -> None:
        for axes, (label, values) in zip(drawing.axes, curves.items(), strict=True):
            curve(axes, epochs, values, color=CATEGORIES[0])
            axes.set_ylabel(label)
            axes.margins(y=0.12)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        epoch_axis(drawing.axes[-1], epochs)

    return draw(paint, drawing)


def graded(drawing: Drawing, epochs: Values, rows: Values, *, names: Sequence[str], label: str, scale: str) -> str:
    """Curves [E,R] of an ordered family (time steps, layers), dark to light; a legend for few, else a colour bar."""

    def paint(drawing: Drawing) -> None:
        axes, ramp = drawing.axes[0], sequential()
        count = rows.shape[1]
        for k in range(count):
            curve(axes, epochs, rows[:, k], color=ramp(k / max(count - 1, 1)), label=names[k], linewidth=1.1)
        epoch_axis(axes, epochs)
        axes.set_ylabel(label)
        if count <= FEW_LAYERS:
            drawing.legend()
        else:
            _colour_bar(drawing, ramp, Normalize(1, count), scale)

    return draw(paint, drawing)


def heat_map(drawing: Drawing, epochs: Values, rows: Values, *, label: str, scale: str) -> str:
    """Values [E,T] as colours, epochs to the right, time steps upwards from 1."""

    def paint(drawing: Drawing) -> None:
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
        _colour_bar(drawing, ramp, span, scale)

    return draw(paint, drawing)


def bundles(
    drawing: Drawing,
    groups: Mapping[str, Sequence[tuple[Values, Values]]],
    *,
    label: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Curves of several runs: a thin line per run, a thick one for the mean of a group where it has more than one.

    Args:
        drawing: an empty one with a panel.
        groups: by name, pairs of epochs [E] and values [E].
        label: of the vertical axis, with its unit.
        limits: of the vertical axis.
    """

    def paint(drawing: Drawing) -> None:
        axes = drawing.axes[0]
        for (name, runs), colour in zip(groups.items(), _cycle(len(groups)), strict=True):
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

    return draw(paint, drawing)


def dots(drawing: Drawing, groups: Mapping[str, tuple[Sequence[float], float, float | None]], *, label: str) -> str:
    """One row per group: a ring per run, and the mean with its standard deviation beneath.

    Args:
        drawing: an empty one with a panel.
        groups: by name: values of the runs, their mean, their standard deviation or None.
        label: of the horizontal axis, with its unit.
    """

    def paint(drawing: Drawing) -> None:
        axes = drawing.axes[0]
        for row, ((values, mean, std), colour) in enumerate(zip(groups.values(), _cycle(len(groups)), strict=True)):
            axes.plot(values, [row - 0.13] * len(values), "o", mfc="none", mec=colour, markersize=5, clip_on=False)
            axes.errorbar(mean, row + 0.17, xerr=std, fmt="D", color=colour, markersize=5, capsize=3, linewidth=1.4)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)

    return draw(paint, drawing)


def shares(drawing: Drawing, matrix: Values, *, names: Sequence[str]) -> str:
    """A large confusion matrix [K,K] of row shares (0 to 1) as colours; class names on a readable number of rows."""

    def paint(drawing: Drawing) -> None:
        axes, K = drawing.axes[0], len(matrix)
        ramp = LinearSegmentedColormap.from_list("confusion", ["#ffffff", "#6fa8cf", "#003e6b"])
        span = Normalize(0, 100)
        axes.imshow(100 * matrix, cmap=ramp, norm=span, interpolation="none")
        step = -(-K // 25)
        ticks = list(range(0, K, step))
        short = [names[k] if len(names[k]) <= 16 else f"{names[k][:15]}…" for k in ticks]  # the margin holds no more
        axes.set_xticks(ticks, short, rotation=90, fontsize=6)
        axes.set_yticks(ticks, short, fontsize=6)
        axes.grid(visible=False)
        _colour_bar(drawing, ramp, span, "share of the label's samples in %")

    return draw(paint, drawing)


def curve(axes: Axes, epochs: Values, values: Values, **style: Any) -> None:
    """One curve through the known values; a point where there are so few that a line shows nothing."""
    known = np.isfinite(values)
    if known.any():
        axes.plot(epochs[known], values[known], marker="o" if known.sum() <= 3 else None, **style)


def epoch_axis(axes: Axes, epochs: Values) -> None:
    """The horizontal axis of everything over epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = float(epochs.min()), float(epochs.max())
    margin = 0.03 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)


def mean_curve(runs: Sequence[tuple[Values, Values]]) -> tuple[Values, Values]:
    """Mean at the epochs where every run has a value."""
    by_epoch = [dict(zip(epochs.tolist(), values.tolist(), strict=True)) for epochs, values in runs]
    common = sorted(set.intersection(*(set(one) for one in by_epoch)))
    return np.array(common), np.array([float(np.mean([one[epoch] for one in by_epoch])) for epoch in common])


def sequential() -> Colormap:
    """Viridis without its palest part."""
    whole = matplotlib.colormaps["viridis"]
    return LinearSegmentedColormap.from_list("report", whole(np.linspace(0, SEQUENTIAL_END, 64)))


def _colour_bar(drawing: Drawing, ramp: Colormap, span: Normalize, label: str) -> None:
    bar = drawing.figure.colorbar(
        matplotlib.cm.ScalarMappable(span, ramp), ax=drawing.axes, label=label, fraction=0.05, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelcolor=INK)
    if label.startswith("time step") or label.startswith("layer"):
        bar.locator = MaxNLocator(integer=True, nbins=5)
        bar.update_ticks()


def _cycle(count: int) -> list[str]:
    return [CATEGORIES[k % len(CATEGORIES)] for k in range(count)]
