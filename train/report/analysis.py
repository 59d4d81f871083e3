"""Analysis of a finished run: its network computes test recordings and static images once more.

Axes: n recordings, m static images, T time steps, B batch, P polarity, C channels, H, W pixels, F features, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.models import TransferNetwork
from spikebridge.models.neurons import Neuron
from spikebridge.pipeline.shards.reader import ShardSet, Split
from spikebridge.train.data.frames import Frames
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.early_exit import averaged
from spikebridge.train.evaluation.energy import Cost, counting
from spikebridge.train.networks.build import load_network, make_network
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.runs.result import RunResult

log = logging.getLogger(__name__)

MOST_RECORDINGS, FEWEST_RECORDINGS = 2000, 50
"""Of the test split; the network's size decides how many between these."""
MULTIPLIES = 10**12
"""Multiply-accumulates of all recordings together, about half a minute of two CPU cores."""
POINTS = 120
"""Recordings, and static images, whose features are compared."""
BATCH = 32

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DomainFeatures:
    """Features of the same recordings and static images under one set of weights."""

    static: NDArray[np.float32]
    """[m,F], averaged over time."""
    event: NDArray[np.float32]
    """[m,F], averaged over time."""


@dataclass(frozen=True)
class Analysis:
    """Accuracy, spikes, cost and features of a network."""

    recordings: int
    """Analysed ones of the test split."""
    available: int
    """In the test split."""
    early: Values
    """Share of right predictions [T] when only the first t time steps are averaged."""
    spiking: bool
    """Whether the neurons spike; those of an ANN do not."""
    rates: Mapping[str, float]
    """Spikes per neuron and step, by layer; of neurons that do not spike the share that is above 0."""
    neurons: Mapping[str, int]
    """By layer."""
    cost: Cost
    static_labels: NDArray[np.int64]
    """Class of each static image whose features are compared, [m]."""
    event_labels: NDArray[np.int64]
    """Class of each recording whose features are compared, [m]."""
    before: DomainFeatures | None
    """With the weights that training began with; None where they are those of another run."""
    after: DomainFeatures | None
    """With the best weights; None where the set has no static images that the network can take."""

    @property
    def spikes(self) -> float:
        """Return the spikes per recording; 0 for neurons that do not spike."""
        each = (rate * self.neurons[layer] * self.cost.steps for layer, rate in self.rates.items())
        return sum(each) if self.spiking else 0.0


def analyse(run: RunFolder, result: RunResult, shards: ShardSet) -> Analysis:
    """Run the best network of a finished run on test recordings once more, on the CPU; writes nothing.

    Raises:
        RunError: no test recordings, or weights missing or damaged.
    """
    device = torch.device("cpu")
    network, description = load_network(run.best, device=device)
    split = shards.split("test")
    if not len(split):
        raise RunError("the test split is empty")
    with same_threads(int(result.get("threads", torch.get_num_threads()))), torch.no_grad():
        positions = _spread_positions(network, split, shards.sample_shape)
        frames = Frames(split, positions, sample_shape=shards.sample_shape, residence="disk")
        right, rates = np.zeros(shards.sample_shape[0]), dict[str, float]()
        network.record_firing_rates = True
        with counting(network) as layers:
            for events, labels in frames.batches(BATCH, device):
                out = network(None, events)
                right += _count_right(out.event_logits, labels)
                for layer, rate in out.firing_rates.items():
                    rates[layer] = rates.get(layer, 0.0) + float(rate) * len(labels)
        network.record_firing_rates = False
        compared = positions[:POINTS]
        events = torch.from_numpy(split.read(compared).astype(np.float32)).transpose(0, 1)  # [T,m,P,H,W]
        images, image_labels = _static_images(shards, limit=POINTS)
        initial = make_network(description["network"], seed=int(result.get("seed", 0))).eval()
        fresh = not result.get("init") and not result.get("imported")
        return Analysis(
            recordings=len(positions),
            available=len(split),
            early=right / len(positions),
            spiking=all(module.rule.spiking for module in network.modules() if isinstance(module, Neuron)),
            rates={layer: total / len(positions) for layer, total in rates.items()},
            neurons=network.neuron_counts,
            cost=Cost(len(right), layers, len(positions)),
            static_labels=image_labels,
            event_labels=np.asarray(split.labels, np.int64)[compared],
            before=_domain_features(initial, images, events) if fresh and images is not None else None,
            after=_domain_features(network, images, events) if images is not None else None,
        )


def _spread_positions(network: TransferNetwork, split: Split, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the positions of all recordings, or of as many as the network's size permits, evenly spaced."""
    with counting(network) as layers:
        network(None, torch.zeros(shape[0], 1, *shape[1:]))
    each = sum(layer.dense for layer in layers.values())
    count = min(len(split), MOST_RECORDINGS, max(FEWEST_RECORDINGS, MULTIPLIES // max(each, 1)))
    return np.unique(np.linspace(0, len(split) - 1, count).round().astype(np.int64))


def _count_right(logits: Tensor, labels: Tensor) -> Values:
    """Count the right predictions of a batch [T] after averaging the first t steps of logits [T,B,K]."""
    counts: Values = (averaged(logits).argmax(2) == labels).sum(1).numpy().astype(np.float64)
    return counts


def _static_images(shards: ShardSet, *, limit: int) -> tuple[Tensor | None, NDArray[np.int64]]:
    """Return static images [1,m,P,H,W] of the pool and their classes [m], evenly spaced; the pool is in class order."""
    pool, (_, P, H, W) = shards.static_pool(), shards.sample_shape
    C = pool.images.shape[1]
    if not len(pool.images) or C not in (1, P) or tuple(pool.images.shape[2:]) != (H, W):
        return None, np.zeros(0, np.int64)
    rows = np.unique(np.linspace(0, len(pool.images) - 1, limit).round().astype(np.int64))
    labels = np.searchsorted(np.asarray(pool.class_offsets), rows, side="right") - 1
    images = torch.from_numpy(np.ascontiguousarray(pool.images[rows])).float() / 255  # [m,C,H,W]
    return images.expand(-1, P, -1, -1)[None], labels.astype(np.int64)


def _domain_features(network: TransferNetwork, images: Tensor, events: Tensor) -> DomainFeatures:
    """Compute features of static images [1,m,P,H,W], repeated over time, and of recordings [T,m,P,H,W]."""
    parts: dict[str, list[Tensor]] = {"static": [], "event": []}
    for batch in images.expand(len(events), -1, -1, -1, -1).split(BATCH, 1):
        parts["static"].append(network(batch, None).static_features.mean(0))
    for batch in events.split(BATCH, 1):
        parts["event"].append(network(None, batch).event_features.mean(0))
    return DomainFeatures(**{name: torch.cat(batches).float().numpy() for name, batches in parts.items()})
