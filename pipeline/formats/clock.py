"""Clocks of 32 bits that count microseconds: they wrap after 71 minutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WRAP_US = 2**32


def unwrapped(t: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """Undo the wrap of a clock, where times fall exactly once by more than half of its range; say whether it was."""
    wraps = np.flatnonzero(np.diff(t) < -(WRAP_US // 2))
    if len(wraps) != 1:
        return t, False
    return np.concatenate([t[: wraps[0] + 1], t[wraps[0] + 1 :] + WRAP_US]), True
