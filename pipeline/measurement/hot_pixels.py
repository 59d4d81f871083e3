"""Pixels that fire by themselves, found by their neighbours, which do not.

Axes: H, W of a sensor in pixels, or of a frame in cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # recipes name hot pixels, and are read without numpy
    from numpy.typing import NDArray

HOT, HOT_IN = 5.0, 0.5
"""A pixel is hot where it has so many times the events of the busiest but one of its eight neighbours (so that of two
side by side both are), over all recordings; and events in this share of them."""
STILL, FEWEST_STILL = 0.25, 5
"""Or where it fires in that share of the recordings in which all its neighbours but one are silent: what passes over it
in others says nothing. So many of these, as a share and a number, there have to be."""


class HotPixel(NamedTuple):
    """A pixel that fires by itself."""

    x: int
    y: int
    off: float
    """OFF events in a recording, of its own."""
    on: float
    """The same of ON events."""


def find_hot_pixels(recordings: Iterable[NDArray[Any]]) -> list[HotPixel]:
    """Return the hot pixels of recordings, busiest first.

    Args:
        recordings: OFF and ON events of each, [2,H,W].
    """
    import numpy as np

    # Over all recordings, and over those that are still around a pixel: events [2,H,W], and how many have some.
    sums: list[Any] = []
    n = 0
    for one in recordings:
        n += 1
        total = one.sum(0)
        still = _busiest_but_one(total) == 0
        found = (one, total > 0, one * still, (total > 0) & still, still)
        sums = [part + more for part, more in zip(sums or [0.0] * len(found), found, strict=True)]
    if not sums:
        return []
    events, firing, alone, fires_alone, quiet = sums
    total = events.sum(0)
    loud = (total > HOT * np.maximum(_busiest_but_one(total), 1)) & (total >= n) & (firing >= HOT_IN * n)
    seen = quiet >= max(FEWEST_STILL, STILL * n)
    steady = seen & (alone.sum(0) >= quiet) & (fires_alone >= HOT_IN * quiet)
    own = np.maximum(events - np.median(_neighbours(events), axis=0), 0) / n
    rates = np.where(seen, alone / np.maximum(quiet, 1), own)  # [2,H,W]
    rows, columns = np.nonzero(loud | steady)
    order = np.argsort(-rates.sum(0)[rows, columns], kind="stable")
    return [
        HotPixel(int(x), int(y), float(rates[0, y, x]), float(rates[1, y, x]))
        for y, x in zip(rows[order], columns[order], strict=True)
    ]


def _neighbours(maps: NDArray[Any]) -> NDArray[Any]:
    """Return the eight neighbours [8,...,H,W] of each pixel of maps [...,H,W]; lines go on across the edge."""
    import numpy as np

    height, width = maps.shape[-2:]
    padded = np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(1, 1)] * 2, mode="reflect")
    places = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return np.stack([padded[..., i : i + height, j : j + width] for i, j in places])


def _busiest_but_one(total: NDArray[Any]) -> NDArray[Any]:
    """Return the events of the second of each pixel's neighbours [H,W], the busiest first."""
    import numpy as np

    found: NDArray[Any] = np.partition(_neighbours(total), -2, axis=0)[-2]
    return found
