"""Cost of a network on held-out recordings: by NeuroBench's definitions, and the energy estimate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.data.frames import Frames
from spikebridge.train.evaluation.energy import Cost, counting
from spikebridge.train.evaluation.neurobench import Work, figures, watching
from spikebridge.train.runs.result import NeuroBench

log = logging.getLogger(__name__)

CHUNK = 16
"""Recordings that are watched at once: the potentials of all layers take memory that scoring does not need."""


@torch.no_grad()
def held_out_cost(
    network: nn.Module,
    shards: ShardSet,
    frames: Mapping[str, Frames],
    splits: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
) -> tuple[float | None, NeuroBench | None]:
    """Measure on the first batch of the first of some splits that has recordings; None and None where none has.

    Args:
        network: with the weights to measure; its mode is put back afterwards.
        shards: the shard set.
        frames: of its splits, whole and in their order.
        splits: names of the splits that may be looked at.
        batch_size: most recordings that are measured.
        device: of the network.

    Returns:
        Nanojoules per recording, see `train.evaluation.energy`, and the figures of NeuroBench.
    """
    name = next((name for name in splits if len(frames[name])), None)
    if name is None:
        return None, None
    events, _ = next(frames[name].batches(batch_size, device))  # [T,B,P,H,W]
    training, work = network.training, Work()
    network.eval()
    try:
        with counting(network) as layers:
            network(None, events)
        for some in events.split(CHUNK, 1):
            with watching(network) as part:
                network(None, some)
            work.add(part)
    finally:
        network.train(training)
    T, B = events.shape[:2]
    rate = _execution_rate(shards, name, T, B)
    return Cost(T, layers, B).energy_nj, figures(network, work, recordings=B, execution_rate=rate)


def _execution_rate(shards: ShardSet, split: str, time_steps: int, recordings: int) -> float | None:
    """Return time steps per second of data; None where that is not known."""
    settings: Mapping[str, Any] = shards.settings
    if settings.get("binning") == "window":
        return float(1e6 / settings["window_us"])
    seconds = mean_seconds(shards, split, recordings)
    return float(time_steps / seconds) if seconds else None


def mean_seconds(shards: ShardSet, split: str, recordings: int) -> float | None:
    """Return what the first recordings of a split last on average, as far as frames show them; None if not known."""
    settings: Mapping[str, Any] = shards.settings
    try:
        durations = shards.split(split).durations_us(np.arange(recordings))
    except ShardSetError as error:
        log.warning("durations of recordings are not known: %s", error)
        return None
    window = settings.get("time_window_us")
    if window and list(window) != list(shards.manifest["settings"].get("time_window_us", ())):
        durations = np.minimum(durations, window[1]) - window[0]  # cut when frames are made of stored events
    seconds = durations.mean() / 1e6
    return float(seconds) if seconds > 0 else None
