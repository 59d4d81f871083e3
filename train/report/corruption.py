"""The page of accuracy over the levels of a camera's failures."""

from __future__ import annotations

from html import escape
from typing import Any

from spikebridge.pipeline.ui.html import facts, figure, figures, page, section, table, tags
from spikebridge.train.evaluation.corruption import CORRUPTIONS
from spikebridge.train.report.plots.drawing import Drawing, house_style


def corruption_page(result: dict[str, Any], *, source: str) -> str:
    """Return the page, HTML, of what `train.evaluation.evaluate` scored with `corrupt`; `source` names the network."""
    marks = [("SIMULATED recordings", True)] if result["simulated"] else []
    heading = f"<header>\n<h1>{escape('Accuracy of a failing camera')}</h1>\n{tags(marks)}\n</header>\n"
    summary = facts(
        [
            ("network", source),
            ("recordings", f"{result['samples']:,}, split {result['split']}"),
            ("accuracy without failure", f"{result['accuracy']:.1%}"),
            ("seed of the failures", str(result["corrupt_seed"])),
        ]
    )
    rows = [("failure", "level", "accuracy", "loss")]
    rows += [
        (row["name"], f"{row['level']:g}", f"{row['accuracy']:.1%}", f"{row['loss']:.3f}")
        for row in result["corrupted"]
    ]
    names = list(dict.fromkeys(row["name"] for row in result["corrupted"]))
    curves = figures([_curve(name, result) for name in names])
    return page("Accuracy of a failing camera", heading + section("Result", summary) + section("Curves", curves)
                + section("Table", table(rows[0], rows[1:])))  # fmt: skip


def _curve(name: str, result: dict[str, Any]) -> str:
    """Return accuracy over the levels of one failure, with that of recordings as they are at level 0."""
    points = sorted((row["level"], row["accuracy"]) for row in result["corrupted"] if row["name"] == name)
    title = f"{name}: {CORRUPTIONS[name].meaning}."
    drawing = Drawing(f"corruption-{name}", f"Accuracy over levels of {name}.")
    with house_style():
        axes = drawing.axes[0]
        axes.plot([0.0, *(level for level, _ in points)], [result["accuracy"], *(y for _, y in points)], "o-")
        axes.set_xlabel("level")
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1)
    return figure(drawing.svg(), title=title)
