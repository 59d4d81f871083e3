"""How a network holds when the camera fails, and before a recording ends: tables, curves, and a page of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.ui.html import facts, figure, figures, page, paragraph, section, table, tags
from spikebridge.pipeline.ui.style import CATEGORIES
from spikebridge.train.evaluation.failures import CORRUPTIONS
from spikebridge.train.report.format import percent

if TYPE_CHECKING:
    from spikebridge.train.report.plots.drawing import Drawing

Row = tuple[str, ...]


def robustness_page(result: dict[str, Any], *, source: str) -> str:
    """Return the page, HTML, of what `train.evaluation.evaluate` found; `source` names the network."""
    title = "Accuracy of a failing camera" if "corrupted" in result else "Accuracy over time"
    marks = [("SIMULATED recordings", True)] if result["simulated"] else []
    heading = f"<header>\n<h1>{escape(title)}</h1>\n{tags(marks)}\n</header>\n"
    summary = [
        ("network", source),
        ("recordings", f"{result['samples']:,}, split {result['split']}"),
        ("accuracy of whole recordings without failure", percent(result["accuracy"])),
    ]
    if "corrupted" in result:
        summary.append(("seed of the failures", str(result["corrupt_seed"])))
    return page(title, heading + section("Result", facts(summary)) + robustness_sections(result))


def robustness_sections(result: dict[str, Any], *, prefix: str = "evaluation", about: str = "") -> str:
    """Return curves and tables of what `evaluate` found; `prefix` tells the drawings of a page apart.

    `about` says of which recordings, where the page does not.
    """
    rows = over_time_rows(result)
    time = figures([_over_time(result, prefix)]) + table(rows[0], rows[1:])
    if "early_exit" in result:
        time += paragraph(early_exit_words(result))
    time += paragraph(about, note=True) if about else ""
    made = section("Accuracy over time", time, name=f"{prefix}-time")
    if result.get("corrupted"):
        names = list(dict.fromkeys(row["name"] for row in result["corrupted"]))
        curves = figures([_curve(name, result, prefix) for name in names])
        rows = corrupted_rows(result)
        made += section("When the camera fails", curves + table(rows[0], rows[1:]), name=f"{prefix}-failures")
    return made


def over_time_rows(result: dict[str, Any]) -> list[Row]:
    """Return head and rows: accuracy after each time step, with the time where steps have one."""
    timed = result["over_time"][0]["ms"] is not None
    rows = [("time steps", *(["ms"] if timed else []), "accuracy")]
    for at in result["over_time"]:
        rows.append((str(at["step"]), *([f"{at['ms']:.1f}"] if timed else []), percent(at["accuracy"])))
    return rows


def early_exit_words(result: dict[str, Any]) -> str:
    """Return in a few sentences what the exit promises and what it does."""
    made, steps = result["early_exit"], len(result["over_time"])
    promise = f"at most {made['points']:g} points of accuracy"
    if (confidence := made.get("confidence")) is not None:  # files of before such promises have none
        needed, chosen_on = made["needed"], made["chosen_on"]
        if needed is None:
            return f"no early exit: no number of validation recordings can promise that it loses {promise}"
        if chosen_on < needed:
            half = " (those of a half choose for the other)" if len(made["thresholds"]) > 1 else ""
            return (
                f"no early exit: {chosen_on:,} validation recordings{half} are too few to promise that it loses "
                f"{promise}; expected {needed:,} or more. Permit more points, or preprocess with a table --splits that "
                "has more recordings for validation"
            )
        promise += f", with {confidence:.0%} confidence"
    sure = ["none" if one is None else f"{100 * one:.2f} %" for one in made["thresholds"]]
    where = ", chosen on the validation split"
    if len(sure) > 1:
        where = f" for every second recording and {sure[1]} for the others, each chosen on the other half"
    time = "" if made["mean_ms"] is None else f" ({made['mean_ms']:.1f} ms)"
    saved = made["energy_saved"]
    energy = "" if saved is None else f", which saves {100 * saved:.0f} % of the energy (estimate)"
    lost = "" if "lost" not in made else f"; {percent(made['lost'])} are wrong that would be right when whole"
    return (
        f"early exit, made to lose {promise}: a recording ends when its leading class has a probability of {sure[0]}"
        f"{where}. {percent(made['answered'])} of the recordings are answered, {percent(made['accuracy'])} of these "
        f"rightly{lost}. A recording ends after {made['mean_step']:.2f} of {steps} steps{time} on average{energy}"
    )


def corrupted_rows(result: dict[str, Any], *, meanings: bool = False) -> list[Row]:
    """Return head and rows: accuracy under each failure, with what an early exit does where there is one."""
    exits = any(threshold is not None for threshold in result.get("early_exit", {}).get("thresholds", ()))
    rows: list[Row] = [
        ("failure", "level", "accuracy", "loss", *(["answered", "of answers", "steps"] if exits else []))
        + (("level is",) if meanings else ())
    ]
    for row in result["corrupted"]:
        ended = row.get("early_exit")
        extra = [] if ended is None or not exits else [
            percent(ended["answered"]), percent(ended["accuracy"]), f"{ended['mean_step']:.2f}"
        ]  # fmt: skip
        cells = (row["name"], f"{row['level']:g}", percent(row["accuracy"]), f"{row['loss']:.3f}", *extra)
        rows.append(cells + ((meaning(row["name"]),) if meanings else ()))
    return rows


def meaning(name: str) -> str:
    """Return what the level of a failure is, with its unit; an unknown one comes from a file of another version."""
    return CORRUPTIONS[name].meaning if name in CORRUPTIONS else "level"


def _over_time(result: dict[str, Any], prefix: str) -> str:
    """Return accuracy over time, and where the early exit ends on average."""
    from spikebridge.train.report.plots.drawing import Drawing, house_style

    timed = result["over_time"][0]["ms"] is not None
    title = "Accuracy when only the first part of a recording counts."
    drawing = Drawing(f"{prefix}-over-time", title)
    with house_style():
        axes = drawing.axes[0]
        x = [at["ms"] if timed else at["step"] for at in result["over_time"]]
        axes.plot(x, [at["accuracy"] for at in result["over_time"]], "o-", label="all recordings")
        ended = result.get("early_exit")
        if ended is not None and ended["accuracy"] is not None:
            place = ended["mean_ms"] if timed else ended["mean_step"]
            axes.plot([place], [ended["accuracy"]], "D", label="early exit, answers")
        axes.set_xlabel("milliseconds" if timed else "time steps averaged")
        axes.set_ylabel("accuracy")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1)
    drawing.legend()
    return figure(drawing.svg(), title=title)


def _curve(name: str, result: dict[str, Any], prefix: str) -> str:
    """Return accuracy over the levels of one failure, with that of recordings as they are at level 0."""
    from spikebridge.train.report.plots.drawing import Drawing, house_style

    points = sorted((row["level"], row["accuracy"]) for row in result["corrupted"] if row["name"] == name)
    title = f"{name}: {meaning(name)}."
    drawing = Drawing(f"{prefix}-{name.replace('_', '-')}", f"Accuracy over levels of {name}.")
    with house_style():
        axes = drawing.axes[0]
        axes.plot([0.0, *(level for level, _ in points)], [result["accuracy"], *(y for _, y in points)], "o-")
        axes.set_xlabel("level")
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1)
    return figure(drawing.svg(), title=title)


def draw_side_by_side(rows: Mapping[str, Sequence[Any]], *, split: str, prefix: str) -> list[Drawing]:
    """Draw accuracy over time, and over the levels of each failure, a line for every row: the mean over its runs.

    Args:
        rows: what `evaluate` found of the runs of each row, of one split; rows without any are left out.
        split: its name.
        prefix: tells the drawings of a page apart.
    """
    from spikebridge.train.report.plots.drawing import Drawing, house_style

    plots: dict[str, tuple[str, str, dict[str, list[tuple[float, float]]]]] = {}
    for label, runs in rows.items():
        if not runs:
            continue
        over_time = [run["over_time"] for run in runs]
        timed = all(at["ms"] is not None for run in over_time for at in run)
        points = [
            (fmean(at["ms"] if timed else at["step"] for at in here), 100 * fmean(at["accuracy"] for at in here))
            for here in zip(*over_time, strict=False)
        ]
        title, axis = "Accuracy when only the first part counts", "milliseconds" if timed else "time steps averaged"
        plots.setdefault(f"time in {axis}", (title, axis, {}))[2][label] = points
        scores = [{(row["name"], row["level"]): row["accuracy"] for row in run.get("corrupted", [])} for run in runs]
        common = [key for key in scores[0] if all(key in one for one in scores)]
        for name in dict.fromkeys(name for name, _ in common):
            levels = sorted(level for other, level in common if other == name)
            whole = (0.0, 100 * fmean(run["accuracy"] for run in runs))
            at_level = [(level, 100 * fmean(one[name, level] for one in scores)) for level in levels]
            plots.setdefault(name, (f"{name}: {meaning(name)}", "level", {}))[2][label] = [whole, *at_level]
    drawings = []
    for key, (title, axis, lines) in plots.items():
        drawing = Drawing(f"{prefix}-{key.replace('_', '-').replace(' ', '-')}", title)
        with house_style():
            axes = drawing.axes[0]
            for index, (label, points) in enumerate(lines.items()):
                x, y = zip(*points, strict=True)
                axes.plot(x, y, marker="o", color=CATEGORIES[index % len(CATEGORIES)], label=show(label))
            axes.set_xlabel(axis)
            axes.set_ylabel(f"{split} accuracy in %")
            axes.set_xlim(left=0)
            drawing.legend()
        drawings.append(drawing)
    return drawings
