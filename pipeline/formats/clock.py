"""Clocks of 32 bits that count microseconds: they wrap after 71 minutes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WRAP_US = 2**32


class Clock:
    """Finds where the times of a recording, given block by block, fall by more than half of the clock's range."""

    def __init__(self) -> None:
        self._count = 0
        self._latest = 0
        self._wraps: list[int] = []

    def add(self, t: NDArray[Any]) -> None:
        """Look at the next times [N], as stored."""
        if not len(t):
            return
        limit = np.int64(WRAP_US // 2)
        if self._count and self._latest - int(t[0]) > limit:
            self._wraps.append(self._count)
        if int(t.max()) - int(t.min()) > limit:  # else no step can be that large
            steps = np.flatnonzero(np.diff(t.astype(np.int64)) < -limit)
            self._wraps += (steps[:2] + 1 + self._count).tolist()
        self._count += len(t)
        self._latest = int(t[-1])

    @property
    def wrap(self) -> int | None:
        """Return the position of the first event after the wrap, where there was exactly one; else None."""
        return self._wraps[0] if len(self._wraps) == 1 else None

    def unwrap(self, t: NDArray[np.int64], before: int) -> NDArray[np.int64]:
        """Undo the wrap in times [N], which lie behind `before` others; in place."""
        if self.wrap is not None and before + len(t) > self.wrap:
            t[max(0, self.wrap - before) :] += WRAP_US
        return t


def unwrapped(t: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """Undo the wrap of a clock, in place, where times fall exactly once by more than half of its range; say whether."""
    clock = Clock()
    clock.add(t)
    return clock.unwrap(t, 0), clock.wrap is not None
