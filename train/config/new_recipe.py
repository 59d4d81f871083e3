"""A recipe for a shard set that no shipped one is made for: its table `[shards]`, and a plain start for `[train]`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields

from spikebridge.pipeline.shards.manifest import SPLITS, Manifest
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import ShardSettings

STEPS = 2000
"""Optimiser steps that the number of epochs aims at."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 200
SMALLEST_BATCH, LARGEST_BATCH = 8, 64
BATCHES = 10
"""Batches that a small training split is cut into."""
SMALL, MEDIUM = 16, 34
"""Sides in pixels: below the first `nmnist_snn` fits, up to the second `scnn`, beyond `vgg_snn`."""


def new_recipe(manifest: Manifest, *, name: str) -> str:
    """Return the text of a recipe that fits a shard set, checked; `name` is what its header calls the set.

    The method is `kt` where every class with training recordings has a static image in the pool that the network can
    take, else `event_only`.

    Raises:
        RecipeError: the set was made with settings that no recipe can name.
    """
    settings, sample, static = manifest["settings"], manifest["sample"], manifest["static"]
    usual = {field.name: field.default for field in fields(ConversionSettings)} | {"time_window_us": []}
    shards = {
        field.name: settings.get(field.name)
        for field in fields(ShardSettings)
        if field.default is MISSING or settings.get(field.name, usual[field.name]) != usual[field.name]
    }
    splits = manifest["splits"]
    count = splits["train"]["samples"]
    trained = {name for name, n in zip(manifest["classes"], splits["train"]["per_class"], strict=True) if n}
    paired = not trained & set(static["classes_without_pool"]) and static["images"] and static["shape"][0] == 1
    side = min(sample["shape"][2:])
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, math.ceil(count / BATCHES)), max(1, count))
    epochs = round(STEPS / max(1, math.ceil(count / batch)))
    method = "kt" if paired else "event_only"
    train = {
        "method": method,
        "model": "nmnist_snn" if side < SMALL else "scnn" if side <= MEDIUM else "vgg_snn",
        "epochs": min(max(epochs, FEWEST_EPOCHS), MOST_EPOCHS),
        "batch_size": batch,
        "lr": 1e-3,
        "augmentation": "crop",
    }
    recipe_from({"shards": shards, "train": train}, name=name)
    simulated = ", SIMULATED" if manifest["simulated"] else ""
    counts = ", ".join(f"{splits[part]['samples']:,} {part}" for part in SPLITS if part in splits)
    return f"""# Recipe for {name}: a start, tuned on nothing.
#
# Data:    shard set {manifest["self_sha256"][:12]} ({settings["dataset"]}{simulated}), {counts}
# Method:  {METHODS[method]}
# Tuning:  on the validation split: try lr 5e-4 to 4e-3 first, then epochs

[shards]
{_lines(shards)}

[train]
{_lines(train)}
"""


METHODS = {
    "kt": "kt, knowledge transfer from static images; `spikebridge compare` holds it against event_only",
    "event_only": "event_only: not every class has a static image in the pool that the network can take",
}


def _lines(table: Mapping[str, object]) -> str:
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
