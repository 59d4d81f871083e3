"""Costs of rows: validation accuracy against training time and against the energy estimate, as small plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.ui.html import figure, figures
from spikebridge.pipeline.ui.style import CATEGORIES
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies.table import AblationTable, amount_words, amounts_of, time_column

Cost = Literal["training_seconds", "training_cpu_seconds", "energy_nj"]
MARKERS = "os^Dv"
"""One per turn through the colours."""


@dataclass(frozen=True)
class Point:
    """A row of the table: means over its runs, and standard deviations, 0 where there is none."""

    cost: float
    """In the unit of the axis."""
    cost_std: float
    """The same."""
    accuracy: float
    """On the validation split, in per cent."""
    accuracy_std: float
    """In points."""


def cost_points(content: AblationTable, amount: float, cost: Cost, scale: float) -> dict[str, Point]:
    """Return rows with an accuracy and a cost at one amount of labelled recordings, in the order of the table.

    `scale` is the factor from the costs of runs to the unit of the axis.
    """
    points = {}
    for line in content["table"]:
        mean, std = mean_and_std([run[cost] for run in line["runs"]])
        accuracy = line["validation_accuracy_mean"]
        if line["amount"] == amount and mean is not None and accuracy is not None:
            spread = 100 * (line["validation_accuracy_std"] or 0.0)
            points[line["row"]] = Point(scale * mean, scale * (std or 0.0), 100 * accuracy, spread)
    return points


def cost_figures(content: AblationTable, amount: float) -> str:
    """Draw the costs at one amount of labelled recordings; empty where fewer than two rows can be compared."""
    time, _ = time_column(content)
    words = "seconds of training" if time == "training_seconds" else "CPU seconds of training"
    axes: tuple[tuple[Cost, float, str, str], ...] = (
        (time, 1.0, words, "Accuracy against training time."),
        ("energy_nj", 1e-3, "estimated µJ per recording", "Accuracy against energy."),
    )
    rows = [row["label"] for row in content["rows"]]
    panels = []
    for key, scale, label, title in axes:
        points = cost_points(content, amount, key, scale)
        if len(points) > 1:
            name = f"cost-{amounts_of(content).index(amount)}-{key.replace('_', '-')}"
            plot = _draw_points(name, f"{title} {amount_words(content, amount)}", points, label, rows)
            panels.append(
                figure(plot, title=title, caption="Mean ± standard deviation over seeds; up and left is best.")
            )
    return figures(panels) if panels else ""


def _draw_points(name: str, description: str, points: Mapping[str, Point], label: str, rows: Sequence[str]) -> str:
    """Draw rows as points; a row has the same colour and marker in every plot, whichever others are there."""
    from spikebridge.train.report.plots.drawing import PANEL, Drawing, house_style, legend_columns

    lines = -(-len(points) // legend_columns(list(points)))
    drawing = Drawing(name, description, size=(PANEL[0], PANEL[1] + 0.17 * max(0, lines - 2)))
    with house_style():
        axes = drawing.axes[0]
        for row, point in points.items():
            turn, colour = divmod(rows.index(row), len(CATEGORIES))
            axes.errorbar(
                point.cost,
                point.accuracy,
                xerr=point.cost_std,
                yerr=point.accuracy_std,
                fmt=MARKERS[turn % len(MARKERS)],
                color=CATEGORIES[colour],
                markersize=5,
                elinewidth=0.8,
                label=show(row),
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.set_ylabel("validation accuracy in %")
        drawing.legend()
    return drawing.svg()
