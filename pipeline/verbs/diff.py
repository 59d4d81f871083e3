"""The verb `diff`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result, progress_bar, quiet_option


@click.command()
@click.argument("first", type=path_type())
@click.argument("second", type=path_type())
@quiet_option
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Show how two shard sets differ.

    Exit code 1 when their samples, classes or images do.

    \b
    Example:
      spikebridge diff data/shards/digits fetched
    """
    from spikebridge.pipeline.checks.diff import difference
    from spikebridge.pipeline.shards.reader import ShardSet

    comparison = difference(ShardSet(first), ShardSet(second), progress=progress_bar)
    print_result(comparison.as_dict(), comparison.text(), as_json=as_json)
    if not comparison.same_content:
        click.get_current_context().exit(1)
