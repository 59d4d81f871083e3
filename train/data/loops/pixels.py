"""The pixels of the training simulator on a CPU, compiled: the events of `train.data.simulation`, to the bit.

Axes: B samples, S = T * instants of a bin, T time bins, n grid pixels. Loops are kept apart so that each is vectorised,
and none adds a product in one rounding: torch rounds after every operation, and so does this.
"""

# numba infers the types:
# mypy: ignore-errors

from __future__ import annotations

import numba
import numpy as np


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
    zero, one = np.float32(0), np.float32(1)
    steps, n = light.shape[1] - 1, light.shape[2]
    instants = steps // counts.shape[0]
    moved, lost, events = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for b in range(lo, hi):
        filtered = level[b, 0].copy()
        between, up, down, leaked = difference[b], on[b], off[b], rise[b]
        for k in range(1, steps + 1):
            ons, offs = counts[(k - 1) // instants, b, 1], counts[(k - 1) // instants, b, 0]
            now, bright = level[b, k], light[b, k]
            for p in range(n):
                follow = bright[p] * speed[b, 0]
                moved[p] = (now[p] - filtered[p]) * (follow / (one + follow))
            for p in range(n):
                filtered[p] += moved[p]
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
