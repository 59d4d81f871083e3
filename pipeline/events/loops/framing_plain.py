"""What `pipeline.events.loops.framing` does, in numpy: for machines that train from stored events without numba.

The results are the same, to the bit; see there for what the arguments mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scatter_counts(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    frame_cells: int,
) -> int:
    """Add 1 to a cell of `counts` [T, frame_cells] (flat) for every event in a bin; returns the events used."""
    steps = np.repeat(np.arange(cuts.size - 1), np.diff(cuts))
    words = words[cuts[0] : cuts[-1]]
    cells = columns[words >> 12 & 0xFFF].astype(np.int64) + rows[words & 0xFFF]
    inside = cells < frame_cells
    counts += np.bincount(steps[inside] * frame_cells + cells[inside], minlength=counts.size).astype(np.uint32)
    return int(np.count_nonzero(inside))


def saturate(counts: NDArray[np.uint32], limit: int, out: NDArray[np.unsignedinteger]) -> int:
    """Write min(count, limit) into `out`; returns how many counts were above the limit."""
    out[:] = np.minimum(counts, limit)
    return int(np.count_nonzero(counts > limit))


def scatter_weights(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    left: int,
    top: int,
    x_starts: NDArray[np.int64],
    x_cells: NDArray[np.int64],
    x_weights: NDArray[np.float32],
    y_starts: NDArray[np.int64],
    y_cells: NDArray[np.int64],
    y_weights: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> int:
    """Add every event to the cells that its pixel reaches, times its axis weights; returns the events used."""
    steps = np.repeat(np.arange(cuts.size - 1), np.diff(cuts))
    words = words[cuts[0] : cuts[-1]]
    x, y = (words >> 12 & 0xFFF) - left, (words >> 1 & 0x7FF) - top
    inside = (x >= 0) & (x < x_starts.size - 1) & (y >= 0) & (y < y_starts.size - 1)
    x, y, p, steps = x[inside], y[inside], words[inside] & 1, steps[inside]
    across, down = x_starts[x + 1] - x_starts[x], y_starts[y + 1] - y_starts[y]
    each = across * down  # [N] cells of an event, in the order of the rows
    event = np.repeat(np.arange(len(x)), each)
    within = np.arange(event.size) - np.repeat(np.cumsum(each) - each, each)
    row = y_starts[y[event]] + within // across[event]
    column = x_starts[x[event]] + within % across[event]
    place = (steps[event], p[event], y_cells[row], x_cells[column])
    np.add.at(weights, place, y_weights[row] * x_weights[column])
    return int(np.count_nonzero(inside))


def scatter_shares(
    words: NDArray[np.int64],
    places: NDArray[np.float64],
    values: NDArray[np.float64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    sums: NDArray[np.float32],
) -> int:
    """Share the value of every event between the steps of `sums` [T, cells] on both sides of its place."""
    steps = places.astype(np.int64)
    cells = columns[words >> 12 & 0xFFF].astype(np.int64) + rows[words & 0xFFF]
    inside = (steps < len(sums)) & (cells < sums.shape[1])
    steps, cells, places, values = steps[inside], cells[inside], places[inside], values[inside]
    later = places - steps
    both = np.stack([values * (1 - later), values * later], axis=1).astype(np.float32)  # [N,2] in the order of events
    there = np.stack([steps, steps + 1], axis=1)
    kept = there < len(sums)
    np.add.at(sums, (there[kept], np.stack([cells, cells], axis=1)[kept]), both[kept])
    return int(np.count_nonzero(inside))


def keep_latest(
    words: NDArray[np.int64],
    cuts: NDArray[np.int64],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    latest: NDArray[np.int64],
) -> int:
    """Write the times of the latest events of every bin and cell into `latest` [T, cells, K], the last one first."""
    steps = np.repeat(np.arange(cuts.size - 1), np.diff(cuts))
    words = words[cuts[0] : cuts[-1]]
    cells = columns[words >> 12 & 0xFFF].astype(np.int64) + rows[words & 0xFFF]
    inside = cells < latest.shape[1]
    flat = (steps[inside] * latest.shape[1] + cells[inside])[::-1]  # the last event first
    order = np.argsort(flat, kind="stable")
    places, first, count = np.unique(flat[order], return_index=True, return_counts=True)
    rank = np.empty(len(flat), np.int64)
    rank[order] = np.arange(len(flat)) - np.repeat(first, count)  # of an event in its cell
    depth = latest.shape[2]
    kept = rank < depth
    new = np.full((len(places), 2 * depth), -1, np.int64)
    new[np.searchsorted(places, flat[kept]), rank[kept]] = (words[inside] >> 24)[::-1][kept]
    rows_of = latest.reshape(-1, depth)
    new[:, depth:] = rows_of[places]  # of chunks before
    rows_of[places] = -np.sort(-new, axis=1)[:, :depth]
    return int(np.count_nonzero(inside))


def count_pixels(x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], counts: NDArray[np.int32]) -> None:
    """Add 1 to `counts[p, y, x]` for every event; expects coordinates inside."""
    np.add.at(counts, (p, y, x), np.int32(1))
