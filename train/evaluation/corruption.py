"""Recordings as a failing camera would have made them: six failures, each with a level, replayed by a seed.

Axes: N events, T time bins, P polarity, H, W of a frame, h, w of the sensor.

Sets that store events are changed before their frames are made; the bins stay those of the recording as it was. Stored
frames are changed as far as counts allow: `sum` in whole numbers, without the order of events within a bin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.events.packing import (
    TIME_SHIFT,
    X_MASK,
    X_SHIFT,
    Y_MASK,
    Y_SHIFT,
    CheckedEvents,
    PackedEvents,
)
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import EVENTS
from spikebridge.train.data.event_augmentation import AugmentedEvents
from spikebridge.train.data.frames import as_tensor, time_first, to_device
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.failures import BURSTS, CORRUPTIONS, FLICKER_HZ, HOT_HZ

MOST_ADDED = 2**24
"""Events that are added to a recording, at most."""


class CorruptedFrames:
    """A split whose recordings were made by a failing camera; scored like `train.data.frames.Frames`.

    Args:
        shards: the set, framed as the network wants it.
        split: name of the split.
        name: of the failure.
        level: see `CORRUPTIONS`.
        seed: equal seeds give equal recordings, whatever the batch size.

    Raises:
        RunError: stored frames that cannot show the failure.
    """

    def __init__(self, shards: ShardSet, split: str, *, name: str, level: float, seed: int) -> None:
        self._split, self._name, self._level, self._seed = shards.split(split), name, level, seed
        self.labels = np.asarray(self._split.labels, np.int64)
        self._events = EVENTS in shards.arrays  # which a set may store beside its frames
        settings: Mapping[str, Any] = shards.settings
        if not self._events and (
            not CORRUPTIONS[name].of_frames or settings["reduction"] != "sum" or settings["binning"] != "bins"
        ):
            show = "counts (sum) in equal bins" if CORRUPTIONS[name].of_frames else "single events"
            raise RunError(
                f"--corrupt {name}: {shards.path} stores frames of reduction {settings['reduction']}, binning "
                f"{settings['binning']}; only {show} can show it. Use a set that stores events (preprocess --store "
                "events)"
            )
        sensor = shards.manifest.get("sensor_size") or (shards.sample_shape[-1], shards.sample_shape[-2])
        self._pixels = int(sensor[0]) * int(sensor[1])

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield frames [T,B,P,H,W] and labels [B] in the order of the split."""
        for first in range(0, len(self), batch_size):
            rows = np.arange(first, min(first + batch_size, len(self)))
            made = self._of_events(rows) if self._events else self._of_frames(rows)
            labels = torch.from_numpy(self.labels[rows]).to(device)
            yield time_first(to_device(as_tensor(made), device)), labels

    def _of_events(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read recordings with their events changed, [B,T,P,H,W]."""
        changes = [partial(change_events, name=self._name, level=self._level, random=self._random(row)) for row in rows]
        return self._split.read(rows, changes=changes)

    def _of_frames(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read frames and change their counts, [B,T,P,H,W]."""
        frames = self._split.read(rows)
        most = np.iinfo(frames.dtype).max
        for i, (row, duration) in enumerate(zip(rows, self._split.durations_us(rows), strict=True)):
            changed = change_counts(
                frames[i].astype(np.int64), self._name, self._level, self._random(row),
                seconds=float(duration) * 1e-6, pixels=self._pixels,
            )  # fmt: skip
            frames[i] = np.minimum(changed, most)  # as a conversion counts: saturated, never wrapped
        return frames

    def _random(self, row: int) -> np.random.Generator:
        """Return the numbers of a recording, the same for every level."""
        text = f"{self._seed} {self._name} {self._split.key(int(row))}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def change_events(
    events: CheckedEvents, sensor: tuple[int, int], *, name: str, level: float, random: np.random.Generator
) -> CheckedEvents | None:
    """Return a recording on a sensor of (W, H) pixels as a failing camera would have made it; None without events."""
    words = np.concatenate(list(events.chunks()))
    t, x, y, p = words >> TIME_SHIFT, words >> X_SHIFT & X_MASK, words >> Y_SHIFT & Y_MASK, words & 1
    length, (width, height) = events.duration_us, sensor
    added = np.empty(0, np.int64)
    if name == "dropped_bursts":
        lost = random.random(BURSTS) < level
        words = words[~lost[np.minimum(t * BURSTS // max(1, length), BURSTS - 1)]]
    elif name == "polarity_imbalance":
        words = words[(p == 0) | (random.random(len(p)) >= level)]
    elif name == "clock_jitter":
        moved = np.rint(t + level * random.standard_normal(len(t))).astype(np.int64)
        words = np.clip(moved, 0, length) << TIME_SHIFT | x << X_SHIFT | y << Y_SHIFT | p
    else:
        seconds = length * 1e-6
        if name == "hot_pixels":
            hot = random.permutation(width * height)[: round(level * width * height)]
            place = np.repeat(hot, random.poisson(HOT_HZ * seconds, len(hot)))
            times, polarity = random.random(len(place)) * length, random.integers(0, 2, len(place))
        elif name == "background":
            count = min(int(random.poisson(level * seconds * width * height)), MOST_ADDED)
            place, times = random.integers(0, width * height, count), random.random(count) * length
            polarity = random.integers(0, 2, count)
        else:  # flicker: ON in the first half of a cycle, OFF in the second
            count = min(int(random.poisson(2 * level * FLICKER_HZ * seconds * width * height)), MOST_ADDED)
            place, times = random.integers(0, width * height, count), random.random(count) * length
            polarity = (times * 1e-6 * FLICKER_HZ % 1 < 0.5).astype(np.int64)
        added = times.astype(np.int64) << TIME_SHIFT | place % width << X_SHIFT | place // width << Y_SHIFT | polarity
    words = np.sort(np.concatenate([words, added]))
    if not len(words):
        return None
    made: PackedEvents = AugmentedEvents(words, events.start_us, sensor, length_us=length)
    return made


def change_counts(
    counts: NDArray[np.int64], name: str, level: float, random: np.random.Generator, *, seconds: float, pixels: int
) -> NDArray[np.int64]:
    """Return the counts [T,P,H,W] of a recording as a failing camera would have made them.

    A burst is a whole bin; bins are taken to hold whole cycles of a flicker, so that both polarities get as many.
    """
    T, P, H, W = counts.shape
    each = pixels / (H * W) * seconds / T  # pixel-seconds of a cell in a bin
    if name == "dropped_bursts":
        return counts * np.greater_equal(random.random((T, 1, 1, 1)), level)
    if name == "polarity_imbalance":
        thinned = counts.copy()
        thinned[:, 1] = random.binomial(counts[:, 1], 1 - level)
        return thinned
    if name == "hot_pixels":
        hot = np.bincount(random.permutation(pixels)[: round(level * pixels)] * (H * W) // pixels, minlength=H * W)
        return counts + random.poisson(hot.reshape(H, W) * (HOT_HZ * seconds / T / P), counts.shape)
    rate = level / P if name == "background" else level * FLICKER_HZ
    return counts + random.poisson(rate * each, counts.shape)
