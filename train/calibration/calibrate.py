"""From recordings and static images to a profile: reads, fits, writes.

Axes: T time bins, n recordings, m static images, P polarity, S side of a frame.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.places import in_the_way
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.pipeline.measurement.placing import Placing
from spikebridge.pipeline.measurement.recordings import (
    MOST_UNREADABLE,
    RecordingSet,
    read_recordings,
    read_static_images,
)
from spikebridge.pipeline.measurement.shown import paired_files, read_shown
from spikebridge.pipeline.measurement.statistics import hot_pixels_of, measure, shortest_interval_us
from spikebridge.pipeline.shards.manifest import MANIFEST
from spikebridge.pipeline.simulation.fitted import camera_of
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.calibration.fidelity import Fidelity, compare
from spikebridge.train.calibration.fit import Effort, Fit, fit, to_begin, without_images
from spikebridge.train.calibration.outcome import profile_of
from spikebridge.train.calibration.parameters import longer_than_usual
from spikebridge.train.calibration.renderings import renderings
from spikebridge.train.calibration.start import Start, guess
from spikebridge.train.calibration.state import State, sole
from spikebridge.train.config.informing import ASPECT, CELLS
from spikebridge.train.config.profile import FILE, CameraProfile
from spikebridge.train.config.simulation_ranges import SUPERSAMPLE
from spikebridge.train.data.simulation import SensorGrid
from spikebridge.train.errors import RunError
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.checkpoints import write_atomic

VERSION = 13
"""Goes up with every change that alters profiles."""
LARGEST_SIDE, CELLS_SIDE = 48, 32
"""Longer side of a sensor, pixels, up to which it is compared pixel by pixel; cells along a side of larger ones, each
of which is simulated as `PER_CELL` x `PER_CELL` pixels, or as many as it has."""
FINE_BINS = 20
"""Time bins of the comparison."""
FEWEST = 10
"""Recordings, and static images, at least: fewer say little of a set."""
MOST_RECORDINGS, MOST_IMAGES = 200, 1000
"""Recordings, unless it is said otherwise, and static images that a fit sees, at most."""

HELD_OUT = 4
"""One of so many recordings is held out of the fit, to tell simulated ones from."""
FEWEST_TO_SPLIT = 40
"""Recordings; of fewer none is held out unless it is asked for."""
FEWEST_TO_TELL = 5
"""Held-out recordings, at least: fewer say nothing."""
ALONE = ("inverted", "either_sign", "surround", "rest", "rest_spread", "appeared", "either_begin", "lateness")
"""What a profile holds beside ranges and the path."""

log = logging.getLogger(__name__)

Progress = Callable[..., Any]
Page = Callable[[dict[str, Any], Fidelity, torch.Tensor, torch.Tensor], str]


def calibrate(
    paths: Sequence[Path],
    out: Path,
    *,
    html: Path | None = None,
    page: Page | None = None,
    static: Path | None = None,
    pairs: Path | None = None,
    shown_fraction: float = 1.0,
    sensor: tuple[int, int] | None = None,
    table: Mapping[str, Any] | None = None,
    recordings: int = MOST_RECORDINGS,
    seed: int = 0,
    effort: Effort = Effort(),  # noqa: B008  (immutable)
    held_out: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calibrate the simulator of training to recordings and write the profile; an interrupted call is continued.

    Equal arguments and files give an equal profile on the same processor.

    Args:
        paths: recordings, and folders of them, of one camera and one kind of movement.
        out: the profile, a TOML file.
        html: file of the page with real beside simulated recordings; needs static images and `FEWEST_TO_SPLIT`
            recordings.
        page: makes it of the result, the fidelity, and the frames of real and simulated recordings.
        static: folder of static images of the kind that the recordings show; which shows which is not asked.
        pairs: table of the static image that each recording shows, as `match` writes it; then `paths` is one folder,
            and recordings that it names no image for are left out.
        shown_fraction: share of the sensor that a static image fills, as the conversion of these images has it.
        sensor: (W, H) in pixels; by default what the files state, or the smallest that holds all events.
        table: columns, group and time_unit, as `TableOptions` takes them.
        recordings: most that are read.
        seed: of every draw.
        effort: how much is computed.
        held_out: recordings that the fit does not see; by default a quarter of `FEWEST_TO_SPLIT` or more, else none.
        overwrite: replace `out`.
        progress: as tqdm; silent without.

    Returns:
        JSON types: `profile` (its tables), `unreadable` (recordings that cannot be used) and what is wrong with the
            first of them, `statistics` of the recordings, `agreement` (what the fit leaves),
        `fidelity` (how far simulated recordings can be told from those held out; None where none was).

    Raises:
        RunError: `out` or `html` is there and not `overwrite`, another call writes it, too few recordings or images, or
            a shard set in their place.
        LayoutError: no recordings or no images there.
        RecordingError: no recording can be used, or an image cannot be read. Recordings that cannot be used beside
            others are passed over, and named in `unreadable_messages`.
    """
    _check_output(out, html, static, overwrite=overwrite)
    if held_out and static is None:
        raise RunError("--held-out tells simulated recordings from real ones, and there is none without --static")
    if pairs is not None and (static is None or len(paths) != 1):
        wrong = "give --static" if static is None else f"found {len(paths)} of recordings; name the one above them"
        raise RunError(f"--pairs names recordings and static images by their paths below one folder each; {wrong}")
    require_recordings(paths)
    sources, by_file = paired_files(pairs, paths[0], static, sensor=sensor) if pairs and static else (None, {})
    wrapped = None if progress is None else lambda items: progress(items, desc="read", unit="recording")
    seen = read_recordings(
        list(by_file) or paths, most=recordings, seed=seed, sensor=sensor, table=table, progress=wrapped
    )
    if len(seen.events) < FEWEST:
        raise RunError(
            f"{', '.join(map(str, paths))}: found {seen.counted}; expected at least {FEWEST}, since a camera "
            "shows itself in many. Name more of this camera, or the folder above them"
        )
    pictures, aspect = None, None
    placing = Placing(simulated_side(seen.sensor), seen.sensor, shown_fraction)
    if static is not None:
        placed, aspect, placing = read_static_images(static, placing, most=MOST_IMAGES, seed=seed, finest=SUPERSAMPLE)
        pictures = torch.from_numpy(placed)
        if (different := different_images(pictures)) < FEWEST:
            raise RunError(
                f"{static}: found {len(pictures)} static images, {different} of them different and of more than one "
                f"grey value; expected at least {FEWEST} such ones, of the kind that the recordings show"
            )
    shown = None
    if sources is not None:
        shown = torch.from_numpy(read_shown(sources, [by_file[Path(name)] for name in seen.names], placing))
    if held_out is not None and not (held_out == 0 or FEWEST_TO_TELL <= held_out <= len(seen.events) - FEWEST):
        raise RunError(
            f"--held-out {held_out}: found {len(seen.events)} recordings; expected 0, or {FEWEST_TO_TELL} and more, so "
            f"that {FEWEST} are left for the fit"
        )
    if html is not None and not _held_out(len(seen.events), held_out):
        raise RunError(f"--html needs at least {FEWEST_TO_SPLIT} recordings, of which some are held out, or --held-out")
    state_file = out.with_name(f".{out.name}.state")
    with sole(out, "another calibrate is writing this profile"):
        _check_output(out, html, static, overwrite=overwrite)  # another call may have written it meanwhile
        fitted = calibrate_to(
            seen, pictures, shown_fraction=shown_fraction, seed=seed, effort=effort, state_file=state_file,
            progress=progress, held_out=held_out, beside=True, shown=shown,
        )  # fmt: skip
        found, source = fitted.fit, fitted.profile.informing["source"]
        profile = with_source(fitted.profile, recordings_from=[_named(path) for path in paths])
        if static is not None and aspect is not None:
            profile = with_source(
                profile, **{ASPECT: [float(f"{side:.4g}") for side in aspect]}, static_images_from=_named(static)
            )
        result = {
            "out": str(out),
            "recordings": len(seen.events),
            "recordings_found": seen.found,
            "unreadable": len(seen.unreadable),
            "unreadable_messages": list(seen.unreadable[:MOST_UNREADABLE]),
            "simulated": seen.simulated,
            "static_images": source["static_images"],
            "pairs": 0 if shown is None else len(shown),
            "sensor": list(seen.sensor),
            "sensor_known": seen.sensor_known,
            "path": "free" if found.start.free else "common",
            "coherence": found.start.coherence,
            "undecided": list(profile.undecided),
            "profile": profile_tables(profile),
            "statistics": dict(measure(seen)),
            "agreement": found.remainders,
            "fidelity": None if fitted.fidelity is None else fitted.fidelity.as_dict(),
        }
        if html is not None and page is not None and fitted.fidelity is not None and fitted.compared is not None:
            write_atomic(html, page(result, fitted.fidelity, *fitted.compared).encode())
        try:
            write_atomic(out, profile.dump().encode())
        except RunError:
            if html is not None:
                html.unlink(missing_ok=True)  # the same command, given again, would be refused for it
            raise
        state_file.unlink(missing_ok=True)
    return result


def different_images(images: torch.Tensor) -> int:
    """Return how many of some images [m,1,H,W] differ from one another and have an edge, which alone makes events."""
    return len({image.numpy().tobytes() for image in images if image.min() < image.max()})


def compared_side(sensor: tuple[int, int]) -> int:
    """Return the side of the frames in which recordings of a sensor of (W, H) pixels are compared."""
    return side if (side := max(sensor)) <= LARGEST_SIDE else min(CELLS_SIDE, LARGEST_SIDE)


def simulated_side(sensor: tuple[int, int]) -> int:
    """Return how many pixels are simulated along the longer side of these frames."""
    grid = SensorGrid(compared_side(sensor), sensor, "sum")
    return max(grid.width, grid.height)


def require_recordings(paths: Sequence[Path]) -> None:
    """Refuse shard sets in place of recordings: their files would be read as tables.

    Raises:
        RunError: one is a shard set.
    """
    for path in paths:
        if (path / MANIFEST).is_file():
            raise RunError(
                f"{path} is a shard set; expected the recordings that it was made of. Training calibrates to the "
                "set itself with --set simulation=auto"
            )


def _require_polarities(frames: torch.Tensor) -> None:
    """Refuse frames [T,n,2,H,W] that tell nothing of one of the two thresholds."""
    off, on = frames.sum((0, 1, 3, 4)).tolist()
    if not off or not on:
        raise RunError(
            f"{frames.shape[1]} recordings: all events are {'ON' if on else 'OFF'}; expected both polarities, which "
            "the simulator has. Was the polarity lost on the way? `spikebridge inspect` shows what a file holds"
        )


def with_source(profile: CameraProfile, **more: Any) -> CameraProfile:
    """Return a profile that says more under [source]; nothing depends on it."""
    return replace(profile, informing={**profile.informing, "source": {**profile.informing["source"], **more}})


def _named(path: Path) -> str:
    """Return the end of a path, which tells training from test recordings, and not where it lies on a machine."""
    return show("/".join(path.parts[-2:]).lstrip("/") or ".")


def profile_tables(profile: CameraProfile) -> dict[str, Any]:
    """Return what a profile says of its camera, as `calibrate` does: JSON types."""
    return {
        **profile.informing,
        "duration_us": profile.duration_us,
        "free": profile.profile.free,
        "legs": [asdict(leg) for leg in profile.profile.legs],
        "steps": [list(step) for step in profile.profile.steps],
        "hot_pixels": [list(pixel) for pixel in profile.profile.hot_pixels],
        **{name: getattr(profile.profile, name) for name in ALONE},
    }


@dataclass(frozen=True)
class Calibrated:
    """What a fit gave."""

    profile: CameraProfile
    fit: Fit
    fidelity: Fidelity | None
    """None where no recording was held out."""
    rivals: tuple[CameraProfile, ...]
    """See `Fit.rivals`."""
    compared: tuple[torch.Tensor, torch.Tensor] | None
    """Frames of the recordings that were held out, and simulated ones, [T,n,2,S,S] each."""


def calibrate_to(
    seen: RecordingSet,
    images: torch.Tensor | None,
    *,
    shown_fraction: float,
    seed: int,
    effort: Effort = Effort(),  # noqa: B008  (immutable)
    state_file: Path | None = None,
    progress: Progress | None = None,
    held_out: int | None = None,
    beside: bool = False,
    shown: torch.Tensor | None = None,
) -> Calibrated:
    """Fit the simulator to recordings that were read; see `calibrate_frames`."""
    if images is None:
        held_out = 0  # there is nothing to tell them from
    size = compared_side(seen.sensor)
    whole = seen.frames(time_bins=FINE_BINS, size=size)
    learnt, _ = split_recordings(len(seen.events), seed, held_out)
    frames, hot_pixels = whole, tuple(hot_pixels_of(seen.part(learnt)))
    if hot_pixels:
        seen = seen.without([(pixel.x, pixel.y) for pixel in hot_pixels])
        frames = seen.frames(time_bins=FINE_BINS, size=size)
    known = seen.part(learnt)
    # A movement of few pixels is less than a cell: it is guessed from finer frames.
    fine = known.frames(time_bins=FINE_BINS, size=min(max(seen.sensor), LARGEST_SIDE))
    start = guess(torch.from_numpy(fine), seen.sensor)
    shortest = shortest_interval_us(known)
    return calibrate_frames(
        torch.from_numpy(frames),
        images,
        SensorGrid(size, seen.sensor, "sum"),
        sensor=seen.sensor,
        duration_us=known.duration_us,
        floor=shortest / known.duration_us if shortest else None,  # events at one time tell of no dead time
        simulated=seen.simulated,
        shown_fraction=shown_fraction,
        seed=seed,
        effort=effort,
        state_file=state_file,
        progress=progress,
        held_out=held_out,
        beside=beside,
        shown=shown,
        whole=torch.from_numpy(whole),
        hot_pixels=hot_pixels,
        start=start,
    )


def calibrate_frames(
    frames: torch.Tensor,
    images: torch.Tensor | None,
    grid: SensorGrid,
    *,
    sensor: tuple[int, int],
    duration_us: int,
    floor: float | None,
    simulated: bool,
    shown_fraction: float,
    seed: int,
    effort: Effort,
    state_file: Path | None = None,
    progress: Progress | None = None,
    held_out: int | None = None,
    beside: bool = False,
    shown: torch.Tensor | None = None,
    whole: torch.Tensor | None = None,
    hot_pixels: tuple[HotPixel, ...] = (),
    start: Start | None = None,
) -> Calibrated:
    """Fit the simulator to frames, a part of which is held out to tell simulated ones from.

    Args:
        frames: counts float32 [T,n,2,H,W], without hot pixels; square where `beside`.
        images: static images float32 [m,1,H,W] in [0, 1]; None fits what can be told without.
        grid: of the frames.
        sensor: (W, H) in pixels.
        duration_us: of a recording.
        floor: shortest time between events of one pixel as a share of a recording; None where it is not known.
        simulated: whether they are simulated recordings.
        shown_fraction: share of the sensor that a static image fills.
        seed: of every draw.
        effort: how much is computed.
        state_file: what an interrupted fit left, and this one leaves; whoever calls deletes it.
        progress: as tqdm; silent without.
        held_out: recordings that the fit does not see, see `calibrate`.
        beside: whether the fidelity report has other ways to make recordings beside the fitted one.
        shown: the image that each recording shows [n,1,H,W]; None where that is not known.
        whole: `frames` with hot pixels, if there are some.
        hot_pixels: of the sensor.
        start: the movement as it was guessed; by default from the frames that are not held out.

    Raises:
        RunError: all events are of one polarity.
    """
    _require_polarities(frames)
    whole = frames if whole is None else whole
    learnt, told = split_recordings(frames.shape[1], seed, held_out)
    frames, unseen = frames[:, learnt], whole[:, told] if len(told) else None
    shown = None if shown is None else shown[learnt]
    start = start or guess(frames, sensor)
    source = {
        "recordings": frames.shape[1] + (0 if unseen is None else unseen.shape[1]),
        "held_out": 0 if unseen is None else unseen.shape[1],
        "simulated": simulated,
        "static_images": 0 if images is None else len(images),
        **({} if shown is None else {"pairs": len(shown)}),
        "shown_fraction": shown_fraction,
        "seed": seed,
        "version": VERSION,
        **({} if (grid.width, grid.height) == grid.sensor else {CELLS: [grid.width, grid.height]}),
    }
    made_of = partial(
        profile_of, sensor=sensor, duration_us=duration_us, source=source, hot_pixels=hot_pixels,
        cell_px=max(sensor) / max(grid.width, grid.height), shortest_us=None if floor is None else floor * duration_us,
    )  # fmt: skip
    longer = longer_than_usual(duration_us)
    if images is None:
        with same_threads(1):  # sums depend on their number
            found = without_images(frames, start, sensor=sensor, floor=floor, longer=longer)
        return Calibrated(made_of(found), found, None, (), None)
    state = State(
        state_file,
        _key((frames, images) if shown is None else (frames, images, shown), source, effort, sensor, floor, longer),
    )
    if state.continued:
        log.info("Continuing the fit that was interrupted")
    bar = _Bar(progress)
    bar.begin("search", effort.searching(EXPECTED_UNKNOWNS, len(to_begin(images))))
    with same_threads(1):
        found = fit(
            frames,
            images,
            grid,
            start,
            sensor=sensor,
            floor=floor,
            longer=longer,
            seed=seed,
            effort=effort,
            shown=shown,
            state=state,
            advance=bar.advance,
            expect=lambda runs: bar.begin("fit", runs),
        )
        bar.end()
        profile, *rivals = (made_of(one) for one in (found, *found.rivals))
        if unseen is None:
            return Calibrated(profile, found, None, tuple(rivals), None)
        others = (
            renderings(
                grid, profile.profile, duration_us=duration_us, seed=seed, fitted=camera_in_microseconds(profile)
            )
            if beside
            else {}
        )
        fidelity, made = compare(whole[:, learnt], unseen, images, grid, profile.profile, seed=seed, others=others)
    profile = replace(profile, informing={**profile.informing, "fidelity": fidelity.as_table()})
    return Calibrated(profile, found, fidelity, tuple(rivals), (unseen, made))


def camera_in_microseconds(profile: CameraProfile) -> SimulatorSettings | None:
    """Return the camera as `simulate --camera` takes it; None where it does not, or its values are those of cells."""
    try:
        camera = camera_of(tomllib.loads(profile.dump()), Path("profile"))
    except SettingsError:
        return None
    return camera.settings if camera.cells is None else None


class _Bar:
    """Progress of one thing after another; silent without `progress`."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._bar = progress, None

    def begin(self, what: str, total: int) -> None:
        """Start on something else."""
        self.end()
        if self._progress is not None:
            self._bar = self._progress(total=total, desc=what, unit="run")

    def advance(self) -> None:
        """Count a run of the simulator."""
        if self._bar is not None:
            self._bar.update(1)

    def end(self) -> None:
        """Finish what was begun."""
        if self._bar is not None:
            self._bar.close()


def _check_output(out: Path, html: Path | None, static: Path | None, *, overwrite: bool) -> None:
    """Refuse what is there already, a name that no recipe takes, and a page that nothing could be shown on."""
    if not out.name.endswith(FILE):
        raise RunError(f"--out {out}: recipes know a profile by its ending; expected a file whose name ends in {FILE}")
    for path in (out, html):
        if path is not None and (reason := in_the_way(path, overwrite=overwrite)):
            raise RunError(f"{path} {reason}")
    if html is not None and html.absolute() == out.absolute():
        raise RunError(f"--html {html}: is the file of the profile, --out; choose another for the page")
    if html is not None and static is None:
        raise RunError("--html shows simulated recordings beside real ones, and there is none without --static")


def _held_out(n: int, asked: int | None) -> int:
    """Return how many of so many recordings the fit does not see."""
    if asked is not None:
        return asked
    return n // HELD_OUT if n >= FEWEST_TO_SPLIT else 0


def split_recordings(n: int, seed: int, held_out: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of n recordings the fit sees, and which it does not; how many of these, see `calibrate`."""
    rows, unseen = np.random.default_rng([seed, 30]).permutation(n), _held_out(n, held_out)
    return np.sort(rows[unseen:]), np.sort(rows[:unseen])


EXPECTED_UNKNOWNS = 26
"""For the progress of the search: parameters of three movements."""


def _key(tensors: Sequence[torch.Tensor], source: dict[str, Any], effort: Effort, *others: Any) -> str:
    """Return the hash of all that decides a fit."""
    digest = hashlib.sha256(json.dumps([source, asdict(effort), *others], sort_keys=True).encode())
    for array in tensors:
        digest.update(str(tuple(array.shape)).encode() + array.numpy().tobytes())
    return digest.hexdigest()
