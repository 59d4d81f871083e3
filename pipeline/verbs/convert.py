"""The verb `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.shards.settings import CHOICES
from spikebridge.pipeline.ui.terminal import (
    json_option,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)
from spikebridge.pipeline.verbs.framing_options import framing_flags, framing_options


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.option("--out", type=path_type(), required=True, help="Folder of the new shard set.")
@click.option("--format", "format_", type=click.Choice(CHOICES["format"]), help="Container  [default: as it is]")
@click.option("--codec", type=click.Choice(CHOICES["codec"]), help="How samples are stored  [default: as it is]")
@click.option(
    "--store", type=click.Choice(("frames", *CHOICES["store"])), help="Frames, events or both  [default: as it is]"
)
@framing_options
@click.option("--preview/--no-preview", default=None, help="KEY.preview.png in tars  [default: as it is]")
@overwrite_option
@quiet_option
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
    **flags: Any,
) -> None:
    """Store a shard set in another container or codec, or with other frames of its events.

    The raw data is not needed. The result is the very set that preprocess makes with these settings, under the same
    ID. Interrupted, it continues where it was; a damaged source is refused. Of a set of frames alone no events and no
    other frames can be made.

    Of a set with events, frames of other settings are to the bit those of preprocess. Static images are resized from
    those of the set, so the new set has an ID of its own, and its manifest names the set that it was made of.

    \b
    Examples:
      spikebridge convert data/shards/digits --format hdf5 --out data/shards/digits-hdf5
      spikebridge convert data/shards/digits --codec gzip --out data/shards/digits-small
      spikebridge convert data/shards/events --store frames --out data/shards/frames
      spikebridge convert data/shards/events --store frames --time-bins 4 --size 64 --out data/shards/four
    """
    from spikebridge.pipeline.derive.reframe import reframe

    outcome = reframe(
        shards_path,
        out,
        {name: value for name, value in framing_flags(flags).items() if value is not None},
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
    framed = "x".join(map(str, manifest["sample"]["shape"]))
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  stored as  {stored}: {size / 1e6:,.1f} MB\n"
        f"  frames     [{framed}] {settings['dtype']}, {settings['reduction']}"
    )
    print_result(result, text, as_json=as_json)
