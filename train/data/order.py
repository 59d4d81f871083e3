"""Which recordings a run trains on, and which draws of an epoch a batch takes; the random draws are in `draws`.

Axes: n recordings of the split.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spikebridge.pipeline.shards.reader import Split
from spikebridge.train.config.settings import TrainSettings

Ints = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a seed below 2**63 for one named purpose, e.g. `derived_seed(0, "weights")`; pure in its arguments."""
    text = "\x1f".join([str(seed), *map(str, names)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def training_recordings(split: Split, settings: TrainSettings) -> Ints:
    """Return the positions within split `train` of the recordings that a run trains on, ascending int64."""
    return select_recordings(
        split.keys, split.labels, settings.events_per_class, seed=settings.seed, share=settings.events_share
    )


def select_recordings(keys: Sequence[str], labels: Ints, per_class: int, *, seed: int, share: float = 1.0) -> Ints:
    """Select `per_class` recordings of each class by a hash of their keys; return their positions, ascending int64.

    The selection for n is contained in the selection for n + 1, and depends neither on the listing order nor on other
    recordings. A class with fewer recordings gives all of them, which is logged.

    Args:
        keys: sample keys [n].
        labels: int64 [n].
        per_class: 0 takes every recording, or the `share` of each class.
        seed: root seed of the run.
        share: above 0 to 1, rounded half to even, at least one recording; with `per_class` 0 only.

    Raises:
        ValueError: keys and labels of different length, or a negative number.
    """
    if len(keys) != len(labels) or per_class < 0:
        raise ValueError(f"{len(keys)} keys, {len(labels)} labels, {per_class} per class")
    if per_class == 0 and share == 1:
        return np.arange(len(keys), dtype=np.int64)
    ranks = np.array([derived_seed(seed, "events_per_class", key) for key in keys], dtype=np.int64)
    selected: list[Ints] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).tolist()
        count = per_class or max(1, round(share * len(members)))
        if len(members) < per_class:
            log.warning("class %d has %d training recordings, %d were asked for", label, len(members), per_class)
        # Ties between equal hashes are broken by key, so that the listing order still plays no part.
        selected.append(np.array(sorted(members, key=lambda i: (ranks[i], keys[i]))[:count], dtype=np.int64))
    return np.sort(np.concatenate(selected)) if selected else np.empty(0, dtype=np.int64)


def batch_count(samples: int, batch_size: int) -> int:
    """Return the steps per epoch; the last one may be partial."""
    return -(-samples // batch_size)


def batch_draws(samples: int, batch_size: int, batch: int, *, rank: int = 0, world: int = 1) -> Ints:
    """Return the draw positions of one batch, int64: every `world`-th of the global batch from `rank` on.

    There may be none for a rank.

    Raises:
        ValueError: a batch or rank outside the run.
    """
    if not 0 <= batch < batch_count(samples, batch_size) or not 0 <= rank < world:
        raise ValueError(f"batch {batch} of {batch_count(samples, batch_size)}, rank {rank} of {world}")
    return np.arange(batch * batch_size, min((batch + 1) * batch_size, samples), dtype=np.int64)[rank::world]
