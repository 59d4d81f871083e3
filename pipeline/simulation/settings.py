"""The settings of the event-camera model: sensor, display, pixels, noise, and movement.

Positions are (x, y) in sensor pixels, x to the right, y down. Times are microseconds from the start of the recording.

Source: see `pipeline.simulation.camera`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.fitting import ASKED_SHOWN, FITTED_SIZES
from spikebridge.pipeline.base.settings import field_problems, setting
from spikebridge.pipeline.formats.bin40 import MAX_TIME_US

MOST_HZ = 1e6
"""Highest rate of a hot pixel."""
MOST_PIXELS = 2048
"""Largest width and height of a sensor."""


@dataclass(frozen=True)
class Saccade:
    """One saccade; the two motors start and stop on their own, each with a smooth (raised cosine) speed."""

    x_px: float = setting(low=-MOST_PIXELS, high=MOST_PIXELS)
    """Displacement of the image on the sensor to the right, in sensor pixels; -2048 to 2048."""
    y_px: float = setting(low=-MOST_PIXELS, high=MOST_PIXELS)
    """Displacement downwards, in sensor pixels; -2048 to 2048."""
    x_start_us: int = setting(low=-MAX_TIME_US, high=MAX_TIME_US)
    """Start of the horizontal movement; below 0 before the recording."""
    x_duration_us: int = setting(low=1, high=2 * MAX_TIME_US)
    """Duration of the horizontal movement, which may begin before the recording and end after it; 1 or more."""
    y_start_us: int = setting(low=-MAX_TIME_US, high=MAX_TIME_US)
    """Start of the vertical movement; below 0 before the recording."""
    y_duration_us: int = setting(low=1, high=2 * MAX_TIME_US)
    """Duration of the vertical movement; 1 or more."""

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if problems := field_problems(type(self), vars(self)):
            raise SettingsError(f"saccade {'; '.join(problems)}.")


LATER: dict[str, Any] = {"free": False, "hot_pixels": [], "rest": 1.0, "appeared": False}
"""Settings, and their defaults, that older recordings do not state."""

NMNIST_SACCADES = (
    Saccade(2.00, 4.95, 32_000, 54_000, 4_500, 77_500),
    Saccade(3.25, -4.90, 98_500, 88_000, 110_500, 76_500),
    Saccade(0.20, 0.00, 178_000, 35_000, 178_000, 35_000),
    Saccade(-4.60, -0.42, 212_500, 75_000, 222_000, 73_000),
)
"""Down and right, up and right, a slow settling, back to the left: measured on real N-MNIST recordings."""


@dataclass(frozen=True)
class SimulatorSettings:
    """Everything that decides a recording besides the image, the seed and the key.

    The defaults are fitted to 20 real N-MNIST recordings of known MNIST digits;
    `tests/pipeline/simulation/test_camera.py` measures the agreement on the same recordings.
    """

    sensor_width_px: int = setting(34, low=1, high=MOST_PIXELS)
    """Width of the sensor; 1 to 2048. Recordings of more than 256x240 pixels are .dat files, others .bin."""
    sensor_height_px: int = setting(34, low=1, high=MOST_PIXELS)
    """Height of the sensor; 1 to 2048."""
    shown_fraction: float = setting(0.825, low=1e-3, high=ASKED_SHOWN[1] * FITTED_SIZES[1])
    """Part of the sensor that the image fills, its aspect kept; above 0, at most 8, as `calibrate` finds it."""
    x_offset_px: float = setting(-2.70, low=-MOST_PIXELS, high=MOST_PIXELS)
    """Start of the image's centre relative to the sensor's, to the right; -2048 to 2048."""
    y_offset_px: float = setting(-1.51, low=-MOST_PIXELS, high=MOST_PIXELS)
    """The same, downwards; -2048 to 2048."""
    background: int = setting(0, low=0, high=255)
    """Grey value around the image, before an inversion; 0 to 255."""
    inverted: bool = True
    """Whether the display shows the negative: N-MNIST's ON events lie where a digit's trailing edge passes, so there
    the digits were dark on a bright ground."""
    gamma: float = setting(1.24, low=0.1, high=4)
    """Exponent from grey value to display light; 0.1 to 4."""
    dark_level: float = setting(0.048, low=1e-3, high=10)
    """Light of a black display relative to the span from black to white; 0.001 to 10."""
    blur_px: float = setting(0.44, low=0, high=16)
    """Standard deviation of the optical blur in sensor pixels; 0 to 16."""
    threshold_on: float = setting(0.238, low=0.01, high=5)
    """ON contrast threshold in natural-log units; 0.01 to 5."""
    threshold_off: float = setting(0.255, low=0.01, high=5)
    """OFF contrast threshold in natural-log units; 0.01 to 5."""
    threshold_spread: float = setting(0.045, low=0, high=0.5)
    """Standard deviation of the thresholds from pixel to pixel, relative, the same in all recordings of one seed
    (it is one camera); 0 to 0.5."""
    threshold_noise: float = setting(0.10, low=0, high=0.5)
    """Standard deviation of the thresholds from event to event, relative; 0 to 0.5."""
    bandwidth_hz: float = setting(160.0, low=0, high=1e6)
    """Cut-off of the photoreceptor under white, proportional to the light elsewhere; 0 (no limit) or 1 to 1e6."""
    refractory_us: int = setting(1_430, low=1, high=MAX_TIME_US)
    """Time after an event in which the pixel is dead, at most that of the longest recording; 1 to 8,388,607."""
    refractory_spread: float = setting(0.13, low=0, high=0.5)
    """Standard deviation of the refractory period from pixel to pixel, relative; never below the half; 0 to 0.5."""
    leak_hz: float = setting(0.35, low=0, high=100)
    """Rate of the ON events that a pixel emits without any change of light; 0 to 100."""
    shot_hz: float = setting(0.02, low=0, high=1_000)
    """Rate of random events per pixel, both polarities alike; 0 to 1,000."""
    hot_pixels: tuple[tuple[int, int, float, float], ...] = ()
    """Pixels that fire by themselves: x, y, and the rates of their random OFF and ON events, each 0 to 1e6 Hz."""
    duration_us: int = setting(310_000, low=1_000, high=MAX_TIME_US)
    """Length of the recording; 1,000 to 8,388,607, the most the .bin format holds."""
    sample_us: int = setting(1_000, low=1, high=100_000)
    """Time between samples of the light; 1 to 100,000."""
    saccades: tuple[Saccade, ...] = NMNIST_SACCADES
    """The camera's movement; displacements add up."""
    free: bool = False
    """Whether each recording turns each saccade as it likes; the image is then on average at its own place."""
    rest: float = setting(1.0, low=0, high=1)
    """Where pixels begin: 1, on their way to an ON event, to which the leak drives them; 0, anywhere between their
    thresholds; in between, less of the way to the OFF threshold. Where the image appeared, by how many ON thresholds
    the leak has raised them since; 0 to 1."""
    appeared: bool = False
    """Whether the image appeared on its background before the recording: pixels begin where that left them."""
    position_jitter_px: float = setting(0.08, low=0, high=64)
    """Standard deviation of the start position from recording to recording, per axis; 0 to 64."""
    amplitude_jitter: float = setting(0.02, low=0, high=1)
    """Standard deviation of each saccade's displacement, relative; 0 to 1."""
    timing_jitter_us: float = setting(2_500.0, low=0, high=1e6)
    """Standard deviation of each saccade's start; 0 to 1,000,000."""
    duration_jitter_us: float = setting(3_000.0, low=0, high=1e6)
    """Standard deviation of the recording's length; 0 to 1,000,000."""
    threshold_jitter: float = setting(0.02, low=0, high=0.5)
    """Standard deviation of all thresholds together from recording to recording, relative; 0 to 0.5."""

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if self.duration_us > MAX_TIME_US:
            raise SettingsError(
                f"duration_us = {self.duration_us}; the 23-bit time stamps of the .bin format end at {MAX_TIME_US} us. "
                "Use a shorter recording."
            )
        values = {name: value for name, value in vars(self).items() if name not in ("saccades", "hot_pixels")}
        if problems := field_problems(type(self), values):
            raise SettingsError(f"{'; '.join(problems)}.")
        if 0 < self.bandwidth_hz < 1:
            raise SettingsError(f"bandwidth_hz = {self.bandwidth_hz}; expected 0 for no limit, or at least 1 Hz.")
        if not all(isinstance(s, Saccade) for s in self.saccades):
            raise SettingsError("saccades: expected a tuple of Saccade.")
        for x, y, *rates in self.hot_pixels:
            if not (0 <= x < self.sensor_width_px and 0 <= y < self.sensor_height_px):
                raise SettingsError(
                    f"hot_pixels: ({x}, {y}) is outside the sensor of {self.sensor_width_px}x{self.sensor_height_px} "
                    "pixels."
                )
            if not all(0 <= rate <= MOST_HZ for rate in rates):
                raise SettingsError(f"hot_pixels: ({x}, {y}) has rates {rates}; expected 0 to {MOST_HZ:g} Hz.")

    @property
    def sensor_size(self) -> tuple[int, int, int]:
        """Return (W, H, P), as readers take it."""
        return (self.sensor_width_px, self.sensor_height_px, 2)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types, saccades as a list of dicts.

        Those of `LATER` are there only where they are not as by default.
        """
        made = asdict(self) | {
            "saccades": [asdict(saccade) for saccade in self.saccades],
            "hot_pixels": [list(pixel) for pixel in self.hot_pixels],
        }
        return {name: value for name, value in made.items() if name not in LATER or value != LATER[name]}
