"""Events that Prophesee's ECF packs inside HDF5 files, decoded here: no plugin of the camera's maker is needed.

A data set of fields x, y, p, t lies in chunks of up to 65,535 events, each packed alone, see `ecf_kernel`. A chunk that
the filter left as it was is taken as it is.

Source: Prophesee, `hdf5_ecf`: the codec and its tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.arrays import Events

NUMBER = 36559
"""Of the filter in HDF5's pipeline (0x8ECF)."""


def is_packed(node: Any) -> bool:
    """Return whether a data set of fields is packed by ECF, and by nothing else."""
    plan = node.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    return filters == [NUMBER] and node.ndim == 1 and set(node.dtype.names or ()) == set("txyp")


def read(node: Any) -> dict[str, NDArray[Any]]:
    """Return the columns [N] of a data set, by name.

    Raises:
        ValueError: a chunk is damaged or missing.
    """
    from spikebridge.pipeline.formats.tables import ecf_kernel as kernel

    count, size = len(node), node.chunks[0]
    room = Events.room(size)
    columns: Sequence[NDArray[Any]] = Events.room(count).columns
    for start in range(0, count, size):
        skipped, data = node.id.read_direct_chunk((start,))
        wanted = min(size, count - start)
        parts: Sequence[NDArray[Any]] = room.columns
        if skipped & 1:
            if len(data) < wanted * node.dtype.itemsize:
                raise ValueError(f"the chunk at event {start:,} is cut")
            plain = np.frombuffer(data, node.dtype, count=wanted)
            parts = [plain[name] for name in "txyp"]
        elif kernel.decode(np.frombuffer(data, np.uint8), *room.columns) < wanted:
            raise ValueError(f"the chunk at event {start:,} is damaged")
        for column, part in zip(columns, parts, strict=True):
            column[start : start + wanted] = part[:wanted]
    return dict(zip("txyp", columns, strict=True))
