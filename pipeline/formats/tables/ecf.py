"""Events that Prophesee's ECF packs inside HDF5 files, decoded here: no plugin of the camera's maker is needed.

A data set of fields x, y, p, t lies in chunks of up to 65,535 events, each packed alone, see `ecf_kernel`. A chunk that
the filter left as it was is taken as it is.

Source: Prophesee, `hdf5_ecf`: the codec and its tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def chunks(node: Any) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the columns [N] of a data set by name, chunk by chunk.

    Raises:
        ValueError: a chunk is damaged or missing.
    """
    from spikebridge.pipeline.formats.tables import ecf_kernel as kernel

    count, size = len(node), node.chunks[0]
    for start in range(0, count, size):
        skipped, data = node.id.read_direct_chunk((start,))
        wanted = min(size, count - start)
        if skipped & 1:
            if len(data) < wanted * node.dtype.itemsize:
                raise ValueError(f"the chunk at event {start:,} is cut")
            plain = np.frombuffer(data, node.dtype, count=wanted)
            yield {name: plain[name] for name in "txyp"}
            continue
        room: Sequence[NDArray[Any]] = Events.room(size).columns
        if kernel.decode(np.frombuffer(data, np.uint8), *room) < wanted:
            raise ValueError(f"the chunk at event {start:,} is damaged")
        yield {name: column[:wanted] for name, column in zip("txyp", room, strict=True)}
