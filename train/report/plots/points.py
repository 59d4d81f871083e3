"""Plots over anything but epochs: accuracy over time steps, points in a plane, means of groups, confusion.

Axes: T time steps, m points, K classes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.ui.style import CATEGORIES, MUTED, RULE
from spikebridge.train.report.plots.drawing import Drawing, Values, colour_bar, colours, painter

LONGEST_MARK = 2
"""Letters of a class name that still serve as a mark."""
ROW_LETTERS = 26
"""Letters of a line of a group's name beside its row; more leave the row no room."""
AXIS_INCHES, LINE_INCHES = 0.7, 0.15
"""Height of what stands below the rows, and of a line beside them."""


@painter
def over_steps(drawing: Drawing, groups: Mapping[str, Sequence[Values]], *, chance: float) -> None:
    """Draw accuracies in % [T] of runs in groups, and that of chance: a thin line per run, a thick one for the mean."""
    axes = drawing.axes[0]
    for k, (name, runs) in enumerate(groups.items()):
        colour, alone = CATEGORIES[k % len(CATEGORIES)], len(runs) == 1
        if not alone:
            for values in runs:
                axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.6, alpha=0.55)
        if len({len(values) for values in runs}) == 1:
            mean = np.mean(runs, axis=0)
            style: Any = {"label": name, "linewidth": 1.4 if alone else 2.0}
            axes.plot(range(1, len(mean) + 1), mean, marker="o", color=colour, **style)
    axes.axhline(chance, color=MUTED, linewidth=0.8, linestyle=":", label="chance")
    axes.set_xlabel("time steps averaged")
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(0, 102)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    drawing.legend()


@painter
def scatter(drawing: Drawing, sets: Mapping[str, tuple[Values, NDArray[np.int64]]], *, names: Sequence[str]) -> None:
    """Draw sets of points [m,2] with classes [m]: a colour per set, short class names as marks."""
    short = max(map(len, names)) <= LONGEST_MARK
    axes = drawing.axes[0]
    for (name, (points, labels)), colour, shape in zip(sets.items(), CATEGORIES, "os^", strict=False):
        if short:
            axes.plot([], [], "s", color=colour, label=show(name))
            for (x, y), k in zip(points, labels, strict=True):
                mark = axes.text(
                    x, y, show(names[k], most=20), color=colour, fontsize=7, ha="center", va="center", weight="bold"
                )
                mark.set_in_layout(False)  # measuring each takes seconds
        else:
            axes.plot(*points.T, shape, mfc="none", mec=colour, markersize=3.5, linestyle="none", label=show(name))
    every = np.concatenate([points for points, _ in sets.values()])
    low, high = every.min(0), every.max(0)
    margin = 0.05 * np.maximum(high - low, 1e-9)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)
    drawing.legend()


@painter
def dots(drawing: Drawing, groups: Mapping[str, tuple[Sequence[float], float, float | None]], *, label: str) -> None:
    """Draw one row per group (values of its runs, mean, standard deviation or None): rings, the mean beneath them."""
    axes = drawing.axes[0]
    names = [textwrap.fill(show(name), ROW_LETTERS) for name in groups]
    width, height = drawing.figure.get_size_inches()
    needed = AXIS_INCHES + LINE_INCHES * sum(name.count("\n") + 1 for name in names)
    drawing.figure.set_size_inches(width, max(height, needed))
    for row, ((values, mean, std), colour) in enumerate(zip(groups.values(), colours(len(groups)), strict=True)):
        axes.plot(values, [row - 0.13] * len(values), "o", mfc="none", mec=colour, markersize=5, clip_on=False)
        axes.errorbar(mean, row + 0.17, xerr=std, fmt="D", color=colour, markersize=5, capsize=3, linewidth=1.4)
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)


@painter
def shares(drawing: Drawing, matrix: Values, *, names: Sequence[str]) -> None:
    """Draw a large confusion matrix [K,K] of row shares (0 to 1) as colours, with readable class names."""
    axes, K = drawing.axes[0], len(matrix)
    ramp = LinearSegmentedColormap.from_list("confusion", ["#ffffff", "#6fa8cf", "#003e6b"])
    span = Normalize(0, 100)
    axes.imshow(100 * matrix, cmap=ramp, norm=span, interpolation="none")
    step = -(-K // 25)
    ticks = list(range(0, K, step))
    shown = [show(names[k]) for k in ticks]
    short = [name if len(name) <= 16 else f"{name[:15]}…" for name in shown]  # the margin holds no more
    axes.set_xticks(ticks, short, rotation=90, fontsize=6)
    axes.set_yticks(ticks, short, fontsize=6)
    axes.grid(visible=False)
    colour_bar(drawing, ramp, span, "share of the label's samples in %")
