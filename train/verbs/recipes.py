"""The verbs `recipes list`, `show`, `copy`, `new`, `schema` and `validate`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.base.places import in_the_way
from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result
from spikebridge.train.config.new_recipe import new_recipe
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.config.schema import recipe_schema
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.errors import RecipeError
from spikebridge.train.verbs.shipped import add_shipped_verbs


@click.group()
def recipes() -> None:
    """List, show, copy and check recipes.

    \b
    Examples:
      spikebridge recipes list
      spikebridge recipes copy digits mine.toml
      spikebridge recipes new --shards data/shards/animals animals.toml
    """


add_shipped_verbs(
    recipes, RECIPES, lambda name, overrides=(): load_recipe(name, overrides=overrides).tables(), recipe_schema
)


@recipes.command("new")
@click.option("--shards", metavar="PATH|ADDRESS", required=True, help="Shard set that the recipe is made for.")
@click.option("--like", metavar="RECIPE", help="Train as this recipe does, on every recording of the set.")
@click.argument("destination", type=path_type())
@overwrite_option
@json_option
def new(shards: str, like: str | None, destination: Path, overwrite: bool, as_json: bool) -> None:
    """Write a recipe that fits a shard set: its settings, and a plain start for training.

    \b
    Examples:
      spikebridge recipes new --shards data/shards/animals animals.toml
      spikebridge recipes new --shards data/shards/animals --like best animals.toml
    """
    from spikebridge.pipeline.sharing.open import open_set

    if reason := in_the_way(destination, overwrite=overwrite):
        raise RecipeError(str(destination), [reason])
    text = new_recipe(open_set(shards).manifest, name=shards, like=like)
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(text, encoding="utf-8")
    step: list[str | Path] = ["train", "--shards", shards, "--recipe", destination, "--run", "RUN"]
    print_result({"recipe": str(destination)}, str(destination), as_json=as_json, then=step)
