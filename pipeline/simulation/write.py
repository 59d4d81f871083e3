"""Raw data sets of simulated recordings: scikit-learn's digits, or any folder of class folders of images.

<out>/events/...             .bin recordings
      static/...             the images they were simulated from
      simulated.json         written last: its presence means complete; says that the recordings are simulated
      simulated.partial.json the same before completion, without counts; what an interrupted run is resumed from
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError
from spikebridge.pipeline.base.files import real_path, write_bytes
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.prophesee import dat
from spikebridge.pipeline.images.decode import DEEP_EXTENSIONS, EXTENSIONS, bits_in_use, decode_image
from spikebridge.pipeline.simulation.camera import MODEL_VERSION, make_generator, simulate
from spikebridge.pipeline.simulation.folder import (
    COMPLETE,
    PARTIAL,
    alone,
    complete_folder,
    is_filled,
    prepare,
    read_header,
    refuse_difference,
)
from spikebridge.pipeline.simulation.settings import SimulatorSettings

log = logging.getLogger(__name__)

NONE = Events(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8))
TEST_FRACTION = 0.2
STATEMENT = (
    "The recordings in this folder are simulated from still images with a model of an event camera; "
    "no camera recorded them. Results on them say nothing certain about real recordings."
)

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps an iterable to show its progress, as tqdm does."""


class RawSummary(TypedDict):
    """Recordings in the folder, and those written by this call; JSON types."""

    recordings: int
    """Recordings in the folder now."""
    events: int
    """Events in all of them."""
    written: int
    """Recordings written by this call; the others were there already."""
    up_to_date: bool
    """The folder was complete with the same settings, and was left alone."""


@dataclass(frozen=True)
class _Job:
    """One image and its recording, named relative to the output folder."""

    key: str
    events_path: str
    static_path: str
    load: Callable[[], tuple[bytes, NDArray[np.uint8]]]
    """Bytes of the static file, and its luminance [H,W] uint8."""


def write_digits(
    out: Path,
    *,
    seed: int = 0,
    settings: SimulatorSettings | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> RawSummary:
    """Write scikit-learn's 1,797 handwritten digits and a simulated recording of each.

    `static/{Train,Test}/<digit>/<NNNNN>.png` (8x8 grey, 0..16 scaled to 0..255) and
    `events/{Train,Test}/<digit>/<NNNNN>.bin`; NNNNN is the 1-based index into the digits, unique over both folders.
    A random round(0.2 n) of each digit, decided by the seed, is the test subset.

    `out` is absent, empty, or of an earlier call; `overwrite` replaces what that wrote with other settings. `seed`, 0
    or more, decides the split and everything random in the recordings. The default camera is that of N-MNIST.

    Returns:
        The summary. A complete folder with the same settings is left alone; an interrupted one is resumed.

    Raises:
        SettingsError: the folder holds other settings (and not `overwrite`), or something else; a negative seed.

    Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits" (UCI), the test part, as shipped by
    scikit-learn.
    """
    from sklearn.datasets import load_digits

    _check_seed(seed)
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # [N,8,8]
    labels = bunch.target.astype(np.int64)  # [N]
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        shuffled = make_generator(seed, f"digits/test/{digit}").permutation(members)
        is_test[shuffled[: round(TEST_FRACTION * len(members))]] = True

    def job(index: int) -> _Job:
        name = f"{'Test' if is_test[index] else 'Train'}/{labels[index]}/{index + 1:05d}"
        image = images[index]
        return _Job(
            key=f"{index + 1:05d}",
            events_path=f"events/{name}.bin",
            static_path=f"static/{name}.png",
            load=lambda: (_encode_png(image), image),
        )

    source = {"images": "scikit-learn digits", "sha256": _sha256(images.tobytes() + labels.tobytes())}
    jobs, settings = [job(i) for i in range(len(labels))], settings or SimulatorSettings()
    return _write(Path(out), jobs, source, settings, seed=seed, progress=progress, overwrite=overwrite)


def write_images(
    images_dir: Path,
    out: Path,
    *,
    sensor: tuple[int, int] = (34, 34),
    seed: int = 0,
    settings: SimulatorSettings | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> RawSummary:
    """Simulate a recording of every image in a folder of class folders.

    `events/<class>/<stem>.bin`, or `.dat` where the sensor is larger than `.bin` holds (256x240 pixels), and
    `static/<class>/<file>`, a copy of the image file. Files of other types, hidden ones, and folders inside class
    folders are passed over. Images are upright as EXIF says; of an animation the first frame counts; integers of more
    than 8 bits are scaled by one depth, the least that holds the largest value of all of them.

    `out` lies outside `images_dir`, and is absent, empty, or of an earlier call; `overwrite` replaces what that wrote
    with other settings or images. `sensor` is (W, H) in pixels, at most 2048x2048, and wins over that of `settings`,
    which are those of the N-MNIST camera by default. `seed`, 0 or more, decides everything random.

    Returns:
        The summary. A complete folder with the same settings and images is left alone; an interrupted one resumes.

    Raises:
        LayoutError: no such folder, no images in class folders, or two images of a class with the same stem.
        RecordingError: an image that cannot be decoded (`unreadable_image`), or a recording without events (`empty`).
        SettingsError: the sensor is too large for the .bin format; `out` holds other settings (and not `overwrite`)
            or something else, or lies in `images_dir` or around it; a negative seed.
    """
    images_dir, out = Path(images_dir), Path(out)
    _check_seed(seed)
    width, height = sensor
    settings = replace(settings or SimulatorSettings(), sensor_width_px=width, sensor_height_px=height)
    inner, outer = real_path(out), real_path(images_dir)
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise SettingsError(f"{out}: overlaps with the images in {images_dir}; choose a folder beside them.")
    paths, listing, bits = list(_list_class_images(images_dir)), hashlib.sha256(), 0
    for path in paths:
        data = path.read_bytes()
        listing.update(f"{_sha256(data)}  {path.parent.name}/{path.name}\n".encode())
        if path.suffix.lower() in DEEP_EXTENSIONS:
            bits = max(bits, bits_in_use(data, source=str(path)))
    jobs = []
    for path in paths:
        name = f"{path.parent.name}/{path.name}"
        jobs.append(
            _Job(
                key=f"{path.parent.name}/{path.stem}",
                events_path=f"events/{path.parent.name}/{path.stem}{_container(settings)}",
                static_path=f"static/{name}",
                load=partial(_load, path, bits),
            )
        )
    source = {"images": f"{len(jobs)} image files", "sha256": listing.hexdigest()}
    if bits:
        source["image_bits"] = str(bits)
        log.info("Images with room for 16 bits hold none above %d: taken for %d bits", bits, bits)
    return _write(out, jobs, source, settings, seed=seed, progress=progress, overwrite=overwrite)


def luminance(data: bytes, *, source: str, bits: int = 0) -> NDArray[np.uint8]:
    """Decode an image file to the luminance that the simulated display shows.

    The file may be grey, palette, colour, CMYK, 16-bit grey (of so many `bits`), or transparent (shown on black).

    Returns:
        [H,W] uint8.

    Raises:
        RecordingError: not an image that can be decoded (`unreadable_image`).

    Source: ITU-R BT.601, the weights of the three colours, as Pillow applies them.
    """
    return np.asarray(Image.fromarray(decode_image(data, source=source, bits=bits)).convert("L"), np.uint8)


def _container(settings: SimulatorSettings) -> str:
    """Return the ending of recordings: `.bin`, or `.dat` where that does not hold the sensor."""
    fits = settings.sensor_width_px <= bin40.MAX_WIDTH and settings.sensor_height_px <= bin40.MAX_HEIGHT
    return ".bin" if fits else ".dat"


def _encode(events: Events, settings: SimulatorSettings) -> bytes:
    if _container(settings) == ".bin":
        return bin40.encode(events)
    return dat.encode(events, sensor_size=(settings.sensor_width_px, settings.sensor_height_px))


def _count_events(path: Path, settings: SimulatorSettings) -> int:
    """Return the events in a recording, from the size of its file."""
    record = bin40.RECORD_BYTES if path.suffix == ".bin" else dat.RECORD_BYTES
    return (path.stat().st_size - len(_encode(NONE, settings))) // record


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise SettingsError(f"seed = {seed!r}; expected a whole number, 0 or more.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _load(path: Path, bits: int) -> tuple[bytes, NDArray[np.uint8]]:
    data = path.read_bytes()
    return data, luminance(data, source=str(path), bits=bits)


def _list_class_images(images_dir: Path) -> Iterator[Path]:
    """Yield image files of all class folders in order of class and name as text."""
    if not images_dir.is_dir():
        raise LayoutError(f"{images_dir}: no such folder; expected one folder of images per class in it.")
    count = 0
    for folder in sorted((p for p in images_dir.iterdir() if p.is_dir()), key=lambda p: p.name):
        if folder.name.startswith("."):
            continue
        stems: dict[str, str] = {}
        for path in sorted(folder.iterdir(), key=lambda p: p.name):
            if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS or not path.is_file():
                continue
            if path.stem in stems:
                raise LayoutError(
                    f"{folder}: {stems[path.stem]} and {path.name} have the same stem, so their recordings would have "
                    "the same name. Rename one of them."
                )
            stems[path.stem] = path.name
            count += 1
            yield path
    if not count:
        raise LayoutError(
            f"{images_dir}: no images in class folders; expected <class>/<name> with one of {' '.join(EXTENSIONS)}."
        )


def _write(
    out: Path,
    jobs: list[_Job],
    source: dict[str, str],
    settings: SimulatorSettings,
    *,
    seed: int,
    progress: Progress | None,
    overwrite: bool,
) -> RawSummary:
    """Bring the folder to the state that the jobs, their source, settings and seed describe."""
    decisive = {
        "schema": 1,
        "generator": "spikebridge simulate",
        "model_version": MODEL_VERSION,
        "simulated": True,
        "statement": STATEMENT,
        "source": source,
        "seed": seed,
        "settings": settings.as_dict(),
    }
    header = json.loads(json.dumps(decisive))  # as it will read back: tuples become lists
    if not overwrite and (complete := read_header(out / COMPLETE)) is not None:
        refuse_difference(out, complete, header)
        (out / PARTIAL).unlink(missing_ok=True)
        counts = complete["counts"]
        return RawSummary(recordings=counts["recordings"], events=counts["events"], written=0, up_to_date=True)
    with alone(out):
        prepare(out, header, overwrite=overwrite)
        written, events = 0, 0
        per_folder: dict[str, int] = {}
        with ThreadPoolExecutor(usable_processors()) as threads:
            made = threads.map(lambda job: _write_recording(out, job, settings=settings, seed=seed), jobs)
            for job, new in zip(progress(jobs) if progress else jobs, made, strict=True):
                written += new
                events += _count_events(out / job.events_path, settings)
                folder = job.events_path.removeprefix("events/").rpartition("/")[0]
                per_folder[folder] = per_folder.get(folder, 0) + 1
        counts = {"recordings": len(jobs), "events": events, "per_folder": dict(sorted(per_folder.items()))}
        complete_folder(out, header, counts)
    return RawSummary(recordings=len(jobs), events=events, written=written, up_to_date=False)


def _write_recording(out: Path, job: _Job, *, settings: SimulatorSettings, seed: int) -> bool:
    """Write the two files of a job; return whether they were not there yet."""
    target, static = out / job.events_path, out / job.static_path
    if is_filled(target) and is_filled(static):
        return False
    data, image = job.load()
    recording = simulate(image, settings=settings, seed=seed, key=job.key)
    if len(recording) == 0:
        raise RecordingError(
            f"{job.static_path}: the simulated recording has no events; expected some. The image has too "
            "little contrast for these settings: leave it out, or turn the camera's noise on.",
            reason="empty",
        )
    for path, content in ((static, data), (target, _encode(recording, settings))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, sole_writer=True, flush=False)  # flushing would cost more than the simulation
    return True
