"""What the numbers of a recording's columns are together, found block by block before one of them becomes an event.

Axes: N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.events.packing import LARGEST_SENSOR

MOST_PIXELS = 2**14
"""Of a side: no sensor is larger."""
POLARITIES = (-1, 0, 1, 2)
"""What stands for a polarity in any file."""


class Numbers:
    """What the numbers of a column are; of one without numbers no more than its type is known."""

    def __init__(self) -> None:
        self.count = 0
        self.dtype: np.dtype[Any] = np.dtype(np.bool_)
        self.low: Any = None
        self.high: Any = None
        self.first: Any = None
        self.last: Any = None
        self.finite = self.whole = self.ordered = True
        self.polarities = set[int]()
        """Those of `POLARITIES` that occur."""
        self.others = False
        """Other numbers occur."""

    @classmethod
    def of(cls, column: NDArray[Any]) -> Numbers:
        """Return what the numbers [N] of a whole column are."""
        found = cls()
        found.add(column)
        return found

    def add(self, column: NDArray[Any]) -> None:
        """Look at the next numbers [N]."""
        self.dtype = column.dtype if not self.count else np.result_type(self.dtype, column.dtype)
        if not len(column) or column.dtype.kind not in "iufb":
            return
        column = np.ascontiguousarray(column)
        low, high = column.min(), column.max()
        if column.dtype.kind == "f":
            self.finite &= bool(np.isfinite(column).all())
            self.whole &= bool((column == np.floor(column)).all())
        if self.ordered:
            follows = not self.count or bool(column[0] >= self.last)
            self.ordered = follows and bool((column[1:] >= column[:-1]).all())
        self.others |= not (low >= POLARITIES[0] and high <= POLARITIES[-1])
        if not self.others:
            found = {value for value in POLARITIES if low <= value <= high and (column == value).any()}
            self.others = sum(int(np.count_nonzero(column == value)) for value in found) < len(column)
            self.polarities |= found
        if not self.count:
            self.low, self.high, self.first = low, high, column[0]
        self.low, self.high, self.last = min(self.low, low), max(self.high, high), column[-1]
        self.count += len(column)

    @property
    def extremes(self) -> NDArray[Any]:
        """Return the least and the largest number, [2] of the column's type; [0] where there are none."""
        return np.array([self.low, self.high], self.dtype) if self.count else np.empty(0, self.dtype)

    @property
    def are_pixels(self) -> bool:
        """Return whether they may be coordinates."""
        return self.whole and self.low >= 0 and self.high < MOST_PIXELS

    @property
    def are_polarities(self) -> bool:
        """Return whether they are of two kinds: 0 and 1, -1 and 1, or 1 and 2; one of the kinds may be absent."""
        return not self.others and self.polarities <= {self.low, self.high} not in ({-1, 0}, {0, 2}, {-1, 2})


class Pixels:
    """The pixels that saw an event, marked on a map that grows as far as events reach."""

    def __init__(self) -> None:
        self._seen = np.zeros((0, 0), np.bool_)  # [H,W]

    def add(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> None:
        """Mark the pixels of events [N]; those beyond any sensor are left out, and refused elsewhere."""
        if not len(x):
            return
        reach = int(y.max()) + 1, int(x.max()) + 1
        if min(int(x.min()), int(y.min())) < 0 or reach[0] > LARGEST_SENSOR[1] or reach[1] > LARGEST_SENSOR[0]:
            inside = (x >= 0) & (y >= 0) & (x < LARGEST_SENSOR[0]) & (y < LARGEST_SENSOR[1])
            self.add(x[inside], y[inside])
            return
        height, width = self._seen.shape
        if reach[0] > height or reach[1] > width:
            grown = np.zeros((max(height, reach[0]), max(width, reach[1])), np.bool_)
            grown[:height, :width] = self._seen
            self._seen = grown
        self._seen.reshape(-1)[y * self._seen.shape[1] + x] = True

    @property
    def count(self) -> int:
        """Return their number."""
        return int(np.count_nonzero(self._seen))
