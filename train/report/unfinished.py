"""The page of a run that has no result: interrupted, still running, or diverged."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.ui.html import facts, paragraph, preformatted, section, table, tags
from spikebridge.train.report.format import percent
from spikebridge.train.report.records import RunRecord
from spikebridge.train.report.run import changed, labels
from spikebridge.train.report.sections.camera import camera
from spikebridge.train.report.sections.curves import curves
from spikebridge.train.report.sections.data import data

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.runs.listing import ListedRun

NOT_SHOWN = "Test accuracy, confusion matrix, samples and cost are scored when a run is finished."
WARNINGS = {
    "unfinished": "UNFINISHED: interrupted",
    "running": "UNFINISHED: still running",
    "diverged": "DIVERGED: a loss or weight became NaN or infinite",
}


def unfinished_page_body(run: ListedRun, record: RunRecord, shards: ShardSet | None) -> str:
    """Return what there is of a run without a result: where it stands and what to do, curves, data and settings.

    The shard set is described where it is the run's.
    """
    same = shards is not None and run.shard_set in (None, shards.id)
    if shards is not None and same:
        described = data(shards)
    elif shards is not None:
        described = paragraph(
            f"Nothing to show: this run uses shard set {run.shard_set}, the one given is {shards.id}."
        )
    else:
        described = paragraph("The shard set was not given; whether its recordings are simulated stands in its card.")
    known, simulated = record.result, camera(record)
    if shards is not None and same:
        known = {**known, "simulated": shards.simulated}
    return "\n".join(
        (
            tags([(WARNINGS[run.state], True)]) + labels(known),
            section("State", _state(run, record), name="state"),
            section("Curves", curves(record, prefix="run"), name="curves"),
            section("The simulated camera", simulated, name="camera") if simulated else "",
            section("Data", described, name="data"),
            section("Settings", changed(record) + preformatted(record.config), name="settings"),
        )
    )


def begun_mark(runs: Sequence[ListedRun], count: int) -> str:
    """Return the mark at the top of a page of `count` runs, of which `runs` have no result; empty if all have one."""
    return tags([(f"{len(runs)} of {count} runs without a result, in no mean", True)]) if runs else ""


def begun_section(runs: Sequence[ListedRun]) -> str:
    """Return a table of runs without a result: how each stands and what it reached; empty where there are none."""
    if not runs:
        return ""
    rows = [
        (
            real_path(run.path).name,
            run.method or "–",
            str(run.recipe.train.seed) if run.recipe else "–",
            WARNINGS[run.state],
            f"{run.epoch} of {run.recipe.train.epochs}" if run.recipe else str(run.epoch),
            percent(run.validation_accuracy),
        )
        for run in runs
    ]
    head = ("run", "method", "seed", "state", "epochs finished", "highest validation so far")
    note = (
        "They are in no mean, difference or curve below: their last epochs are missing. `report RUN` shows one alone."
    )
    return section("Runs without a result", table(head, rows) + paragraph(note, note=True), name="begun")


def _state(run: ListedRun, record: RunRecord) -> str:
    """Return how far the run came, what it reached, and the command that goes on or begins anew."""
    assert run.recipe is not None
    split = record.result["selection_split"] or "validation"
    reached, accuracies = "", record.column(f"{split}_accuracy")
    if np.isfinite(accuracies).any():
        best = int(np.nanargmax(accuracies))
        reached = f"{percent(float(accuracies[best]))} after epoch {record.epochs[best]:.0f}"
    progress = f"{run.epoch} of {run.recipe.train.epochs} epochs finished"
    lines = [
        f'<div class="headline"><b>{escape(run.state)}</b><span>{escape(progress)}</span></div>',
        facts(
            (("Shard set", run.shard_set or ""), (f"Highest {split} accuracy so far", reached), ("Seed", record.seed))
        ),
    ]
    train = "spikebridge train --shards SHARDS --recipe RUN/config.toml --run"
    if run.state == "running":
        lines.append(paragraph("A process of this machine trains it now. Make this report again when it is done."))
    elif run.state == "diverged":
        lr = f"{run.recipe.train.lr / 3:.1g}"
        why = (
            "The same settings diverge again. Begin in another folder, for instance with a third of the learning rate:"
        )
        lines += [paragraph(run.problem), paragraph(why)]
        lines.append(preformatted(f"{train} NEW --set lr={lr}"))
    else:
        lines += [
            paragraph("Its train command, given again, goes on from the last checkpoint:"),
            preformatted(f"{train} RUN"),
        ]
    return "\n".join([*lines, paragraph(NOT_SHOWN, note=True)])
