"""The verb `landscape`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import (
    json_option,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)
from spikebridge.train.signals import stop_on_signals
from spikebridge.train.verbs.options import shards_option


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@shards_option
@click.option("--out", type=path_type(), required=True, help="Folder for the losses, as JSON and CSV, and the plots.")
@click.option("--points", default=15, show_default=True, help="Points along each axis, an odd number.")
@click.option(
    "--radius", default=1.0, show_default=True, help="Largest distance; 1 is as far as 0 is from the weights."
)
@click.option("--line", is_flag=True, help="One direction alone, without the plane.")
@click.option(
    "--recordings",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Most that the loss is taken of, spread evenly over the split.",
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the directions.")
@click.option("--recalibrate", is_flag=True, help="Take BatchNorm's running statistics anew at every point.")
@overwrite_option
@quiet_option
@json_option
def landscape(
    run_path: Path,
    shards: str,
    out: Path,
    points: int,
    radius: float,
    line: bool,
    recordings: int,
    split: str,
    seed: int,
    recalibrate: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the loss around a trained network, along one random direction and over the plane of two.

    Directions are normalised filter by filter (Li et al., NeurIPS 2018). The loss is that of event recordings in
    evaluation mode; train means the recordings that the run was trained on. Biases, and BatchNorm with its running
    statistics, stay as trained; with --recalibrate the statistics are those of the recordings at every point.
    After an interruption the same command continues.

    \b
    Examples:
      spikebridge landscape data/runs/digits --shards data/shards/digits --out data/runs/digits-landscape
      spikebridge landscape data/runs/digits --shards data/shards/digits --out flat --line --points 51 --split test
    """
    from spikebridge.train.studies.landscape import LossPoints
    from spikebridge.train.studies.landscape import landscape as compute_landscape

    with stop_on_signals() as stop:
        content = compute_landscape(
            run_path,
            shards,
            out,
            points=LossPoints(points=points, radius=radius, plane=not line),
            split=split,
            limit=recordings,
            seed=seed,
            recalibrated=recalibrate,
            overwrite=overwrite,
            progress=progress_bar,
            stop=stop,
        )
    losses = [loss for loss in content["line"]["loss"] if loss is not None]
    text = (
        f"loss {content['trained']['loss']:.3f} of {content['recordings']:,} {split} recordings"
        f"{' (SIMULATED)' if content['simulated'] else ''}, up to {max(losses):.3f} along the line\n"
        f"  plots and losses   {out}: line.png"
        + ("" if line else ", contour.png, surface.png")
        + ", landscape.csv, landscape.json"
    )
    print_result(content, text, as_json=as_json)
