"""The compiled loop of `pipeline.formats.event_stream`: bytes to events."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    atis: bool,
    t: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    p: NDArray[np.uint8],
) -> tuple[int, int, bool]:
    """Fill the columns from the bytes behind the header.

    The first byte of an event is the time since the last one above its flags (1 bit of a DVS, 2 of an ATIS), or says
    that 127 (ATIS: 1 to 3 times 63) microseconds pass without one; four bytes of x and y follow.

    Returns:
        The events, the exposure measurements of an ATIS, which are none, and whether the last event is whole.
    """
    count, exposures, i = 0, 0, 0
    time = np.int64(0)
    while i < data.size:
        byte = np.int64(data[i])
        i += 1
        if atis:
            if byte & 0xFC == 0xFC:
                time += 63 * (byte & 3)
                continue
            time += byte >> 2
        else:
            if byte == 0xFF:
                time += 127
                continue
            if byte == 0xFE:  # start of a transmission
                continue
            time += byte >> 1
        if i + 4 > data.size:
            return count, exposures, False
        if atis and byte & 1:
            exposures += 1
        else:
            t[count] = time
            x[count] = np.int32(data[i]) | np.int32(data[i + 1]) << 8
            y[count] = np.int32(data[i + 2]) | np.int32(data[i + 3]) << 8
            p[count] = byte >> 1 & 1 if atis else byte & 1
            count += 1
        i += 4
    return count, exposures, True
