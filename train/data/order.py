"""The sequence of samples and all random draws of a run, as pure functions of (seed, epoch, draw position).

Nothing here keeps state: any worker, rank or resumed run asks for the draws it needs and gets the same numbers.
The numbers come from a hash of counters in 64-bit integers, so they depend on no version of a generator.

Axes: n samples of the split, draws of one epoch, K classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of SplitMix64, which spreads every input bit over all output bits; wraps modulo 2**64 on purpose.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed below 2**63 for one named purpose, e.g. `derived_seed(0, "weights")`; a function of its arguments only."""
    text = "\x1f".join([str(seed), *map(str, names)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def random_words(seed: int, name: str, epoch: int, draws: Ints, *, lane: int = 0) -> npt.NDArray[np.uint64]:
    """One 64-bit word per draw position, uint64, shape of `draws`.

    Args:
        seed: root seed of the run.
        name: what the words are for; two names give unrelated words.
        epoch: 0-based.
        draws: positions within the epoch, from 0 on; any order, repeats allowed.
        lane: tells several words of one draw apart.
    """
    root = np.full(1, derived_seed(seed, name), dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = _mix((root ^ np.uint64(epoch)) + _GOLDEN)
        state = _mix((state ^ np.uint64(lane)) + _GOLDEN)
        return _mix((state ^ np.asarray(draws).astype(np.uint64)) + _GOLDEN)


def uniform(seed: int, name: str, epoch: int, draws: Ints, *, lane: int = 0) -> Floats:
    """One number in [0, 1) per draw position, float64 with 53 random bits; arguments as in `random_words`."""
    words = random_words(seed, name, epoch, draws, lane=lane) >> np.uint64(11)
    return words.astype(np.float64) * 2.0**-53


def uniforms(seed: int, name: str, epoch: int, draws: Ints, count: int) -> Floats:
    """`uniform` of the first `count` lanes, float64 [draws, count]."""
    columns = [uniform(seed, name, epoch, draws, lane=lane) for lane in range(count)]
    return np.stack(columns, axis=-1) if columns else np.empty((len(draws), 0))


def many_uniforms(seed: int, name: str, epoch: int, draws: Ints, count: int) -> npt.NDArray[np.float32]:
    """Many numbers in [0, 1) per draw position, float32 [draws, count] with 24 random bits: for fields of pixels.

    Each output of a SplitMix64 generator, which starts at the draw's word, gives two of them.
    """
    with np.errstate(over="ignore"):
        steps = np.arange(1, -(-count // 2) + 1, dtype=np.uint64) * _GOLDEN
        words = _mix(random_words(seed, name, epoch, draws)[:, None] + steps)  # [draws, count / 2]
    bits = words.astype("<u8", copy=False).view("<u4")[:, :count] >> np.uint32(8)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def select_recordings(keys: Sequence[str], labels: Ints, per_class: int, *, seed: int, share: float = 1.0) -> Ints:
    """Positions of `per_class` recordings of each class, chosen by a hash of their keys, ascending int64.

    The choice for n is contained in the choice for n + 1, and depends neither on the listing order nor on other
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
    chosen: list[Ints] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).tolist()
        count = per_class or max(1, round(share * len(members)))
        if len(members) < per_class:
            log.warning("class %d has %d training recordings, %d were asked for", label, len(members), per_class)
        # Ties between equal hashes are broken by key, so that the listing order still plays no part.
        chosen.append(np.array(sorted(members, key=lambda i: (ranks[i], keys[i]))[:count], dtype=np.int64))
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def epoch_order(
    labels: Ints, *, seed: int, epoch: int, mode: str = "shuffle", shards: Ints | None = None, window: int = 8
) -> Ints:
    """Which sample each draw of an epoch takes: int64 [n] of positions into `labels`.

    Args:
        labels: int64 [n] of the recordings in use.
        seed: root seed of the run.
        epoch: 0-based.
        mode: `shuffle`: every sample once. `class_balanced`: n draws with replacement, a class first (all present
            classes alike), then one of its samples. `windowed`: every sample once; shards are permuted, then samples
            shuffled within each run of `window` shards, so that only those have to be in memory.
        shards: int64 [n], the shard that holds each recording; `windowed` only.
        window: shards shuffled together.

    Raises:
        ValueError: unknown mode, or `windowed` without shards.
    """
    n = len(labels)
    draws = np.arange(n, dtype=np.int64)
    if mode == "shuffle" or n == 0:
        return np.argsort(random_words(seed, "order", epoch, draws), kind="stable")
    if mode == "class_balanced":
        present, counts = np.unique(labels, return_counts=True)
        members = np.argsort(labels, kind="stable")  # grouped by class
        starts = np.cumsum(counts) - counts
        cls = (uniform(seed, "order", epoch, draws) * len(present)).astype(np.int64)
        within = (uniform(seed, "order", epoch, draws, lane=1) * counts[cls]).astype(np.int64)
        return members[starts[cls] + within]
    if mode == "windowed":
        if shards is None or len(shards) != n:
            raise ValueError("windowed sampling needs the shard of every recording")
        present, member_of = np.unique(shards, return_inverse=True)
        place = np.empty(len(present), dtype=np.int64)
        place[np.argsort(random_words(seed, "shards", epoch, present), kind="stable")] = np.arange(len(present))
        return np.lexsort((random_words(seed, "order", epoch, draws), place[member_of] // window)).astype(np.int64)
    raise ValueError(f"unknown sampling {mode!r}: expected shuffle, class_balanced or windowed")


def static_partners(labels: Ints, class_offsets: Ints, *, seed: int, epoch: int, draws: Ints) -> Ints:
    """A static image of the same class for each draw, uniform over the pool of that class: int64, shape of `draws`.

    Args:
        labels: class of each draw's event sample, same shape as `draws`.
        class_offsets: int64 [K+1]; pool rows of class c are class_offsets[c] to class_offsets[c+1].
        seed: root seed of the run.
        epoch: 0-based.
        draws: positions within the epoch.

    Raises:
        ValueError: a class without pool images.

    Source: He et al., AAAI 2024, batch composition.
    """
    counts = np.diff(class_offsets)[labels]
    if np.any(counts < 1):
        raise ValueError(f"no static images for classes {np.unique(np.asarray(labels)[counts < 1]).tolist()}")
    inside = (uniform(seed, "partner", epoch, draws) * counts).astype(np.int64)
    return np.asarray(class_offsets)[labels] + inside


def pool_images(images: int, *, seed: int, epoch: int, draws: Ints) -> Ints:
    """A row of the static pool for each draw, uniform over all `images` of it: int64, shape of `draws`."""
    return (uniform(seed, "partner", epoch, draws) * images).astype(np.int64)


def mixing_partners(samples: int, batch_size: int, *, seed: int, epoch: int, draws: Ints) -> Ints:
    """For each draw one of the draws of its batch, uniform, itself too: int64, shape of `draws`.

    Args:
        samples: draws of an epoch.
        batch_size: of all processes and parts together.
        seed: root seed of the run.
        epoch: 0-based.
        draws: positions within the epoch.
    """
    first = draws // batch_size * batch_size
    size = np.minimum(batch_size, samples - first)
    return first + (uniform(seed, "batch mate", epoch, draws) * size).astype(np.int64)


def shuffled_classes(classes: Ints, *, seed: int) -> Ints:
    """Another class for each class, the same one throughout a run: a cycle through `classes` in a seeded order.

    Args:
        classes: int64 [n] of distinct classes.
        seed: root seed of the run.

    Returns:
        int64 [n], a permutation of `classes` that leaves none in its place; a single class stays.
    """
    cycle = np.argsort(random_words(seed, "shuffled_classes", 0, classes), kind="stable")
    other = np.empty_like(classes)
    other[cycle] = classes[np.roll(cycle, 1)]
    return other


def replacement_uniforms(seed: int, epoch: int, draws: Ints) -> Floats:
    """The number that decides about sliding replacement, in [0, 1), per draw."""
    return uniform(seed, "replacement", epoch, draws)


def batch_count(samples: int, batch_size: int) -> int:
    """Steps per epoch; the last one may be partial."""
    return -(-samples // batch_size)


def batch_draws(samples: int, batch_size: int, batch: int, *, rank: int = 0, world: int = 1) -> Ints:
    """Draw positions of one batch, int64: every `world`-th of the global batch from `rank` on; may be empty.

    Raises:
        ValueError: a batch or rank outside the run.
    """
    if not 0 <= batch < batch_count(samples, batch_size) or not 0 <= rank < world:
        raise ValueError(f"batch {batch} of {batch_count(samples, batch_size)}, rank {rank} of {world}")
    return np.arange(batch * batch_size, min((batch + 1) * batch_size, samples), dtype=np.int64)[rank::world]
