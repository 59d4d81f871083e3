"""The verbs `recipes list`, `show`, `copy` and `validate`."""

from __future__ import annotations

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


add_shipped_verbs(recipes, RECIPES, lambda name, overrides=(): load_recipe(name, overrides=overrides).tables())
