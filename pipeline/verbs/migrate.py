"""The verb `migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.shards.settings import CHOICES
from spikebridge.pipeline.ui.terminal import json_option, note, overwrite_option, path_type, progress_bar, quiet_option
from spikebridge.pipeline.verbs.preprocess import show_set
from spikebridge.pipeline.verbs.training import Training

TABLE = path_type(exists=True, dir_okay=False)
AGAIN = "As given to preprocess, if it was."


@click.command()
@click.argument("shards_path", metavar="SET", type=path_type())
@click.option("--events", type=path_type(), required=True, help="Folder of the recordings that the set was made of.")
@click.option("--static", type=path_type(), required=True, help="Folder of the static images that it was made of.")
@click.option("--out", type=path_type(), required=True, help="Folder of the new shard set.")
@click.option("--store", type=click.Choice(CHOICES["store"]), default="both", show_default=True, help="What it stores.")
@click.option("--splits", type=TABLE, help=AGAIN)
@click.option("--labels", type=TABLE, help=AGAIN)
@click.option("--class-map", type=TABLE, help=AGAIN)
@click.option("--pairs", type=TABLE, help=AGAIN)
@click.option("--workers", type=click.IntRange(1), help="Processes  [default: one per processor]")
@overwrite_option
@quiet_option
@json_option
@click.pass_obj
def migrate(
    training: Training,
    shards_path: Path,
    events: Path,
    static: Path,
    out: Path,
    store: str,
    splits: Path | None,
    labels: Path | None,
    class_map: Path | None,
    pairs: Path | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a set of frames (schema 1) again with its events (schema 2).

    Frames of other settings can be made of the new set while training, or by convert; of frames alone they cannot, so
    the raw data is read once more, with the settings that the manifest names. It must give the same recordings in the
    same splits, which is seen before anything is written, and the same frames and images, to the bit, which is
    compared at the end. Interrupted, it continues where it was.

    \b
    Example:
      spikebridge migrate shards --events N-MNIST --static MNIST --out shards-with-events
    """
    from spikebridge.pipeline.base.processors import usable_processors
    from spikebridge.pipeline.derive.migrate import migrate as rewrite
    from spikebridge.pipeline.preprocess.array_jobs import Sources

    outcome = rewrite(
        shards_path,
        Sources(events, static, splits, labels, class_map, pairs),
        out,
        store=store,
        workers=workers or usable_processors(),
        overwrite=overwrite,
        say=note,
        progress=progress_bar,
    )
    show_set(training, outcome, out, as_json=as_json)
