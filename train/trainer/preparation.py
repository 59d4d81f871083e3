"""Prepares a method before the first step: settings of its own, and tensors that it makes once and keeps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.methods import Method
from spikebridge.train.runs import checkpoints
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.distributed import Distributed


def changed_settings(asked: TrainSettings, completed: TrainSettings) -> dict[str, Any]:
    """Return the settings that the method has changed from the recipe's, by name, with the method's value."""
    return {name: value for name, value in asdict(completed).items() if getattr(asked, name) != value}


def prepare(
    method: Method,
    data: TrainingBatches,
    path: Path,
    *,
    contents: str,
    device: torch.device,
    distributed: Distributed,
    stop: StopRequest,
) -> None:
    """Give a method its fixed tensors: read them, or let rank 0 make and write them where there are none.

    Args:
        method: after `attach`.
        data: of the run.
        path: `prepared.safetensors` of the run.
        contents: of the shard set, see `runs.contents_id`; what was made from another one is made again.
        device: where to compute.
        distributed: the processes that train together; the others wait and are told.
        stop: looked at now and then; an interrupted preparation starts again.

    Raises:
        RunStoppedError: asked to stop.
        RunError: the file is damaged or cannot be written.
    """

    def on_batch() -> None:
        if stop.signal:
            raise stop.error()

    def make() -> None:
        if path.exists() and checkpoints.read_weights(path)[1].get("contents") == contents:
            return
        path.unlink(missing_ok=True)
        tensors = method.prepare(data, device, on_batch)
        if tensors:
            checkpoints.write_weights(path, tensors, {"method": method.settings.method, "contents": contents})

    distributed.on_main(make)
    content = checkpoints.read_file(path) if distributed.is_main and path.exists() else b""
    content = distributed.broadcast_bytes(content)
    if content:
        method.restore(checkpoints.read_tensors(content, source=path), device)
