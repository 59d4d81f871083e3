"""`train.data.draws` once more in numpy, with unsigned integers: what the draws in torch must equal bit for bit.

Written before them and kept as it was; nothing is shared but `derived_seed`.

Axes: n samples of the split, draws of one epoch, K classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spikebridge.train.data.order import derived_seed

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of SplitMix64, which spreads every input bit over all output bits; wraps modulo 2**64 on purpose.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


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


def pool_rows(images: int, *, seed: int, epoch: int, draws: Ints) -> Ints:
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


def shuffle_classes(classes: Ints, *, seed: int) -> Ints:
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
