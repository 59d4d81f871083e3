"""Static-to-event transfer training for spiking neural networks, data pipeline first.

    from spikebridge import ShardDataset
    data = ShardDataset("shards", "train")

The folders of a clone are the subpackages: `spikebridge.pipeline`, `spikebridge.models`, `spikebridge.train`. What
stands below is what users need most, imported at first use, because torch takes seconds.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikebridge.models import build_model as build_model
    from spikebridge.pipeline.interop.tonic_datasets import ShardFrames as ShardFrames
    from spikebridge.pipeline.shards.reader import ShardSet as ShardSet
    from spikebridge.pipeline.sharing.open import open_set as open_set
    from spikebridge.plotting import plot as plot
    from spikebridge.train.config.recipes import load_recipe as load_recipe
    from spikebridge.train.data.dataset import ShardDataset as ShardDataset
    from spikebridge.train.evaluation.predict import predict as predict

__version__ = "0.1.0"

_HOMES = {
    "ShardDataset": "train.data.dataset",
    "ShardFrames": "pipeline.interop.tonic_datasets",
    "ShardSet": "pipeline.shards.reader",
    "build_model": "models",
    "load_recipe": "train.config.recipes",
    "open_set": "pipeline.sharing.open",
    "plot": "plotting",
    "predict": "train.evaluation.predict",
}
"""Module of each name, below this package."""

__all__ = ["ShardDataset", "ShardFrames", "ShardSet", "build_model", "load_recipe", "open_set", "plot", "predict"]


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` at its first use.

    Raises:
        AttributeError: another name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'spikebridge' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    value = getattr(import_module(f"spikebridge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names for completion."""
    return sorted({*globals(), *_HOMES})


if not os.access(os.path.dirname(__file__), os.W_OK):  # before anything imports numba
    from spikebridge.pipeline.base.places import place_compiled_code

    place_compiled_code(Path(__file__).parent)
