"""What the training simulator draws from: ranges of a camera's settings, and movements. No torch.

Positions are in sensor pixels, x to the right, y down; times are shares of the recording, 0 to 1.

Source: the middles of the `saccades` are fitted to 20 real N-MNIST recordings and their MNIST images, so that the
frames agree cell by cell; the widths are chosen, several times wider than the recordings differ among themselves.
`smooth` is for cameras and movements that nobody has measured. `mismatched` is wrong on purpose, to see how much the
settings matter: none of these ranges holds the value of the camera that made the built-in recordings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from spikebridge.pipeline.base.fitting import FITTED_SIZES
from spikebridge.pipeline.measurement.hot_pixels import HotPixel


@dataclass(frozen=True)
class SimulationRanges:
    """Lowest and highest value of every setting; each is drawn uniformly, sample by sample."""

    light_gamma: tuple[float, float] = (0.8, 1.8)
    """Exponent from grey value to light."""
    dark_level: tuple[float, float] = (0.02, 0.12)
    """Light of black, relative to the span from black to white, drawn by its logarithm."""
    softness: tuple[float, float] = (-0.8, 0.4)
    """Share of a blur of 0.7 grid pixels; below 0 the image is sharpened, which undoes the resizes before. Of a profile
    that blurs light see `blur_px2`."""
    threshold_on: tuple[float, float] = (0.14, 0.35)
    """ON contrast threshold, natural logarithm."""
    off_ratio: tuple[float, float] = (0.73, 1.17)
    """OFF threshold relative to the ON threshold."""
    threshold_spread: tuple[float, float] = (0.0, 0.2)
    """Half-width of the thresholds' relative spread from pixel to pixel, both polarities on their own."""
    bandwidth: tuple[float, float] = (180.0, 1000.0)
    """Cut-off of the photoreceptor under white as an angular frequency per recording, falling with the light; drawn by
    its logarithm. 160 Hz and 0.3 s are about 300."""
    dead_time: tuple[float, float] = (0.002, 0.009)
    """Time after an event in which the pixel is blind, share of the recording; 1.4 ms of 0.3 s are 0.005."""
    leak: tuple[float, float] = (0.0, 0.3)
    """ON thresholds that the memorised level falls by in a recording."""
    noise: tuple[float, float] = (0.0, 0.035)
    """Share of the pixels that fire once at random."""
    x_start: tuple[float, float] = (-4.1, -1.1)
    """Position of the image at the start, sensor pixels to the right of its own."""
    y_start: tuple[float, float] = (-3.2, -0.2)
    """The same, downwards."""
    amplitude: tuple[float, float] = (0.75, 1.25)
    """Factor on the length of the path."""
    amplitude_spread: tuple[float, float] = (0.0, 0.2)
    """Largest relative deviation of each leg of the path, along both axes on their own."""
    turn: tuple[float, float] = (-0.15, 0.15)
    """Rotation of the path in radians."""
    delay: tuple[float, float] = (-0.03, 0.03)
    """Shift of the path in time, share of the recording."""
    pace: tuple[float, float] = (0.85, 1.3)
    """Factor on the duration of each leg."""
    scale: tuple[float, float] = (0.9, 1.12)
    """Size of the moving image relative to the static one."""
    stretch: tuple[float, float] = (-0.08, 0.08)
    """Further relative width; the height changes the other way."""
    rotation: tuple[float, float] = (-0.15, 0.15)
    """Rotation of the image in radians."""
    shear: tuple[float, float] = (-0.15, 0.15)
    """Horizontal shear of the image."""


INSTANTS, FINE_INSTANTS = 3, 6
"""Instants per time bin: fine enough for steps below a pixel at the usual ten bins; and where a camera is fitted."""
SUPERSAMPLE = 3
"""Cells of a map of light per pixel of the image and axis, where light is blurred."""
LEAST_BLUR_PX2, SOFTNESS_PX2 = 0.14, 0.5
"""Variance of the blur of light, pixels of the image squared: of softness 0, and by how much it grows with softness."""
STILL = 1e-12
"""Least change of a pixel in an instant, thresholds are compared with: what is below changes nothing."""
LATENESS = 0.02
"""See `Profile.lateness`."""
LEG_LANES = 4
"""Uniform numbers per leg of the path: deviation of x and of y, lateness, direction."""
LANES = {field.name: lane for lane, field in enumerate(fields(SimulationRanges))}
"""Which of a sample's numbers decides each setting."""
BY_LOGARITHM = ("dark_level", "bandwidth")
LIMITS = {
    "light_gamma": (0.4, 3.0), "dark_level": (0.004, 1.0), "softness": (-1.0, 1.0), "threshold_on": (0.04, 1.2),
    "off_ratio": (0.4, 2.5), "threshold_spread": (0.0, 0.5), "bandwidth": (20.0, 20_000.0), "dead_time": (1e-4, 0.05),
    "leak": (0.0, 3.0), "noise": (0.0, 0.5), "scale": FITTED_SIZES, "amplitude": (0.1, 6.0),
}  # fmt: skip
"""Within which values of recordings of about 0.3 s lie; other settings may have any finite value."""
LIMITS_IN_TIME = {"bandwidth": (0.02, 2e7), "dead_time": (1e-7, 1.0), "leak": (0.0, 3000.0)}
"""Those of recordings of any length."""


@dataclass(frozen=True)
class Leg:
    """A part of a path, with raised-cosine speed."""

    x: float
    """Displacement to the right in sensor pixels."""
    y: float
    """Displacement downwards."""
    start: float
    """Share of the recording."""
    duration: float
    """Share of the recording."""


@dataclass(frozen=True)
class Profile:
    """A camera and its movement, as far as they are known."""

    ranges: SimulationRanges
    legs: tuple[Leg, ...]
    """Parts of the path; displacements add up. At most `MOST_LEGS`."""
    free: bool = False
    """Each leg's direction is drawn, and the image is on average at its own position."""
    inverted: bool = False
    """Whether the camera saw the negative: where N-MNIST has ON events, a digit's trailing edge passes."""
    surround: float | None = None
    """Grey value around the image, 0 black to 1 white, of what a static image shows; None: its border goes on."""
    rest: float = 0.0
    """Where pixels begin: 0, anywhere between their thresholds, as in the midst of a movement; 1, on their way to an ON
    event, to which the leak drives them while nothing moves; less of the way to the OFF threshold in between."""
    appeared: bool = False
    """Whether the image appeared before the recording, on its ground: pixels then begin where that left them, and
    `rest` is by how many ON thresholds the leak has raised them since."""
    rest_spread: float = 0.0
    """Largest deviation of a sample's `rest` from it, within 0 and 1."""
    steps: tuple[tuple[float, float], ...] = ()
    """What the path does beside its legs: displacements (x, y) in sensor pixels, one for each of so many equal parts of
    the recording, in order; see `step_spans`. Samples differ in their amplitude, turn and delay, not in pace. At most
    `MOST_STEPS`, and none on a free path."""
    blind_after: bool = False
    """Whether a pixel is blind for the dead time after an event, then memorises what it sees. Else an event takes its
    threshold and what the light moves by in a dead time, and comes late by that: so do those of calibrations before
    version 9, and of the profiles here, which were fitted so."""
    blurs_light: bool = False
    """Whether light is blurred, as a lens does it: on a map finer than the image, by a Gaussian, see `blur_px2`. Else
    grey values are, pixel by pixel: in calibrations before version 11, and in the profiles here, which were fitted
    so."""
    fitted_size: tuple[float, float] = (1.0, 1.0)
    """Width and height of the images in the fit, relative to those that are simulated, which `scale` and `stretch` then
    make as large: these are blurred by as much less before, where light is blurred, since a lens is the same for all.
    """
    lateness: float = LATENESS
    """Largest shift of a leg in time on its own, share of the recording."""
    either_sign: bool = False
    """Whether nobody knows if the camera saw the negative: about every other sample then shows that of its image,
    before the same ground."""
    either_begin: bool = False
    """Whether nobody knows how recordings begin: for about every other sample `appeared` then is the reverse."""
    hot_pixels: tuple[HotPixel, ...] = ()
    """Pixels of the sensor that fire by themselves, at random times."""

    @property
    def freedom(self) -> tuple[float, float]:
        """Return the least and the most of the way to the OFF threshold that pixels may have gone at the start."""
        low, high = (min(max(self.rest + way * self.rest_spread, 0.0), 1.0) for way in (-1, 1))
        return 1 - high, 1 - low


def blur_px2(softness: float) -> float:
    """Return the variance of the blur of light, pixels of the image squared."""
    return max(0.0, LEAST_BLUR_PX2 + SOFTNESS_PX2 * softness)


MOST_LEGS = 4
MOST_STEPS = 20
"""As many as recordings have time bins where they are calibrated."""
ALL_LANES = len(LANES) + LEG_LANES * MOST_LEGS + 3
"""Uniform numbers of a sample: for its settings, for each leg, and three more."""
FREEDOM_LANE, SIGN_LANE, BEGIN_LANE = ALL_LANES - 3, ALL_LANES - 2, ALL_LANES - 1
"""Which of them decide the state of pixels at the start, see `Profile.freedom`, the sign of the light, and whether that
state is where the image left them."""


def step_spans(count: int) -> list[tuple[float, float]]:
    """Return start and duration of each step, shares of the recording: half a part longer than its own at both ends."""
    return [((i - 0.5) / count, 2 / count) for i in range(count)]


TRIANGLE = (Leg(1.6, 5.4, 0.03, 0.215), Leg(3.6, -5.3, 0.32, 0.315), Leg(-5.0, -0.4, 0.69, 0.265))
"""Down and right, up and right, back to the left: the saccades of N-MNIST and N-Caltech101."""

WANDER = (Leg(4.0, 0.0, -0.1, 0.5), Leg(4.0, 0.0, 0.15, 0.5), Leg(4.0, 0.0, 0.4, 0.5), Leg(4.0, 0.0, 0.65, 0.5))
"""Overlapping legs in drawn directions make a smooth curve."""

PROFILES = {
    "saccades": Profile(SimulationRanges(), TRIANGLE, inverted=True),
    "mismatched": Profile(
        replace(
            SimulationRanges(),
            light_gamma=(0.4, 0.8),
            dark_level=(0.15, 0.4),
            threshold_on=(0.4, 0.6),
            off_ratio=(1.3, 1.8),
            bandwidth=(2000.0, 4000.0),
            dead_time=(0.012, 0.02),
            x_start=(-1.0, 0.5),
            y_start=(-0.5, 1.0),
            amplitude=(0.4, 0.65),
            turn=(0.35, 0.7),
            delay=(0.05, 0.1),
        ),
        TRIANGLE,
        inverted=True,
    ),
    "smooth": Profile(
        replace(
            SimulationRanges(),
            x_start=(-1.5, 1.5),
            y_start=(-1.5, 1.5),
            amplitude=(0.4, 2.0),
            amplitude_spread=(0.0, 0.5),
            bandwidth=(100.0, 3000.0),
            threshold_on=(0.1, 0.5),
        ),
        WANDER,
        free=True,
    ),
}
