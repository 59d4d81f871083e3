"""The verb `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result
from spikebridge.train.verbs.options import backend_option, device_option

if TYPE_CHECKING:
    from spikebridge.train.evaluation.predict import Predictions

REJECTED = 3
"""Exit code where a recording could not be used."""
MOST_STEPS = 8
"""Time steps in the table; JSON and CSV have all."""


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=path_type())
@click.option("--shards", metavar="PATH|ADDRESS", help="The run's shard set; runs of early versions need it.")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line per recording and time step.")
@device_option
@backend_option
@json_option
def predict(
    run_path: Path,
    files: tuple[Path, ...],
    shards: str | None,
    weights: str,
    as_csv: bool,
    device: str,
    backend: str,
    as_json: bool,
) -> None:
    """Tell the class of new recordings: FILE is a recording, or a folder of them.

    Their frames are made as those of the run's shard set were. Probabilities are the softmax of the scores averaged
    over the first time steps; those after the last one decide. A recording that cannot be used is named, and the exit
    code is 3.

    \b
    Examples:
      spikebridge predict data/runs/digits data/raw/digits/events/Test/3
      spikebridge predict RUN new.aedat4 --json
      spikebridge predict RUN recordings --csv > predictions.csv
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: expected one of them.")

    from spikebridge.train.evaluation.predict import predict as run_prediction
    from spikebridge.train.report.format import csv_text

    made = run_prediction(run_path, files, shards=shards, weights=weights, device=device, backend=backend)
    values = {
        "run": str(run_path),
        "weights": weights,
        "classes": list(made.classes),
        "simulated": made.simulated,
        "recordings": [one.row(made.classes) for one in made.recordings],
    }
    text = csv_text(_lines(made)).rstrip("\n") if as_csv else _table(made)
    print_result(values, text, as_json=as_json, verbatim=as_csv)
    if any(one.problem for one in made.recordings):
        click.get_current_context().exit(REJECTED)


def _lines(made: Predictions) -> list[dict[str, object]]:
    """Return a line per recording and time step; one without steps for a recording that cannot be used."""
    lines: list[dict[str, object]] = []
    for one in made.recordings:
        if one.probabilities is None:
            lines.append({"file": one.file, "problem": one.problem})
            continue
        for step, row in enumerate(one.probabilities.tolist(), start=1):
            names = (f"probability_{name}" for name in made.classes)
            lines.append({"file": one.file, "problem": "", "time_step": step, "class": one.label})
            lines[-1] |= dict(zip(names, row, strict=True))
    return lines


def _table(made: Predictions) -> str:
    """Return class and probability of every recording, after some time steps and after all."""
    from spikebridge.train.report.format import aligned

    good = [one for one in made.recordings if one.probabilities is not None]
    lines = []
    if good:
        T = len(good[0].probabilities if good[0].probabilities is not None else ())
        shown = sorted({round(T * (i + 1) / MOST_STEPS) for i in range(MOST_STEPS)} - {0} | {T})
        rows = [("recording", "class", *(f"t={t}" for t in shown))]
        for one in good:
            assert one.probabilities is not None
            k = int(one.probabilities[-1].argmax())
            rows.append((one.file, one.label or "", *(f"{one.probabilities[t - 1, k]:.2f}" for t in shown)))
        lines.append(aligned(rows))
        lines.append("Probability of the class after t time steps." + " Trained on SIMULATED data." * made.simulated)
    lines += [f"not usable: {one.problem}" for one in made.recordings if one.problem]
    return "\n".join(lines)
