"""The verb `datasets`."""

from __future__ import annotations

import click

from spikebridge.pipeline.ui.terminal import format_columns, json_option, print_result


@click.command()
@click.argument("name", required=False)
@json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets, or describe one.

    Shows source, licence and folder layout.

    \b
    Examples:
      spikebridge datasets
      spikebridge datasets nmnist
    """
    from spikebridge.pipeline.datasets.published import list_published
    from spikebridge.pipeline.readers import get_reader, list_readers

    readers = [get_reader(name)] if name else list_readers()
    facts = {reader.name: {**reader.describe(), **list_published(reader.name)} for reader in readers}
    if name:
        print_result(
            facts[name], format_columns({f"{key}:": value for key, value in facts[name].items()}), as_json=as_json
        )
    else:
        titles = {key: fact["title"] for key, fact in facts.items()}
        print_result(facts, format_columns(titles), as_json=as_json, then=["datasets", "NAME"])
