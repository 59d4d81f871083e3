"""What `recipes` and `grids` have in common: list, show, copy and validate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import format_columns, json_option, overwrite_option, path_type, print_result
from spikebridge.train.config.shipped import Shelf
from spikebridge.train.verbs.options import set_option


def shelf_verbs(group: click.Group, shelf: Shelf, tables: Callable[..., dict[str, Any]]) -> None:
    """Give a group the verbs list, show, copy and validate; `tables` reads and checks one file."""
    verb, what = group.name, shelf.what

    def example(text: str, line: str) -> str:
        return f"{text}\n\n\b\nExample:\n  spikebridge {verb} {line}"

    @group.command("list", help=example(f"List the shipped {what}s.", "list"))
    @json_option
    def show_all(as_json: bool) -> None:
        listed = shelf.listed()
        summaries = {one.name: one.summary for one in listed}
        print_result(summaries, format_columns(summaries), as_json=as_json, then=[str(verb), "show", "NAME"])

    summary = f"Print a {what} with its comments; as JSON its settings, defaults included."

    @group.command("show", help=example(summary, "show digits"))
    @click.argument("name")
    @json_option
    def show_one(name: str, as_json: bool) -> None:
        print_result(tables(name) if as_json else {}, shelf.show(name).rstrip(), as_json=as_json, verbatim=True)

    @group.command("copy", help=example(f"Copy a shipped {what}, to change it.", "copy digits mine.toml"))
    @click.argument("name")
    @click.argument("destination", type=path_type())
    @overwrite_option
    @json_option
    def copy(name: str, destination: Path, overwrite: bool, as_json: bool) -> None:
        copied = str(shelf.copy(name, destination, overwrite=overwrite))
        print_result({what: copied}, copied, as_json=as_json, then=[str(verb), "validate", copied])

    checks = f"Check a {what}; every problem is shown at once."

    @group.command("validate", help=example(checks, "validate mine.toml --set epochs=20"))
    @click.argument("name")
    @set_option
    @json_option
    def validate(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
        tables(name, overrides)
        print_result({what: name, "ok": True}, f"{name}: good", as_json=as_json)
