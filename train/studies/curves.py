"""Curves of an ablation: accuracy over labelled recordings, and over a setting in which rows differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.ui.style import CATEGORIES
from spikebridge.train.report.robustness import draw_side_by_side
from spikebridge.train.studies.grids import AXES
from spikebridge.train.studies.table import AblationTable, accuracies_of, amount_words, amounts_of, words

if TYPE_CHECKING:
    from spikebridge.train.report.plots.drawing import Drawing

TIME_WINDOW = "time_window_us"
"""Setting of two numbers, of which the length is drawn, in milliseconds."""


@dataclass(frozen=True)
class Curve:
    """Accuracy over labelled recordings, or over a setting."""

    amounts: Sequence[float]
    """Recordings per class, per cent of them, or values of the setting."""
    means: Sequence[float]
    """In per cent."""
    stds: Sequence[float]
    """In points; 0 where there is none."""


def curves(content: AblationTable, split: str) -> dict[str, Curve]:
    """Return rows with at least two amounts of labelled recordings and the accuracy on a split, by label."""
    scale = 100.0 if content["axis"] == AXES[1] else 1.0
    rows: dict[str, Curve] = {}
    for row in content["rows"]:
        lines = [line for line in content["table"] if line["row"] == row["label"] and line["amount"]]
        lines.sort(key=lambda line: line["amount"])
        points = [
            (scale * line["amount"], 100 * mean, 100 * (std or 0.0))
            for line in lines
            for mean, std in [accuracies_of(line, split)]
            if mean is not None
        ]
        if len(points) > 1:
            rows[row["label"]] = Curve(*zip(*points, strict=True))
    return rows


def draw_few_data(content: AblationTable, rows: Mapping[str, Curve], split: str) -> Drawing:
    """Draw the few-data curve: accuracy over labelled recordings on a logarithmic axis."""
    from spikebridge.train.report.plots.drawing import Drawing, house_style

    share = content["axis"] == AXES[1]
    drawing = Drawing(f"few-data-{split}", f"{split.capitalize()} accuracy over labelled recordings")
    with house_style():
        axes = drawing.axes[0]
        for index, (label, curve) in enumerate(rows.items()):
            colour, shift = CATEGORIES[index % len(CATEGORIES)], 1 + 0.015 * (index - (len(rows) - 1) / 2)
            amounts = [x * shift for x in curve.amounts]
            axes.errorbar(amounts, curve.means, curve.stds, color=colour, marker="o", capsize=3, label=show(label))
        axes.set_xscale("log")
        ticks = sorted({x for curve in rows.values() for x in curve.amounts})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set_xlabel("labelled recordings in % of each class" if share else "labelled recordings per class")
        axes.set_ylabel(f"{split} accuracy in %")
        drawing.legend()
    return drawing


def setting_curves(content: AblationTable, amount: float) -> dict[str, dict[str, Curve]]:
    """Return validation accuracy over each setting in which alone rows differ, by setting and by what rows share.

    The setting has a number in each of at least two rows; `time_window_us` counts by its length in milliseconds.
    """
    lines = [line for line in content["table"] if line["amount"] == amount]
    found: dict[str, dict[str, Curve]] = {}
    for key in dict.fromkeys(key for line in lines for key in line["switches"]):
        alike: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for line in lines:
            value, (mean, std) = _number(key, line["switches"].get(key)), accuracies_of(line, "validation")
            if value is not None and mean is not None:
                others = {name: other for name, other in line["switches"].items() if name != key}
                common = ", ".join(filter(None, [line["method"], words(others)]))
                alike[common].append((value, 100 * mean, 100 * (std or 0.0)))
        rows = {name: Curve(*zip(*sorted(points), strict=True)) for name, points in alike.items()}
        if rows := {name: curve for name, curve in rows.items() if len(set(curve.amounts)) > 1}:
            found[key] = rows
    return found


def _number(key: str, value: Any) -> float | None:
    """Return a setting's value as a place on an axis; None where it is no number."""
    if key == TIME_WINDOW and isinstance(value, list | tuple) and len(value) == 2:
        return float(value[1] - value[0]) / 1000
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def draw_settings(content: AblationTable) -> dict[str, Drawing]:
    """Draw validation accuracy over settings, by setting, at the first amount of recordings that has such rows."""
    from spikebridge.train.report.plots.drawing import Drawing, house_style

    drawings = dict[str, Drawing]()
    for amount in amounts_of(content):
        for key, rows in setting_curves(content, amount).items():
            if key in drawings:
                continue
            text = f"Validation accuracy over {key}, {amount_words(content, amount)}"
            drawings[key] = drawing = Drawing(f"over-{key}", text)
            with house_style():
                axes = drawing.axes[0]
                for index, (label, curve) in enumerate(rows.items()):
                    points = (curve.amounts, curve.means, curve.stds)
                    colour = CATEGORIES[index % len(CATEGORIES)]
                    axes.errorbar(*points, color=colour, marker="o", capsize=3, label=show(label))
                axes.set_xlabel("milliseconds of the recording" if key == TIME_WINDOW else key)
                axes.set_ylabel("validation accuracy in %")
                drawing.legend()
    return drawings


def draw_evaluated(content: AblationTable, amount: float, *, prefix: str) -> list[Drawing]:
    """Draw accuracy over time, and over the levels of each failure, a line for every row; none where none is asked."""
    rows = {
        line["row"]: [run for one in line["runs"] if (run := one.get("evaluated")) is not None]
        for line in content["table"]
        if line["amount"] == amount
    }
    return draw_side_by_side(rows, split=content["evaluated"]["split"], prefix=prefix) if any(rows.values()) else []
