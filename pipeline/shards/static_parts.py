"""Static images on their way into a shard set: each task leaves a part, and the last step reads them row by row.

Axes: N images, C channels, S height and width in pixels.

    <work>/<task>.npz    names [N]; pixels_sha256 [N,32], of the full-size pixels; stored_sha256 [N,32], of the encoded
           <task>.raw    the encoded images [N,C,S,S] uint8, one after the other

Images are written as they come and read a few at a time, so a set of any size needs memory for its names and hashes
alone.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.files import replacing, write_bytes


def write_part(work: Path, name: str, images: Iterable[tuple[str, bytes, NDArray[np.uint8]]]) -> list[tuple[Path, int]]:
    """Write the images of one task: name, hash of the full-size pixels, and encoded image [C,S,S] of each.

    Returns:
        The files written, with the number of images in each.
    """
    names: list[str] = []
    pixels, stored = [], []
    raw, facts = work / f"{name}.raw", work / f"{name}.npz"
    with replacing(raw) as partial, open(partial, "wb") as file:
        for image_name, digest, image in images:
            data = image.tobytes()
            file.write(data)
            names.append(image_name)
            pixels.append(digest)
            stored.append(hashlib.sha256(data).digest())
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(names, np.str_), pixels_sha256=_rows(pixels), stored_sha256=_rows(stored))
    write_bytes(facts, buffer.getvalue())
    return [(raw, len(names)), (facts, len(names))]


def _rows(digests: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


@dataclass(frozen=True)
class StaticParts:
    """The decoded images of a conversion, in the order of the listing."""

    names: list[str]
    pixels_sha256: NDArray[np.uint8]
    """[N,32] uint8, of the full-size pixels."""
    stored_sha256: NDArray[np.uint8]
    """[N,32] uint8, of the encoded pixels."""
    images: PartImages
    """N images, on the disk."""


class PartImages:
    """Encoded images [N,C,S,S] that stay in their parts: a slice of rows reads them, a list of rows only reorders.

    `parts` are files in the order of the listing, with the images in each; `shape` is (C,S,S) of one image. `order`
    holds rows of the listing; None takes all as they are.
    """

    def __init__(
        self, parts: Sequence[tuple[Path, int]], shape: tuple[int, ...], order: NDArray[np.int64] | None = None
    ) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(count for _, count in parts)])
        self._order = np.arange(self._starts[-1]) if order is None else order
        self.shape = (len(self._order), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def reordered(self, order: Sequence[int]) -> PartImages:
        """Return the same images in another order; nothing is read."""
        return PartImages(self._parts, self.shape[1:], self._order[np.asarray(order, np.int64)])

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        """Read images [len(rows),C,S,S]."""
        listed = self._order[rows]
        out = np.empty((len(listed), *self.shape[1:]), np.uint8)
        part_of = np.searchsorted(self._starts, listed, side="right") - 1
        for part in np.unique(part_of):
            path, count = self._parts[part]
            stored = np.memmap(path, np.uint8, "r", shape=(count, *self.shape[1:]))
            here = part_of == part
            out[here] = stored[listed[here] - self._starts[part]]
        return out


def read_parts(work: Path, names: Sequence[str], *, shape: tuple[int, ...]) -> StaticParts:
    """Read what the tasks left, in the order of the listing, all but the images [C,S,S] themselves.

    Raises:
        PipelineError: there are images and none could be decoded.
    """
    image_names: list[str] = []
    pixels, stored, parts = [], [], []
    for name in names:
        with np.load(work / f"{name}.npz", allow_pickle=False) as part:
            if count := len(part["names"]):
                image_names += part["names"].tolist()
                pixels.append(part["pixels_sha256"])
                stored.append(part["stored_sha256"])
                parts.append((work / f"{name}.raw", count))
    if names and not image_names:
        raise PipelineError("none of the static images could be decoded; expected at least one.")
    none = np.empty((0, 32), np.uint8)
    return StaticParts(
        image_names, np.concatenate([none, *pixels]), np.concatenate([none, *stored]), PartImages(parts, shape)
    )
