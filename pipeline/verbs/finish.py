"""The verb `finish`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, progress_bar, quiet_option
from spikebridge.pipeline.verbs.preprocess import show_set
from spikebridge.pipeline.verbs.training import Training


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.option("--events", type=path_type(), help="Folder of the recordings  [default: as the tasks had it]")
@click.option("--static", type=path_type(), help="Folder of the static images  [default: as the tasks had it]")
@click.option("--splits", type=path_type(), help="CSV of the splits  [default: as the tasks had it]")
@click.option("--max-bad", type=click.IntRange(0), default=0, show_default=True, help="Recordings that may be dropped.")
@click.option("--strict", is_flag=True, help="Turn warnings into errors.")
@quiet_option
@json_option
@click.pass_obj
def finish(
    training: Training,
    shards_path: Path,
    events: Path | None,
    static: Path | None,
    splits: Path | None,
    max_bad: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Complete a shard set that several jobs made.

    The jobs are those of preprocess --task. Prints which tasks must run, or run again: that is rare, where an image
    turned out to be undecodable after another job had gone past it.

    \b
    Example:
      spikebridge finish data/shards/nmnist
    """
    from spikebridge.pipeline.preprocess.array_jobs import finish_shares

    where = {"events": events, "static": static, "splits": splits}
    outcome = finish_shares(shards_path, where=where, max_bad=max_bad, strict=strict, progress=progress_bar)
    show_set(training, outcome, shards_path, as_json=as_json)
