"""Runs as text: a table of many, the differences of two, and the best one before a new one.

Axes: n test samples.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from spikebridge.pipeline.base import foreign_json
from spikebridge.train.config.recipes import brief
from spikebridge.train.errors import RunError
from spikebridge.train.report.format import aligned, percent, points
from spikebridge.train.report.records import load_run
from spikebridge.train.runs.listing import ListedRun, setting_changes
from spikebridge.train.runs.result import NEUROBENCH

ONE_RUN = "One run of each proves nothing: seeds move accuracies, too."
FIGURES = ("validation_accuracy", "test_accuracy", "last_validation_accuracy", "last_test_accuracy")
AMOUNTS = ("best_epoch", "epochs", "steps", "parameters", "training_seconds", *NEUROBENCH, "energy_nj")
DATA = ("dataset", "shard_set", "contents", "protocol", "simulated", "samples", "static_images", "classes")
ORIGIN = ("device", "threads", "processes", "precision", "backend", "torch", "init")
ENVIRONMENT = ("spikebridge", "commit", "modified", "python", "processor", "gpu")
"""Of `environment` in result.json."""


class _ListedRow(TypedDict):
    run: str
    state: str


class _List(TypedDict):
    """What `report` needs of a list that `runs --json` printed."""

    runs: list[_ListedRow]


def read_list(data: bytes | str, source: str) -> tuple[list[Path], list[str]]:
    """Return the runs of a list that `runs --json` printed, and sentences about those that are damaged.

    Raises:
        RunError: another file.
    """
    remedy = "Expected a run folder, or what `spikebridge runs --json` prints."
    listed = foreign_json.parse_json(data, _List, source=source, error=RunError, remedy=remedy)["runs"]
    left_out = [f"left out: {row['run']}, {row['state']}" for row in listed if row["state"] == "damaged"]
    return [Path(row["run"]) for row in listed if row["state"] != "damaged"], left_out


def list_text(runs: Sequence[ListedRun], now: datetime.datetime) -> str:
    """Return a table of runs for a terminal, and what is damaged beneath it."""
    head = ("run", "method", "recipe", "set", "validation", "test", "state", "age")
    rows = [
        (
            str(run.path),
            run.method or "-",
            run.recipe_name or "-",
            (run.shard_set or "-")[:12],
            percent(run.validation_accuracy),
            percent(run.test_accuracy),
            run.state if run.state in ("finished", "damaged") else f"{run.state} ({_epochs(run)})",
            age_text((now - run.changed).total_seconds()),
        )
        for run in runs
    ]
    return "\n".join([aligned([head, *rows]), *(f"{run.path}: {run.problem}" for run in runs if run.problem)])


def _epochs(run: ListedRun) -> str:
    return f"{run.epoch} of {run.recipe.train.epochs} epochs" if run.recipe else f"{run.epoch} epochs"


def age_text(seconds: float) -> str:
    """Return a length of time in its largest unit: `5 min`, `3 h`, `2 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def run_difference(first: ListedRun, second: ListedRun) -> dict[str, Any]:
    """Return what differs between two runs, each value as [first, second].

    Returns:
        `settings`, `data`, `results` and `origin` (machine and versions) by name; `same_weights` says for `best` and
        `last` whether they are equal, bit for bit, None unless both runs say what theirs are; `decisions` counts the
        test samples that both, only one or none predicts right, None unless both are finished and scored the same
        samples.

    Raises:
        RunError: a file of a finished run has changed.
    """
    one, other = _facts(first), _facts(second)

    def differing(names: Sequence[str]) -> dict[str, list[Any]]:
        return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}

    return {
        "runs": [str(first.path), str(second.path)],
        "states": [first.state, second.state],
        "settings": {name: list(values) for name, values in setting_changes(first, second).items()},
        "data": differing(DATA),
        "results": {name: [one.get(name), other.get(name)] for name in FIGURES} | differing(AMOUNTS),
        "origin": differing((*ORIGIN, *ENVIRONMENT)),
        "same_weights": _same_weights(one.get("weights_sha256"), other.get("weights_sha256")),
        "decisions": _decisions(first, second),
    }


def _facts(run: ListedRun) -> dict[str, Any]:
    """Return what two runs are held against each other by."""
    result: Mapping[str, Any] = run.result or {
        "shard_set": run.shard_set,
        "validation_accuracy": run.validation_accuracy,
        "epochs": run.epoch,
        "dataset": run.recipe.shards.dataset if run.recipe else None,
    }
    return {**result, **(result.get("environment") or {}), **(result.get("neurobench") or {})}


def _same_weights(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> dict[str, bool] | None:
    return {name: one[name] == other.get(name) for name in one} if one and other else None


def _decisions(first: ListedRun, second: ListedRun) -> dict[str, int] | None:
    if first.state != "finished" or second.state != "finished":
        return None
    one, other = load_run(first.path).predictions, load_run(second.path).predictions
    if one is None or other is None or one.keys != other.keys:
        return None
    a, b = one.predicted == one.labels, other.predicted == other.labels  # [n]
    counts = {"both": a & b, "first": a & ~b, "second": b & ~a, "none": ~a & ~b}
    return {name: int(which.sum()) for name, which in counts.items()}


def difference_text(difference: Mapping[str, Any]) -> str:
    """Return what differs between two runs for a terminal."""
    first, second = difference["runs"]
    lines = [f"A  {first}  ({difference['states'][0]})", f"B  {second}  ({difference['states'][1]})"]
    for part in ("settings", "data"):
        rows = [(f"  {name}", *map(_text, values)) for name, values in difference[part].items()]
        lines += [aligned([(part, "A", "B"), *rows]) if rows else f"{part}: the same"]
    rows = []
    for name, (one, other) in difference["results"].items():
        shares = name in FIGURES
        both = isinstance(one, int | float) and isinstance(other, int | float)
        change = (points(other - one) + " points" if shares else _figure(other - one, sign="+")) if both else ""
        rows.append((f"  {name}", *((percent if shares else _figure)(value) for value in (one, other)), change))
    lines.append(aligned([("results", "A", "B", "B minus A"), *rows]))
    if (counts := difference["decisions"]) is not None:
        total = sum(counts.values())
        lines.append(
            f"  of {total:,} test recordings both get {counts['both']:,} right, only A {counts['first']:,}, "
            f"only B {counts['second']:,}, none {counts['none']:,}"
        )
    if (same := difference["same_weights"]) is not None:
        words = {True: "the same, bit for bit", False: "differ"}
        lines.append(f"weights: best {words[same['best']]}; last {words[same['last']]}")
    rows = [(f"  {name}", *map(_text, values)) for name, values in difference["origin"].items()]
    lines += [aligned([("origin", "A", "B"), *rows])] if rows else []
    return "\n".join([*lines, ONE_RUN])


def _figure(value: Any, *, sign: str = "") -> str:
    """Format what was counted or measured: whole numbers in full, others in six digits; settings are never rounded."""
    if not isinstance(value, int | float):
        return _text(value)
    whole = isinstance(value, int) or abs(value) >= 1e6
    return f"{value:{sign},.0f}" if whole else f"{value:{sign},.6g}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return str(brief(value)) if isinstance(value, str) else json.dumps(value)


def earlier_text(this: ListedRun, best: ListedRun) -> str:
    """Return how a new run stands against the best earlier one: accuracies, then the settings that differ."""
    parts = []
    for split in ("validation", "test"):
        new, old = (getattr(run, f"{split}_accuracy") for run in (this, best))
        if new is not None and old is not None:
            parts.append(f"{split} {points(new - old)} points")
    changes = setting_changes(best, this)
    settings = ", ".join(f"{name} {_text(there)} there, {_text(here)} here" for name, (there, here) in changes.items())
    return f"{', '.join(parts)} against {best.path} ({settings or 'the same settings'})"
