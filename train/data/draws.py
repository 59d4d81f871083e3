"""`train.data.order` on the device: the same words and sequences, bit for bit, from tensors alone.

torch computes with signed 64-bit integers, which wrap like unsigned ones; only shifts and comparisons differ. Nothing
here waits for the device or copies from the host, so that a CUDA graph can hold it, except `epoch_order` with sampling
`class_balanced` or `windowed`, which is called once an epoch.

Axes: n samples of the split, B draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikebridge.train.data.order import derived_seed

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_SIGN = -(2**63)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shift right as an unsigned number: zeros come in at the top."""
    return (value >> bits) & (2 ** (64 - bits) - 1)


def _mix(value: Tensor) -> Tensor:
    """Finaliser of SplitMix64, see `order`."""
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def random_words(seed: int, name: str, epoch: Tensor, draws: Tensor, *, lane: int = 0) -> Tensor:
    """One 64-bit word per draw position, int64 with the bits of `order.random_words`, shape of `draws`.

    Args:
        seed: root seed of the run.
        name: what the words are for.
        epoch: 0-d int64 on the device of `draws`.
        draws: int64 positions within the epoch.
        lane: tells several words of one draw apart.
    """
    state = _mix((epoch ^ derived_seed(seed, name)) + _GOLDEN)
    state = _mix((state ^ lane) + _GOLDEN)
    return _mix((state ^ draws) + _GOLDEN)


def uniform(seed: int, name: str, epoch: Tensor, draws: Tensor, *, lane: int = 0) -> Tensor:
    """One number in [0, 1) per draw position, float64; arguments as in `random_words`."""
    return _shifted(random_words(seed, name, epoch, draws, lane=lane), 11).double() * 2.0**-53


def uniforms(seed: int, name: str, epoch: Tensor, draws: Tensor, count: int) -> Tensor:
    """`uniform` of the first `count` lanes, float64 [B, count]."""
    columns = [uniform(seed, name, epoch, draws, lane=lane) for lane in range(count)]
    return torch.stack(columns, -1) if columns else draws.new_empty((len(draws), 0), dtype=torch.float64)


def many_uniforms(seed: int, name: str, epoch: Tensor, draws: Tensor, count: int) -> Tensor:
    """Many numbers in [0, 1) per draw position, float32 [B, count], equal to those of `order.many_uniforms`."""
    steps = torch.arange(1, -(-count // 2) + 1, device=draws.device) * _GOLDEN
    words = _mix(random_words(seed, name, epoch, draws)[:, None] + steps)  # [B, count / 2]
    halves = torch.stack([words & 0xFFFFFFFF, _shifted(words, 32)], -1).flatten(1)[:, :count]
    return (halves >> 8).float() * 2.0**-24


def sorted_as_words(words: Tensor) -> Tensor:
    """Positions in the order of unsigned words, equal ones as they come."""
    return torch.argsort(words ^ _SIGN, stable=True)


def epoch_order(
    labels: Tensor, *, seed: int, epoch: Tensor, mode: str, shards: Tensor | None = None, window: int = 8
) -> Tensor:
    """Which sample each draw of an epoch takes: int64 [n], equal to `order.epoch_order`.

    Args:
        labels: int64 [n] of the recordings in use.
        seed: root seed of the run.
        epoch: 0-d int64.
        mode: `shuffle`, `class_balanced` or `windowed`.
        shards: int64 [n]; `windowed` only.
        window: shards shuffled together.

    Raises:
        ValueError: unknown mode, or `windowed` without shards.
    """
    draws = torch.arange(len(labels), device=labels.device)
    if mode == "shuffle" or not len(labels):
        return sorted_as_words(random_words(seed, "order", epoch, draws))
    if mode == "class_balanced":
        counts = torch.bincount(labels)
        counts = counts[counts > 0]  # of the classes that are present
        members = torch.argsort(labels, stable=True)  # grouped by class
        starts = counts.cumsum(0) - counts
        chosen = (uniform(seed, "order", epoch, draws) * len(counts)).long()
        within = (uniform(seed, "order", epoch, draws, lane=1) * counts[chosen]).long()
        return members[starts[chosen] + within]
    if mode == "windowed":
        if shards is None or len(shards) != len(labels):
            raise ValueError("windowed sampling needs the shard of every recording")
        present, member_of = torch.unique(shards, return_inverse=True)
        place = torch.empty_like(present)
        place[sorted_as_words(random_words(seed, "shards", epoch, present))] = torch.arange(
            len(present), device=labels.device
        )
        by_word = sorted_as_words(random_words(seed, "order", epoch, draws))
        return by_word[torch.argsort((place[member_of] // window)[by_word], stable=True)]
    raise ValueError(f"unknown sampling {mode!r}: expected shuffle, class_balanced or windowed")


def static_partners(classes: Tensor, class_offsets: Tensor, *, seed: int, epoch: Tensor, draws: Tensor) -> Tensor:
    """A row of the static pool of each draw's class, int64 [B]; every class in question has images."""
    counts = class_offsets.diff()[classes]
    return class_offsets[classes] + (uniform(seed, "partner", epoch, draws) * counts).long()


def pool_images(images: int, *, seed: int, epoch: Tensor, draws: Tensor) -> Tensor:
    """A row of the whole static pool for each draw, int64 [B]."""
    return (uniform(seed, "partner", epoch, draws) * images).long()


def mixing_partners(samples: int, batch_size: int, *, seed: int, epoch: Tensor, draws: Tensor) -> Tensor:
    """One of the draws of its batch for each draw, int64 [B], equal to `order.mixing_partners`."""
    first = draws // batch_size * batch_size
    size = (samples - first).clamp(max=batch_size)
    return first + (uniform(seed, "batch mate", epoch, draws) * size).long()
