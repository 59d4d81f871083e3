"""The verb `push`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import byte_bar, json_option, path_type, print_result, quiet_option


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.argument("address")
@click.option("--flat", is_flag=True, help="Files beside README.md, as a hub repository takes them; one set alone.")
@quiet_option
@json_option
def push(shards_path: Path, address: str, flat: bool, as_json: bool) -> None:
    """Publish a shard set, or a folder of export.

    ADDRESS is a folder, s3://bucket/path, sftp://host/path, or hf://datasets/OWNER/NAME: one commit, with the token
    of `hf auth login` or HF_TOKEN; a repository that is missing is made, private. What is there already is not sent
    again. Readers of the address get this set from now on, whole, never a mixture. With --flat into the clone of a hub
    repository, what is left to do is git add, commit and push. hf://OWNER/MODEL takes a folder that export wrote: an
    exported network and its card.

    \b
    Examples:
      spikebridge push data/shards/digits /mnt/share/digits
      spikebridge push data/shards/digits s3://our-bucket/digits
      spikebridge push data/shards/digits hf://datasets/our-lab/digits
      spikebridge push data/shards/digits clone-of-a-hub-repository --flat
    """
    from spikebridge.pipeline.sharing.hub import is_model
    from spikebridge.pipeline.sharing.publish import push as publish

    if is_model(address):
        from spikebridge.pipeline.sharing.networks import push_network

        sent = push_network(shards_path, address)
        text = f"Published {', '.join(sent['files'])}\n  at         {sent['address']}"
        text += f"\n  left out   {', '.join(sent['left_out'])}" if sent["left_out"] else ""
        return print_result(sent, text, as_json=as_json, then=["pull", sent["address"], "FOLDER"])
    done = publish(shards_path, address, flat=flat, bar=byte_bar)
    text = f"Published {done['id']}\n  at         {done['address']}\n  sent       {done['sent']} files"
    print_result(done, text, as_json=as_json, then=["pull", done["address"], "SHARDS", "--expect", done["id"]])
