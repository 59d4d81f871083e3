"""Events that Prophesee's ECF packs inside HDF5 files, decoded here: no plugin of the camera's maker is needed.

A data set of fields x, y, p, t lies in chunks of up to 65,535 events, each packed alone, see `ecf_kernel`. A chunk that
the filter left as it was is taken as it is.

Source: Prophesee, `hdf5_ecf`: the codec and its tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    columns = {"t": np.empty(count, np.int64), "x": np.empty(count, np.int32)}
    columns |= {"y": np.empty(count, np.int32), "p": np.empty(count, np.uint8)}
    room = [np.zeros(size, column.dtype) for column in columns.values()]
    for start in range(0, count, size):
        skipped, data = node.id.read_direct_chunk((start,))
        wanted = min(size, count - start)
        if skipped & 1:
            if len(data) < wanted * node.dtype.itemsize:
                raise ValueError(f"the chunk at event {start:,} is cut")
            plain = np.frombuffer(data, node.dtype, count=wanted)
            for name, column in columns.items():
                column[start : start + wanted] = plain[name]
            continue
        found = kernel.decode(np.frombuffer(data, np.uint8), *room)
        if found < wanted:
            raise ValueError(f"the chunk at event {start:,} is damaged")
        for column, part in zip(columns.values(), room, strict=True):
            column[start : start + wanted] = part[:wanted]
    return columns
