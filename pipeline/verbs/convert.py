"""The verb `convert`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.shards.settings import CHOICES
from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result, progress_bar


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.option("--out", type=path_type(), required=True, help="Folder of the new shard set.")
@click.option("--format", "format_", type=click.Choice(CHOICES["format"]), help="Container  [default: as it is]")
@click.option("--codec", type=click.Choice(CHOICES["codec"]), help="How samples are stored  [default: as it is]")
@click.option(
    "--store", type=click.Choice(("frames", *CHOICES["store"])), help="Frames, events or both  [default: as it is]"
)
@click.option("--preview/--no-preview", default=None, help="KEY.preview.png in tars  [default: as it is]")
@overwrite_option
@json_option
def convert(
    shards_path: Path,
    out: Path,
    format_: str | None,
    codec: str | None,
    store: str | None,
    preview: bool | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Store a shard set in another container or codec, or its events as frames.

    The raw data is not needed. The result is the very set that preprocess makes with these settings, under the same
    ID. Interrupted, it continues where it was; a damaged source is refused. Of a set of frames alone no events can be
    made.

    \b
    Examples:
      spikebridge convert data/shards/digits --format hdf5 --out data/shards/digits-hdf5
      spikebridge convert data/shards/digits --codec gzip --out data/shards/digits-small
      spikebridge convert data/shards/events --store frames --out data/shards/frames
    """
    from spikebridge.pipeline.preprocess.reformat import reformat

    outcome = reformat(
        shards_path,
        out,
        format_=format_,
        codec=codec,
        store=store,
        preview=preview,
        overwrite=overwrite,
        progress=progress_bar,
    )
    manifest = outcome.manifest
    settings = manifest["settings"]
    stored = ", ".join(settings[name] for name in ("store", "format", "codec") if name in settings)
    size = sum(entry["bytes"] for entry in manifest["files"])
    result = {"out": str(out), "id": manifest["self_sha256"], "bytes": size, "up_to_date": outcome.up_to_date}
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  stored as  {stored}: {size / 1e6:,.1f} MB"
    )
    print_result(result, text, as_json=as_json)
