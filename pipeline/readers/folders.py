"""Class folders of recordings with class folders of images: your own data, or what `simulate --images` makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, shorten
from spikebridge.pipeline.datasets.layout import (
    find_child,
    is_litter,
    list_entries,
    list_folders,
    refuse_equal_stems,
)
from spikebridge.pipeline.datasets.pairs import (
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    find_simulation_note,
    register,
)
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.images.decode import EXTENSIONS, decode_image

SENSOR_FILE = "sensor.txt"
MOST_PIXELS = 2**14
"""Of a side; a larger size in a header is taken for damage."""


@register
class Folders(PairReader):
    """Recordings and images joined by class and stem, or by class alone when no stem agrees."""

    name = "folders"
    card = DatasetCard(
        title="class folders of recordings and of images",
        events_layout=f"<class>/<stem> with one of the endings {', '.join(recording_files.FORMATS)}",
        static_layout="<class>/<stem>.png (or .jpg, .bmp, .gif, .tif)",
        download="your own",
        licence="as you say",
        citation="as you say",
        pairing="exact by class and stem; by class when no stem agrees",
        expected={},
        legacy="the same without validation; --splits FILE.csv replaces both",
    )

    table: TableOptions = TableOptions()
    """What the user says about files whose columns leave their meaning open."""

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = self.find_root(
            events_root, "events", below=("events",), holds=lambda folder: bool(_list_recordings(folder))
        )
        image_root = self.find_root(
            static_root, "static", below=("static",), holds=lambda folder: bool(_list_images(folder))
        )
        paths, image_paths = _list_recordings(root), _list_images(image_root)
        refuse_equal_stems(paths, stem=recording_files.stem)
        refuse_equal_stems(image_paths)
        classes = tuple(sorted({path.parent.name for path in paths}))
        label = {name: i for i, name in enumerate(classes)}
        images = tuple(
            StaticImage(f"{p.parent.name}/{p.stem}", p, label[p.parent.name], None, p.stem)
            for p in image_paths
            if p.parent.name in label
        )
        known = {image.name for image in images}
        stems = {path: recording_files.stem(path) for path in paths}
        names = {path: f"{path.parent.name}/{stems[path]}" for path in paths}
        recordings = tuple(Recording(names[p], p, label[p.parent.name], None, stems[p], names[p]) for p in paths)
        exact = any(recording.name in known for recording in recordings)
        if not exact:
            recordings = tuple(replace(r, image=None) for r in recordings)
        unused = sorted({path.parent.name for path in image_paths} - set(classes))
        notes = [f"no recordings of the image classes {shorten(unused)}"] if unused else []
        sensor_size, shown_fraction = _find_sensor(root)
        if sensor_size is None:
            stated = {path: _stated_size(path) for path in paths}
            if len(sizes := set(stated.values())) == 1:
                sensor_size = sizes.pop()
            else:
                recordings = tuple(replace(r, sensor_size=stated[r.path]) for r in recordings)
        pairing = "exact" if exact else "class"
        printable = tuple(name.encode("utf-8", "backslashreplace").decode() for name in classes)  # may be no UTF-8
        return Listing(printable, recordings, images, sensor_size, shown_fraction, pairing, tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        return recording_files.read(recording.path, self.table)

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=image.path.name)


def _list_images(root: Path) -> list[Path]:
    """List the images of class folders, in order."""
    return [
        path for folder in _list_classes(root) for path in list_entries(folder) if path.suffix.lower() in EXTENSIONS
    ]


def _list_recordings(root: Path) -> list[Path]:
    """List the recordings of class folders, in order; texts count where they hold lines of numbers."""
    return [
        path
        for folder in _list_classes(root)
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if recording_files.is_recording(path) and (not is_litter(path) or path.suffix.lower() == recording_files.TEXT)
    ]


def _list_classes(root: Path) -> list[Path]:
    """List the class folders; of a folder that holds nothing but one of its own name, the inner one."""
    return [find_child(root, folder.name) or folder for folder in list_folders(root)]


def _find_sensor(root: Path) -> tuple[tuple[int, int] | None, float | None]:
    """Return the sensor size that the folder states, and the shown fraction of simulated recordings.

    It comes from the simulator's note, or from `sensor.txt` (width and height in pixels) beside the class folders.

    Raises:
        LayoutError: the note is damaged, or `sensor.txt` does not hold two numbers.
    """
    note = find_simulation_note(root)
    if note is not None:
        try:
            settings = json.loads(note.read_bytes())["settings"]
            width, height, fraction = (settings[k] for k in ("sensor_width_px", "sensor_height_px", "shown_fraction"))
            if not (min(width, height) >= 1 and fraction > 0):
                raise ValueError(f"{width}x{height} pixels, {fraction} shown")
            return (width, height), fraction
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LayoutError(f"{note}: not what `spikebridge simulate` wrote ({error}). Simulate again.") from error
    sensor_file = root / SENSOR_FILE
    if sensor_file.is_file():
        try:
            width, height = (int(word) for word in sensor_file.read_text().split())
        except ValueError:
            width = height = 0
        if min(width, height) < 1:
            raise LayoutError(f"{sensor_file}: expected the sensor's width and height in pixels, such as 346 260.")
        return (width, height), None
    return None, None


def _stated_size(path: Path) -> tuple[int, int] | None:
    """Return the sensor's size as a recording states it; None where it does not: `.bin` holds no size."""
    if recording_files.FORMATS.get(recording_files.ending(path)) in recording_files.HEADERLESS:
        return None
    try:
        size = recording_files.sensor_size(path)
    except (RecordingError, OSError):
        return None  # the recording becomes a reject when it is read
    return size if size and 1 <= min(size) <= max(size) <= MOST_PIXELS else None
