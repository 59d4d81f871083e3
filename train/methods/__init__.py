"""Training methods: one file each, named like the method; a new file is all that a new method takes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from train.errors import MethodError
from train.settings import METHODS, TrainSettings, nearest

if TYPE_CHECKING:  # keeps this module, and with it the names, free of torch
    from torch import Tensor

    from models import TransferNetwork, TransferOutput
    from train.batches import Batch
    from train.losses import TransferLoss


class Method:
    """What differs between methods: which streams the network sees, and the loss.

    Args:
        settings: the `[train]` table.
        steps: steps of the whole run.
    """

    needs_static = False
    """Whether batches carry static images."""

    def __init__(self, settings: TrainSettings, *, steps: int) -> None:
        self.settings = settings
        self.steps = steps

    def begin_epoch(self, network: TransferNetwork, epoch: int) -> None:
        """Set what is constant during an epoch (0-based), before its first step and again after an interruption."""

    def replacement_probability(self, step: int) -> float | None:
        """Probability of sliding replacement at a step (0-based, over the run); None where there is none."""
        return None

    def streams(self, batch: Batch, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Static and event stream, each [T,B,P,H,W] or None."""
        raise NotImplementedError

    def loss(self, out: TransferOutput, batch: Batch, coefficients: Tensor) -> TransferLoss:
        """Loss of the network's output; terms that the method lacks are 0, `cka` zeros where nothing was aligned."""
        raise NotImplementedError


REGISTRY: dict[str, type[Method]] = {}


def method(cls: type[Method]) -> type[Method]:
    """Class decorator that registers a method under the name of its file.

    Raises:
        ValueError: the name is taken.
    """
    name = cls.__module__.rpartition(".")[2]
    if name in REGISTRY:
        raise ValueError(f"method {name} is registered twice")
    REGISTRY[name] = cls
    return cls


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: unknown name, with the nearest one.
    """
    if name not in METHODS:
        raise MethodError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}{nearest(name, METHODS)}")
    importlib.import_module(f"train.methods.{name}")
    return REGISTRY[name]
