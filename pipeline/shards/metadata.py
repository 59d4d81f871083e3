"""What stands beside the frames of a stored sample: its recording, how long it lasts, its static image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.foreign_json import Count, parse_json
from spikebridge.pipeline.containers.hdf5 import plain_dataset
from spikebridge.pipeline.shards import tar

MOST_BYTES = 2**20
"""Of the metadata of a sample."""
AGAIN = "Run verify on the shard set, then convert or copy it again."


class Metadata(TypedDict):
    """What readers take of it."""

    duration_us: Count
    static: NotRequired[str | None]
    """Key of the static image that the recording shows."""


def read_metadata(path: Path, file: int, *, end: int, row: int, source: str) -> bytes:
    """Read the metadata of one sample.

    Args:
        path: of its shard.
        file: open descriptor of the shard.
        end: first byte behind what is stored of its frames.
        row: of the sample in its shard.
        source: what messages name.

    Raises:
        ShardSetError: there is none.
    """
    if path.suffix == ".tar":
        start = end + len(tar.padding(end))
        head = os.pread(file, tar.BLOCK, start)
        if len(head) == tar.BLOCK and head[: tar.MAX_NAME].rstrip(b"\0").endswith(b".json"):
            size = int(tar.sizes(np.frombuffer(head, np.uint8)[None])[0])
            if size <= MOST_BYTES:
                return os.pread(file, size, start + tar.BLOCK)
        raise ShardSetError(f"{source}: not where its tar should hold it. {AGAIN}")
    import h5py

    with h5py.File(path, "r") as opened:
        return bytes(plain_dataset(opened, "json", path, dtype=np.bytes_)[row])


def parse_metadata(text: bytes, *, source: str) -> Metadata:
    """Parse the metadata of one sample.

    Raises:
        ShardSetError: damaged.
    """
    return parse_json(text, Metadata, source=source, error=ShardSetError, remedy=AGAIN, most_bytes=MOST_BYTES)
