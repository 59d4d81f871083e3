"""The verb `push`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import byte_bar, json_option, path_type, print_result


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.argument("address")
@click.option("--flat", is_flag=True, help="Files beside README.md, as a hub repository takes them; one set alone.")
@json_option
def push(shards_path: Path, address: str, flat: bool, as_json: bool) -> None:
    """Publish a shard set.

    ADDRESS is a folder, s3://bucket/path or sftp://host/path. What is there already is not sent again. Readers of
    the address get this set from now on, whole, never a mixture. With --flat into the clone of a hub repository,
    what is left to do is git add, commit and push.

    \b
    Examples:
      spikebridge push data/shards/digits /mnt/share/digits
      spikebridge push data/shards/digits s3://our-bucket/digits
      spikebridge push data/shards/digits clone-of-a-hub-repository --flat
    """
    from spikebridge.pipeline.sharing.publish import push as publish

    done = publish(shards_path, address, flat=flat, bar=byte_bar)
    text = f"Published {done['id']}\n  at         {done['address']}\n  sent       {done['sent']} files"
    print_result(done, text, as_json=as_json, then=["pull", done["address"], "SHARDS", "--expect", done["id"]])
