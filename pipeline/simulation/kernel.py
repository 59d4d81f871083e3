"""Compiled loops of the event-camera model: optical blur and the pixel circuit.

Axes: H, W sensor pixels; h, w map cells (finer than pixels); S samples in time; N events. Imported by
`pipeline.simulation.camera` at the first recording, because numba takes longer to import than the rest of the package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

PIXEL_BITS = 22
"""Bits of the pixel's number in a packed event, above the one of the polarity."""
TIME_SHIFT = PIXEL_BITS + 1
"""Bits below the time stamp in a packed event."""


@njit(cache=True, nogil=True)
def blur(image: Any, taps: Any) -> Any:
    """Convolve [h,w] float64 with symmetric 1-D taps [2R+1] along both axes; the border value goes on outside."""
    height, width = image.shape
    radius = len(taps) // 2
    rows = np.zeros((height, width))
    for i in range(height):
        for k in range(-radius, radius + 1):
            j0 = min(max(i + k, 0), height - 1)
            weight = taps[k + radius]
            for j in range(width):
                rows[i, j] += weight * image[j0, j]
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            total = 0.0
            for k in range(-radius, radius + 1):
                total += taps[k + radius] * rows[i, min(max(j + k, 0), width - 1)]
            out[i, j] = total
    return out


@njit(cache=True, nogil=True)
def pixel_events(
    level: Any,
    response: Any,
    row0: Any,
    col0: Any,
    width: int,
    step_us: float,
    theta_on: Any,
    theta_off: Any,
    phase: Any,
    rest: float,
    blank: float,
    refractory: Any,
    leak_per_us: Any,
    noise: Any,
    shot_start: Any,
    shot_us: Any,
    shot_on: Any,
    out: Any,
) -> int:
    """Run every pixel's circuit through the recording, one sample of the light after the other.

    A pixel sees the map under it, low-passes it, and compares the result with the level it memorised at its last
    event. After an event it is held for its refractory period and memorises the level at the release. A leaking
    memory acts as a steady rise of the signal. Crossing times are interpolated linearly between samples.

    Args:
        level: [F,F,h,w] float64, natural logarithm of the light; the map cells of one pixel are split over the first
            two axes (F cells per pixel and axis), so that neighbouring pixels read neighbouring memory.
        response: like `level`, part of a change that the photoreceptor follows within a sample; 1 = at once.
        row0: [S] float64, cell under sensor row 0 at each sample; no pixel may ever leave the map.
        col0: [S] float64, the same for columns.
        width: pixels in a row of the sensor.
        step_us: time between samples.
        theta_on: [H*W] float64, ON thresholds in log units.
        theta_off: [H*W] float64, OFF thresholds in log units.
        phase: [H*W] float64, how far between two thresholds the pixel begins, 0 to 1.
        rest: of the settings.
        blank: natural logarithm of the light before the image appeared; nan where it did not.
        refractory: [H*W] float64 microseconds, whole numbers.
        leak_per_us: [H*W] float64, log units per microsecond.
        noise: [M] float64, relative deviations of the threshold from event to event, used in turn.
        shot_start: [H*W+1] int64, where each pixel's shot-noise events begin in the next two.
        shot_us: float64, their times, ascending within a pixel.
        shot_on: uint8, their polarities.
        out: [capacity] int64, receives packed events (see `TIME_SHIFT`), not in order.

    Returns:
        The number of events; where it exceeds the capacity, the rest was not written and a larger `out` is needed.
    """
    pixels = len(theta_on)
    draws = len(noise)
    light_frame, follow_frame = np.empty((pixels // width, width)), np.empty((pixels // width, width))
    light, follow = light_frame.reshape(pixels), follow_frame.reshape(pixels)
    _sample_light(level, response, row0[0], col0[0], light_frame, follow_frame)
    filtered, before = light.copy(), light.copy()
    first = 1.0 + noise[np.arange(pixels) % draws]
    on, off = theta_on * first, theta_off * first
    if np.isnan(blank):
        below = (1.0 - rest) * off
        reference = filtered - (phase * (on + below) - below)
    else:
        reference = np.empty(pixels)
        for q in range(pixels):
            left = _within(phase[q] * (on[q] + off[q]) - off[q] + filtered[q] - blank, on[q], off[q])
            reference[q] = filtered[q] - _within(left + rest * on[q], on[q], off[q])
    upper, lower = reference + on, reference - off
    release = np.full(pixels, -1.0)  # end of the hold; -1 = not held
    next_shot = shot_start[:-1].copy()
    shot_due = np.full(pixels, np.inf)
    for q in range(pixels):
        if next_shot[q] < shot_start[q + 1]:
            shot_due[q] = shot_us[next_shot[q]]
    count = 0
    draw = pixels
    for k in range(1, len(row0)):
        now = k * step_us
        start = now - step_us
        _sample_light(level, response, row0[k], col0[k], light_frame, follow_frame)
        for q in range(pixels):
            filtered[q] += (light[q] - filtered[q]) * follow[q]
        for q in range(pixels):
            after = filtered[q] + leak_per_us[q] * now
            if release[q] <= now and (
                release[q] >= 0.0 or after >= upper[q] or after <= lower[q] or shot_due[q] <= now
            ):
                slope = (after - before[q]) / step_us
                cursor = start
                while True:
                    if release[q] >= 0.0:
                        if release[q] > now:
                            break
                        cursor = release[q]
                        release[q] = -1.0
                        reference[q] = before[q] + slope * (cursor - start)
                        upper[q], lower[q] = reference[q] + on[q], reference[q] - off[q]
                        # Shot noise that falls into the hold is lost, as any change is.
                        while shot_due[q] < cursor:
                            next_shot[q] += 1
                            shot_due[q] = shot_us[next_shot[q]] if next_shot[q] < shot_start[q + 1] else np.inf
                    polarity = -1
                    when = now
                    if after >= upper[q]:
                        polarity = 1
                        when = start + (upper[q] - before[q]) / slope if slope > 0.0 else cursor
                    elif after <= lower[q]:
                        polarity = 0
                        when = start + (lower[q] - before[q]) / slope if slope < 0.0 else cursor
                    when = min(max(when, cursor), now)
                    if shot_due[q] <= when:
                        when, polarity = shot_due[q], int(shot_on[next_shot[q]])
                        next_shot[q] += 1
                        shot_due[q] = shot_us[next_shot[q]] if next_shot[q] < shot_start[q + 1] else np.inf
                    if polarity < 0:
                        break
                    if count < len(out):
                        out[count] = (np.int64(when) << TIME_SHIFT) | (q << 1) | polarity
                    count += 1
                    draw += 1
                    factor = 1.0 + noise[draw % draws]
                    on[q], off[q] = theta_on[q] * factor, theta_off[q] * factor
                    release[q] = when + refractory[q]
            before[q] = after
    return count


@njit(cache=True)
def _within(difference: float, on: float, off: float) -> float:
    """Return what is left of a difference from the memorised level once its events are over."""
    return (
        difference - np.floor(difference / on) * on
        if difference > 0.0
        else difference + np.floor(-difference / off) * off
    )


@njit(cache=True)
def _sample_light(level: Any, response: Any, row: float, col: float, light: Any, follow: Any) -> None:
    """Fill `light` and `follow` [H,W] with the values under the pixels, bilinear between map cells."""
    fine = level.shape[0]
    i, j = int(np.floor(row)), int(np.floor(col))
    b, a = row - i, col - j
    height, width = light.shape
    w00, w01, w10, w11 = (1.0 - b) * (1.0 - a), (1.0 - b) * a, b * (1.0 - a), b * a
    top0, top1 = i // fine, (i + 1) // fine
    left0, left1 = j // fine, (j + 1) // fine
    i0, i1, j0, j1 = i % fine, (i + 1) % fine, j % fine, (j + 1) % fine
    for source, target in ((level, light), (response, follow)):
        for y in range(height):
            # Slices of equal length let the compiler use vector instructions.
            c00 = source[i0, j0, top0 + y, left0 : left0 + width]
            c01 = source[i0, j1, top0 + y, left1 : left1 + width]
            c10 = source[i1, j0, top1 + y, left0 : left0 + width]
            c11 = source[i1, j1, top1 + y, left1 : left1 + width]
            row_out = target[y]
            for x in range(width):
                row_out[x] = w00 * c00[x] + w01 * c01[x] + w10 * c10[x] + w11 * c11[x]
