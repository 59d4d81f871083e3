"""The settings of the event-camera model: sensor, display, pixels, noise, and movement.

Positions are (x, y) in sensor pixels, x to the right, y down. Times are microseconds from the start of the recording.

Source: see `pipeline.simulation.camera`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.formats.bin40 import MAX_HEIGHT, MAX_TIME_US, MAX_WIDTH


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is no number in the range; sizes, grey values and most times must be whole numbers."""
    whole = (name.endswith("_us") and "jitter" not in name) or name.endswith(("width_px", "height_px", "background"))
    number = not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and not whole))
    if not number or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise SettingsError(f"{name} = {value!r}; expected {what} from {low:g} to {high:g}.")


@dataclass(frozen=True)
class Saccade:
    """One saccade; the two motors start and stop on their own, each with a smooth (raised cosine) speed."""

    x_px: float
    """Displacement of the image on the sensor to the right, in sensor pixels; -64 to 64."""
    y_px: float
    """Displacement downwards, in sensor pixels; -64 to 64."""
    x_start_us: int
    """Start of the horizontal movement; 0 or later."""
    x_duration_us: int
    """Duration of the horizontal movement; 1 or more."""
    y_start_us: int
    """Start of the vertical movement; 0 or later."""
    y_duration_us: int
    """Duration of the vertical movement; 1 or more."""

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        ranges: tuple[tuple[str, float, float], ...] = (
            ("x_px", -64, 64),
            ("y_px", -64, 64),
            ("x_start_us", 0, MAX_TIME_US),
            ("x_duration_us", 1, MAX_TIME_US),
            ("y_start_us", 0, MAX_TIME_US),
            ("y_duration_us", 1, MAX_TIME_US),
        )
        for name, low, high in ranges:
            _check_range(f"saccade {name}", getattr(self, name), low, high)


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

    sensor_width_px: int = 34
    """Width of the sensor; 1 to 256, the most the .bin format holds."""
    sensor_height_px: int = 34
    """Height of the sensor; 1 to 240 (the .bin format keeps row 240 for its overflow marker)."""
    shown_fraction: float = 0.825
    """Part of the sensor that the image fills, its aspect kept; above 0, at most 4."""
    x_offset_px: float = -2.70
    """Start of the image's centre relative to the sensor's, to the right; -256 to 256."""
    y_offset_px: float = -1.51
    """The same, downwards; -256 to 256."""
    background: int = 0
    """Grey value around the image, before an inversion; 0 to 255."""
    inverted: bool = True
    """Whether the display shows the negative: N-MNIST's ON events lie where a digit's trailing edge passes, so there
    the digits were dark on a bright ground."""
    gamma: float = 1.24
    """Exponent from grey value to display light; 0.1 to 4."""
    dark_level: float = 0.048
    """Light of a black display relative to the span from black to white; 0.001 to 10."""
    blur_px: float = 0.44
    """Standard deviation of the optical blur in sensor pixels; 0 to 16."""
    threshold_on: float = 0.238
    """ON contrast threshold in natural-log units; 0.01 to 5."""
    threshold_off: float = 0.255
    """OFF contrast threshold in natural-log units; 0.01 to 5."""
    threshold_spread: float = 0.045
    """Standard deviation of the thresholds from pixel to pixel, relative, the same in all recordings of one seed
    (it is one camera); 0 to 0.5."""
    threshold_noise: float = 0.10
    """Standard deviation of the thresholds from event to event, relative; 0 to 0.5."""
    bandwidth_hz: float = 160.0
    """Cut-off of the photoreceptor under white, proportional to the light elsewhere; 0 (no limit) or 1 to 1e6."""
    refractory_us: int = 1_430
    """Time after an event in which the pixel is dead; 1 to 1,000,000."""
    refractory_spread: float = 0.13
    """Standard deviation of the refractory period from pixel to pixel, relative; never below the half; 0 to 0.5."""
    leak_hz: float = 0.35
    """Rate of the ON events that a pixel emits without any change of light; 0 to 100."""
    shot_hz: float = 0.02
    """Rate of random events per pixel, both polarities alike; 0 to 1,000."""
    duration_us: int = 310_000
    """Length of the recording; 1,000 to 8,388,607, the most the .bin format holds."""
    sample_us: int = 1_000
    """Time between samples of the light; 1 to 100,000."""
    saccades: tuple[Saccade, ...] = NMNIST_SACCADES
    """The camera's movement; displacements add up."""
    position_jitter_px: float = 0.08
    """Standard deviation of the start position from recording to recording, per axis; 0 to 64."""
    amplitude_jitter: float = 0.02
    """Standard deviation of each saccade's displacement, relative; 0 to 1."""
    timing_jitter_us: float = 2_500.0
    """Standard deviation of each saccade's start; 0 to 1,000,000."""
    duration_jitter_us: float = 3_000.0
    """Standard deviation of the recording's length; 0 to 1,000,000."""
    threshold_jitter: float = 0.02
    """Standard deviation of all thresholds together from recording to recording, relative; 0 to 0.5."""

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if self.sensor_width_px > MAX_WIDTH or self.sensor_height_px > MAX_HEIGHT:
            raise SettingsError(
                f"sensor of {self.sensor_width_px}x{self.sensor_height_px} pixels; the .bin format holds at most "
                f"{MAX_WIDTH}x{MAX_HEIGHT}. Use a smaller sensor."
            )
        if self.duration_us > MAX_TIME_US:
            raise SettingsError(
                f"duration_us = {self.duration_us}; the 23-bit time stamps of the .bin format end at {MAX_TIME_US} us. "
                "Use a shorter recording."
            )
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        if not isinstance(self.inverted, bool):
            raise SettingsError(f"inverted = {self.inverted!r}; expected True or False.")
        if 0 < self.bandwidth_hz < 1:
            raise SettingsError(f"bandwidth_hz = {self.bandwidth_hz}; expected 0 for no limit, or at least 1 Hz.")
        if not all(isinstance(s, Saccade) for s in self.saccades):
            raise SettingsError("saccades: expected a tuple of Saccade.")

    @property
    def sensor_size(self) -> tuple[int, int, int]:
        """Return (W, H, P), as readers take it."""
        return (self.sensor_width_px, self.sensor_height_px, 2)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types, saccades as a list of dicts."""
        return asdict(self) | {"saccades": [asdict(s) for s in self.saccades]}


_RANGES: dict[str, tuple[float, float]] = {
    "sensor_width_px": (1, MAX_WIDTH),
    "sensor_height_px": (1, MAX_HEIGHT),
    "shown_fraction": (1e-3, 4),
    "x_offset_px": (-256, 256),
    "y_offset_px": (-256, 256),
    "background": (0, 255),
    "gamma": (0.1, 4),
    "dark_level": (1e-3, 10),
    "blur_px": (0, 16),
    "threshold_on": (0.01, 5),
    "threshold_off": (0.01, 5),
    "threshold_spread": (0, 0.5),
    "threshold_noise": (0, 0.5),
    "bandwidth_hz": (0, 1e6),
    "refractory_us": (1, 1_000_000),
    "refractory_spread": (0, 0.5),
    "leak_hz": (0, 100),
    "shot_hz": (0, 1_000),
    "duration_us": (1_000, MAX_TIME_US),
    "sample_us": (1, 100_000),
    "position_jitter_px": (0, 64),
    "amplitude_jitter": (0, 1),
    "timing_jitter_us": (0, 1e6),
    "duration_jitter_us": (0, 1e6),
    "threshold_jitter": (0, 0.5),
}
