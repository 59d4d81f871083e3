"""Simulates event frames of static images while training: a small event camera, drawn anew for every use.

Axes: B batch, T time bins, K instants per bin, S = T * K instants, C channels, P polarity, H, W of a frame, h, w of the
sensor grid, L settings. Positions are (x, y), x to the right, y down; times are shares of the recording, 0 to 1.

A static image moves over a sensor grid; each pixel compares the logarithm of its low-passed light with the level that
it memorised and counts the contrast thresholds in between, ON above and OFF below. Every setting is drawn anew for
every sample from a range that is wide on purpose: a network must learn what holds for cameras never measured.

This is not the simulator that makes the built-in recordings (`pipeline.simulation.camera`), and shares no code or
settings with it: that one follows single events in microseconds through one calibrated camera; this one has a coarse
clock, no single events, no noise from event to event, and cameras that differ from sample to sample.

Source: Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", Front.
Neurosci. 2015 (movement); Rebecq et al., "ESIM: an open event camera simulator", CoRL 2018 (thresholds on the log
light); Hu et al., "v2e: from video frames to realistic DVS events", CVPRW 2021 (bandwidth that falls with the light,
leak, mismatch); Tobin et al., "Domain randomization", IROS 2017 (settings drawn from wide ranges).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.models import backends
from spikebridge.pipeline.base.fitting import FITS, fit_box, fitted_px, shown_px
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.pipeline.shards.settings import CHOICES
from spikebridge.train.config.profile import CameraProfile, profile_named
from spikebridge.train.config.settings import I2E, TrainSettings
from spikebridge.train.config.simulation_ranges import (
    ALL_LANES,
    BEGIN_LANE,
    BY_LOGARITHM,
    FREEDOM_LANE,
    INSTANTS,
    LANES,
    LEG_LANES,
    MOST_LEGS,
    SIGN_LANE,
    STILL,
    Profile,
    SimulationRanges,
    step_spans,
)
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.draws import Epoch, many_uniforms, uniforms
from spikebridge.train.data.images.i2e import I2ESimulator
from spikebridge.train.data.images.light import Light, light_of, negative, seen
from spikebridge.train.errors import MethodError

log = logging.getLogger(__name__)

POOLED = CHOICES["encoding"][0]
"""Encoding of static images unless another is asked for, and that of the images of `calibrate`."""
PER_CELL, FINEST_SIDE = 2, 96
"""Pixels along a cell that stand for those of a larger sensor, whose events one pixel would have all at once; where so
many pixels make up a side at most. Smaller sensors are simulated pixel by pixel."""
FINEST_GRID = 1.6
"""Pixel by pixel is a sensor simulated of up to this many times the frame's side, where there are more pixels, too."""
SAME_SHAPE = 0.05
"""Difference of logarithms up to which images are of one aspect."""
SAME_SIZE = 0.005
"""Images of a shard set and of a fit whose sizes on the sensor differ by less than this share are of one size."""
HOT_EVENTS = 60.0
"""Most events of a hot pixel in a recording: 200 a second for 0.3 s."""
PIXEL_FIELDS = 4
"""Uniform numbers per pixel: ON threshold, OFF threshold, level at the start, noise."""


class SensorGrid:
    """How the sensor's pixels make up a frame.

    Args:
        size: (W, H) of a frame, or the side of a square one.
        sensor: (W, H) in pixels of what the frame shows.
        reduction: `sum`, `bilinear`, `frequency` or `event`, as in the shard set.
        corner: (x, y) of the sensor's pixel at the frame's top left; below 0 where the frame reaches beyond it.
    """

    def __init__(
        self, size: int | tuple[int, int], sensor: tuple[int, int], reduction: str, *, corner: tuple[int, int] = (0, 0)
    ) -> None:
        width, height = sensor
        self.sensor, self.corner = sensor, corner
        self.frame, self.reduction = (size, size) if isinstance(size, int) else size, reduction
        per_cell = PER_CELL if PER_CELL * max(self.frame) <= FINEST_SIDE else 1
        lengths = tuple(zip(sensor, self.frame, strict=True))
        if all(pixels <= max(FINEST_GRID, per_cell) * side for pixels, side in lengths):
            self.width, self.height = sensor
        else:
            # Where the frame is finer it has rows or columns that no pixel falls into.
            self.width, self.height = (min(pixels, per_cell * side) for pixels, side in lengths)
        self.scale_x, self.scale_y = self.width / width, self.height / height  # grid pixels per sensor pixel
        self.gain = width * height / (self.width * self.height) if reduction == "sum" else 1.0
        sides = zip((self.width, self.height), self.frame, strict=True)
        self.columns, self.rows = (_weights(pixels, side, reduction) for pixels, side in sides)  # [W,w], [H,h]

    @property
    def counts_whole(self) -> bool:
        """Whether frames hold whole events, real ones as simulated ones: of a pixel, or of the few of a cell."""
        whole = self.reduction == "sum" or self.frame == self.sensor  # else they are shared between cells
        return whole and (self.width, self.height) == self.sensor

    def to_frames(self, counts: Tensor) -> Tensor:
        """Convert counts [..., h, w] to frames [..., H, W] in the unit of the shard set."""
        if self.reduction == "bilinear" or (self.width, self.height) != self.frame:
            rows, columns = self._on(counts.device, counts.dtype)
            counts = rows @ counts @ columns.mT
        if self.reduction == "event":
            return counts.clamp(max=1)
        if self.reduction == "frequency":
            return counts / counts.amax((-2, -1), keepdim=True).clamp(min=1e-5)
        return counts * self.gain if self.gain != 1 else counts

    def pixel_in(self, column: int, row: int) -> tuple[int, int]:
        """Return the pixel (x, y) of the sensor in the middle of a cell of the frame; it may lie beyond the sensor."""
        x, y = (
            (2 * cell + 1) * pixels // (2 * side) + first
            for cell, pixels, side, first in zip((column, row), self.sensor, self.frame, self.corner, strict=True)
        )
        return x, y

    def add_hot_pixels(self, counts: Tensor, pixels: tuple[HotPixel, ...], numbers: Tensor) -> Tensor:
        """Return counts [T,B,2,h,w] with the events of hot pixels.

        Differs: a count varies less than Poisson's; it is what is expected in a time bin, rounded up or down at random.

        Args:
            counts: see above.
            pixels: K of them.
            numbers: in [0, 1), [B, 2TK].
        """
        T, B = counts.shape[:2]
        cells, rates = self._hot(pixels, counts.device)
        added = (rates / T + numbers.view(B, T, 2, len(pixels))).floor_() / self.gain
        return counts.flatten(3).index_add(3, cells, added.transpose(0, 1)).view_as(counts)

    @cache  # noqa: B019  (a run has one grid; a copy from the host in each step would end a CUDA graph)
    def _hot(self, pixels: tuple[HotPixel, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the cells [K] of pixels in rows of the grid, and their events [2,K] in a recording.

        Those that lie outside have no events.
        """
        cells, rates = [], []
        for x, y, *events in pixels:
            column = (x - self.corner[0]) * self.width // self.sensor[0]
            row = (y - self.corner[1]) * self.height // self.sensor[1]
            inside = 0 <= column < self.width and 0 <= row < self.height
            cells.append(row * self.width + column if inside else 0)
            rates.append(events if inside else [0.0, 0.0])
        return torch.tensor(cells, device=device), torch.tensor(rates).T.contiguous().to(device)

    @cache  # noqa: B019  (a run has one grid; a copy from the host in each step would end a CUDA graph)
    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the weights of rows and columns on a device."""
        return self.rows.to(device, dtype), self.columns.to(device, dtype)


def grid_of(manifest: Mapping[str, Any], frame: tuple[int, int]) -> SensorGrid:
    """Return how the sensor of a shard set makes up its frames of (W, H) cells."""
    sensor = manifest.get("sensor_size") or frame
    settings = manifest["settings"]
    left, top, right, bottom = fit_box((0, 0, *sensor), frame, settings.get("fit") or FITS[0])
    shown = int(right - left), int(bottom - top)
    return SensorGrid(frame, shown, settings["reduction"], corner=(int(left), int(top)))


def _weights(pixels: int, size: int, reduction: str) -> Tensor:
    """Return the weight of every grid pixel in every cell of a frame along one axis, float32 [S,n]."""
    weights = torch.zeros(size, pixels)
    if reduction == "bilinear":
        place = torch.linspace(0, pixels - 1, size)
        low = place.floor().long().clamp(max=max(pixels - 2, 0))
        share = place - low
        weights[torch.arange(size), low] = 1 - share
        if pixels > 1:
            weights[torch.arange(size), low + 1] += share
    else:
        weights[torch.arange(pixels) * size // pixels, torch.arange(pixels)] = 1
    return weights


@dataclass(frozen=True)
class SimulationDraws:
    """The random numbers of a batch, all in [0, 1)."""

    settings: Tensor
    """float32 [B,ALL_LANES]."""
    pixels: Tensor
    """float32 [PIXEL_FIELDS,B,h,w]."""
    hot_pixels: Tensor | None = None
    """float32 [B,2TK] for K of them; None where they are left out."""


def simulation_draws(
    seed: int, epoch: Epoch, draws: Tensor, grid: SensorGrid, *, device: torch.device
) -> SimulationDraws:
    """Draw the random numbers of samples, on a device; a pure function of (seed, epoch, draw position).

    They leave out hot pixels, which `hot_pixel_draws` has numbers for.
    """
    lanes = uniforms(seed, "simulation", epoch, draws, ALL_LANES)
    pixels = PIXEL_FIELDS * grid.height * grid.width
    fields = many_uniforms(seed, "simulation pixels", epoch, draws, pixels)  # [B,4hw]
    fields = fields.view(len(draws), PIXEL_FIELDS, grid.height, grid.width).transpose(0, 1).contiguous()
    return SimulationDraws(settings=lanes.float().to(device), pixels=fields.to(device))


def hot_pixel_draws(seed: int, epoch: Epoch, draws: Tensor, profile: Profile, time_bins: int) -> Tensor:
    """Draw the random numbers of the hot pixels, float32 [B,2TK] in [0, 1); pure in (seed, epoch, draw position)."""
    return many_uniforms(seed, "hot pixels", epoch, draws, 2 * time_bins * len(profile.hot_pixels))


def scale_settings(draws: Tensor, ranges: SimulationRanges) -> dict[str, Tensor]:
    """Scale draws [B,L and more] in [0, 1) to every setting's value per sample, float32 [B]."""
    values = {}
    for name, lane in LANES.items():
        low, high = getattr(ranges, name)
        if name in BY_LOGARITHM:
            values[name] = torch.exp(math.log(low) + draws[:, lane] * (math.log(high) - math.log(low)))
        else:
            values[name] = low + draws[:, lane] * (high - low)
    return values


def path(times: Tensor, s: dict[str, Tensor], profile: Profile, draws: Tensor) -> Tensor:
    """Return the position of the image in sensor pixels at shares `times` [S] of the recording: [2,B,S], x then y.

    Args:
        times: float32 [S].
        s: see `scale_settings`.
        profile: its legs and steps.
        draws: float32 [B, LEG_LANES * MOST_LEGS] in [0, 1).
    """
    legs = draws.view(len(draws), MOST_LEGS, LEG_LANES)
    travelled = times.new_zeros(2, len(draws), len(times))  # [2,B,S]
    for i, leg in enumerate(profile.legs):
        deviation = 1 + s["amplitude_spread"][:, None] * (2 * legs[:, i, :2] - 1)  # [B,2]
        dx, dy = (s["amplitude"] * deviation[:, axis] * step for axis, step in enumerate((leg.x, leg.y)))
        angle = s["turn"] + (2 * math.pi * legs[:, i, 3] if profile.free else 0)
        cos, sin = torch.cos(angle), torch.sin(angle)
        duration = leg.duration * s["pace"]
        middle = leg.start + leg.duration / 2 + s["delay"] + profile.lateness * (2 * legs[:, i, 2] - 1)
        done = ((times - (middle - duration / 2)[:, None]) / duration[:, None]).clamp(0, 1)  # [B,S]
        done = done - torch.sin(2 * math.pi * done) / (2 * math.pi)
        travelled[0] += (cos * dx - sin * dy)[:, None] * done
        travelled[1] += (sin * dx + cos * dy)[:, None] * done
    if profile.steps:
        travelled += _stepped(times - s["delay"][:, None], s, profile.steps)
    if profile.free:
        travelled -= travelled.mean(2, keepdim=True)
    return travelled + torch.stack([s["x_start"], s["y_start"]])[..., None]


def _stepped(times: Tensor, s: dict[str, Tensor], steps: tuple[tuple[float, float], ...]) -> Tensor:
    """Return what the path does beside its legs at shares `times` [B,S] of the recording: [2,B,S]."""
    x, y = torch.zeros_like(times), torch.zeros_like(times)
    for (dx, dy), (start, duration) in zip(steps, step_spans(len(steps)), strict=True):
        done = ((times - start) / duration).clamp_(0, 1)
        done -= torch.sin(2 * math.pi * done) / (2 * math.pi)
        x.add_(done, alpha=dx)
        y.add_(done, alpha=dy)
    amplitude, cos, sin = (value[:, None] for value in (s["amplitude"], torch.cos(s["turn"]), torch.sin(s["turn"])))
    return amplitude * torch.stack([cos * x - sin * y, sin * x + cos * y])


@torch.no_grad()
def simulate_frames(
    images: Tensor,
    draws: SimulationDraws,
    grid: SensorGrid,
    *,
    time_bins: int,
    profile: Profile,
    instants: int = INSTANTS,
) -> Tensor:
    """Simulate event frames of static images, float32 [T,B,2,H,W] in the unit of the shard set, OFF before ON.

    The images [B,C,H,W] in [0, 1], of any C (averaged) and size, show what the frame shows. `instants` of each time bin
    are simulated.
    """
    counts = _simulate_counts(images, draws, grid, time_bins=time_bins, profile=profile, instants=instants)
    if draws.hot_pixels is not None and profile.hot_pixels:
        counts = grid.add_hot_pixels(counts, profile.hot_pixels, draws.hot_pixels)
    return grid.to_frames(counts)


def _simulate_counts(
    images: Tensor,
    draws: SimulationDraws,
    grid: SensorGrid,
    *,
    time_bins: int,
    profile: Profile,
    instants: int = INSTANTS,
) -> Tensor:
    """Count the events of static images on the sensor grid, float32 [T,B,2,h,w]; see `simulate_frames`."""
    s = scale_settings(draws.settings, profile.ranges)
    sign = draws.settings[:, SIGN_LANE]
    light = light_of(images, s, sign, profile, (grid.height, grid.width))
    before = None
    settled = None
    if profile.appeared or profile.either_begin:
        blank = torch.zeros_like(light.cells[..., :1, :1])
        if profile.either_sign:
            blank = torch.where(negative(sign), 1 - blank, blank)
        before = (seen(blank, s, profile) if light.ground is None else light.ground).flatten() + s["dark_level"]
    if profile.either_begin:
        settled = draws.settings[:, BEGIN_LANE] < 0.5
    steps = time_bins * instants
    times = torch.arange(steps + 1, device=images.device, dtype=torch.float32) / steps  # [S+1]
    places = path(times, s, profile, draws.settings[:, len(LANES) : FREEDOM_LANE])  # [2,B,S+1]
    pixel_light = _sample_light(light, places, s, grid).clamp_(min=0)  # [S+1,B,h,w]
    pixel_light += s["dark_level"][:, None, None]
    low, high = profile.freedom
    freedom = low + draws.settings[:, FREEDOM_LANE] * (high - low)
    begin = freedom, before, settled
    return _count(pixel_light, draws.pixels, s, time_bins, *begin, blind_after=profile.blind_after)


def _sample_light(light: Light, places: Tensor, s: Mapping[str, Tensor], grid: SensorGrid) -> Tensor:
    """Return the light of each pixel and instant, [S,B,h,w]: the image rotated, scaled, sheared, then moved."""
    cells, ground = light.cells, light.ground
    B, S = places.shape[1:]
    x = (torch.arange(grid.width, device=cells.device) * 2 + 1) / grid.width - 1  # [w] in -1..1
    y = (torch.arange(grid.height, device=cells.device) * 2 + 1) / grid.height - 1  # [h]
    cos, sin = torch.cos(s["rotation"]), torch.sin(s["rotation"])
    wide, high = s["scale"] * (1 + s["stretch"]), s["scale"] * (1 - s["stretch"])
    a, b = cos / wide / light.wider, (sin / wide + s["shear"] * cos / high) / light.wider
    c, d = -sin / high / light.higher, cos / high / light.higher
    # Where the image moves to the right, a pixel samples it further to the left.
    moved_x = places[0] * (2 * grid.scale_x / grid.width)  # [B,S]
    moved_y = places[1] * (2 * grid.scale_y / grid.height)
    u = x - moved_x[..., None]  # [B,S,w]
    v = y - moved_y[..., None]  # [B,S,h]
    points = cells.new_empty(B, S, grid.height, grid.width, 2)
    torch.add((a[:, None, None] * u)[:, :, None], (b[:, None, None] * v)[..., None], out=points[..., 0])
    torch.add((c[:, None, None] * u)[:, :, None], (d[:, None, None] * v)[..., None], out=points[..., 1])
    points = points.view(B, S * grid.height, grid.width, 2)
    if ground is None:
        sampled = F.grid_sample(cells, points, padding_mode="border", align_corners=False)
    else:
        sampled = F.grid_sample(cells - ground, points, padding_mode="zeros", align_corners=False) + ground
    return sampled.view(B, S, grid.height, grid.width).transpose(0, 1)  # [S,B,h,w]


def _count(
    light: Tensor,
    pixels: Tensor,
    s: dict[str, Tensor],
    time_bins: int,
    freedom: Tensor,
    before: Tensor | None = None,
    settled: Tensor | None = None,
    *,
    blind_after: bool = False,
) -> Tensor:
    """Count the events per bin, polarity and pixel, float32 [T,B,2,h,w], of the light [S+1,B,h,w], above 0.

    `freedom` [B] is how much of the way to the OFF threshold pixels may have gone at the start; or, where `before` [B]
    is the light of the ground on which the image appeared, 1 less the ON thresholds that they leaked since. So begin
    the samples in `settled` [B] alone, or all where it is None.
    `blind_after`: see `Profile`.
    """
    S = light.shape[0] - 1

    def per_sample(name: str) -> Tensor:
        return s[name][:, None, None]

    spread = per_sample("threshold_spread")
    on = per_sample("threshold_on") * (1 + spread * (2 * pixels[0] - 1))  # [B,h,w]
    off = per_sample("threshold_on") * per_sample("off_ratio") * (1 + spread * (2 * pixels[1] - 1))
    speed = per_sample("bandwidth") / S / (1 + per_sample("dark_level"))
    rise = per_sample("leak") * on / S  # per instant: a leaking memory acts as a steady rise
    dead = per_sample("dead_time") * S  # in instants
    level = light.log()
    below = freedom[:, None, None] * off
    difference = anywhere = pixels[2] * (on + below) - below  # filtered - memorised, between the thresholds
    if before is not None:
        difference = pixels[2] * (on + off) - off
        difference = _within(difference + (level[0] - before.log()[:, None, None]), on, off)
        difference = _within(difference + (1 - freedom)[:, None, None] * on, on, off)
        if settled is not None:
            difference = torch.where(settled[:, None, None], difference, anywhere)
    pixels_of_samples = light, level, speed, on, off, rise, dead, difference, time_bins
    if backends.computes_by_numba(light.device):
        counts = _compare_compiled(*pixels_of_samples, blind_after=blind_after)
    else:
        counts = (_compare_blind if blind_after else _compare)(*pixels_of_samples)
    return _add_noise(counts, pixels[3], s["noise"])


def _within(difference: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """Return what is left of differences once their events are over, all [B,h,w]."""
    ups, downs = (difference / on).clamp_(min=0).floor_(), (difference / off).clamp_(max=0).neg_().floor_()
    return difference - ups * on + downs * off


def _compare_compiled(light: Tensor, level: Tensor, *pixels_of_samples: Any, blind_after: bool) -> Tensor:
    """Return what `_compare` or `_compare_blind` returns, to the bit, on a CPU in a third of its time."""
    from spikebridge.models.fire_numba import share
    from spikebridge.train.data.loops.pixels import count_events, count_events_of_blind

    *settings, time_bins = pixels_of_samples
    B, h, w = light.shape[1:]
    counts = light.new_zeros(time_bins, B, 2, h, w)
    instants = (x.transpose(0, 1).flatten(2).contiguous().numpy() for x in (light, level))  # [B,S+1,hw]
    count = count_events_of_blind if blind_after else count_events
    share(count, *instants, *(x.flatten(1).contiguous().numpy() for x in settings), counts.flatten(3).numpy())
    return counts


def _compare(
    light: Tensor,
    level: Tensor,
    speed: Tensor,
    on: Tensor,
    off: Tensor,
    rise: Tensor,
    dead: Tensor,
    difference: Tensor,
    time_bins: int,
) -> Tensor:
    """Count the events per bin, polarity and pixel, without noise: [T,B,2,h,w].

    Args:
        light: [S+1,B,h,w], above 0.
        level: its logarithm.
        speed: [B,1,1], times the light the share of a change that a pixel follows in an instant, by Euler's method.
        on: ON thresholds [B,h,w].
        off: OFF thresholds [B,h,w].
        rise: [B,h,w], what the memory leaks by in an instant.
        dead: [B,1,1], instants that a pixel is blind for after an event.
        difference: [B,h,w], filtered minus memorised level at the start; overwritten.
        time_bins: T.
    """
    instants = (len(light) - 1) // time_bins
    follow = light * speed  # [S+1,B,h,w]
    follow = follow / (1 + follow)  # implicit Euler, stable at any rate
    filtered = level[0].clone()
    counts = light.new_zeros(time_bins, light.shape[1], 2, *light.shape[2:])
    for k in range(1, len(light)):
        step = (level[k] - filtered).mul_(follow[k])
        filtered += step
        difference += step
        difference += rise
        # An event takes its threshold and what the light moves on while the pixel is blind.
        lost = step.abs_().mul_(dead)
        up, down = on + lost, off + lost
        ups = (difference / up).clamp_(min=0).floor_()
        downs = (difference / down).clamp_(max=0).neg_().floor_()
        difference.addcmul_(ups, up, value=-1).addcmul_(downs, down)
        bin_ = (k - 1) // instants
        counts[bin_, :, 1] += ups
        counts[bin_, :, 0] += downs
    return counts


def _compare_blind(
    light: Tensor,
    level: Tensor,
    speed: Tensor,
    on: Tensor,
    off: Tensor,
    rise: Tensor,
    dead: Tensor,
    difference: Tensor,
    time_bins: int,
) -> Tensor:
    """Count events as `_compare` does, of pixels that are blind after an event and then memorise what they see.

    Within an instant the light changes at one rate, so that all its events follow from the first in closed form.
    """
    instants = (len(light) - 1) // time_bins
    follow = light * speed  # [S+1,B,h,w]
    follow = follow / (1 + follow)
    filtered, blind = level[0].clone(), torch.zeros_like(difference)  # the latter in instants that are left of it
    counts = light.new_zeros(time_bins, light.shape[1], 2, *light.shape[2:])
    for k in range(1, len(light)):
        moved = (level[k] - filtered) * follow[k]
        filtered += moved
        moved += rise
        seen, blind = (1 - blind).clamp_(min=0), (blind - 1).clamp_(min=0)
        difference = difference + moved * seen
        rising = moved > 0
        threshold, way = torch.where(rising, on, off), torch.where(rising, difference, -difference)
        pace = moved.abs().clamp_(min=STILL)
        since = torch.minimum((way - threshold) / pace, seen)  # the first event
        period = dead + threshold / pace
        more = (since / period).floor_()
        since -= more * period  # the last event
        fires = way >= threshold
        ahead = (since - dead).clamp_(min=0) * pace
        difference = torch.where(fires, torch.where(rising, ahead, -ahead), difference)
        blind = torch.where(fires, (dead - since).clamp_(min=0), blind)
        bin_, events = (k - 1) // instants, (more + 1) * fires
        counts[bin_, :, 1] += events * rising
        counts[bin_, :, 0] += events * ~rising
    return counts


def _add_noise(counts: Tensor, draws: Tensor, share: Tensor) -> Tensor:
    """Add an event in a share [B] of the pixels; the same number decides on bin and polarity."""
    T, B, _, h, w = counts.shape
    share = share[:, None, None].clamp(min=1e-9)
    slot = (draws / share * (2 * T)).long()  # [B,h,w]; 2T and more where nothing is added
    added = slot < 2 * T
    slot = slot.clamp_(max=2 * T - 1)
    sample, pixel = torch.arange(B, device=slot.device), torch.arange(h * w, device=slot.device)
    place = (slot // 2 * B + sample[:, None, None]) * 2 + slot % 2  # [B,h,w] of maps
    counts.view(-1).scatter_add_(0, (place * (h * w) + pixel.view(h, w)).flatten(), added.flatten().to(counts.dtype))
    return counts


@dataclass(frozen=True)
class SensorNoise:
    """The most noise that is drawn: these, times the square of a number in [0, 1), so that little noise is frequent.

    A network that saw how noisy recordings can be is not misled by it. Flickering light needs no kind of its own: in
    time bins longer than its cycle it adds as many ON as OFF events anywhere, as background activity does.
    """

    background: float
    """Events of each pixel in a recording, at random times."""
    hot_pixels: float
    """Share of the pixels that are hot; those of one recording fire alike, up to `HOT_EVENTS` times."""

    def add(self, counts: Tensor, *, gain: float, seed: int, epoch: Epoch, draws: Tensor) -> Tensor:
        """Return counts [T,B,P,h,w] with noise, float32, pure in (seed, epoch, draws [B]).

        A grid pixel stands for `gain` pixels of the sensor, whose events it has on average.

        Differs: a count varies less than Poisson's; it is what is expected, rounded up or down at random.
        """
        T, B, P, h, w = counts.shape
        levels = uniforms(seed, "sensor noise", epoch, draws, 3).float().to(counts.device)[..., None, None]  # [B,3,1,1]
        numbers = many_uniforms(seed, "sensor noise of pixels", epoch, draws, (T * P + 1) * h * w).to(counts.device)
        numbers = numbers.view(B, T * P + 1, h, w)
        hot = numbers[:, 0] < self.hot_pixels * gain * levels[:, 0].square()  # [B,h,w]
        expected = self.background * levels[:, 1].square() + hot * levels[:, 2] * (HOT_EVENTS / gain)
        added = (expected[:, None] / (T * P) + numbers[:, 1:]).floor_()  # [B,T * P,h,w]
        return counts + added.view(B, T, P, h, w).transpose(0, 1)


class ImageSimulator(Protocol):
    """Makes recordings of static images."""

    def frames(self, images: Tensor, *, epoch: Epoch, draws: Tensor) -> Tensor:
        """Simulate event frames float32 [T,B,2,S,S] of images [B,C,H,W], pure in (seed, epoch, draws [B])."""


def make_simulator(data: TrainingBatches, settings: TrainSettings) -> ImageSimulator:
    """Make what simulates the recordings of a run: a camera, or `I2ESimulator`.

    Raises:
        MethodError: frames that cannot be simulated; a profile of another sensor.
    """
    if settings.simulation == I2E:
        require_countable(data.manifest, data.sample_shape)
        return I2ESimulator(data.sample_shape[0], ratio=settings.i2e_ratio, seed=settings.seed)
    return Simulator.for_run(data, settings)


def require_countable(manifest: Mapping[str, Any], sample_shape: tuple[int, ...]) -> None:
    """Refuse frames that do not count events of two polarities.

    Raises:
        MethodError: says what they are.
    """
    if sample_shape[1] != 2:
        raise MethodError(f"simulated frames are [T,2,H,W]; this shard set has frames {tuple(sample_shape)}")
    if manifest["settings"]["reduction"] in ("voxel", "est", "surface", "tore"):
        raise MethodError(
            f"the simulator counts events in time bins; this shard set has reduction "
            f"{manifest['settings']['reduction']}. Use sum, bilinear, frequency or event, or a method without it."
        )


def _as_placed(fitted: CameraProfile, manifest: Mapping[str, Any], frame: tuple[int, int]) -> tuple[float, float]:
    """Return how large images were in a fit, relative to those of a shard set with frames of (W, H): width, height.

    The fit keeps their aspect, and a set may have stretched them, cut them, or fitted them to another side.
    """
    own, shown = manifest.get("shown_fraction"), fitted.shown_fraction
    if shown is None:
        return 1.0, 1.0
    sensor, fit = manifest.get("sensor_size") or frame, manifest["settings"].get("fit") or FITS[0]
    if own or fitted.image_aspect is None:
        if not own and fitted.fitted_without_images and sensor[0] != sensor[1]:
            log.warning(
                "the profile was fitted without static images, and knows nothing of their shape: on the sensor of "
                "%dx%d pixels they are simulated as wide and high as fit %s made them with it, the camera may have "
                "seen others; calibrate with --static",
                *sensor, fit,
            )  # fmt: skip
        return (shown / (own or 1.0),) * 2
    factors = []
    for aspect in fitted.image_aspect:
        there, here = shown_px(aspect, sensor, shown), fitted_px(aspect, sensor, frame, fit)
        factors.append((there[0] / here[0], there[1] / here[1]))
    least, middle, greatest = np.log(factors)
    if np.abs(np.stack([least, greatest]) - middle).max() > SAME_SHAPE:
        log.warning(
            "static images of the camera's fit are %.3g to %.3g times as wide as high, and fit %s makes each of "
            "another size than the camera saw: all are simulated as if they were %.3g times as wide",
            fitted.image_aspect[0], fitted.image_aspect[2], fit, fitted.image_aspect[1],
        )  # fmt: skip
    wide, high = np.exp(middle).tolist()
    return wide, high


def _resized(profile: Profile, wide: float, high: float) -> Profile:
    """Return a profile for images that were so much wider and higher in its fit."""
    if max(abs(wide - 1), abs(high - 1)) < SAME_SIZE:
        return profile
    larger, stretched = (wide + high) / 2, (wide - high) / (wide + high)
    scale, stretch = profile.ranges.scale, profile.ranges.stretch
    ranges = replace(
        profile.ranges,
        scale=(larger * scale[0], larger * scale[1]),
        stretch=(stretched + stretch[0], stretched + stretch[1]),
    )
    return replace(profile, ranges=ranges, fitted_size=(wide, high))


def _unlike(settings: Mapping[str, Any], fitted: CameraProfile | None) -> list[str]:
    """Return what frames of a shard set have that simulated ones have not, one sentence each."""
    found = []
    if settings.get("extent") == "recording":
        found.append(
            "frames of the shard set stretch what each recording reaches (extent recording), simulated ones show the "
            "whole sensor: preprocess --extent canvas makes both alike"
        )
    if (binning := settings.get("binning", "bins")) != "bins":
        found.append(
            f"time bins of the shard set are no equal parts of a recording (binning {binning}), those of simulated "
            "ones are: preprocess --binning bins makes both alike"
        )
    parts = [name for name in ("cut_us", "pauses_us", "time_window_us") if settings.get(name)]
    if parts and fitted is not None and fitted.fitted_to_recordings:
        found.append(
            f"samples of the shard set are parts of recordings ({', '.join(parts)}), the profile's are whole ones, "
            "with all of their movement: simulation auto calibrates to the samples"
        )
    encoding = settings.get("encoding", POOLED)
    if encoding != POOLED and fitted is not None and fitted.image_aspect is not None:
        found.append(
            f"static images of the shard set are {encoding}, those of the profile's fit the largest of R, G and B: of "
            f"colour images simulation auto calibrates to the set's own, and preprocess --encoding {POOLED} makes both "
            "alike"
        )
    filters = [name for name in ("refractory_us", "background_us") if settings.get(name)]
    if filters:
        found.append(
            f"events of the shard set were filtered ({', '.join(filters)}), simulated ones are not: a set without "
            "filters has both alike"
        )
    return found


class Simulator:
    """Recordings of a simulated camera, for one run.

    Args:
        manifest: of the shard set: what a frame shows and counts.
        sample_shape: (T,P,H,W) of its frames.
        profile: name in `PROFILES`, or text of a profile in a recipe.
        seed: root seed of the run.
        noise: what recordings have beside the profile's; None for no more.

    Raises:
        MethodError: the frames have not two polarities; a profile of another sensor.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        sample_shape: tuple[int, ...],
        *,
        profile: str,
        seed: int,
        noise: SensorNoise | None = None,
    ) -> None:
        require_countable(manifest, sample_shape)
        self.time_bins, _, height, width = sample_shape
        self.grid = grid_of(manifest, (width, height))
        self.profile, fitted = profile_named(profile)
        if manifest["settings"].get("hot_pixels"):  # they were left out of the recordings
            self.profile = replace(self.profile, hot_pixels=())
        self.seed, self.noise = seed, noise
        for unlike in _unlike(manifest["settings"], fitted):
            log.warning("%s", unlike)
        known = manifest.get("sensor_size")
        if fitted is not None and known and tuple(known) != fitted.sensor:
            raise MethodError(
                f"simulation: the profile is of a sensor of {fitted.sensor[0]}x{fitted.sensor[1]} pixels, the shard "
                f"set's has {known[0]}x{known[1]}; calibrate on recordings of this camera"
            )
        if fitted is not None:
            self.profile = _resized(self.profile, *_as_placed(fitted, manifest, (width, height)))

    @classmethod
    def for_run(cls, data: TrainingBatches, settings: TrainSettings) -> Simulator:
        """Make the simulator of a run."""
        asked = SensorNoise(settings.simulated_background, settings.simulated_hot_pixels)
        noise = asked if asked.background or asked.hot_pixels else None
        return cls(data.manifest, data.sample_shape, profile=settings.simulation, seed=settings.seed, noise=noise)

    def frames(self, images: Tensor, *, epoch: Epoch, draws: Tensor) -> Tensor:
        """Simulate event frames float32 [T,B,2,H,W] of images [B,C,H,W], pure in (seed, epoch, draws [B]).

        Triton simulates on a GPU, see `simulation_triton`; the epoch is a tensor there.
        """
        grid = self.grid
        if backends.computes_by_triton(images.device):
            from spikebridge.train.data.simulation_triton import simulate_counts

            counts = simulate_counts(
                images,
                seed=self.seed,
                epoch=torch.as_tensor(epoch, device=images.device),
                draws=draws.to(images.device),
                grid=(grid.height, grid.width),
                moves=(2 * grid.scale_x / grid.width, 2 * grid.scale_y / grid.height),
                time_bins=self.time_bins,
                profile=self.profile,
            )
        else:
            numbers = simulation_draws(self.seed, epoch, draws, grid, device=images.device)
            counts = _simulate_counts(images, numbers, grid, time_bins=self.time_bins, profile=self.profile)
        if pixels := self.profile.hot_pixels:
            random = hot_pixel_draws(self.seed, epoch, draws, self.profile, self.time_bins)
            counts = grid.add_hot_pixels(counts, pixels, random.to(counts.device))
        if self.noise is not None:
            counts = self.noise.add(counts, gain=grid.gain, seed=self.seed, epoch=epoch, draws=draws)
        return grid.to_frames(counts)
