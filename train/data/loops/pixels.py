"""The pixels of the training simulator on a CPU, compiled: the events of `train.data.simulation`, to the bit.

Axes: B samples, S = T * instants of a bin, T time bins, n grid pixels. Loops are kept apart so that each is vectorised,
and none adds a product in one rounding: torch rounds after every operation, and so does this.
"""

# numba infers the types:
# mypy: ignore-errors

from __future__ import annotations

import numba
import numpy as np

from spikebridge.train.config.simulation_ranges import STILL


@numba.njit(nogil=True, cache=True, error_model="numpy")
def count_events(light, level, speed, on, off, rise, dead, difference, counts, lo, hi):
    """Add the events of the samples lo <= b < hi to counts [T,B,2,n], OFF before ON; all are float32.

    Args:
        light: [B,S+1,n], the dark level included.
        level: its logarithm.
        speed: [B,1], what the light is multiplied by for the share of a change that a pixel follows in an instant.
        on: ON thresholds [B,n].
        off: OFF thresholds [B,n].
        rise: [B,n], what the memory leaks by in an instant.
        dead: [B,1], instants that a pixel is blind for after an event.
        difference: [B,n], filtered minus memorised level at the start; overwritten.
        counts: see above.
        lo: first sample.
        hi: the one after the last.
    """
    zero = np.float32(0)
    steps, n = light.shape[1] - 1, light.shape[2]
    instants = steps // counts.shape[0]
    moved, lost, events = np.empty((3, n), np.float32)
    for b in range(lo, hi):
        filtered = level[b, 0].copy()
        between, up, down, leaked = difference[b], on[b], off[b], rise[b]
        for k in range(1, steps + 1):
            ons, offs = counts[(k - 1) // instants, b, 1], counts[(k - 1) // instants, b, 0]
            _follow(light[b, k], level[b, k], speed[b, 0], filtered, moved)
            for p in range(n):
                lost[p] = abs(moved[p]) * dead[b, 0]
            for p in range(n):
                between[p] = (between[p] + moved[p]) + leaked[p]
            for p in range(n):
                crossed = between[p] / (up[p] + lost[p])
                events[p] = np.floor(crossed if crossed > zero else zero)
            for p in range(n):  # those below, while `between` is still that of all
                crossed = between[p] / (down[p] + lost[p])
                moved[p] = np.floor(-(crossed if crossed < zero else zero))
            for p in range(n):
                between[p] = between[p] - events[p] * (up[p] + lost[p])
                ons[p] += events[p]
            for p in range(n):
                between[p] = between[p] + moved[p] * (down[p] + lost[p])
                offs[p] += moved[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def count_events_of_blind(light, level, speed, on, off, rise, dead, difference, counts, lo, hi):
    """Add the events as `count_events` does, of pixels that are blind after an event."""
    zero = np.float32(0)
    steps, n = light.shape[1] - 1, light.shape[2]
    instants = steps // counts.shape[0]
    moved, way, seen, events, blind = np.empty((5, n), np.float32)
    for b in range(lo, hi):
        filtered = level[b, 0].copy()
        blind[:] = zero
        for k in range(1, steps + 1):
            ons, offs = counts[(k - 1) // instants, b, 1], counts[(k - 1) // instants, b, 0]
            _follow(light[b, k], level[b, k], speed[b, 0], filtered, moved)
            for p in range(n):
                moved[p] = moved[p] + rise[b, p]
            _see(moved, difference[b], blind, seen)
            _fire(moved, on[b], off[b], dead[b, 0], seen, difference[b], blind, way, events)
            for p in range(n):
                ons[p] += events[p] if moved[p] > zero else zero
            for p in range(n):
                offs[p] += zero if moved[p] > zero else events[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _follow(bright, now, speed, filtered, moved):
    """Take filtered levels [n] towards those `now`, and say how far each `moved`."""
    one = np.float32(1)
    for p in range(len(moved)):
        follow = bright[p] * speed
        moved[p] = (now[p] - filtered[p]) * (follow / (one + follow))
    for p in range(len(moved)):
        filtered[p] += moved[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _see(moved, between, blind, seen):
    """Say for how much of an instant each pixel [n] sees, and move its difference by as much."""
    zero, one = np.float32(0), np.float32(1)
    for p in range(len(moved)):
        seeing, waits = one - blind[p], blind[p] - one
        seen[p] = seeing if seeing > zero else zero
        blind[p] = waits if waits > zero else zero
    for p in range(len(moved)):
        between[p] = between[p] + moved[p] * seen[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fire(moved, up, down, dead, seen, between, blind, way, events):
    """Say how many `events` each pixel [n] has in an instant; see `_compare_blind` of `train.data.simulation`."""
    zero, one, least, n = np.float32(0), np.float32(1), np.float32(STILL), len(moved)
    threshold, pace, since, period = np.empty((4, n), np.float32)
    for p in range(n):
        threshold[p] = up[p] if moved[p] > zero else down[p]
        way[p] = between[p] if moved[p] > zero else -between[p]
    for p in range(n):
        fast = abs(moved[p])
        pace[p] = fast if fast > least else least
    for p in range(n):
        since[p] = (way[p] - threshold[p]) / pace[p]
        period[p] = dead + threshold[p] / pace[p]
    for p in range(n):
        since[p] = since[p] if since[p] < seen[p] else seen[p]
    for p in range(n):
        events[p] = np.floor(since[p] / period[p])
    for p in range(n):
        since[p] = since[p] - events[p] * period[p]
    for p in range(n):
        events[p] = events[p] + one if way[p] >= threshold[p] else zero
    for p in range(n):
        seeing = since[p] - dead
        ahead = (seeing if seeing > zero else zero) * pace[p]
        ahead = ahead if moved[p] > zero else -ahead
        between[p] = ahead if way[p] >= threshold[p] else between[p]
    for p in range(n):
        waits = dead - since[p]
        waits = waits if waits > zero else zero
        blind[p] = waits if way[p] >= threshold[p] else blind[p]
