"""The static images of a shard set, `static.h5`: the pool that training draws from, and the held-out images.

Axes: N images, C channels of the encoding, H and W pixels, K classes.
Data sets: images [N,C,H,W] uint8, label [N] int32, key [N] and role [N] fixed-length strings, pixels_sha256 [N,32]
uint8 (of the decoded full-size image), class_offsets [K+1] int64 into the pool. Rows are in the order (role, label,
key), the pool first: class k owns the rows class_offsets[k] to class_offsets[k+1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShardSetError

STATIC_FILE = "static.h5"
POOL, DUPLICATE = "pool", "duplicate"
ROLES = (POOL, "validation", "test", DUPLICATE)
"""Order of the rows by role: drawn as a partner; shown by a validation or test recording, or in the official test
subset; kept out because it equals one of those."""


@dataclass(frozen=True)
class StaticImages:
    """Images of a shard set with what is known of each.

    Args:
        images: [N,C,H,W] uint8.
        labels: [N] int64.
        keys: N strings.
        roles: N strings, see `ROLES`.
        pixels_sha256: [N,32] uint8.
        class_offsets: [K+1] int64, row ranges of the classes in the pool.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]
    roles: tuple[str, ...]
    pixels_sha256: NDArray[np.uint8]
    class_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def sort(
        cls,
        images: NDArray[np.uint8],
        *,
        labels: Sequence[int],
        keys: Sequence[str],
        roles: Sequence[str],
        pixels_sha256: NDArray[np.uint8],
        num_classes: int,
    ) -> StaticImages:
        """Put rows that come in any order into the order (role, label, key) and find the classes of the pool."""
        order = sorted(range(len(keys)), key=lambda i: (ROLES.index(roles[i]), labels[i], keys[i]))
        sorted_labels = np.array([labels[i] for i in order], np.int64)
        pool_size = sum(role == POOL for role in roles)
        return cls(
            images=images[order],
            labels=sorted_labels,
            keys=tuple(keys[i] for i in order),
            roles=tuple(roles[i] for i in order),
            pixels_sha256=pixels_sha256[order],
            class_offsets=np.searchsorted(sorted_labels[:pool_size], np.arange(num_classes + 1)).astype(np.int64),
        )

    def pool(self) -> StaticImages:
        """The rows that training may draw: those of the role `pool`."""
        n = int(self.class_offsets[-1])
        return StaticImages(
            self.images[:n], self.labels[:n], self.keys[:n], self.roles[:n], self.pixels_sha256[:n], self.class_offsets
        )


def write_static(path: Path, static: StaticImages) -> None:
    """Write the file; rows are in the order of `StaticImages.sort`."""
    import h5py

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, values, rows in (
            ("images", static.images, 256),
            ("label", static.labels.astype("<i4"), 65536),
            ("key", np.array([key.encode() for key in static.keys]), 65536),
            ("role", np.array([role.encode() for role in static.roles], "S10"), 65536),
            ("pixels_sha256", static.pixels_sha256, 65536),
            ("class_offsets", static.class_offsets.astype("<i8"), 65536),
        ):
            chunks = (min(rows, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, fletcher32=True)


def read_static(path: Path) -> StaticImages:
    """Read the whole file into memory.

    Raises:
        ShardSetError: missing, damaged, or not laid out as above.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            columns = {name: file[name][()] for name in ("images", "label", "key", "role", "pixels_sha256")}
            offsets = file["class_offsets"][()].astype(np.int64)
    except (OSError, KeyError, AttributeError, ValueError, TypeError) as error:
        raise ShardSetError(
            f"{path}: cannot be read ({error}); expected the static images of a shard set. "
            "Convert or copy the set again."
        ) from error
    n = len(columns["images"])
    if {len(column) for column in columns.values()} != {n} or columns["images"].ndim != 4:
        raise ShardSetError(f"{path}: its columns differ in length. Convert or copy the shard set again.")
    return StaticImages(
        images=columns["images"],
        labels=columns["label"].astype(np.int64),
        keys=tuple(key.decode() for key in columns["key"]),
        roles=tuple(role.decode() for role in columns["role"]),
        pixels_sha256=columns["pixels_sha256"],
        class_offsets=offsets,
    )
