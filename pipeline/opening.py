"""A shard set by its path or by the address where it is published."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.manifest import MANIFEST
from pipeline.shardset import ShardSet

CURRENT = "current.json"
"""In a folder of published sets: names the one that readers get."""


def open_set(where: str | os.PathLike[str]) -> ShardSet:
    """Open a shard set for reading.

    Args:
        where: its folder, the folder that `push` published it in, or an http(s)://, s3:// or sftp:// address, whose
            files come into a local cache while they are used (see `pipeline.cache`).

    Raises:
        ShardSetError: missing, unfinished, damaged, of a newer schema, or unreachable.
        SettingsError: an address of an unknown kind.
    """
    if isinstance(where, str) and ":" in where:  # else the machinery of addresses need not be loaded
        from pipeline.places import is_address

        if is_address(where):
            from pipeline.cache import open_published

            return open_published(where)
    folder = Path(where)
    if (folder / CURRENT).is_file() and not (folder / MANIFEST).exists():
        from pipeline.places import open_place
        from pipeline.sharing import find

        folder /= find(open_place(str(folder))).manifest["self_sha256"]
    return ShardSet(folder)
