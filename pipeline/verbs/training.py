"""What verbs of the pipeline ask of training, which they may not import; `cli.py` hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Training(Protocol):
    """Recipes, and the state of training on this machine."""

    def recipe_names(self) -> tuple[str, ...]:
        """Return the names of the shipped recipes."""

    def recipe_shards(self, recipe: str) -> dict[str, Any]:
        """Return the table `[shards]` of a recipe, by name or path.

        Raises:
            RecipeError: no such recipe, or settings that are not good.
        """

    def fitting_recipe(self, settings: Mapping[str, Any], *, wish: str | None) -> str | None:
        """Return the name of a recipe that trains on a set with these settings, `wish` if it does."""

    def examine(self, runs: Path) -> dict[str, Any]:
        """Return what training finds here: torch, gpus, fast_paths, and the runs in a folder."""
