"""Reading a shard set: what training needs and nothing else (numpy, h5py, the standard library).

Axes: n samples, T time bins, P polarity, H and W pixels, K classes.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import manifest as manifests
from pipeline.errors import ShardSetError
from pipeline.shards import EXTENSION, index_path
from pipeline.static_pool import STATIC_FILE, StaticImages, read_static


class Split:
    """The samples of one split, read one by one through the index; safe to share between threads.

    Args:
        shards: the event shard files, in order.
        index: one structured array over all of them.
        shard_of: [n] shard number of every sample.
        shape: (T,P,H,W).
        dtype: stored type.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        index: NDArray[Any],
        shard_of: NDArray[np.int64],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.shards = tuple(shards)
        self.shape, self.dtype = shape, dtype
        self.shard_of = shard_of
        self.labels: NDArray[np.int64] = index["label"].astype(np.int64)
        self.keys: tuple[str, ...] = tuple(key.decode() for key in index["key"])
        self._index = index
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions: Sequence[int] | NDArray[np.integer]) -> NDArray[Any]:
        """Read samples by position.

        Returns:
            [len(positions),T,P,H,W] in the stored type.

        Raises:
            ShardSetError: a shard is missing or cut, or a sample's checksum is wrong; names the shard and the key.
        """
        out = np.empty((len(positions), *self.shape), self.dtype)
        rows = out.reshape(len(positions), -1).view(np.uint8)
        for row, position in zip(rows, positions, strict=True):
            offset, length, crc32 = (int(self._index[name][position]) for name in ("offset", "length", "crc32"))
            shard = int(self.shard_of[position])
            data = os.pread(self._file(shard), length, offset) if length == row.size else b""
            if len(data) != row.size or zlib.crc32(data) != crc32:
                raise ShardSetError(
                    f"{self.shards[shard]}: sample {self.keys[position]} is damaged or cut (checksum differs). "
                    "Run `spikebridge verify` on the set, then convert or copy it again."
                )
            row[:] = np.frombuffer(data, np.uint8)
        return out

    def read_all(self) -> NDArray[Any]:
        """All samples [n,T,P,H,W] in their stored order."""
        return self.read(np.arange(len(self)))

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                try:
                    self._files[shard] = os.open(self.shards[shard], os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise ShardSetError(
                        f"{self.shards[shard]}: cannot be opened ({error.strerror}). Convert or copy the set again."
                    ) from error
            return self._files[shard]

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)


class ShardSet:
    """A complete shard set, read only.

    Args:
        path: its folder.

    Raises:
        ShardSetError: missing, unfinished, damaged, or of a newer schema.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = manifests.read(self.path)
        self.id: str = self.manifest["self_sha256"]
        self.settings: dict[str, Any] = self.manifest["settings"]
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        self.simulated: bool = self.manifest["simulated"]
        self.sample_shape: tuple[int, ...] = tuple(self.manifest["sample"]["shape"])
        self.dtype: np.dtype[Any] = np.dtype(self.manifest["sample"]["dtype"])

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Every split by name; a split without samples is there, with length 0."""
        return {name: self._open_split(name) for name in self.manifest["splits"]}

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            ShardSetError: no split of that name.
        """
        if name not in self.splits:
            raise ShardSetError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}.")
        return self.splits[name]

    def static_pool(self) -> StaticImages:
        """The static images that training may draw from, read into memory."""
        return read_static(self.path / STATIC_FILE).pool()

    def event_shards(self, split: str) -> list[Path]:
        """Event shard files of a split, in order."""
        extension = EXTENSION[self.settings["format"]]
        names = (entry["name"] for entry in self.manifest["files"])
        return [self.path / n for n in sorted(names) if n.startswith(f"events-{split}-") and n.endswith(extension)]

    def _open_split(self, name: str) -> Split:
        shards = self.event_shards(name)
        parts = [read_index(index_path(shard)) for shard in shards]
        shard_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        index = np.concatenate(parts) if parts else np.empty(0, [("label", "<i4"), ("key", "S1")])
        expected = self.manifest["splits"][name]["samples"]
        if len(index) != expected:
            raise ShardSetError(
                f"{self.path}: split {name} indexes {len(index)} samples, its manifest says {expected}. "
                "Convert or copy the set again."
            )
        return Split(shards, index, shard_of, shape=self.sample_shape, dtype=self.dtype)


def read_index(path: Path) -> NDArray[Any]:
    """Read the index of a shard; objects are refused.

    Raises:
        ShardSetError: missing, damaged, or not an index.
    """
    try:
        index = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ShardSetError(f"{path}: cannot be read ({error}). Convert or copy the set again.") from error
    if index.ndim != 1 or index.dtype.names != ("offset", "length", "crc32", "label", "key"):
        raise ShardSetError(f"{path}: not the index of a shard. Convert or copy the set again.")
    return index
