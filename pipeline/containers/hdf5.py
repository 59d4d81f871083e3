"""Datasets of HDF5 files that others made: plain numbers that lie in the file itself, no more than it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import ShardSetError

DEFLATE, FLETCHER32 = 1, 3
"""Numbers of the filters in the HDF5 format."""


def plain_dataset(
    file: Any,
    name: str,
    path: Path,
    *,
    dtype: np.dtype[Any] | type[np.bytes_],
    filters: tuple[int, ...] = (FLETCHER32,),
) -> Any:
    """A dataset by name, proved harmless.

    Args:
        file: an open h5py file.
        name: the dataset's.
        path: of the file, for messages.
        dtype: exact type of its numbers; `numpy.bytes_` stands for fixed strings of any length.
        filters: exactly those that its chunks must have passed.

    Raises:
        ShardSetError: missing; a link to another file; numbers of another type, virtual or stored elsewhere; other
            filters; or more numbers than the file has bytes for.
    """
    import h5py

    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        raise _refused(path, name, "is missing, or a link to something else")
    fits = found.dtype.kind == "S" if dtype is np.bytes_ else found.dtype == dtype
    if not fits or found.dtype.hasobject:
        raise _refused(path, name, f"is of type {found.dtype}, not {np.dtype(dtype)}")
    plan = found.id.get_create_plist()
    used = tuple(plan.get_filter(i)[0] for i in range(plan.get_nfilters()))
    if found.is_virtual or found.external or (found.size and used != filters):
        raise _refused(path, name, f"has the filters {used}, not {filters}, or lies in another file")
    if DEFLATE not in filters and found.id.get_storage_size() < found.nbytes:
        raise _refused(path, name, f"claims {found.nbytes:,} bytes, of which {found.id.get_storage_size():,} are there")
    return found


def _refused(path: Path, name: str, what: str) -> ShardSetError:
    return ShardSetError(f"{path}: its dataset {name} {what}. Convert or copy the shard set again.")
