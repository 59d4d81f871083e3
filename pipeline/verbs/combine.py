"""The verb `combine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import (
    json_option,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)

MOST_NOTES = 12
"""Notes of a set that are printed."""


@click.command()
@click.argument("sets", metavar="SET...", type=path_type(), nargs=-1, required=True)
@click.option(
    "--to", "--out", "out", metavar="DIR", type=path_type(), required=True, help="Folder of the new shard set."
)
@overwrite_option
@quiet_option
@json_option
def combine(sets: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool) -> None:
    """Make one shard set of several.

    Classes are joined by name. What the frames are (time bins, size, type, protocol ...) must agree; a difference is
    named. Recordings that several sets hold are there once. No recording, group or held-out static image of one set
    may be trained on from another: such leaks are refused. The manifest and the card name the sets and their IDs.

    \b
    Examples:
      spikebridge combine monday tuesday --to week
      spikebridge combine data/shards/nmnist data/shards/digits --to both
    """
    from spikebridge.pipeline.derive.combine import combine as join

    show_derived(join(sets, out, overwrite=overwrite, progress=progress_bar), out, as_json=as_json)


def show_derived(outcome: Any, out: Path, *, as_json: bool) -> None:
    """Print the closing lines of a set that was made of others."""
    from spikebridge.pipeline.base.display import show
    from spikebridge.pipeline.preprocess.remarks import pool_words
    from spikebridge.pipeline.shards.manifest import CARD

    manifest = outcome.manifest
    counts = {name: manifest["splits"][name]["samples"] for name in ("train", "validation", "test")}
    sources = [one["id"] for one in manifest["made_from"][-1]["sets"]]
    result = {"out": str(out), "id": manifest["self_sha256"], "splits": counts, "classes": manifest["classes"]}
    result |= {"static": manifest["static"]["roles"], "made_from": sources, "up_to_date": outcome.up_to_date}
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  made from  {', '.join(one[:12] for one in sources)}\n"
        f"  samples    {', '.join(f'{count:,} {name}' for name, count in counts.items())}"
        + (" (SIMULATED recordings)\n" if manifest["simulated"] else "\n")
        + f"  classes    {len(manifest['classes']):,}\n"
        f"  pool       {pool_words(manifest)}"
    )
    notes = manifest["notes"]
    text += "".join(f"\n  {show(line, most=200)}" for line in notes[:MOST_NOTES])
    text += f"\n  and {len(notes) - MOST_NOTES:,} more notes, see {out / CARD}" if len(notes) > MOST_NOTES else ""
    print_result({**result, "notes": notes}, text, as_json=as_json, then=["inspect", out])
