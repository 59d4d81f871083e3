"""The verbs `recipes list`, `show`, `copy` and `validate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.verbs.shipped import add_shipped_verbs


@click.group()
def recipes() -> None:
    """List, show, copy and check recipes.

    \b
    Examples:
      spikebridge recipes list
      spikebridge recipes copy digits mine.toml
    """


def _recipe_tables(name: str, overrides: tuple[str, ...] = ()) -> Mapping[str, Any]:
    return load_recipe(name, overrides=overrides).tables()


add_shipped_verbs(recipes, RECIPES, _recipe_tables)
