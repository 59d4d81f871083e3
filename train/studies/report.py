"""The page of an ablation: the table, its rows, and its curves; a function of the table alone."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from spikebridge.pipeline.ui.html import facts, figure, figures, paragraph, section, table, tags
from spikebridge.train.report.format import protocol_words
from spikebridge.train.report.write import require_matplotlib
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies.cost_figures import cost_figures
from spikebridge.train.studies.curves import curves, draw_evaluated, draw_few_data, draw_settings
from spikebridge.train.studies.table import (
    AblationTable,
    amount_words,
    amounts_of,
    cells,
    evaluated_cells,
    facts_of,
    failure_lines,
    notes_of,
    time_column,
    tuning_cells,
)

if TYPE_CHECKING:
    from spikebridge.train.report.plots.drawing import Drawing


def write_ablation_report(content: AblationTable, out: Path) -> list[Path]:
    """Write report.html; few-data.svg and .png where rows have several amounts of labelled recordings.

    Rows that differ in one setting with numbers give over-SETTING.svg and .png, too.

    Returns the files written.

    Raises:
        ReportError: matplotlib is not installed.
    """
    require_matplotlib("a report needs")
    written = [out / "report.html"]
    write_atomic(written[0], ablation_page(content).encode())
    for split in ("test", "validation"):  # the first that has a curve; the test split where it is shown
        if rows := curves(content, split):
            written += _write_drawing(draw_few_data(content, rows, split), out / "few-data")
            break
    for key, drawing in draw_settings(content).items():
        written += _write_drawing(drawing, out / f"over-{key}")
    return written


def _write_drawing(drawing: Drawing, place: Path) -> list[Path]:
    """Write a drawing as SVG and PNG, and return the paths."""
    paths = [place.with_name(f"{place.name}.{kind}") for kind in ("svg", "png")]
    for path in paths:
        write_atomic(path, drawing.file(path.suffix[1:]))
    return paths


def ablation_page(content: AblationTable) -> str:
    """Return the whole page; equal content gives equal bytes."""
    from spikebridge.pipeline.ui.html import page

    title = content["summary"].replace("`", "") or f"Grid {content['grid']}"
    marks = [(f"data set {content['dataset']}", False)]
    marks += [("SIMULATED recordings", True)] if content["simulated"] else []
    for protocol in dict.fromkeys(one["protocol"] for one in content["shard_sets"]):
        marks.append((f"protocol {protocol_words(protocol)}", protocol != "strict"))
    body = f"<header>\n<h1>{escape(title)}</h1>\n{tags(marks)}\n</header>\n"
    body += section("Result", _tables(content), name="result")
    if plots := _plots(content):
        body += section("Plots", plots, name="plots")
    rows = facts(notes_of(content), wide=[row["label"] for row in content["rows"]])
    body += section("What the rows are", rows, name="rows")
    if tuned := tuning_cells(content):
        text = paragraph("Mean validation accuracy in %.", note=True)
        body += section("Learning rates", table(tuned[0], tuned[1:]) + text, name="tuning")
    if failed := failure_lines(content):
        body += section("Runs that failed", "".join(map(paragraph, failed)), name="failures")
    body += section("Single runs", _single(content), name="runs")
    return page(title, body)


def _tables(content: AblationTable) -> str:
    parts = []
    for amount in amounts_of(content):
        head, *rows = cells(content, amount)
        words = amount_words(content, amount)
        parts += [f"<h3>{words[:1].upper()}{words[1:]}</h3>", table(head, rows), cost_figures(content, amount)]
        for title, (head, *rows) in evaluated_cells(content, amount):
            parts += [f"<h4>{escape(title)}</h4>", table(head, rows)]
    parts += [paragraph(fact, note=True) for fact in facts_of(content)]
    return "\n".join(parts)


def _plots(content: AblationTable) -> str:
    from spikebridge.train.report.plots.drawing import Drawing
    from spikebridge.train.report.plots.points import dots

    panels = []
    for split in ("test", "validation"):
        if rows := curves(content, split):
            caption = "Mean and standard deviation (n − 1) over seeds."
            svg = draw_few_data(content, rows, split).svg()
            panels.append(figure(svg, title=f"{split.capitalize()} accuracy with few labels.", caption=caption))
    for key, drawing in draw_settings(content).items():
        caption = "Mean and standard deviation (n − 1) over seeds; rows that differ in this setting alone."
        panels.append(figure(drawing.svg(), title=f"Accuracy over {key}.", caption=caption))
    for index, amount in enumerate(amounts_of(content)):
        for drawing in draw_evaluated(content, amount, prefix=f"evaluated-{index}"):
            caption = f"Means over seeds, {amount_words(content, amount)}."
            panels.append(figure(drawing.svg(), title=drawing.description, caption=caption))
        groups = {}
        for line in content["table"]:
            accuracies = [run["validation_accuracy"] for run in line["runs"]]
            values = [100 * accuracy for accuracy in accuracies if accuracy is not None]
            if line["amount"] == amount and values:
                mean, std = mean_and_std(values)
                assert mean is not None
                groups[line["row"]] = (values, mean, std)
        if groups:
            words = amount_words(content, amount)
            size = (4.3, max(1.6, 0.3 * len(groups) + 0.7))
            drawing = Drawing(f"rows-{index}", f"Validation accuracy by row, {words}", size=size)
            svg = dots(drawing, groups, label="validation accuracy in %")
            title = f"Validation accuracy, {words}."
            panels.append(figure(svg, title=title, caption="Rings: runs. Diamond: mean ± standard deviation."))
    return figures(panels) if panels else ""


def _single(content: AblationTable) -> str:
    time, time_head = time_column(content)
    head = ("run", "seed", "validation %", "test %", "epoch chosen", time_head)
    rows = [
        (
            run["run"],
            str(run["seed"]),
            _percent(run["validation_accuracy"]),
            _percent(run.get("test_accuracy")),
            f"{run['best_epoch']} of {run['epochs']}",
            "–" if (seconds := run[time]) is None else f"{seconds:.0f}",
        )
        for line in content["table"]
        for run in line["runs"]
    ]
    return table(head, rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
