"""From two folders to a table of pairs: reads, renders, compares, writes.

Axes: T time bins, n recordings, N static images, K components, S side of a frame, F pixels per cell of it.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.places import in_the_way
from spikebridge.pipeline.measurement.recordings import MOST_UNREADABLE, RecordingSet, draw_rows
from spikebridge.pipeline.measurement.sources import (
    Answer,
    Sources,
    sources_of_dataset,
    sources_of_files,
    write_pairs,
)
from spikebridge.train.calibration.calibrate import (
    FEWEST,
    MOST_IMAGES,
    MOST_RECORDINGS,
    Progress,
    calibrate_to,
    compared_side,
    require_recordings,
    simulated_side,
)
from spikebridge.train.calibration.fit import Effort
from spikebridge.train.calibration.parameters import WIDTH_PX
from spikebridge.train.calibration.state import sole
from spikebridge.train.config.profile import BEGIN, SIGN, CameraProfile, read_profile
from spikebridge.train.config.simulation_ranges import SUPERSAMPLE, Profile
from spikebridge.train.data.simulation import SensorGrid
from spikebridge.train.errors import RunError
from spikebridge.train.matching.gallery import BATCH, FOLDS, TIME_BINS, Gallery, Shown, features
from spikebridge.train.matching.register import register
from spikebridge.train.networks.threads import same_threads

VERSION = 1
"""Goes up with every change that alters rendered images."""
LEAST = 0.9
"""Confidence from which on an image is named."""
REGISTERED, FEWEST_PAIRS, MOST_PAIRS, LEAST_GAIN = 3, 5, 60, 0.03
"""How often the camera is brought to the recordings, at most; of how many that clearly show an image; the part of the
difference that must go, for the images to be rendered anew."""
AROUND, DRAWN = 30, 2000
"""Images nearest to a recording, and others: only these are rendered when the camera is brought to them again."""
FARTHEST_WAY = 5
"""Cells by which the place of images may be wrong where the fit could not tell it: photographs that are larger than the
sensor show no border."""
MOST_BYTES = 4 * 2**30
"""Of static images in memory, at most, for them to be finer than the simulated pixels are: 116,000 images on a sensor
of 64 pixels or more."""
OTHER_CLASSES = 3
"""Classes that there must be for a wrong answer to show by its class."""


def match(
    recordings: Path,
    static: Path,
    out: Path,
    *,
    dataset: str | None = None,
    camera: Path | None = None,
    shown_fraction: float | None = None,
    sensor: tuple[int, int] | None = None,
    table: Mapping[str, Any] | None = None,
    least: float = LEAST,
    seed: int = 0,
    effort: Effort = Effort(),  # noqa: B008  (immutable)
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the static image that each recording shows, and write a table of pairs; an interrupted call is continued.

    Equal arguments and files give an equal table on the same processor. Labels are not used; where the data set has
    them they tell how many answers are of their recording's class.

    Args:
        recordings: folder of recordings of one camera.
        static: folder of static images, those that are shown among them.
        out: the table, CSV, see `pipeline.datasets.tables.PAIR_COLUMNS`.
        dataset: names recordings and images as `preprocess --dataset` does; by default by their paths.
        camera: profile of the camera; by default it is calibrated to the recordings.
        shown_fraction: share of the sensor that a static image fills; by default as `camera` was fitted, else as the
            data set has it, or 1.
        sensor: (W, H) in pixels; by default what is known, or the smallest that holds what the fit saw.
        table: columns, group and time_unit, as `TableOptions` takes them; not with other data sets than folders.
        least: confidence from which on an image is named.
        seed: of every draw.
        effort: of the calibration.
        overwrite: replace `out`.
        progress: as tqdm; silent without.

    Returns:
        JSON types: numbers of recordings, images, answers; what could not be read; how far classes agree.

    Raises:
        RunError: `out` is there and not `overwrite`, another call writes it, `camera` is of another sensor, or too few
            recordings or images.
        RecipeError: `camera` is no profile.
        LayoutError: nothing usable in a folder.
        RecordingError: an image cannot be decoded.
    """
    _check_output(out, overwrite=overwrite)
    require_recordings([recordings])
    given = read_profile(camera) if camera else None
    if given is not None and shown_fraction is None:
        shown_fraction = given.shown_fraction
    sources = (
        sources_of_dataset(dataset, recordings, static, shown_fraction=shown_fraction, table=table)
        if dataset
        else sources_of_files(recordings, static, shown_fraction=shown_fraction, sensor=sensor, table=table)
    )
    wrapped = None if progress is None else lambda items: progress(items, desc="read", unit="recording")
    seen = sources.draw(MOST_RECORDINGS, seed, sensor=sensor, progress=wrapped)
    if given is not None and given.sensor != seen.sensor:
        width, height = seen.sensor
        raise RunError(
            f"{camera} is of a sensor of {given.sensor[0]}x{given.sensor[1]} pixels, the recordings are of "
            f"{width}x{height}; calibrate on recordings of this camera, or say with --sensor what theirs is"
        )
    images = _Images.read(sources, seen.sensor, seed, progress)
    if len(images.rows) < FEWEST:
        raise RunError(f"{static}: found {len(images.rows)} different static images; expected at least {FEWEST}")
    if camera is None and len(seen.events) < FEWEST:
        raise RunError(
            f"{recordings}: found {seen.counted}; expected at least {FEWEST}, since a camera shows itself in "
            "many. Name a profile of it with --camera"
        )
    state = out.with_name(f".{out.name}.state")
    with sole(out, "another match is writing this table"):
        _check_output(out, overwrite=overwrite)  # another call may have written it meanwhile
        state.mkdir(exist_ok=True)
        cameras = [given] if given else _calibrated(sources, seen, images, seed, effort, state, progress)
        profile = cameras[0]
        shown = _bars(progress)
        with same_threads(1):  # sums depend on their number
            grid = SensorGrid(images.size, seen.sensor, "sum")
            hot = [(pixel.x, pixel.y) for pixel in profile.profile.hot_pixels]  # they say nothing of an image
            gallery = _registered(cameras, seen.without(hot), images, grid, seed, state, shown)
            places, readable, unreadable = _place(sources, seen.sensor, hot, gallery, images.size, shown)
            found = gallery.answer(places, least, shown(min(FOLDS, len(places)), "compare"))
        answers = [Answer(name, "", 0.0, "") for name in sources.recordings]
        for number, row in enumerate(readable):
            confidence, candidates = float(found.confidence[number]), images.rows[found.candidates[number]].tolist()
            image = int(images.rows[found.image[number]])
            answers[row] = Answer(
                sources.recordings[row],
                *(
                    (sources.images[image], confidence, images.hashes[image])
                    if confidence >= least
                    else ("", confidence, "")
                ),
                tuple((sources.images[each], images.hashes[each]) for each in candidates),
                float(found.held[number]) if candidates else 0.0,
            )
        write_pairs(out, answers)
        shutil.rmtree(state)
    shows = Counter(answer.image for answer in answers if answer.image)
    return {
        "out": str(out),
        "recordings": len(sources.recordings),
        "simulated": sources.simulated,
        "static_images": len(sources.images),
        "different_images": len(images.rows),
        "sensor": list(seen.sensor),
        "sensor_known": seen.sensor_known,
        "shown_fraction": sources.shown_fraction,
        "camera": str(camera) if camera else "calibrated",
        "path": "free" if profile.profile.free else "common",
        "least": least,
        "answered": sum(shows.values()),
        "images_shown": len(shows),
        "one_of_several": sum(bool(answer.candidates) for answer in answers),
        "unreadable": len(sources.recordings) - len(readable),
        "unreadable_messages": unreadable,
        "classes": _classes(sources, answers),
    }


@dataclass(frozen=True)
class _Images:
    """Static images as they lie on the sensor, each content once."""

    placed: NDArray[np.uint8]
    """[N,1,FS,FS]."""
    rows: NDArray[np.int64]
    """[N], their positions in the listing."""
    hashes: dict[int, str]
    """By position in the listing."""
    size: int
    """S, of the frames that they are compared in."""

    @classmethod
    def read(cls, sources: Sources, sensor: tuple[int, int], seed: int, progress: Progress | None) -> _Images:
        """Decode, hash and place every image; as finely as a fit does it, where so many can be kept."""
        seen, count, side = dict[str, int](), len(sources.images), simulated_side(sensor)
        finest = SUPERSAMPLE if count * (SUPERSAMPLE * side) ** 2 <= MOST_BYTES else 1
        placing = sources.placing(sensor=sensor, size=side, finest=finest, seed=seed)
        placed = np.empty((count + 1, 1, placing.side, placing.side), np.uint8)  # one that a copy is written to
        rows: Iterable[int] = range(count)
        for row in progress(rows, desc="images", unit="image") if progress else rows:
            digest, image = sources.image(row, placing)
            placed[len(seen)] = image
            seen.setdefault(digest, row)
        hashes = {row: digest for digest, row in seen.items()}
        return cls(placed[: len(seen)], np.fromiter(seen.values(), np.int64, len(seen)), hashes, compared_side(sensor))

    def batch(self, rows: Iterable[int]) -> Tensor:
        """Return images at positions in `rows`, uint8 [B,1,FS,FS]."""
        return torch.from_numpy(self.placed[list(rows)])

    def batch_of(self, some: NDArray[np.int64], rows: Iterable[int]) -> Tensor:
        """Return images at positions in a part of `rows`, uint8 [B,1,FS,FS]."""
        return self.batch(some[list(rows)].tolist())


def _check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse what is there already."""
    if reason := in_the_way(out, overwrite=overwrite):
        raise RunError(f"{out} {reason}")


def _calibrated(
    sources: Sources,
    seen: RecordingSet,
    images: _Images,
    seed: int,
    effort: Effort,
    state: Path,
    progress: Progress | None,
) -> list[CameraProfile]:
    """Return the camera, and what else it may be."""
    drawn = images.batch(draw_rows(len(images.rows), MOST_IMAGES, seed)).float() / 255
    made = calibrate_to(
        seen,
        drawn,
        shown_fraction=sources.shown_fraction,
        seed=seed,
        effort=effort,
        state_file=state / "camera",
        progress=progress,
    )
    return [made.profile, *made.rivals]


def _registered(
    cameras: Sequence[CameraProfile], seen: RecordingSet, images: _Images, grid: SensorGrid, seed: int, state: Path,
    shown: Shown,
) -> Gallery:  # fmt: skip
    """Return the static images, rendered by a camera that was brought to the recordings that clearly show one.

    Where the calibration could not tell the sign of the light or the beginning, it is that with which they do more
    clearly.
    """
    fitted = [replace(each.profile, either_sign=False, either_begin=False) for each in cameras]
    profile = fitted[0]
    frames = torch.from_numpy(seen.frames(time_bins=TIME_BINS, size=images.size))
    found, content = features(frames, free=profile.free), hashlib.sha256(images.placed.tobytes()).hexdigest()

    def whole(camera: Profile) -> Gallery:
        key = hashlib.sha256(repr((VERSION, content, grid.sensor, seed, camera)).encode()).hexdigest()
        return Gallery(len(images.rows), images.batch, grid, camera, seed=seed, shown=shown, keep=state / key)

    def some(camera: Profile, rows: NDArray[np.int64]) -> Gallery:
        return Gallery(len(rows), partial(images.batch_of, rows), grid, camera, seed=seed, shown=shown)

    def near() -> NDArray[np.int64]:
        around = rendered.around(rendered.place(frames), AROUND)
        return np.union1d(around, draw_rows(len(images.rows), DRAWN, seed))

    rendered, undecided = whole(profile), {name for each in cameras for name in each.undecided}
    every = np.arange(len(images.rows))
    for name in (SIGN, BEGIN):
        if name in undecided:
            other = _other(profile, name, fitted)
            rows = near() if name == BEGIN else every  # with either beginning much the same images are near
            few = 2 * len(rows) < len(every)
            two = [some(each, rows) for each in (profile, other)] if few else [rendered, whole(other)]
            if _clearness(two[1], frames) > _clearness(two[0], frames):
                rendered, profile = whole(other) if few else two[1], other
    if undecided & {"x_start", "y_start"}:
        across, down = _clearest_way(rendered, frames)
        if (across, down) != (0, 0):
            profile = _begun_elsewhere(
                profile, across * grid.sensor[0] / images.size, down * grid.sensor[1] / images.size
            )
            rendered = whole(profile)
    brought, gallery, rows = profile, rendered, every
    for number in range(REGISTERED):
        if number:  # by the camera as it is now
            gallery = some(brought, rows)
        places = gallery.place(frames)
        gallery.learn(places)
        recordings, shows = gallery.clear_pairs(places)
        if len(recordings) < FEWEST_PAIRS:
            break
        if not number:
            rows = near()
        pairs = slice(None, None, math.ceil(len(recordings) / MOST_PAIRS))
        render = partial(gallery.render, shows[pairs].tolist())
        px = max(1.0, max(grid.sensor) / WIDTH_PX)
        nearer, left = register(brought, found[recordings[pairs]], render, px=px, shown=shown)
        if left > 1 - LEAST_GAIN:
            break
        brought = nearer
    return rendered if brought is profile else whole(brought)


def _other(profile: Profile, name: str, fitted: Sequence[Profile]) -> Profile:
    """Return the camera with the other sign or beginning: as it was fitted so, or all else as it is."""
    if name == BEGIN:
        other = replace(profile, appeared=not profile.appeared)
        alike = (one for one in fitted if (one.inverted, one.appeared) == (other.inverted, other.appeared))
        return next(alike, other)
    surround = None if profile.surround is None else 1 - profile.surround  # before negatives it looks as before
    other = replace(profile, inverted=not profile.inverted, surround=surround)
    return next((one for one in fitted if one.inverted == other.inverted), other)


def _clearest_way(gallery: Gallery, frames: Tensor) -> tuple[int, int]:
    """Return how many cells right and down of renderings recordings [T,n,2,S,S] show one of them most clearly.

    An image that begins elsewhere on the sensor has the same events elsewhere, but for those at the border.
    """
    size, ways = frames.shape[-1], range(-FARTHEST_WAY, FARTHEST_WAY + 1)
    padded = F.pad(frames, (FARTHEST_WAY,) * 4)

    def clearness(way: tuple[int, int]) -> float:
        across, down = (FARTHEST_WAY + cells for cells in way)
        return gallery.clearness(gallery.place(padded[..., down : down + size, across : across + size]))

    near_first = sorted(((across, down) for across in ways for down in ways), key=lambda way: math.hypot(*way))
    return max(near_first, key=clearness)


def _begun_elsewhere(profile: Profile, right: float, down: float) -> Profile:
    """Return a camera that sees images begin so many pixels of the sensor further right and down."""
    starts = {
        name: tuple(value + by for value in getattr(profile.ranges, name))
        for name, by in (("x_start", right), ("y_start", down))
    }
    return replace(profile, ranges=replace(profile.ranges, **starts))


def _clearness(gallery: Gallery, frames: Tensor) -> float:
    """Return how clearly recordings [T,n,2,S,S] show one image rather than another."""
    places = gallery.place(frames)
    gallery.learn(places)
    return gallery.clearness(places)


def _place(
    sources: Sources, sensor: tuple[int, int], hot: list[tuple[int, int]], gallery: Gallery, size: int, shown: Shown
) -> tuple[Tensor, list[int], list[str]]:
    """Return the recordings that can be read as numbers [n,K], their positions, and what is wrong with others.

    Events of hot pixels are left out.

    Raises:
        RunError: none can be read.
    """
    advance = shown(len(sources.recordings), "recordings")
    places, readable, unreadable = list[Tensor](), list[int](), list[str]()
    batch = list[NDArray[np.float32]]()
    for row in range(len(sources.recordings)):
        try:
            batch.append(sources.frames(row, sensor=sensor, time_bins=TIME_BINS, size=size, without=hot))
            readable.append(row)
        except RecordingError as error:
            unreadable.append(str(error))
        if len(batch) == BATCH:
            places.append(gallery.place(torch.from_numpy(np.concatenate(batch, 1))))
            batch.clear()
        advance()
    if batch:
        places.append(gallery.place(torch.from_numpy(np.concatenate(batch, 1))))
    if not places:
        raise RunError(f"none of {len(sources.recordings)} recordings can be used; the first: {unreadable[0]}")
    return torch.cat(places), readable, unreadable[:MOST_UNREADABLE]


def _classes(sources: Sources, answers: list[Answer]) -> dict[str, int] | None:
    """Return how many answers are of the class of their recording; None where classes are not known, or say little."""
    if len(set(sources.image_classes)) < OTHER_CLASSES:
        return None
    of_image = dict(zip(sources.images, sources.image_classes, strict=True))
    pairs = [
        (name, of_image[answer.image])
        for name, answer in zip(sources.recording_classes, answers, strict=True)
        if answer.image
    ]
    return {"answers": len(pairs), "of_one_class": sum(one == other for one, other in pairs)}


def _bars(progress: Progress | None) -> Shown:
    """Return what makes a progress bar that is moved by one."""

    def shown(total: int, what: str) -> Callable[[], None]:
        if progress is None:
            return lambda: None
        bar = progress(total=total, desc=what)

        def advance() -> None:
            bar.update(1)
            if bar.n >= total:
                bar.close()

        return advance

    return shown
