"""The plots of a loss landscape, as PNG: the line, the plane from above, the plane as a surface."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.ui.style import CATEGORIES, INK, MATPLOTLIB, MUTED, PAPER
from spikebridge.train.report.plots.drawing import sequential

DOTS_PER_INCH = 160
LEVELS = 12
WIDE_RANGE = 20.0
"""Largest loss over smallest from which on levels and colours are spaced logarithmically."""
SMALLEST_LOSS = 1e-6
"""Where a logarithm is taken."""

Values = NDArray[np.float64]


def plots(content: dict[str, Any]) -> dict[str, bytes]:
    """Draw PNG files by name, from the content of landscape.json."""
    with matplotlib.rc_context(MATPLOTLIB):
        files = {"line.png": _line(content)}
        if content["plane"] is not None:
            files |= {"contour.png": _contour(content), "surface.png": _surface(content)}
    return files


def _title(content: dict[str, Any]) -> str:
    simulated = " (SIMULATED)" if content["simulated"] else ""
    split = "training" if content["split"] == "train" else content["split"]
    recordings = f"{content['recordings']:,} {split} recordings"
    return f"{content['method']} on {content['dataset']}{simulated}, {recordings}"


def _line(content: dict[str, Any]) -> bytes:
    line = {name: _numbers(values) for name, values in content["line"].items()}
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(line["a"], line["loss"], color=CATEGORIES[0])
    lower.plot(line["a"], 100 * line["accuracy"], color=CATEGORIES[1])
    for axes, label in ((upper, "loss (nats)"), (lower, "accuracy in %")):
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_ylabel(label)
    lower.set_ylim(0, 102)
    lower.set_xlabel("distance along the direction; 0 is the trained network")
    figure.suptitle(_title(content), fontsize=8)
    return _png(figure)


def _contour(content: dict[str, Any]) -> bytes:
    a, b, loss = _plane(content)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    scaled, label, levels = _scaled(loss)
    filled = axes.contourf(a, b, scaled, levels=levels, cmap=sequential())
    axes.contour(a, b, scaled, levels=levels, colors=[PAPER], linewidths=0.4)
    axes.plot(0, 0, "+", color="#ffffff", markersize=9, markeredgewidth=1.6)
    axes.grid(visible=False)
    axes.set_aspect("equal")
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    axes.set_title(f"{_title(content)}\n+ is the trained network")
    bar = figure.colorbar(filled, ax=axes, label=label, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    return _png(figure)


def _surface(content: dict[str, Any]) -> bytes:
    a, b, loss = _plane(content)
    scaled, label, _ = _scaled(loss)
    figure = Figure(figsize=(5.2, 4.4))
    axes: Any = figure.add_subplot(projection="3d")
    axes.plot_surface(
        *np.meshgrid(a, b), scaled, cmap=sequential(), rstride=1, cstride=1, linewidth=0.15, edgecolor=PAPER
    )
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    axes.set_zlabel(label)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.pane.fill = False
    axes.tick_params(labelsize=7, colors=INK, pad=1)
    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect((1, 1, 0.75), zoom=0.98)
    figure.subplots_adjust(left=0, right=0.97, bottom=0.04, top=0.98)
    figure.suptitle(_title(content), fontsize=8, y=0.97)
    return _png(figure)


def _plane(content: dict[str, Any]) -> tuple[Values, Values, Values]:
    plane = content["plane"]
    return _numbers(plane["a"]), _numbers(plane["b"]), _numbers(plane["loss"])


def _numbers(values: Any) -> Values:
    return np.array(values, np.float64)  # None, where a loss was not finite, becomes NaN


def _scaled(loss: Values) -> tuple[Values, str, Values]:
    """Return the loss or its logarithm to base 10, what that is called, and levels."""
    known = np.maximum(loss[np.isfinite(loss)], SMALLEST_LOSS)
    wide = len(known) > 0 and known.max() / known.min() > WIDE_RANGE
    scaled = np.log10(np.maximum(loss, SMALLEST_LOSS)) if wide else loss
    low, high = float(np.nanmin(scaled)), float(np.nanmax(scaled))
    levels = np.array(MaxNLocator(LEVELS).tick_values(low, high if high > low else low + 1e-6), np.float64)
    return scaled, "log10 of the loss in nats" if wide else "loss (nats)", levels


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DOTS_PER_INCH, facecolor=PAPER, metadata={"Software": None})
    return data.getvalue()
