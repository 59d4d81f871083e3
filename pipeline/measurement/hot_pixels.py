"""Pixels that fire by themselves, found by their neighbours, which do not.

Axes: H, W of a sensor in pixels, or of a frame in cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # recipes name hot pixels, and are read without numpy
    import numpy as np
    from numpy.typing import NDArray

HOT, HOT_IN = 5.0, 0.5
"""A pixel is hot where it has so many times the events of the busiest but one of its eight neighbours (so that of two
side by side both are), over all recordings; and events in this share of them."""


class HotPixel(NamedTuple):
    """A pixel that fires by itself."""

    x: int
    y: int
    off: float
    """OFF events in a recording, beyond those that its neighbours have."""
    on: float
    """The same of ON events."""


def find_hot_pixels(counts: NDArray[np.float64], firing: NDArray[np.float64], recordings: int) -> list[HotPixel]:
    """Return the hot pixels of so many recordings, busiest first.

    Args:
        counts: OFF and ON events of all recordings, [2,H,W].
        firing: recordings in which a pixel has events, [H,W].
        recordings: their number.
    """
    import numpy as np

    _, height, width = counts.shape
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)), mode="reflect")  # a line goes on across the edge
    around = np.stack(
        [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    )  # [8,2,H,W]
    total, busy = counts.sum(0), np.sort(around.sum(1), axis=0)[-2]
    hot = (total > HOT * np.maximum(busy, 1)) & (total >= recordings) & (firing >= HOT_IN * recordings)
    own = np.maximum(counts - np.median(around, axis=0), 0) / recordings  # [2,H,W]
    rows, columns = np.nonzero(hot)
    order = np.argsort(-total[rows, columns], kind="stable")
    return [
        HotPixel(int(x), int(y), float(own[0, y, x]), float(own[1, y, x]))
        for y, x in zip(rows[order], columns[order], strict=True)
    ]
