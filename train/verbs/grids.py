"""The verbs `grids list`, `show`, `copy`, `schema` and `validate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from spikebridge.train.config.shipped import GRIDS
from spikebridge.train.verbs.shipped import add_shipped_verbs


@click.group()
def grids() -> None:
    """List, show, copy and check grids, which say what ablate does.

    \b
    Examples:
      spikebridge grids list
      spikebridge grids copy digits mine.toml
    """


def _grid_tables(name: str, overrides: tuple[str, ...] = ()) -> Mapping[str, Any]:
    from spikebridge.train.studies.grids import load_grid

    return load_grid(name, overrides=overrides).described()


def _schema() -> Mapping[str, Any]:
    from spikebridge.train.studies.grid_schema import grid_schema

    return grid_schema()


add_shipped_verbs(grids, GRIDS, _grid_tables, _schema)
