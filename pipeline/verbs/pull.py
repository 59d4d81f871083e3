"""The verb `pull`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import byte_bar, json_option, path_type, print_result, quiet_option


@click.command()
@click.argument("address")
@click.argument("out", type=path_type())
@click.option("--split", "splits", multiple=True, help="Fetch the shards of this split only (can be repeated).")
@click.option("--expect", metavar="ID", help="Refuse any other shard set.")
@quiet_option
@json_option
def pull(address: str, out: Path, splits: tuple[str, ...], expect: str | None, as_json: bool) -> None:
    """Fetch a published shard set or network; every file is checked.

    ADDRESS is a folder, or begins with http(s)://, s3://, sftp:// or hf://datasets/. What it names in a hub may end
    in @COMMIT; without, it is the newest commit, which is printed. hf://OWNER/MODEL is an exported network.
    Interrupted, the same command goes on where it was cut off.

    \b
    Examples:
      spikebridge pull https://data.example.org/digits data/shards/digits
      spikebridge pull s3://our-bucket/digits data/shards/digits --split test
      spikebridge pull hf://datasets/our-lab/digits data/shards/digits
    """
    from spikebridge.pipeline.sharing.hub import is_model
    from spikebridge.pipeline.sharing.publish import pull as fetch

    if is_model(address):
        from spikebridge.pipeline.sharing.networks import pull_network

        if splits or expect:
            raise click.UsageError("--split and --expect go with shard sets; hf://OWNER/MODEL names a network.")
        got = pull_network(address, out, bar=byte_bar)
        text = f"Network {out}\n  files      {', '.join(got['files'])}\n  from       {got['address']}"
        return print_result(got, text, as_json=as_json)
    done = fetch(address, out, splits=splits, expect=expect, bar=byte_bar)
    text = f"Shard set {out}\n  ID         {done['id']}\n  splits     {', '.join(done['splits'])}"
    text += f"\n  from       {done['address']}"
    print_result(done, text, as_json=as_json, then=["inspect", out])
