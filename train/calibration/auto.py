"""`simulation = "auto"`: the camera of a shard set, fitted to its training recordings before a run begins.

Once per set: the profile is kept beside the run, as camera-SET-KEY.toml, where other runs of the same set find it. No
label is used, and no recording of another split.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.base.files import FileLock
from spikebridge.pipeline.measurement.hot_pixels import HotPixel, find_hot_pixels
from spikebridge.pipeline.measurement.recordings import doubt_one_movement
from spikebridge.pipeline.shards.reader import ShardSet, Split
from spikebridge.train.calibration.calibrate import (
    CELLS_SIDE,
    FEWEST,
    FINE_BINS,
    LARGEST_SIDE,
    MOST_IMAGES,
    MOST_RECORDINGS,
    VERSION,
    Progress,
    calibrate_frames,
    compared_side,
    different_images,
    split_recordings,
    with_source,
)
from spikebridge.train.calibration.fit import Effort
from spikebridge.train.calibration.parameters import longer_than_usual
from spikebridge.train.calibration.start import guess
from spikebridge.train.config.profile import read_profile_file
from spikebridge.train.data.simulation import SensorGrid, grid_of
from spikebridge.train.errors import MethodError, RunError
from spikebridge.train.runs.checkpoints import write_atomic

log = logging.getLogger(__name__)

EFFORT = Effort(batch=32, sets=200)
SEED = 0
"""Of all draws: a set has one profile."""
FEWEST_BINS = 5
"""Time bins of stored frames: in fewer no movement can be told."""
COUNTING = ("sum", "bilinear")
"""Reductions whose stored frames are counts that the fit compares."""


def calibrated_profile(shards: ShardSet, beside: Path, *, progress: Progress | None = None) -> tuple[str, str]:
    """Return the profile of a shard set's camera as a recipe holds it, and its file's text; fit it where none is kept.

    An interrupted fit is continued; a second process waits for the first.

    Args:
        shards: of which frames are made as the recipe asks.
        beside: folder in which it is kept.
        progress: as tqdm; silent without.

    Raises:
        MethodError: frames that the fit cannot read, or too few recordings or static images.
        RunError: the folder cannot be written.
        RecipeError: what is kept was damaged.
    """
    shards = _readable(shards)
    frame = {name: shards.settings.get(name) for name in ("time_bins", "size", "reduction", "fit", "extent")}
    if (shown := shards.manifest.get("shown_fraction") or 1.0) != 1:
        frame["shown_fraction"] = shown
    split = shards.split("train")
    if (longer := longer_than_usual(_duration_us(split, _drawn(len(split)))) if len(split) else 1.0) != 1:
        frame["longer"] = longer
    grid = grid_of(shards.manifest, (shards.sample_shape[-1], shards.sample_shape[-2]))
    if grid.reduction == "bilinear" or (grid.width, grid.height) not in (grid.sensor, grid.frame):
        frame["grid"] = grid.width, grid.height, grid.counts_whole
    key = hashlib.sha256(json.dumps([shards.id, VERSION, frame, EFFORT.sets, EFFORT.batch]).encode()).hexdigest()
    path = beside / f"camera-{shards.id[:12]}-{key[:8]}.toml"
    lock = path.with_name(f".{path.name}.lock")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
    except OSError as error:
        raise RunError(f"{path}: the camera's profile cannot be kept there ({error.strerror or error})") from error
    with held:
        if path.exists():
            log.info("Camera: %s, calibrated for this shard set before", path)
        else:
            _calibrate(shards, path, progress)
        lock.unlink(missing_ok=True)
    profile, text = read_profile_file(path)
    return profile.inline(), text


def _calibrate(shards: ShardSet, path: Path, progress: Progress | None) -> None:
    split, pool = shards.split("train"), shards.static_pool()
    if len(pool) and (channels := pool.images.shape[1]) != 1:
        raise MethodError(
            f"simulation auto: static images of {channels} channels (encoding {shards.settings.get('encoding')}); a "
            "camera sees one: preprocess with --encoding v or luma"
        )
    rows = _drawn(len(split))
    frames = torch.from_numpy(split.read(rows).astype(np.float32)).transpose(0, 1).contiguous()  # [T,n,2,S,S]
    frames = frames[:, frames.sum((0, 2, 3, 4)) > 0]
    random = np.random.default_rng(SEED)
    random.permutation(len(split))  # the recordings'
    drawn = np.sort(random.permutation(len(pool))[:MOST_IMAGES])
    images = _grey(np.stack([pool.images[int(row)] for row in drawn])) if len(drawn) else torch.empty(0)
    for count, what in (
        (frames.shape[1], "training recordings"),
        (different_images(images), "different static images in the pool"),
    ):
        if count < FEWEST:
            raise MethodError(
                f"simulation auto: {count} {what}; a camera is calibrated on {FEWEST} or more. Name a profile instead."
            )
    size = frames.shape[-1], frames.shape[-2]
    _doubt_shapes(shards.manifest)
    doubt_one_movement([split.keys[int(row)] for row in rows], split.durations_us(rows))
    log.info("Camera: calibrating to %d training recordings, labels unused", frames.shape[1])
    grid = grid_of(shards.manifest, size)
    known = shards.manifest.get("sensor_size") or grid.sensor
    whole, (learnt, _) = frames, split_recordings(frames.shape[1], SEED)
    frames, hot_pixels = _without_hot_pixels(whole, learnt, grid, known)
    start = guess(frames[:, learnt], grid.sensor)
    while max(grid.sensor) > LARGEST_SIDE and max(grid.frame) > CELLS_SIDE and (coarser := _coarser(grid)) is not None:
        grid, whole, frames = coarser, _by_twos(whole), _by_twos(frames)
    state = path.with_name(f".{path.name}.state")
    made = calibrate_frames(
        frames,
        images,
        grid,
        sensor=grid.sensor,
        duration_us=_duration_us(split, rows),
        floor=None,
        simulated=shards.simulated,
        shown_fraction=shards.manifest.get("shown_fraction") or 1.0,
        seed=SEED,
        effort=EFFORT,
        state_file=state,
        progress=progress,
        whole=whole,
        hot_pixels=hot_pixels,
        start=start,
    )
    # Frames may show a part of the sensor; the profile is checked against all of it.
    profile = with_source(replace(made.profile, sensor=(int(known[0]), int(known[1]))), shard_set=shards.id)
    write_atomic(path, profile.dump().encode())
    state.unlink(missing_ok=True)
    log.info("Camera: kept in %s", path)
    if made.fidelity is not None:
        log.info(
            "Camera: %.0f %% of recordings are told from simulated ones, 50 %% = alike", 100 * made.fidelity.accuracy
        )


def _drawn(recordings: int) -> NDArray[np.int64]:
    """Return which of so many recordings a fit sees, in order."""
    return np.sort(np.random.default_rng(SEED).permutation(recordings)[:MOST_RECORDINGS])


def _duration_us(split: Split, rows: NDArray[np.int64]) -> int:
    """Return the median length of some recordings of a split."""
    return max(1, int(np.median(split.durations_us(rows))))


def _doubt_shapes(manifest: Mapping[str, Any]) -> None:
    """Warn where images may have been stretched otherwise than the sensor: the fit keeps the shape that they have."""
    width, height = manifest.get("sensor_size") or (1, 1)
    if width != height and not manifest["settings"].get("fit") and not manifest.get("shown_fraction"):
        log.warning(
            "Camera: static images and the sensor of %dx%d pixels were squashed into the frames, each on its own; "
            "unless the images have its shape the camera saw others than the fit does: preprocess --fit pad keeps both",
            width, height,
        )  # fmt: skip


def _without_hot_pixels(
    frames: Tensor, learnt: NDArray[np.int64], grid: SensorGrid, sensor: Sequence[int]
) -> tuple[Tensor, tuple[HotPixel, ...]]:
    """Return frames [T,n,2,H,W] without the hot cells of those learnt from, as pixels of the sensor of (W, H) pixels.

    Of a sensor that is finer than its frames no pixel is seen for itself, and of those around a hot one the others of
    its cell are left out, too.
    """
    cells = find_hot_pixels(frames[:, learnt].sum(0).numpy())
    if not cells:
        return frames, ()
    left, pixels = frames.clone(), []
    for cell in cells:
        left[..., cell.y, cell.x] = 0
        x, y = (
            min(max(place, 0), int(side) - 1) for place, side in zip(grid.pixel_in(cell.x, cell.y), sensor, strict=True)
        )
        pixels.append(cell._replace(x=x, y=y))
    return left, tuple(pixels)


def _readable(shards: ShardSet) -> ShardSet:
    """Return the set with frames that the fit reads.

    Raises:
        MethodError: it stores frames of another kind.
    """
    if shards.store != "frames":
        width, height = shards.manifest.get("sensor_size") or (shards.sample_shape[-1],) * 2
        size = compared_side((width, height))
        return shards.with_frames(
            time_bins=FINE_BINS, size=size, width=0, binning="bins", reduction="sum", dtype="uint16"
        )
    settings, (time_bins, polarities, *_) = shards.settings, shards.sample_shape
    problems = [
        f"{name} {found}, expected {expected}"
        for name, found, expected, good in (
            ("reduction", settings["reduction"], " or ".join(COUNTING), settings["reduction"] in COUNTING),
            ("binning", settings["binning"], "bins", settings["binning"] == "bins"),
            ("time bins", time_bins, f"{FEWEST_BINS} or more", time_bins >= FEWEST_BINS),
            ("polarities", polarities, "2", polarities == 2),
        )
        if not good
    ]
    if problems:
        raise MethodError(
            f"simulation auto: {shards.path} stores frames that fit no camera ({'; '.join(problems)}). "
            "A set that stores events (preprocess --store events) always can; or name a profile made by calibrate."
        )
    return shards


def _coarser(grid: SensorGrid) -> SensorGrid | None:
    """Return the grid of frames in whose cells two by two were summed; None where that cannot be done."""
    if grid.reduction != "sum" or any(side % 2 for side in grid.frame):
        return None
    return SensorGrid((grid.frame[0] // 2, grid.frame[1] // 2), grid.sensor, "sum", corner=grid.corner)


def _by_twos(frames: Tensor) -> Tensor:
    """Return frames [T,n,2,H,W] in whose cells two by two are summed."""
    return 4 * F.avg_pool2d(frames.flatten(0, 1), 2).unflatten(0, frames.shape[:2])


def _grey(images: Any) -> Tensor:
    """Return images uint8 [m,1,H,W] as float32 in [0, 1]."""
    return torch.from_numpy(images).float() / 255
