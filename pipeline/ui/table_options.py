"""The options of verbs that read recordings whose columns leave their meaning open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

UNITS = ("s", "ms", "us", "ns")
Command = TypeVar("Command", bound=Callable[..., object])


def table_options(command: Command) -> Command:
    """Add `--columns`, `--group` and `--time-unit` to a verb, each empty where it is not given."""
    for option in (
        click.option("--time-unit", type=click.Choice(UNITS), help="Unit of times in tables."),
        click.option("--group", default="", help="Group or array that holds the events in HDF5, npz and mat files."),
        click.option("--columns", default="", metavar="T,X,Y,P", help="Columns of tables, e.g. x,y,t,p (- for none)."),
    ):
        command = option(command)
    return command


def given_options(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what `table_options` read, as `TableOptions` takes it."""
    columns, group, unit = (flags[name] or "" for name in ("columns", "group", "time_unit"))
    return {"columns": tuple(columns.split(",")) if columns else (), "group": group, "time_unit": unit}
