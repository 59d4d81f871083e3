"""A split of a shard set as a sequence of (frames, class index): what the data sets for torch and for tonic share.

Axes: T time bins, P polarity, H, W pixels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.shards.reader import ShardSet, Split

OPENED = ("shards", "_split")
"""What is opened at first use, once in every process."""


class SplitFrames:
    """Recordings of one split in the order of the shard set: frames [T,P,H,W] as stored (numpy), and class index (int).

    Samples are read from disk at every turn and their checksums compared. Files are opened by the process that reads,
    so a `DataLoader` may have any number of workers, forked or spawned. A process that finds another set in the folder
    by then refuses it.

    Args:
        shards: folder of the shard set.
        split: `train`, `validation` or `test`.
        transform: applied to the frames.
        target_transform: applied to the label.
        transforms: applied to both, after the other two: (frames, label) -> (frames, label).
        frames: settings of the frames, where the set stores events, e.g. `{"time_bins": 4}`; see
            `pipeline.shards.reader.ShardSet.with_frames`.

    Raises:
        ShardSetError: missing, unfinished or damaged, no such split, or other frames of a set that stores frames.
    """

    ordering = ("t", "p", "y", "x")
    """Axes of the frames, in tonic's letters."""

    def __init__(
        self,
        shards: str | os.PathLike[str],
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        frames: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.split = Path(shards).absolute(), split
        self.transform, self.target_transform, self.transforms = transform, target_transform, transforms
        self._frames = dict(frames or {})
        self._id: str | None = None
        self._id = self.shards.id  # what every other process must find
        P, H, W = self.shards.sample_shape[1:]
        self.sensor_size: tuple[int, int, int] = (W, H, P)
        """Of the frames, (W, H, P) as tonic has it."""
        self.dtype: np.dtype[Any] = self._split.dtype
        """Of the frames as stored."""
        self.classes = self.shards.classes
        """Names of the classes, by index."""
        self.targets: list[int] = self._split.labels.tolist()
        """Class index of every sample, untransformed."""
        self.keys = self._split.keys
        """Name of every sample."""

    @cached_property
    def shards(self) -> ShardSet:
        """Return the shard set; `shards.id`, `shards.settings` and `shards.static_pool()` belong to it."""
        return ShardSet(self.path, expect=self._id).with_frames(**self._frames)

    @cached_property
    def _split(self) -> Split:
        return self.shards.split(self.split)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        """Return split, folder, number, shape and type of the samples, classes and ID of the set."""
        shape = "x".join(map(str, self.shards.sample_shape))
        simulated = ", SIMULATED" if self.shards.simulated else ""
        return (
            f"{type(self).__name__}({self.split} of {self.path}: {len(self):,} samples [{shape}] {self.dtype}, "
            f"{len(self.classes):,} classes, set {self.shards.id[:12]}{simulated})"
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return one sample; negative indices count from the end.

        Raises:
            IndexError: there are not so many; says how many.
            ShardSetError: the sample is damaged; names file and key.
        """
        position = self.position(index)
        frames: Any = self._split.read([position])[0]  # [T,P,H,W]
        target: Any = self.targets[position]
        if self.transform is not None:
            frames = self.transform(frames)
        if self.target_transform is not None:
            target = self.target_transform(target)
        if self.transforms is not None:
            frames, target = self.transforms(frames, target)
        return frames, target

    def position(self, index: int) -> int:
        """Return the position of a sample, counted from the start; negative indices count from the end.

        Raises:
            IndexError: there are not so many; says how many.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index:,} is out of range: split {self.split} has {len(self):,} samples")
        return range(len(self))[index]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in OPENED}
