"""The page of a run that has no result: interrupted, still running, or diverged."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from spikebridge.pipeline.ui.html import facts, paragraph, preformatted, section, tags
from spikebridge.train.report.format import percent
from spikebridge.train.report.records import RunRecord
from spikebridge.train.report.run import changed, labels
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
    known = record.result
    if shards is not None and same:
        known = {**known, "simulated": shards.simulated}
    return "\n".join(
        (
            tags([(WARNINGS[run.state], True)]) + labels(known),
            section("State", _state(run, record), name="state"),
            section("Curves", curves(record, prefix="run"), name="curves"),
            section("Data", described, name="data"),
            section("Settings", changed(record) + preformatted(record.config), name="settings"),
        )
    )


def _state(run: ListedRun, record: RunRecord) -> str:
    """Return how far the run came, what it reached, and the command that goes on or begins anew."""
    assert run.recipe is not None
    split = record.result["selection_split"]
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
