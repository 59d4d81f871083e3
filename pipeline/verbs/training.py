"""What verbs of the pipeline ask of training, which they may not import; `cli.py` hands it over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Training:
    """Functions that know recipes, and the state of training on this machine."""

    recipe_names: Callable[[], tuple[str, ...]]
    """Returns the names of the shipped recipes."""
    recipe_shards: Callable[[str], dict[str, Any]]
    """Returns the table `[shards]` of a recipe, by name or path; raises RecipeError."""
    fitting_recipe: Callable[..., str | None]
    """Takes settings and `wish`; returns the name of a recipe that trains on a set with them, `wish` if it does."""
    examine: Callable[[Path], dict[str, Any]]
    """Returns what training finds here: torch, gpus, fast_paths, and the runs in a folder."""
