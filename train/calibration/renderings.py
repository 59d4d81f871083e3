"""Other ways to make recordings of static images, which the fidelity report has beside the fitted camera.

Axes: T time bins, n recordings, P polarity, S side of a frame, F pixels of an image per cell of it.

`microseconds` is the fitted camera in the simulator of `spikebridge simulate`, as `simulate --camera` has it. `i2e` has
no camera at all. `v2e-like` is the simulator of `spikebridge simulate` with the published defaults of v2e in
place of a fitted camera: thresholds 0.2 with a deviation of 0.03, photoreceptor 300 Hz, leak 0.01 Hz, shot noise
0.001 Hz, refractory period 0.5 ms, and a floor of light at 20 of 255 for v2e's logarithm that is linear below. Its
movement is the fitted one, and so is the sign of the light: v2e itself has none, and renders videos.

Source: I2E (AAAI 2026); Hu, Liu, Delbruck 2021, "v2e: From video frames to realistic DVS events", and the defaults of
its program (`v2ecore/v2e_args.py`).
Differs: v2e holds its light between frames of a video and lets shot noise fall with the light; here both are as in
`pipeline.simulation.camera`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.measurement.recordings import RecordingSet
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.fitted import saccades_of
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.config.simulation_ranges import Profile
from spikebridge.train.data.images.i2e import I2ESimulator
from spikebridge.train.data.simulation import SensorGrid

I2E_RATIO = 0.10
"""Least difference of an event, relative to the image's range; the authors' for MNIST, of 0.07 to 0.15 for others."""
V2E = SimulatorSettings(
    shown_fraction=1.0, gamma=1.0, dark_level=20 / 255, blur_px=0.0, threshold_on=0.2, threshold_off=0.2,
    threshold_spread=0.15, threshold_noise=0.0, bandwidth_hz=300.0, refractory_us=500, refractory_spread=0.0,
    leak_hz=0.01, shot_hz=0.001, position_jitter_px=0.0, amplitude_jitter=0.0, timing_jitter_us=0.0,
    duration_jitter_us=0.0, threshold_jitter=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Rendering:
    """A way to make recordings of static images."""

    render: Callable[[Tensor, int], Tensor]
    """Frames [T,n,2,S,S] of images [n,1,FS,FS], of so many time bins."""
    view: Callable[[Tensor], Tensor] = lambda frames: frames
    """Real frames in the form in which the rendering has its own."""


def renderings(
    grid: SensorGrid, profile: Profile, *, duration_us: int, seed: int, fitted: SimulatorSettings | None = None
) -> Mapping[str, Rendering]:
    """Return the renderings by name; without v2e's camera where its simulator cannot follow the profile.

    It knows recordings of 1 ms to 8.4 s.

    Args:
        grid: of the frames.
        profile: fitted: path and sign of the light.
        duration_us: of a recording.
        seed: of every draw.
        fitted: the camera as `simulate` takes it; None where it does not, or its values are not those of pixels.
    """

    def simulated(settings: SimulatorSettings) -> Rendering:
        return Rendering(lambda images, time_bins: _simulated(images, time_bins, grid, settings, seed))

    found = {}
    if fitted is not None:  # images lie in the frame as they are shown
        found["microseconds"] = simulated(replace(fitted, shown_fraction=_middle(profile, "scale")))
    found["i2e"] = Rendering(lambda images, time_bins: _i2e(images, time_bins, grid, seed), _binary)
    with suppress(SettingsError):
        found["v2e-like"] = simulated(_moving(profile, grid, duration_us))
    return found


def _binary(frames: Tensor) -> Tensor:
    """Return frames of 0 and 1 in half as many bins, as long as their number is even."""
    together = 2 if len(frames) % 2 == 0 else 1
    return frames.view(len(frames) // together, together, *frames.shape[1:]).sum(1).clamp(max=1)


def _i2e(images: Tensor, time_bins: int, grid: SensorGrid, seed: int) -> Tensor:
    """Return frames of I2E; of `_binary`'s bins, so that none of its eight directions has half a bin."""
    steps = time_bins // 2 if time_bins % 2 == 0 else time_bins
    made = I2ESimulator(steps, ratio=I2E_RATIO, seed=seed)
    images = F.adaptive_avg_pool2d(images, grid.frame[::-1])  # I2E compares pixels of its frames
    return made.frames(images, epoch=0, draws=torch.arange(len(images)))


def _simulated(images: Tensor, time_bins: int, grid: SensorGrid, settings: SimulatorSettings, seed: int) -> Tensor:
    """Return frames of a camera in microseconds; of a sensor coarser than its frames the frames' grid is simulated."""
    events, size = [], grid.frame[0]
    if grid.width != grid.height:  # as the frame is of the sensor, squashed
        finer = images.shape[-1] // size
        images = F.interpolate(images, (finer * grid.height, finer * grid.width), mode="bilinear")
    for number, image in enumerate(images[:, 0].numpy()):
        events.append(simulate(np.rint(image * 255).astype(np.uint8), settings=settings, seed=seed, key=str(number)))
    made = torch.zeros(time_bins, len(images), 2, size, size)
    seen = [i for i, one in enumerate(events) if len(one) > 1 and one.t[-1] > one.t[0]]  # the others have no bins
    names = tuple(f"rendering {i}" for i in seen)
    some = RecordingSet(names, tuple(events[i] for i in seen), (grid.width, grid.height), "given", True, len(seen))
    if seen:
        made[:, seen] = torch.from_numpy(some.frames(time_bins=time_bins, size=size))
    return made * grid.gain


def _middle(profile: Profile, name: str) -> float:
    low, high = getattr(profile.ranges, name)
    return (low + high) / 2


def _moving(profile: Profile, grid: SensorGrid, duration_us: int) -> SimulatorSettings:
    """Return v2e's camera along the path of a profile, in grid pixels, before images of the fitted size."""
    x, y, scale, length = (_middle(profile, name) for name in ("x_start", "y_start", "scale", "amplitude"))
    across, down = grid.scale_x * length, grid.scale_y * length
    legs = [astuple(replace(leg, x=leg.x * across, y=leg.y * down)) for leg in profile.legs]
    steps = [(x * across, y * down) for x, y in profile.steps]
    return replace(
        V2E,
        sensor_width_px=grid.width,
        sensor_height_px=grid.height,
        shown_fraction=scale,
        x_offset_px=x * grid.scale_x,
        y_offset_px=y * grid.scale_y,
        background=round(255 * (profile.surround or 0.0)),
        inverted=profile.inverted,
        free=profile.free,
        duration_us=duration_us,
        sample_us=max(1, min(1_000, duration_us // 310)),
        saccades=saccades_of(legs, steps, duration_us),
    )
