"""A recipe for a shard set that no shipped one is made for: its table `[shards]`, and a plain start for `[train]`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from spikebridge.pipeline.shards.manifest import SPLITS, Manifest
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.config.recipes import load_recipe, recipe_from
from spikebridge.train.config.settings import ShardSettings
from spikebridge.train.config.shipped import RECIPES

STEPS = 2000
"""Optimiser steps that the number of epochs aims at."""
LEAST_STEPS = 1000
"""The same with the settings of another recipe, at least: digits are learnt in fewer, photographs are not."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 200
SMALLEST_BATCH, LARGEST_BATCH = 8, 64
BATCHES = 10
"""Batches that a small training split is cut into."""
SMALL, MEDIUM = 16, 34
"""Sides in pixels: below the first `nmnist_snn` fits, up to the second `scnn`, beyond `vgg_snn`."""


def new_recipe(manifest: Manifest, *, name: str, like: str | None = None) -> str:
    """Return the text of a recipe that fits a shard set, checked; `name` is what its header calls the set.

    The method is `kt` where every class with training recordings has a static image in the pool that the network can
    take, else `event_only`. With `like`, a recipe by name or path, `[train]` is that recipe's: every training recording
    of the set is used, in as many steps as the recipe makes with its own number of recordings of each class.

    Raises:
        RecipeError: the set was made with settings that no recipe can name, or there is no recipe `like`.
    """
    settings, sample = manifest["settings"], manifest["sample"]
    usual = {field.name: field.default for field in fields(ConversionSettings)} | {"time_window_us": []}
    shards = {
        field.name: settings.get(field.name)
        for field in fields(ShardSettings)
        if field.default is MISSING or settings.get(field.name, usual[field.name]) != usual[field.name]
    }
    side = min(sample["shape"][2:])
    model = "nmnist_snn" if side < SMALL else "scnn" if side <= MEDIUM else "vgg_snn"
    train, words, tuning = _plain(manifest) if like is None else _like(manifest, like)
    train["model"] = model
    recipe_from({"shards": shards, "train": train}, name=name)
    splits = manifest["splits"]
    simulated = ", SIMULATED" if manifest["simulated"] else ""
    counts = ", ".join(f"{splits[part]['samples']:,} {part}" for part in SPLITS if part in splits)
    return f"""# Recipe for {name}: a start, tuned on nothing.
#
# Data:    shard set {manifest["self_sha256"][:12]} ({settings["dataset"]}{simulated}), {counts}
# Method:  {words}
# Tuning:  {tuning}

[shards]
{_lines(shards)}

[train]
{_lines(train)}
"""


def _plain(manifest: Manifest) -> tuple[dict[str, Any], str, str]:
    """Return `[train]` but for the model, and what the header says of method and tuning."""
    count = manifest["splits"]["train"]["samples"]
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, math.ceil(count / BATCHES)), max(1, count))
    epochs = round(STEPS / max(1, math.ceil(count / batch)))
    method = "kt" if _is_paired(manifest) else "event_only"
    train = {
        "method": method,
        "model": "",
        "epochs": min(max(epochs, FEWEST_EPOCHS), MOST_EPOCHS),
        "batch_size": batch,
        "lr": 1e-3,
        "augmentation": "crop",
        "precision": "auto",
    }
    return train, METHODS[method], "on the validation split: try lr 5e-4 to 4e-3 first, then epochs"


def _like(manifest: Manifest, like: str) -> tuple[dict[str, Any], str, str]:
    """Return the same of another recipe."""
    named, found = RECIPES.read(like)[1]["train"], load_recipe(like)
    recipe, settings = found.train, found.tables()["train"]
    count = manifest["splits"]["train"]["samples"]
    own = len(manifest["classes"]) * recipe.events_per_class or count
    steps = max(LEAST_STEPS, recipe.epochs * math.ceil(own / recipe.batch_size))
    batch = max(1, min(recipe.batch_size, count))
    epochs = max(round(steps / max(1, math.ceil(count / batch))), FEWEST_EPOCHS)
    train = {key: settings[key] for key in named} | {"epochs": epochs, "batch_size": batch, "events_per_class": 0}
    tuning = f"none for this set, try more epochs first; that of recipe {like} is in its header"
    return train, f"{recipe.method}, as in recipe {like}", tuning


def _is_paired(manifest: Manifest) -> bool:
    """Return whether every class with training recordings has a static image that the network can take."""
    train, static = manifest["splits"]["train"], manifest["static"]
    trained = {name for name, n in zip(manifest["classes"], train["per_class"], strict=True) if n}
    return bool(not trained & set(static["classes_without_pool"]) and static["images"] and static["shape"][0] == 1)


METHODS = {
    "kt": "kt, knowledge transfer from static images; `spikebridge compare` holds it against event_only",
    "event_only": "event_only: not every class has a static image in the pool that the network can take",
}


def _lines(table: Mapping[str, object]) -> str:
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
