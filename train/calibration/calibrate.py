"""From recordings and static images to a profile: reads, fits, writes.

Axes: T time bins, n recordings, m static images, P polarity, S side of a frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spikebridge.pipeline.measurement.recordings import read_recordings, read_static_images
from spikebridge.pipeline.measurement.statistics import measure
from spikebridge.train.calibration.fit import Effort, fit, without_images
from spikebridge.train.calibration.outcome import profile_of
from spikebridge.train.calibration.state import State
from spikebridge.train.data.simulation import SensorGrid
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.score import same_threads
from spikebridge.train.runs.checkpoints import write_atomic

VERSION = 1
"""Goes up with every change that alters profiles."""
LARGEST_SIDE = 48
"""Side of a frame, at most: larger sensors are compared cell by cell."""
FINE_BINS = 20
"""Time bins of the comparison."""
FEWEST = 10
"""Recordings, and static images, at least: fewer say little of a set."""

Progress = Callable[..., Any]


def calibrate(
    paths: Sequence[Path],
    out: Path,
    *,
    static: Path | None = None,
    shown_fraction: float = 1.0,
    sensor: tuple[int, int] | None = None,
    recordings: int = 200,
    images: int = 1000,
    seed: int = 0,
    effort: Effort = Effort(),  # noqa: B008  (immutable)
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calibrate the simulator of training to recordings and write the profile; an interrupted call is continued.

    Equal arguments and files give an equal profile on the same processor.

    Args:
        paths: recordings, and folders of them, of one camera and one kind of movement.
        out: the profile, a TOML file.
        static: folder of static images of the kind that the recordings show; which shows which is not asked.
        shown_fraction: share of the sensor that a static image fills, as the conversion of these images has it.
        sensor: (W, H) in pixels; by default what the files state, or the smallest that holds all events.
        recordings: most that are read.
        images: most static images that are read.
        seed: of every draw.
        effort: how much is computed.
        overwrite: replace `out`.
        progress: as tqdm; silent without.

    Returns:
        JSON types: `profile` (its tables), `statistics` of the recordings, `agreement` (what the fit leaves).

    Raises:
        RunError: `out` is there and not `overwrite`, or too few recordings or images.
        LayoutError: no recordings or no images there.
        RecordingError: a recording or an image cannot be read.
    """
    if out.exists() and not overwrite:
        raise RunError(f"{out} exists; choose another file, or pass --overwrite to calibrate anew")
    wrapped = None if progress is None else lambda items: progress(items, desc="read", unit="recording")
    seen = read_recordings(paths, most=recordings, seed=seed, sensor=sensor, progress=wrapped)
    if len(seen.events) < FEWEST:
        raise RunError(f"{len(seen.events)} recordings: expected at least {FEWEST}; a camera shows itself in many")
    size = min(max(seen.sensor), LARGEST_SIDE)
    frames = torch.from_numpy(seen.frames(time_bins=FINE_BINS, size=size))
    statistics = measure(seen)
    shortest = statistics["refractory_us"]
    floor = None if shortest is None else shortest / seen.duration_us
    source: dict[str, Any] = {
        "recordings": len(seen.events),
        "simulated": seen.simulated,
        "static_images": 0,
        "shown_fraction": shown_fraction,
        "seed": seed,
        "version": VERSION,
    }
    if static is None:
        found = without_images(frames, sensor=seen.sensor, floor=floor)
    else:
        pictures = torch.from_numpy(
            read_static_images(
                static, most=images, seed=seed, size=size, sensor=seen.sensor, shown_fraction=shown_fraction
            )
        )
        if len(pictures) < FEWEST:
            raise RunError(f"{len(pictures)} static images in {static}: expected at least {FEWEST}")
        source["static_images"] = len(pictures)
        grid = SensorGrid(size, seen.sensor, "sum")
        state = State(out.with_name(f".{out.name}.state"), _key(frames, pictures, source, effort))
        bar = progress(total=effort.runs(EXPECTED_UNKNOWNS), desc="fit", unit="run") if progress else None
        with same_threads(1):  # sums depend on their number
            found = fit(
                frames,
                pictures,
                grid,
                sensor=seen.sensor,
                floor=floor,
                seed=seed,
                effort=effort,
                state=state,
                advance=(lambda: bar.update(1)) if bar is not None else lambda: None,
            )
        if bar is not None:
            bar.close()
    profile = profile_of(found, sensor=seen.sensor, duration_us=seen.duration_us, source=source)
    write_atomic(out, profile.dump().encode())
    if static is not None:
        state.remove()
    return {
        "out": str(out),
        "recordings": len(seen.events),
        "recordings_found": seen.found,
        "simulated": seen.simulated,
        "static_images": source["static_images"],
        "sensor": list(seen.sensor),
        "sensor_known": seen.sensor_known,
        "path": "free" if found.start.free else "common",
        "coherence": found.start.coherence,
        "other_sign": found.other_sign,
        "undecided": list(profile.undecided),
        "profile": {**profile.informing, "legs": [asdict(leg) for leg in profile.profile.legs]},
        "statistics": dict(statistics),
        "agreement": found.remainders,
    }


EXPECTED_UNKNOWNS = 25
"""For the progress bar: parameters of three movements."""


def _key(frames: torch.Tensor, images: torch.Tensor, source: dict[str, Any], effort: Effort) -> str:
    """Return the hash of all that decides a fit."""
    digest = hashlib.sha256(json.dumps([source, asdict(effort)], sort_keys=True).encode())
    for array in (frames, images):
        digest.update(str(tuple(array.shape)).encode() + array.numpy().tobytes())
    return digest.hexdigest()
