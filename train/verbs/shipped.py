"""The verbs list, show, copy, validate and schema of shipped files, for `recipes` and `grids`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import format_columns, json_option, overwrite_option, path_type, print_result
from spikebridge.train.config.shipped import ShippedFiles
from spikebridge.train.verbs.options import set_option


def add_shipped_verbs(
    group: click.Group,
    shipped: ShippedFiles,
    tables: Callable[..., Mapping[str, Any]],
    schema: Callable[[], Mapping[str, Any]],
) -> None:
    """Give a group the verbs list, show, copy, validate and schema.

    `tables` reads and checks one file; `schema` returns the JSON schema of all.
    """
    verb, kind = group.name, shipped.kind

    def example(text: str, line: str) -> str:
        return f"{text}\n\n\b\nExample:\n  spikebridge {verb} {line}"

    @group.command("list", help=example(f"List the shipped {kind}s.", "list"))
    @json_option
    def show_all(as_json: bool) -> None:
        summaries = {entry.name: entry.summary for entry in shipped.catalogue()}
        print_result(summaries, format_columns(summaries), as_json=as_json, then=[str(verb), "show", "NAME"])

    summary = f"Print a {kind} with its comments; as JSON its settings, defaults included."

    @group.command("show", help=example(summary, "show digits"))
    @click.argument("name")
    @json_option
    def show_one(name: str, as_json: bool) -> None:
        print_result(tables(name) if as_json else {}, shipped.show(name).rstrip(), as_json=as_json, verbatim=True)

    @group.command("copy", help=example(f"Copy a shipped {kind}, to change it.", "copy digits mine.toml"))
    @click.argument("name")
    @click.argument("destination", type=path_type())
    @overwrite_option
    @json_option
    def copy(name: str, destination: Path, overwrite: bool, as_json: bool) -> None:
        copied = str(shipped.copy(name, destination, overwrite=overwrite))
        print_result({kind: copied}, copied, as_json=as_json, then=[str(verb), "validate", copied])

    checks = f"Check a {kind}; shows every problem at once."

    @group.command("validate", help=example(checks, "validate mine.toml --set epochs=20"))
    @click.argument("name")
    @set_option
    @json_option
    def validate(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
        tables(name, overrides)
        print_result({kind: name, "ok": True}, f"{name}: good", as_json=as_json)

    prints = f"Print the JSON schema of {kind}s, by which editors complete and check them."

    @group.command("schema", help=example(prints, f"schema > {kind}.schema.json"))
    @json_option
    def show_schema(as_json: bool) -> None:
        values = schema()
        print_result(values, json.dumps(values, indent=1), as_json=as_json, verbatim=True)
