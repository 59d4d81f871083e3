"""A shard set by its path or by the address where it is published."""

from __future__ import annotations

import os
from pathlib import Path

from spikebridge.pipeline.shards.manifest import MANIFEST
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing.locations import CURRENT, is_address, open_folder


def open_set(where: str | os.PathLike[str], *, expect: str | None = None) -> ShardSet:
    """Open a shard set for reading.

    Args:
        where: its folder, the folder that `push` published it in, or an http(s)://, s3:// or sftp:// address, whose
            files come into a local cache while they are used (see `pipeline.sharing.cache`).
        expect: the ID that it must have.

    Raises:
        ShardSetError: missing, unfinished, damaged, of a newer schema, unreachable, or another one than expected.
        SettingsError: an address of an unknown kind.
    """
    if isinstance(where, str) and is_address(where):
        from spikebridge.pipeline.sharing.cache import open_published

        return open_published(where, expect=expect)
    folder = Path(where)
    if (folder / CURRENT).is_file() and not (folder / MANIFEST).exists():
        from spikebridge.pipeline.sharing.publish import find_set

        folder /= find_set(open_folder(str(folder))).manifest["self_sha256"]
    return ShardSet(folder, expect=expect)
