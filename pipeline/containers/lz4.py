"""Frames of LZ4 that carry no checksums, as event recorders write them, unpacked faster than a call per frame allows.

Source: the LZ4 frame format description, version 1.6.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.containers.packed import LZ4, unpacked_at_most

MARGIN = 32
"""Bytes behind the content that the compiled loop may write to."""
VERSION, BLOCK_CHECKSUMS, CONTENT_SIZE, CONTENT_CHECKSUM, RESERVED, DICTIONARY = 0xC0, 0x10, 0x08, 0x04, 0x02, 0x01
HEAD_BYTES = 6
"""Of a frame, that say whether it `is_plain`."""


def is_plain(head: bytes) -> bool:
    """Return whether the first `HEAD_BYTES` bytes begin a frame without checksums and dictionary."""
    if len(head) < HEAD_BYTES or head[:4] != LZ4:
        return False
    return head[4] & (VERSION | BLOCK_CHECKSUMS | CONTENT_CHECKSUM | RESERVED | DICTIONARY) == 0x40


def unpack(frame: bytes, room: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Unpack one plain frame.

    Args:
        frame: all of it, and nothing more.
        room: for the content; another is taken where it is too small.

    Returns:
        The content, a view on the room that was taken, and that room.

    Raises:
        ValueError: damaged, or cut.
    """
    from spikebridge.pipeline.containers import lz4_kernel as kernel

    if (most := unpacked_at_most(frame) + MARGIN) > len(room):
        room = np.empty(most, np.uint8)
    if not is_plain(frame):
        raise ValueError("no plain frame of LZ4")
    count = kernel.unpack(np.frombuffer(frame, np.uint8, offset=7 + (8 if frame[4] & CONTENT_SIZE else 0)), room)
    if count < 0:
        raise ValueError("damaged LZ4")
    return room[:count], room
