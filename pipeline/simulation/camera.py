"""A model of an event camera that makes saccades in front of a static image.

Axes: H, W image or sensor pixels; h, w cells of the finer map; S samples in time; N events. Positions are (x, y) in
sensor pixels, x to the right, y down. Times are microseconds from the start of the recording.

The image is shown on a dark display and moves over the sensor along an isosceles triangle, as in N-MNIST; a pixel
emits an event whenever the logarithm of its light has moved by a contrast threshold since its last event, and it is
bandwidth-limited, noisy, and dead for a moment after each event.

Source: Orchard et al. 2015, "Converting static image datasets to spiking neuromorphic datasets using saccades"
(display and movement); Rebecq et al. 2018, "ESIM: an open event camera simulator" (thresholds on log intensity,
linear interpolation of crossing times); Hu et al. 2021, "v2e: from video frames to realistic DVS events" (threshold
mismatch, bandwidth that falls with the light, leak and shot noise, refractory period).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.bin40 import MAX_TIME_US
from spikebridge.pipeline.simulation.settings import SimulatorSettings

MODEL_VERSION = 1
"""Goes up with every change that alters recordings."""
LARGE_SENSOR = 2**17
"""Pixels from which room is made for 4 events of a pixel at first, not 16."""
SUPERSAMPLE = 3
"""Map cells per sensor pixel and axis: fine enough for a smooth edge at blurs of half a pixel and more."""
_NOISE_DRAWS = 4093
"""Threshold deviations drawn per recording; a prime, so that pixels do not fall into step."""


def simulate(image: NDArray[np.uint8], *, settings: SimulatorSettings, seed: int, key: str) -> Events:
    """Simulate the recording of one static image.

    Args:
        image: [H,W] uint8 luminance, any size from 1x1; resampled to the size at which it is shown.
        settings: the camera, the display and the movement.
        seed: root seed of the data set, 0 or more; also fixes the camera's pixel mismatch.
        key: name of the recording; with the seed it decides everything random, so results depend neither on the
            order of calls nor on the number of workers.

    Returns:
        Events in order of time (then row, column), t from the start of the recording, 0 <= t <= about
        `settings.duration_us`. An image without contrast gives noise only; without noise, no events.

    Raises:
        RecordingError: the image is not a non-empty [H,W] uint8 array (`image`).
        SettingsError: a negative seed.

    Source: see the module; the parameters are fitted to N-MNIST.
    Differs: the reference is memorised at the end of the refractory period, as the reset of a real pixel does; ESIM
    keeps it at the threshold that was crossed.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise RecordingError(
            f"{key}: image of shape {image.shape} and dtype {image.dtype}; expected [H,W] uint8 luminance, at least "
            "one pixel. Convert it first.",
            reason="image",
        )
    if seed < 0:
        raise SettingsError(f"seed = {seed}; expected 0 or more.")
    from spikebridge.pipeline.simulation.kernel import PIXEL_BITS, TIME_SHIFT, pixel_events

    s = settings
    shape = (s.sensor_height_px, s.sensor_width_px)
    rng = make_generator(seed, f"recording/{key}")
    duration = _draw_duration_us(s, rng)
    level, response = _map_light(image, s)
    blank = float(level[0, 0]) if s.appeared else math.nan
    times = np.arange(math.ceil(duration / s.sample_us) + 1, dtype=np.float64) * s.sample_us  # [S]
    x, y = _draw_path(times, s, rng)
    row0, level_rows = _find_cells(y, level.shape[0], shape[0])
    col0, level_cols = _find_cells(x, level.shape[1], shape[1])
    level, response = (_split_by_pixel(m, level_rows, level_cols) for m in (level, response))  # [F,F,h,w]
    mismatch_on, mismatch_off, refractory = _draw_camera(seed, s)
    gain = math.exp(s.threshold_jitter * rng.standard_normal())
    theta_on, theta_off = s.threshold_on * gain * mismatch_on, s.threshold_off * gain * mismatch_off
    phase = rng.random(len(theta_on))
    noise = np.clip(s.threshold_noise * rng.standard_normal(_NOISE_DRAWS), -0.9, None)
    shot_start, shot_us, shot_on = _draw_shot_noise(s, duration, rng)
    pixels = shape[0] * shape[1]
    capacity = (16 if pixels < LARGE_SENSOR else 4) * pixels + len(shot_us)
    while True:
        packed = np.empty(capacity, np.int64)
        count = pixel_events(
            level, response, row0, col0, shape[1], float(s.sample_us), theta_on, theta_off, phase, s.rest,
            blank, refractory, theta_on * (s.leak_hz * 1e-6), noise, shot_start, shot_us, shot_on, packed,
        )  # fmt: skip
        if count <= capacity:
            break
        capacity = count
    packed = np.sort(packed[:count])  # [N]
    t = packed >> TIME_SHIFT
    keep = t <= duration  # the last sample may lie past the end
    pixel = (packed >> 1 & 2**PIXEL_BITS - 1).astype(np.int32)
    return Events(
        t[keep],
        (pixel % shape[1])[keep],
        (pixel // shape[1])[keep],
        (packed & 1).astype(np.uint8)[keep],
    )


def make_generator(seed: int, name: str) -> np.random.Generator:
    """Return random numbers for one named purpose; different names or seeds give independent streams.

    Returns:
        A fresh generator, the same for the same arguments on every machine.
    """
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()])))


def _draw_duration_us(s: SimulatorSettings, rng: np.random.Generator) -> int:
    """Draw the length of this recording in microseconds, within the range of the format."""
    return int(min(max(s.duration_us + s.duration_jitter_us * rng.standard_normal(), 1.0), MAX_TIME_US))


def _map_light(image: NDArray[np.uint8], s: SimulatorSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the light on the sensor, `SUPERSAMPLE` cells per pixel, with a margin of background.

    Returns:
        [h,w] float64 natural logarithm of the light, and [h,w] float64 part of a change that the
        photoreceptor follows within one sample.
    """
    from spikebridge.pipeline.simulation.kernel import blur

    scale = s.shown_fraction * min(s.sensor_width_px / image.shape[1], s.sensor_height_px / image.shape[0])
    width, height = (max(1, round(n * scale * SUPERSAMPLE)) for n in (image.shape[1], image.shape[0]))
    # Mode F keeps fractions of a grey level, which the logarithm would turn into steps.
    resized = Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    sigma = s.blur_px * SUPERSAMPLE
    margin = math.ceil(3 * sigma) + 2
    grey = np.pad(np.asarray(resized, np.float64), margin, constant_values=s.background)  # [h,w]
    grey = np.clip(grey / 255, 0, 1)
    light = (1 - grey if s.inverted else grey) ** s.gamma
    if sigma > 0:
        offsets = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
        taps = np.exp(-0.5 * (offsets / sigma) ** 2)
        light = blur(light, taps / taps.sum())
    light = light + s.dark_level
    if s.bandwidth_hz == 0:
        return np.log(light), np.ones_like(light)
    rate = light * (2 * math.pi * s.bandwidth_hz * 1e-6 / (1 + s.dark_level)) * s.sample_us
    return np.log(light), rate / (1 + rate)  # implicit Euler, stable at any rate


def _draw_path(
    times: NDArray[np.float64], s: SimulatorSettings, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the centre of the image in sensor pixels at each time: x [S], y [S]."""
    jitter = s.position_jitter_px * rng.standard_normal(2)
    x = np.full(len(times), (s.sensor_width_px - 1) / 2 + s.x_offset_px + jitter[0])
    y = np.full(len(times), (s.sensor_height_px - 1) / 2 + s.y_offset_px + jitter[1])
    for saccade in s.saccades:
        late = s.timing_jitter_us * rng.standard_normal()
        grow_x, grow_y = 1 + s.amplitude_jitter * rng.standard_normal(2)
        way_x = saccade.x_px * grow_x * _ease((times - saccade.x_start_us - late) / saccade.x_duration_us)
        way_y = saccade.y_px * grow_y * _ease((times - saccade.y_start_us - late) / saccade.y_duration_us)
        if s.free:
            angle = 2 * math.pi * rng.random()
            cos, sin = math.cos(angle), math.sin(angle)
            way_x, way_y = cos * way_x - sin * way_y, sin * way_x + cos * way_y
            way_x, way_y = way_x - way_x.mean(), way_y - way_y.mean()
        x += way_x
        y += way_y
    return x, y


def _find_cells(centre: NDArray[np.float64], cells: int, pixels: int) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Find the map cell under sensor pixel 0 while the map's centre moves, along one axis.

    Args:
        centre: [S] position of the map's centre in pixels.
        cells: length of the map.
        pixels: length of the sensor.

    Returns:
        Cell under pixel 0 at each sample [S], counted in the padded map, and the padding (before, after) that keeps
        every pixel on the map; the padded length is a multiple of `SUPERSAMPLE`.
    """
    first = (cells - 1) / 2 - centre * SUPERSAMPLE
    span = pixels * SUPERSAMPLE
    first = np.clip(first, -span - 1, cells + 1)  # beyond, the sensor sees nothing but background
    pad = max(0, -math.floor(first.min()))
    after = max(0, math.ceil(first.max()) + span + 1 - cells)
    after += -(pad + cells + after) % SUPERSAMPLE
    return first + pad, (pad, after)


def _split_by_pixel(cells: NDArray[np.float64], rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.float64]:
    """Pad the map with its border and split the cells of a pixel off: [h,w] -> [F,F,h/F,w/F]."""
    f = SUPERSAMPLE
    full = np.full((sum(rows) + cells.shape[0], sum(cols) + cells.shape[1]), cells[0, 0])
    full[rows[0] : rows[0] + cells.shape[0], cols[0] : cols[0] + cells.shape[1]] = cells
    return np.ascontiguousarray(full.reshape(full.shape[0] // f, f, full.shape[1] // f, f).transpose(1, 3, 0, 2))


def _ease(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of a movement of raised-cosine speed: 0 before 0, 1 after 1."""
    f = np.clip(fraction, 0, 1)
    return f - np.sin(2 * math.pi * f) / (2 * math.pi)


@lru_cache(maxsize=8)
def _draw_camera(seed: int, s: SimulatorSettings) -> tuple[NDArray[np.float64], ...]:
    """Draw what is fixed in the camera of a seed, each [H*W] float64.

    Returns:
        Factors on the ON and the OFF threshold, refractory periods in whole microseconds.
    """
    rng = make_generator(seed, "camera")
    on, off, dead = rng.standard_normal((3, s.sensor_height_px * s.sensor_width_px))
    # A pixel below a fifth of the nominal threshold would fire without end.
    on, off = (np.maximum(1 + s.threshold_spread * z, 0.2) for z in (on, off))
    refractory = np.maximum(np.rint(s.refractory_us * np.maximum(1 + s.refractory_spread * dead, 0.5)), 1)
    return on, off, refractory


def _draw_shot_noise(
    s: SimulatorSettings, duration: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]:
    """Draw Poisson noise by pixel, that of hot pixels too: where each one's events begin [H*W+1], times, polarities."""
    pixels = s.sensor_height_px * s.sensor_width_px
    n = int(rng.poisson(s.shot_hz * pixels * duration * 1e-6))
    pixel, when, on = rng.integers(0, pixels, n), rng.random(n) * duration, rng.integers(0, 2, n, np.uint8)
    if s.hot_pixels:
        x, y, *rates = np.array(s.hot_pixels).T
        counts = rng.poisson(np.stack(rates) * duration * 1e-6)  # [2,K]
        pixel = np.r_[pixel, np.repeat(np.tile(y * s.sensor_width_px + x, 2).astype(np.int64), counts.ravel())]
        on = np.r_[on, np.repeat(np.array([0, 1], np.uint8), counts.sum(1))]
        when = np.r_[when, rng.random(counts.sum()) * duration]
    order = np.lexsort((when, pixel))
    start = np.zeros(pixels + 1, np.int64)
    np.cumsum(np.bincount(pixel, minlength=pixels), out=start[1:])
    return start, when[order], on[order]
