"""The verb `track`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result
from spikebridge.train.verbs.options import TRACKERS


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=path_type())
@click.option("--to", "name", required=True, type=click.Choice(TRACKERS), help="The tracker; its package is an extra.")
@json_option
def track(runs: tuple[Path, ...], name: str, as_json: bool) -> None:
    """Tell a tracker of runs: recipe, every epoch, and the result of a finished one.

    What it knows from train --track or an earlier call is not told again. wandb works offline, in RUN/wandb (`wandb
    sync` sends it), unless WANDB_MODE says otherwise; mlflow and trackio keep runs on this machine unless
    MLFLOW_TRACKING_URI or TRACKIO_SPACE_ID name a place.

    \b
    Examples:
      spikebridge track data/runs/digits --to mlflow
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/digits --track trackio
    """
    from spikebridge.train.runs.tracking import track_run

    told = {str(path): track_run(path, name) for path in runs}
    lines = [
        f"{path}: {name} knows {one['epochs']} epochs{' and the result' if one['finished'] else ''} as {one['id']}"
        for path, one in told.items()
    ]
    print_result({"tracker": name, "runs": told}, "\n".join(lines), as_json=as_json)
