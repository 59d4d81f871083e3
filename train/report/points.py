"""Pictures whose horizontal axis is no epoch: accuracy over time steps, points in a plane.

Axes: T time steps, m points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.ui.style import CATEGORIES, MUTED, RULE
from spikebridge.train.report.figures import Drawing, draw

Values = NDArray[np.float64]
LONGEST_MARK = 2
"""Letters of a class name that still serve as a mark."""


def over_steps(drawing: Drawing, groups: Mapping[str, Sequence[Values]], *, chance: float) -> str:
    """Accuracies in % [T] of one run or of several in groups: a thin line per run, a thick one for the mean.

    Args:
        drawing: an empty one with a panel.
        groups: by name.
        chance: level of guessing, in %.
    """

    def paint(drawing: Drawing) -> None:
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

    return draw(paint, drawing)


def scatter(drawing: Drawing, sets: Mapping[str, tuple[Values, NDArray[np.int64]]], *, names: Sequence[str]) -> str:
    """Sets of points [m,2] with classes [m]: a colour per set, the class name as the mark where names are short.

    Args:
        drawing: an empty one with a panel.
        sets: by name.
        names: of the classes.
    """
    short = max(map(len, names)) <= LONGEST_MARK

    def paint(drawing: Drawing) -> None:
        axes = drawing.axes[0]
        for (name, (points, labels)), colour, shape in zip(sets.items(), CATEGORIES, "os^", strict=False):
            if short:
                axes.plot([], [], "s", color=colour, label=name)
                for (x, y), k in zip(points, labels, strict=True):
                    mark = axes.text(x, y, names[k], color=colour, fontsize=7, ha="center", va="center", weight="bold")
                    mark.set_in_layout(False)  # measuring each takes seconds
            else:
                axes.plot(*points.T, shape, mfc="none", mec=colour, markersize=3.5, linestyle="none", label=name)
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

    return draw(paint, drawing)
