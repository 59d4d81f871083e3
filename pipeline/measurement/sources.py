"""All recordings and static images of two folders under the names that `preprocess` gives them, read one by one."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.datasets.pairs import UNUSED, find_simulation_note
from spikebridge.pipeline.datasets.tables import BETWEEN, PAIR_COLUMNS, join_candidates
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.images.colour import SEEN
from spikebridge.pipeline.images.decode import common_bits, hash_pixels
from spikebridge.pipeline.measurement.placing import SAMPLE, Placing
from spikebridge.pipeline.measurement.recordings import (
    Progress,
    RecordingSet,
    are_simulated,
    draw_rows,
    image_files,
    read_located,
    read_rows,
    smallest_sensor,
    stated_sensor,
    usable,
    warn_of,
)
from spikebridge.pipeline.readers import get_reader


class Answer(NamedTuple):
    """A row of a table of pairs."""

    recording: str
    image: str
    """Empty where it cannot be told."""
    confidence: float
    """That the nearest image is the one that the recording shows, 0 to 1."""
    pixels_sha256: str
    """Of the image, see `pipeline.images.decode.hash_pixels`; empty without one."""
    candidates: tuple[tuple[str, str], ...] = ()
    """Names and hashes of the images one of which it shows, nearest first; empty with an image, and where not known."""
    held: float = 0.0
    """Confidence that the candidates hold the image that it shows."""


@dataclass(frozen=True)
class Sources:
    """Recordings and static images, listed and not read."""

    recordings: tuple[str, ...]
    images: tuple[str, ...]
    read_events: Callable[[int], Events]
    """Reads the recording at a position; t as its file counts it."""
    read_image: Callable[[int], NDArray[np.uint8]]
    """Decodes the image at a position, [H,W,3]."""
    sensor: tuple[int, int] | None
    """(W, H) in pixels as it is known or all files state it; None where it is not."""
    shown_fraction: float
    """Share of the sensor that a static image fills."""
    simulated: bool
    recording_classes: tuple[str, ...] = ()
    """Class of each recording, for what they say of the answers; empty where none is known."""
    image_classes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    """Of the recordings, where each is a file of its own."""
    sensor_known: str = "stated by the files"
    """How the sensor is known."""

    def draw(
        self, most: int, seed: int, *, sensor: tuple[int, int] | None = None, progress: Progress | None = None
    ) -> RecordingSet:
        """Read at most so many recordings, drawn by the seed; `sensor` wins over what is known. See `read_rows`.

        Raises:
            RecordingError: none can be used.
        """
        sensor, known = (sensor, "given") if sensor else (self.sensor, self.sensor_known)
        drawn = draw_rows(len(self.recordings), most, seed)
        names = [self.recordings[row] for row in drawn]
        rows, events, unreadable = read_rows(
            names, lambda row: self.read_events(drawn[row]), sensor=sensor, seed=seed, progress=progress
        )
        if sensor is None:
            sensor, known = smallest_sensor(events)
        names = [names[row] for row in rows]
        warn_of(names, events, sensor)
        return RecordingSet(
            tuple(names), tuple(events), sensor, known, self.simulated, len(self.recordings), tuple(unreadable)
        )

    def events(self, row: int) -> Events:
        """Read a recording, t from its first event.

        Raises:
            RecordingError: it cannot be read, or holds too few events.
        """
        return usable(self.read_events(row), self.recordings[row])

    def frames(
        self,
        row: int,
        *,
        sensor: tuple[int, int],
        time_bins: int,
        size: int,
        without: Collection[tuple[int, int]] = (),
    ) -> NDArray[np.float32]:
        """Read a recording and return its counts, [T,1,2,S,S], those of some pixels (x, y) left out.

        Raises:
            RecordingError: it cannot be read, holds too few events, or some outside the sensor.
        """
        one = RecordingSet((self.recordings[row],), (self.events(row),), sensor, "", self.simulated, 1)
        return (one.without(without) if without else one).frames(time_bins=time_bins, size=size)

    def placing(self, *, sensor: tuple[int, int], size: int, finest: int, seed: int) -> Placing:
        """Return how the images lie on a sensor and its frames: `finest` times as fine where most have such details.

        Raises:
            RecordingError: one of those that are drawn to tell cannot be decoded.
        """
        some = draw_rows(len(self.images), SAMPLE, seed)
        shapes = (self.read_image(row).shape for row in some)
        return Placing(size, sensor, self.shown_fraction).for_images(shapes, finest)

    def image(self, row: int, placing: Placing) -> tuple[str, NDArray[np.uint8]]:
        """Read an image and return the hash of its full-size pixels and its luma as it is placed, [1,FS,FS].

        Raises:
            RecordingError: it cannot be decoded.
        """
        rgb = self.read_image(row)
        return hash_pixels(rgb).hex(), placing.place(rgb, SEEN)


def sources_of_files(
    events: Path,
    static: Path,
    *,
    shown_fraction: float | None = None,
    sensor: tuple[int, int] | None = None,
    table: Mapping[str, Any] | None = None,
) -> Sources:
    """List two folders, whatever their data set; names are paths below them without endings, MNIST's with a row.

    `sensor` (W, H) wins over what files and folders state; `table` is as `read_recordings` takes it.

    Raises:
        LayoutError: nothing usable there, two of one name, or recordings of several sensors.
    """
    if not events.is_dir():
        raise LayoutError(f"{events}: no such folder; expected one of recordings.")
    files = recording_files.list_recordings(events)
    names = [(p.relative_to(events).parent / recording_files.stem(p)).as_posix() for p in files]
    images, read_image = image_files(static)
    image_names = [
        str(p.relative_to(static).with_suffix("") if row < 0 else f"{p.relative_to(static)}/{row:05d}")
        for p, row in images
    ]
    for folder, listed in ((events, names), (static, image_names)):
        if twice := [name for name, count in Counter(listed).items() if count > 1]:
            raise LayoutError(f"{folder}: two files are called {twice[0]}, but for their endings. Rename one.")
    sensor, known = (sensor, "given") if sensor else stated_sensor(files)
    return Sources(
        tuple(names),
        tuple(image_names),
        lambda row: read_located(files[row], table),
        read_image,
        sensor,
        shown_fraction or 1.0,
        are_simulated([events, *files]),
        files=tuple(files),
        sensor_known=known,
    )


def sources_of_dataset(
    dataset: str,
    events: Path,
    static: Path,
    *,
    shown_fraction: float | None = None,
    table: Mapping[str, Any] | None = None,
) -> Sources:
    """List a data set as `preprocess --dataset` does, with its names; `table` goes with the data set folders alone.

    Raises:
        SettingsError: no such data set, or `table` with another.
        LayoutError: a folder does not hold what it should.
    """
    reader = get_reader(dataset, **table or {})
    listing = reader.list_pair(events.absolute(), static.absolute())
    if common_bits(image.path for image in listing.images[:1]):  # a data set has images of one kind
        reader.image_bits = common_bits(image.path for image in listing.images)
    recordings = [r for r in listing.recordings if r.subset != UNUSED]

    @lru_cache(maxsize=1)
    def of_file(path: Path) -> dict[str, Events | RecordingError]:
        return dict(reader.read_file(next(r for r in recordings if r.path == path)))

    def read(row: int) -> Events:
        if not reader.many_per_file:
            return reader.read_events(recordings[row])
        found = of_file(recordings[row].path)[recordings[row].name]
        if isinstance(found, RecordingError):
            raise found
        return found

    return Sources(
        tuple(r.name for r in recordings),
        tuple(image.name for image in listing.images),
        read,
        lambda row: reader.read_image(listing.images[row]),
        listing.sensor_size,
        shown_fraction or listing.shown_fraction or 1.0,
        reader.card.simulated or find_simulation_note(events) is not None,
        tuple(listing.classes[r.label] for r in recordings),
        tuple(listing.classes[image.label] for image in listing.images),
    )


def write_pairs(path: Path, answers: Iterable[Answer]) -> None:
    """Write a table of pairs, which `pipeline.datasets.tables.read_pairs` reads: whole, or not at all."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(PAIR_COLUMNS)
    for a in answers:
        names, hashes = ([each[part] for each in a.candidates] for part in range(2))
        held = f"{a.held:.4f}" if a.candidates else ""
        table.writerow(
            (
                a.recording,
                a.image,
                f"{a.confidence:.4f}",
                a.pixels_sha256,
                join_candidates(names),
                held,
                BETWEEN.join(hashes),
            )
        )
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))
