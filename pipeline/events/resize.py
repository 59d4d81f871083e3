"""Pixels that a resize reads along one axis, and their weights: the two conventions of torch's `interpolate`.

Axes: length pixels of the original, S pixels of the result.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1024)
def aligned_weights(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the output cells that an input pixel reaches with aligned corners, and the weights.

    Returns:
        starts [length + 1], cells and weights: pixel i reaches cells[starts[i]:starts[i + 1]].
        The arithmetic is in float32, as in torch's `interpolate(mode="bilinear", align_corners=True)`.
    """
    step = np.float32(length - 1) / np.float32(size - 1) if size > 1 else np.float32(0)
    position = np.arange(size, dtype=np.float32) * step
    low = np.minimum(position.astype(np.int64), length - 1)
    upper_weight = np.minimum(position - low.astype(np.float32), np.float32(1))
    high = np.minimum(low + 1, length - 1)
    pixel = np.concatenate([low, high])
    cell = np.concatenate([np.arange(size), np.arange(size)])
    weight = np.concatenate([np.float32(1) - upper_weight, upper_weight])
    kept = weight > 0
    pixel, cell, weight = pixel[kept], cell[kept], weight[kept]
    order = np.lexsort((cell, pixel))
    starts = np.searchsorted(pixel[order], np.arange(length + 1))
    return starts.astype(np.int64), cell[order].astype(np.int64), weight[order].astype(np.float32)


@lru_cache(maxsize=1024)
def centred_samples(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the two input pixels that an output cell mixes with pixel centres aligned, and the weight of the second.

    Returns:
        low, high and weight, each [S]; in float32, as in torch's `interpolate(mode="bilinear", align_corners=False)`.
        With S = length every weight is 0: nothing changes.
    """
    step = np.float32(length) / np.float32(size)
    position = np.maximum(step * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(position.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    return low, high, position - low.astype(np.float32)
