"""All random draws of a run on any device, as pure functions of (seed, epoch, draw position).

Nothing here keeps state: any rank or resumed run asks for the draws it needs and gets the same numbers. They come from
a hash of counters in 64-bit integers, so they depend on no version of a generator and are the same on every device.

Tensors alone: nothing waits for the device or copies from the host where the epoch is a tensor, so that a CUDA graph
can hold it, except `epoch_order` with sampling `class_balanced` or `windowed`, which is called once an epoch.
torch computes with signed 64-bit integers, which wrap like unsigned ones; only shifts and comparisons differ.

Everywhere `seed` is the root seed of the run, and `draws` are int64 positions within the epoch, from 0 on, in any order
and repeated where wanted.

Axes: n samples of the split, B draws, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikebridge.train.data.order import derived_seed

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_SIGN = -(2**63)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift right as an unsigned number: zeros come in at the top."""
    return (value >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def _mix(value: Tensor) -> Tensor:
    """Spread every input bit over all output bits, in place: the finaliser of SplitMix64, modulo 2**64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    for bits, factor in ((30, _FIRST), (27, _SECOND)):
        value ^= _shift_right(value, bits)
        value *= factor
    value ^= _shift_right(value, 31)
    return value


class EpochNumbers:
    """Words and numbers of all draws of an epoch: made once at its start, and looked up by draw in the steps.

    A step that made them itself would launch some 30 tiny operations for each. Their memory stays the same from epoch
    to epoch, so that a recorded step finds those of the epoch at hand.

    Args:
        seed: root seed of the run.
        draws: of an epoch.
        device: where.
    """

    def __init__(self, seed: int, draws: int, device: torch.device) -> None:
        self.seed, self._draws = seed, torch.arange(draws, device=device)
        self._epoch = torch.zeros((), dtype=torch.int64, device=device)
        self._words: dict[tuple[str, int], Tensor] = {}
        self._numbers: dict[tuple[str, int], Tensor] = {}

    def begin(self, epoch: int) -> None:
        """Make those that were asked for before anew, for an epoch."""
        self._epoch.fill_(epoch)
        for (name, lane), held in self._words.items():
            held.copy_(random_words(self.seed, name, self._epoch, self._draws, lane=lane))
        for (name, lane), held in self._numbers.items():
            held.copy_(uniform(self.seed, name, self._epoch, self._draws, lane=lane))

    def words(self, name: str, lane: int, draws: Tensor) -> Tensor:
        """Return the words of draws [B], int64."""
        if (name, lane) not in self._words:
            self._words[name, lane] = random_words(self.seed, name, self._epoch, self._draws, lane=lane)
        return self._words[name, lane][draws]

    def numbers(self, name: str, lane: int, draws: Tensor) -> Tensor:
        """Return the numbers in [0, 1) of draws [B], float64."""
        if (name, lane) not in self._numbers:
            self._numbers[name, lane] = uniform(self.seed, name, self._epoch, self._draws, lane=lane)
        return self._numbers[name, lane][draws]


Epoch = int | Tensor | EpochNumbers
"""0-based; a 0-d int64 tensor on the device of the draws, a number, or the words of the epoch, made before."""


def random_words(seed: int, name: str, epoch: Epoch, draws: Tensor, *, lane: int | Tensor = 0) -> Tensor:
    """Return one 64-bit word per draw position, int64, shape of `draws`.

    Two names give unrelated words; `lane` tells several words of one draw apart. A tensor of lanes is broadcast.
    """
    if isinstance(epoch, EpochNumbers):
        assert epoch.seed == seed
        assert isinstance(lane, int)
        return epoch.words(name, lane, draws)
    state = _mix((torch.as_tensor(epoch, device=draws.device) ^ derived_seed(seed, name)) + _GOLDEN)
    state = _mix((state ^ lane) + _GOLDEN)
    return _mix((state ^ draws) + _GOLDEN)


def uniform(seed: int, name: str, epoch: Epoch, draws: Tensor, *, lane: int | Tensor = 0) -> Tensor:
    """Return one number in [0, 1) per draw position, float64 with 53 random bits; arguments as in `random_words`."""
    if isinstance(epoch, EpochNumbers):
        assert epoch.seed == seed
        assert isinstance(lane, int)
        return epoch.numbers(name, lane, draws)
    return _shift_right(random_words(seed, name, epoch, draws, lane=lane), 11).double() * 2.0**-53


def uniforms(seed: int, name: str, epoch: Epoch, draws: Tensor, count: int) -> Tensor:
    """Return `uniform` of the first `count` lanes, float64 [B,count]."""
    if isinstance(epoch, EpochNumbers):
        columns = [uniform(seed, name, epoch, draws, lane=lane) for lane in range(count)]
        return torch.stack(columns, -1) if columns else draws.new_empty((len(draws), 0), dtype=torch.float64)
    return uniform(seed, name, epoch, draws[:, None], lane=torch.arange(count, device=draws.device))


def many_uniforms(seed: int, name: str, epoch: Epoch, draws: Tensor, count: int) -> Tensor:
    """Return many numbers in [0, 1) per draw position, float32 [B,count] with 24 random bits: for fields of pixels.

    Each output of a SplitMix64 generator, which starts at the draw's word, gives two of them.
    """
    steps = torch.arange(1, -(-count // 2) + 1, device=draws.device) * _GOLDEN
    words = _mix(random_words(seed, name, epoch, draws)[:, None] + steps)  # [B, count / 2]
    halves = words.view(torch.int32)[:, :count]  # the lower one first: torch runs on little-endian machines alone
    return (halves >> 8).bitwise_and_(2**24 - 1).float().mul_(2.0**-24)


def _argsort_words(words: Tensor) -> Tensor:
    """Return the positions in the order of the unsigned words, equal ones as they come."""
    return torch.argsort(words ^ _SIGN, stable=True)


def epoch_order(
    labels: Tensor, *, seed: int, epoch: Epoch, mode: str = "shuffle", shards: Tensor | None = None, window: int = 8
) -> Tensor:
    """Return which sample each draw of an epoch takes: int64 [n] of positions into `labels`.

    Args:
        labels: int64 [n] of the recordings in use.
        seed: root seed of the run.
        epoch: see `Epoch`.
        mode: `shuffle`: every sample once. `class_balanced`: n draws with replacement, a class first (all present
            classes alike), then one of its samples. `windowed`: every sample once; shards are permuted, then samples
            shuffled within each run of `window` shards, so that only those have to be in memory.
        shards: int64 [n], the shard that holds each recording; `windowed` only.
        window: shards shuffled together.

    Raises:
        ValueError: unknown mode, or `windowed` without shards.
    """
    draws = torch.arange(len(labels), device=labels.device)
    if mode == "shuffle" or not len(labels):
        return _argsort_words(random_words(seed, "order", epoch, draws))
    if mode == "class_balanced":
        counts = torch.bincount(labels)
        counts = counts[counts > 0]  # of the classes that are present
        members = torch.argsort(labels, stable=True)  # grouped by class
        starts = counts.cumsum(0) - counts
        classes = (uniform(seed, "order", epoch, draws) * len(counts)).long()
        within = (uniform(seed, "order", epoch, draws, lane=1) * counts[classes]).long()
        return members[starts[classes] + within]
    if mode == "windowed":
        if shards is None or len(shards) != len(labels):
            raise ValueError("windowed sampling needs the shard of every recording")
        present, member_of = torch.unique(shards, return_inverse=True)
        rank = torch.empty_like(present)
        rank[_argsort_words(random_words(seed, "shards", epoch, present))] = torch.arange(
            len(present), device=labels.device
        )
        by_word = _argsort_words(random_words(seed, "order", epoch, draws))
        return by_word[torch.argsort((rank[member_of] // window)[by_word], stable=True)]
    raise ValueError(f"unknown sampling {mode!r}: expected shuffle, class_balanced or windowed")


def static_partners(classes: Tensor, class_offsets: Tensor, *, seed: int, epoch: Epoch, draws: Tensor) -> Tensor:
    """Draw a static image of a class for each draw, uniform over the pool of that class: int64 [B] of pool rows.

    Every one of the `classes` int64 [B] has images: pool rows class_offsets[c] to class_offsets[c+1], int64 [K+1].

    Source: He et al., AAAI 2024, batch composition.
    """
    counts = class_offsets.diff()[classes]
    return class_offsets[classes] + (uniform(seed, "partner", epoch, draws) * counts).long()


def pool_rows(images: int, *, seed: int, epoch: Epoch, draws: Tensor) -> Tensor:
    """Draw a row of the static pool for each draw, uniform over all `images` of it: int64, shape of `draws`."""
    return (uniform(seed, "partner", epoch, draws) * images).long()


def mixing_partners(samples: int, batch_size: int, *, seed: int, epoch: Epoch, draws: Tensor) -> Tensor:
    """Draw one of the draws of its batch for each draw, uniform, itself too: int64, shape of `draws`.

    An epoch has `samples` draws; `batch_size` is that of all processes and parts together.
    """
    first = draws // batch_size * batch_size
    size = (samples - first).clamp(max=batch_size)
    return first + (uniform(seed, "batch mate", epoch, draws) * size).long()


def shuffle_classes(classes: Tensor, *, seed: int) -> Tensor:
    """Assign another class to each of distinct classes int64 [n]: a cycle through them in a seeded order.

    Returns a permutation int64 [n], the same throughout a run, that leaves none in its place; a single class stays.
    """
    cycle = _argsort_words(random_words(seed, "shuffled_classes", 0, classes))
    other = torch.empty_like(classes)
    other[cycle] = classes[cycle.roll(1)]
    return other
