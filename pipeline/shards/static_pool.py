"""The static images of a shard set, `static.h5`: the pool that training draws from, and the held-out images.

Axes: N images, C channels of the encoding, H and W pixels, K classes.
Data sets: images [N,C,H,W] uint8, label [N] int32, key [N] and role [N] fixed-length strings, pixels_sha256 [N,32]
uint8 (of the decoded full-size image), class_offsets [K+1] int64 into the pool. Rows are in the order (role, label,
key), the pool first: class k owns the rows class_offsets[k] to class_offsets[k+1].
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import reserve
from spikebridge.pipeline.containers.hdf5 import plain_dataset
from spikebridge.pipeline.shards.writer import chunk_places, hdf5_bound

STATIC_FILE = "static.h5"
POOL, DUPLICATE = "pool", "duplicate"
RESIZED_TOGETHER = 256
WEIGHT_BITS = 15
COLUMN_ROWS = 65536
"""Rows in a chunk of the columns beside the images."""
ROLES = (POOL, "validation", "test", DUPLICATE)
"""Order of the rows by role: drawn as a partner; shown by a validation or test recording, or in the official test
subset; kept out because it equals one of those."""


@dataclass(frozen=True)
class StaticImages:
    """Images of a shard set with what is known of each."""

    images: Any
    """[N,C,H,W] uint8: an array, `StoredImages`, or while a set is made `static_parts.PartImages`."""
    labels: NDArray[np.int64]
    """[N] int64."""
    keys: tuple[str, ...]
    """N keys."""
    roles: tuple[str, ...]
    """N strings, see `ROLES`."""
    pixels_sha256: NDArray[np.uint8]
    """[N,32] uint8."""
    class_offsets: NDArray[np.int64]
    """[K+1] int64, row ranges of the classes in the pool."""

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        """Return number and shape of the images, and how many may be drawn."""
        shape, pool = "x".join(map(str, self.images.shape[1:])), int(self.class_offsets[-1])
        return f"StaticImages({len(self):,} images [{shape}] uint8, {pool:,} of them in the pool)"

    @classmethod
    def sort(
        cls,
        images: Any,
        *,
        labels: Sequence[int],
        keys: Sequence[str],
        roles: Sequence[str],
        pixels_sha256: NDArray[np.uint8],
        num_classes: int,
    ) -> StaticImages:
        """Put rows that come in any order into the order (role, label, key) and find the classes of the pool.

        Images that are no array, as `PartImages`, stay where they are: `reordered` is asked of them.
        """
        order = sorted(range(len(keys)), key=lambda i: (ROLES.index(roles[i]), labels[i], keys[i]))
        sorted_labels = np.array([labels[i] for i in order], np.int64)
        pool_size = sum(role == POOL for role in roles)
        return cls(
            images=images[order] if isinstance(images, np.ndarray) else images.reordered(order),
            labels=sorted_labels,
            keys=tuple(keys[i] for i in order),
            roles=tuple(roles[i] for i in order),
            pixels_sha256=pixels_sha256[order],
            class_offsets=np.searchsorted(sorted_labels[:pool_size], np.arange(num_classes + 1)).astype(np.int64),
        )

    def pool(self) -> StaticImages:
        """Return the rows that training may draw: those of the role `pool`."""
        n = int(self.class_offsets[-1])
        if isinstance(self.images, StoredImages):
            images: Any = StoredImages(self.images.path, (n, *self.images.shape[1:]))
        else:
            images = self.images[:n]
        return StaticImages(
            images, self.labels[:n], self.keys[:n], self.roles[:n], self.pixels_sha256[:n], self.class_offsets
        )

    def resized(self, frame: tuple[int, int]) -> StaticImages:
        """Return the same images in (H, W) pixels; those that stay in their file are resized as they are read."""
        if tuple(self.images.shape[2:]) == frame:
            return self
        images = self.images
        fitted = resize(images, frame) if isinstance(images, np.ndarray) else ResizedImages(images, frame)
        return replace(self, images=fitted)


def resize(images: NDArray[np.uint8], frame: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize images [N,C,H,W]: bilinear, antialiased when shrinking, in whole numbers, so the same on every machine.

    Within 1 of Pillow, which rounds twice; `frame` is (H, W).
    """
    out = np.empty((*images.shape[:2], *frame), np.uint8)
    down, across = (_weights(*lengths) for lengths in zip(images.shape[2:], frame, strict=True))
    for first in range(0, len(images), RESIZED_TOGETHER):
        part = images[first : first + RESIZED_TOGETHER].astype(np.float64)
        exact = (down @ part @ across.T).astype(np.int64)  # sums below 2**53
        out[first : first + RESIZED_TOGETHER] = (exact + 2 ** (2 * WEIGHT_BITS - 1)) >> 2 * WEIGHT_BITS
    return out


def _weights(length: int, size: int) -> NDArray[np.float64]:
    """Return the whole weights [size,length] of input pixels in output pixels; each row sums to 2**WEIGHT_BITS."""
    scale = length / size
    reach = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs((np.arange(length) + 0.5)[None, :] - centres[:, None]) / reach)
    whole = np.round(weights / weights.sum(axis=1, keepdims=True) * 2**WEIGHT_BITS)
    whole[np.arange(size), whole.argmax(axis=1)] += 2**WEIGHT_BITS - whole.sum(axis=1)
    return whole


class ResizedImages:
    """Images that stay in their file, resized to (H, W) pixels when they are read."""

    def __init__(self, images: StoredImages, frame: tuple[int, int]) -> None:
        self._images, self._frame = images, frame
        self.shape = (*images.shape[:2], *frame)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Read images [len(rows),C,H,W] by row number, or one of them."""
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        return resize(self._images[rows], self._frame)

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all images in parts [n,C,H,W], in their order."""
        for block in self._images.blocks():
            yield resize(block, self._frame)


class StoredImages:
    """Images that stay in their file: read by row, each checked; for pools that are larger than memory.

    `shape` is (N,C,H,W) of the first N images of the file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self._file: int | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Read images [len(rows),C,H,W] by row number, or one of them.

        Raises:
            ShardSetError: the file was changed since it was opened.
        """
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        offsets, checksums = self._places
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for image, row in zip(out.reshape(len(rows), -1), rows, strict=True):
            place = int(offsets[row])
            if os.preadv(self._file, [image.data], place) != image.size or zlib.crc32(image.data) != checksums[row]:
                raise ShardSetError(f"{self.path}: image {row} is damaged or cut. Convert or copy the set again.")
        return out

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all images in order, a few at a time, read and checked by HDF5."""
        import h5py

        with h5py.File(self.path, "r") as file:
            images = plain_dataset(file, "images", self.path, dtype=np.dtype("u1"))
            step = max(1, len(images) if images.chunks is None else images.chunks[0])
            for first in range(0, len(self), step):
                yield images[first : min(first + step, len(self))]

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return the first byte in the file [N] and the crc32 [N] of every image."""
        import h5py

        with h5py.File(self.path, "r") as file:
            images = plain_dataset(file, "images", self.path, dtype=np.dtype("u1"))
            step, size = images.chunks[0], int(np.prod(self.shape[1:]))
            places = chunk_places(images)[:, 0]
        rows = np.arange(len(self))
        checksums = (zlib.crc32(image) for block in self.blocks() for image in block)
        return places[rows // step * step] + rows % step * size, np.fromiter(checksums, np.uint32, len(self))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def write_static(path: Path, static: StaticImages) -> None:
    """Write the file; rows are in the order of `StaticImages.sort`.

    Images are taken a chunk at a time, so they may be anything that has a shape and gives slices of rows.
    """
    import h5py

    step = max(1, min(256, len(static)))
    shape = static.images.shape
    columns = {
        "label": static.labels.astype("<i4"),
        "key": np.array([key.encode() for key in static.keys], np.bytes_),
        "role": np.array([role.encode() for role in static.roles], "S10"),
        "pixels_sha256": static.pixels_sha256,
        "class_offsets": static.class_offsets.astype("<i8"),
    }
    whole_chunks = _whole_chunks(len(static), step)
    rest = sum(_whole_chunks(len(v), min(COLUMN_ROWS, len(v))) * v[:1].nbytes for v in columns.values())
    reserve(path, hdf5_bound(whole_chunks * math.prod(shape[1:]) + rest, chunks=whole_chunks // step))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        layout = {"chunks": (step, *shape[1:]), "fletcher32": True} if len(static) else {}  # no chunk of no rows
        images = file.create_dataset("images", shape, np.dtype("u1"), **layout)
        for first in range(0, len(static), step):
            images[first : first + step] = static.images[first : first + step]
        for name, values in columns.items():
            chunks = (min(COLUMN_ROWS, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values, **({"chunks": chunks, "fletcher32": True} if len(values) else {}))


def _whole_chunks(rows: int, step: int) -> int:
    """Return the rows that are stored: the last chunk is stored whole."""
    return -(-rows // max(1, step)) * step


def read_static(path: Path, *, resident: bool = True) -> StaticImages:
    """Read `static.h5`; images that are not `resident` stay in the file, as `StoredImages`.

    Raises:
        ShardSetError: missing, damaged, or not laid out as above.
    """
    import h5py

    types: dict[str, Any] = {
        "label": np.dtype("<i4"),
        "key": np.bytes_,
        "role": np.bytes_,
        "pixels_sha256": np.dtype("u1"),
    }
    try:
        with h5py.File(path, "r") as file:
            columns = {name: plain_dataset(file, name, path, dtype=dtype)[()] for name, dtype in types.items()}
            offsets = plain_dataset(file, "class_offsets", path, dtype=np.dtype("<i8"))[()]
            stored = plain_dataset(file, "images", path, dtype=np.dtype("u1"))
            images = stored[()] if resident else StoredImages(path, stored.shape)
    except (OSError, KeyError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise ShardSetError(
            f"{path}: cannot be read ({error}); expected the static images of a shard set. "
            "Convert or copy the set again."
        ) from error
    n = len(images)
    shapes = {name: column.shape for name, column in columns.items()}
    if shapes != dict.fromkeys(types, (n,)) | {"pixels_sha256": (n, 32)} or len(images.shape) != 4 or offsets.ndim != 1:
        raise ShardSetError(f"{path}: its columns differ in length. Convert or copy the shard set again.")
    roles = {role: role.decode("ascii", "backslashreplace") for role in set(columns["role"].tolist())}
    if not set(roles.values()) <= set(ROLES) or not len(offsets) or (np.diff(offsets, prepend=0, append=n) < 0).any():
        raise ShardSetError(f"{path}: unknown roles or class offsets. Convert or copy the shard set again.")
    return StaticImages(
        images=images,
        labels=columns["label"].astype(np.int64),
        keys=tuple(key.decode("ascii", "backslashreplace") for key in columns["key"].tolist()),
        roles=tuple(roles[role] for role in columns["role"].tolist()),
        pixels_sha256=columns["pixels_sha256"],
        class_offsets=offsets.astype(np.int64),
    )
