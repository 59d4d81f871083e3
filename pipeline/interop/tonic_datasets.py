"""Shard sets, and data sets that tonic lacks, in tonic's own manner: for its transforms, slicers, caches and collation.

    from spikebridge.pipeline.interop.tonic_datasets import ShardFrames
    data = ShardFrames("shards", "train", transform=tonic.transforms.NumpyAsType(float))
    frames, label = data[0]

    from spikebridge.pipeline.interop.tonic_datasets import CEPDVS, NOmniglot
    data = NOmniglot("data/raw", train=True, transform=tonic.transforms.ToFrame(NOmniglot.sensor_size, n_time_bins=12))
    frames, label = data[0]

Nothing is copied into tonic, and nothing is downloaded: `spikebridge datasets NAME` says where the files come from. The
only file of the package that imports tonic, which takes seconds; no conversion needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tonic.dataset import Dataset

from spikebridge.pipeline.datasets.pairs import Listing, Recording
from spikebridge.pipeline.datasets.splits import assign_splits
from spikebridge.pipeline.events.arrays import Events, check_events
from spikebridge.pipeline.readers import cepdvs, nomniglot
from spikebridge.pipeline.shards.dataset import SplitFrames

EVENTS = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
"""Type of the events of tonic's data sets: int columns, t in microseconds, p 0 (OFF) or 1 (ON)."""


class _PairEvents(Dataset):
    """The event side of one of our readers.

    Args:
        save_to: folder that holds the data set, under its own name or as it is.
        train: True for the training recordings, False for those of the test, None for all.
        transform: applied to the events.
        target_transform: applied to the label.
        transforms: applied to both, after the other two.

    Raises:
        LayoutError: the files are not there.
    """

    sensor_size: ClassVar[tuple[int, int, int]]
    dtype = EVENTS
    ordering = EVENTS.names

    def __init__(
        self,
        save_to: str,
        train: bool | None = True,
        transform: Callable[..., Any] | None = None,
        target_transform: Callable[..., Any] | None = None,
        transforms: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(save_to, transform=transform, target_transform=target_transform, transforms=transforms)
        self.train = train
        self.location_on_system = str(Path(save_to).expanduser())
        listing = self._list(Path(self.location_on_system))
        self.classes = list(listing.classes)
        training = self._list_training(listing)
        self.data: list[Recording] = [r for r in listing.recordings if train is None or (r.name in training) == train]
        self.targets = [recording.label for recording in self.data]

    def _list(self, root: Path) -> Listing:
        raise NotImplementedError

    def _list_training(self, listing: Listing) -> set[str]:
        """Return the names of the training recordings."""
        return {r.name for r in listing.recordings if r.subset == "train"}

    def _read(self, recording: Recording) -> Events:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return events (structured array with x, y, t, p; t from 0) and class index, transformed.

        Raises:
            RecordingError: the recording is damaged.
        """
        recording, target = self.data[index], self.targets[index]
        events = self._read(recording)
        check_events(events, sensor_size=self.sensor_size[:2], source=recording.name)
        data: Any = to_structured(events)
        if self.transform is not None:
            data = self.transform(data)
        label: Any = target if self.target_transform is None else self.target_transform(target)
        return (data, label) if self.transforms is None else self.transforms(data, label)


class ShardFrames(SplitFrames, Dataset):
    """A split of a shard set, made by any reader: `SplitFrames` as tonic's Dataset, frames where those have events."""

    def __repr__(self) -> str:
        return f"ShardFrames({str(self.path)!r}, {self.split!r})"


class CEPDVS(_PairEvents):
    """CEP-DVS: 10,000 recordings of 20 classes.

    There is no official test subset: a seeded fifth of each class is tested, as in a conversion with seed 0.

    Source: see `pipeline.readers.cepdvs`.
    """

    sensor_size = (*cepdvs.SENSOR_SIZE, 2)

    def _list(self, root: Path) -> Listing:
        return cepdvs.CEPDVS().list_events(root)

    def _list_training(self, listing: Listing) -> set[str]:
        split = assign_splits(listing.recordings, seed=0, protocol="strict")
        return {name for name, part in split.items() if part != "test"}

    def _read(self, recording: Recording) -> Events:
        return cepdvs.CEPDVS().read_events(recording)


class NOmniglot(_PairEvents):
    """N-Omniglot: 1,623 characters, 20 drawers each; drawers 1 to 15 train, 16 to 20 test.

    A file holds the recordings of all drawers of a character; the last few files read are kept in memory.

    Source: see `pipeline.readers.nomniglot`.
    """

    sensor_size = (*nomniglot.SENSOR_SIZE, 2)

    def _list(self, root: Path) -> Listing:
        return nomniglot.NOmniglot().list_events(root)

    def _read(self, recording: Recording) -> Events:
        return nomniglot.cut_recording(_whole_file(recording.path), recording)


@lru_cache(maxsize=4)
def _whole_file(path: Path) -> Events:
    from spikebridge.pipeline.formats.aedat import aedat4

    return aedat4.read(path)


def to_structured(events: Events) -> NDArray[np.void]:
    """Convert events to tonic's structured array, times counted from the first."""
    data = np.empty(len(events), EVENTS)
    for name in ("x", "y", "p"):
        data[name] = getattr(events, name)
    data["t"] = events.t - (events.t[0] if len(events) else 0)
    return data
