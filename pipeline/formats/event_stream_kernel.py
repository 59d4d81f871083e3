"""The compiled loop of `pipeline.formats.event_stream`: bytes to events."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    atis: bool,
    height: int,
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
    state: NDArray[np.int64],
) -> tuple[int, int]:
    """Fill the columns from bytes that begin with an event; `state[2]` holds the time and the exposure measurements.

    The first byte of an event is the time since the last one above its flags (1 bit of a DVS, 2 of an ATIS), or says
    that 127 (ATIS: 1 to 3 times 63) microseconds pass without one; four bytes of x and y follow.

    Returns:
        The number of events, and the bytes that whole ones took.
    """
    count, i = 0, 0
    time, exposures = state[0], state[1]
    while i < data.size:
        byte = np.int64(data[i])
        alone = bool(byte & 0xFC == 0xFC if atis else byte >= 0xFE)  # 0xFE is the start of a transmission
        if alone:
            time += 63 * (byte & 3) if atis else 127 * (byte & 1)
            i += 1
            continue
        if i + 5 > data.size:
            break
        time += byte >> (2 if atis else 1)
        if atis and byte & 1:
            exposures += 1
        else:
            t[count] = time
            x[count] = np.int32(data[i + 1]) | np.int32(data[i + 2]) << 8
            y[count] = height - 1 - (np.int32(data[i + 3]) | np.int32(data[i + 4]) << 8)  # counted from the top
            p[count] = byte >> 1 & 1 if atis else byte & 1
            count += 1
        i += 5
    state[0], state[1] = time, exposures
    return count, i
