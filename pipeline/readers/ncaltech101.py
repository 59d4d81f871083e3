"""N-Caltech101 recordings and the Caltech101 photographs they were made from.

Source: Orchard et al. 2015 (recordings); Fei-Fei, Fergus, Perona 2004 (photographs).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, few
from spikebridge.pipeline.datasets.layout import entries, find_root, folders
from spikebridge.pipeline.datasets.pairs import (
    DRAWN,
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    register,
)
from spikebridge.pipeline.datasets.splits import first_share_trains
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import PackedEvents
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.images.decode import decode_image

SENSOR_SIZE = (240, 180)
"""Canvas in pixels: what the recordings were made to fill; each has its own, smaller extent."""
CLASS_COUNT = 101
"""Folders of recordings in the whole set: the categories of Caltech101 with the background, without `Faces`."""
PUBLISHED_TRAIN_SHARE = 0.9
IMAGE_NAME = re.compile(r"image_(\d+)\.jpe?g", re.IGNORECASE)
RECORDING_NAME = re.compile(r"image_(\d+)\.bin", re.IGNORECASE)


@register
class NCaltech101(PairReader):
    """N-Caltech101 with Caltech101; pairs are exact, joined on (class, image number).

    Labels number the classes of which there are recordings, in the order of the folders' names by ASCII (capitals
    first). A complete copy has the 101 published labels; in a copy without some classes the others move up, and a note
    says so: a head for classes that cannot occur would only falsify the chance level.

    x and y are shifted so that each recording begins at (0, 0), as the published code does: the recordings sit at
    different places of the sensor.
    """

    name = "ncaltech101"
    card = DatasetCard(
        title="N-Caltech101 (events) and Caltech101 (images)",
        events_layout="Caltech101/<class>/image_<NNNN>.bin",
        static_layout="101_ObjectCategories/<class>/image_<NNNN>.jpg",
        download="https://www.garrickorchard.com/datasets/n-caltech101 and https://data.caltech.edu/records/mzrjq-6wc02",
        licence="N-Caltech101: CC BY 4.0; Caltech101: CC BY 4.0",
        citation="Orchard, Jayawant, Cohen, Thakor: Converting static image datasets to spiking neuromorphic datasets "
        "using saccades, Frontiers in Neuroscience 9, 2015. Fei-Fei, Fergus, Perona: Learning generative visual models "
        "from few training examples, CVPR Workshop on Generative-Model Based Vision, 2004.",
        pairing="exact",
        expected={"unsplit": 8709},
        images="9,144 in 102 folders, of which the 435 of Faces are not used",
        splits=DRAWN + "legacy: the first 90 % of each class train, the rest test, in a seeded order (7,839 and 870)",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = find_root(
            events_root,
            below=("Caltech101", "events", "events/Caltech101", "N-Caltech101", "N-Caltech101/Caltech101"),
            holds=lambda folder: _any_named(folder, RECORDING_NAME),
            what="events",
            layout=self.card.events_layout,
        )
        image_root = find_root(
            static_root,
            below=("101_ObjectCategories", "static", "static/101_ObjectCategories", "caltech101/101_ObjectCategories"),
            holds=lambda folder: _any_named(folder, IMAGE_NAME),
            what="static",
            layout=self.card.static_layout,
        )
        found = {folder.name: _numbered(folder, RECORDING_NAME) for folder in folders(root)}
        pictures = {folder.name: _numbered(folder, IMAGE_NAME, lenient=True) for folder in folders(image_root)}
        classes = tuple(sorted(name for name, files in found.items() if files))
        recordings, images = [], []
        for label, name in enumerate(classes):
            for number, path in found[name].items():
                image = f"{name}/image_{number:04d}"
                recordings.append(Recording(f"{name}/{path.stem}", path, label, None, path.stem, image))
            for number, path in pictures.get(name, {}).items():
                stem = f"image_{number:04d}"
                images.append(StaticImage(f"{name}/{stem}", path, label, None, stem))
        recordings.sort(key=lambda recording: recording.name)
        images.sort(key=lambda image: image.name)
        notes = _notes(classes, found, pictures)
        return Listing(classes, tuple(recordings), tuple(images), SENSOR_SIZE, notes=notes)

    def read_events(self, recording: Recording) -> Events:
        events, _ = bin40.decode(recording.path.read_bytes(), source=f"{recording.name}.bin")
        if not len(events):
            return events
        return replace(events, x=events.x - events.x.min(), y=events.y - events.y.min())

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> PackedEvents:
        data = recording.path.read_bytes()
        return bin40.decode_packed(data, sensor_size=sensor_size, source=f"{recording.name}.bin", from_corner=True)

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=f"{image.name}.jpg")

    def published(self, listing: Listing, *, seed: int) -> Listing:
        """Each class's first nine tenths train, of the recordings and, separately, of the photographs.

        Source: He et al. 2024, public implementation. The two listings have different orders, so most photographs of
        test recordings are in the pool; the photographs, in the order of their numbers, reach one too far.
        """
        by_class: dict[int, list[StaticImage]] = defaultdict(list)
        for image in listing.images:
            by_class[image.label].append(image)
        pool = {
            image.name  # the listing is in the order of names, and so of numbers
            for members in by_class.values()
            for image in members[: round(PUBLISHED_TRAIN_SHARE * len(members)) + 1]
        }
        images = tuple(replace(i, subset="train" if i.name in pool else "test") for i in listing.images)
        recordings = first_share_trains(listing.recordings, PUBLISHED_TRAIN_SHARE, seed=seed)
        note = (
            "legacy: the first 90 % of each class train, recordings in a seeded order for the unknown one of the "
            "published experiments, photographs (and one more) in the order of their numbers"
        )
        return replace(listing, recordings=recordings, images=images, notes=(*listing.notes, note))


def _any_named(root: Path, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(path.name) for folder in folders(root) for path in folder.iterdir())


def _numbered(folder: Path, pattern: re.Pattern[str], *, lenient: bool = False) -> dict[int, Path]:
    """Files of a class by their number; what else lies there is an error, or left out where `lenient`.

    Raises:
        LayoutError: a file of another name, or two of one number.
    """
    files: dict[int, Path] = {}
    for path in entries(folder):
        match = pattern.fullmatch(path.name)
        if match is None:
            if lenient:
                continue  # BACKGROUND_Google holds a file called tmp, which is not part of the set
            raise LayoutError(f"{path} is no recording; expected names like image_0012.bin. Move it out.")
        if other := files.get(int(match[1])):
            raise LayoutError(f"{other} and {path} have one number; expected one file each. Remove one.")
        files[int(match[1])] = path
    return files


def _notes(
    classes: tuple[str, ...], found: dict[str, dict[int, Path]], pictures: dict[str, dict[int, Path]]
) -> tuple[str, ...]:
    notes = ["x and y count from the smallest of each recording, as published"]
    if len(classes) != CLASS_COUNT:
        notes.append(f"recordings of {len(classes)} classes found, {CLASS_COUNT} expected: labels number those found")
    if empty := sorted(name for name, files in found.items() if not files):
        notes.append(f"no recordings in the folders {', '.join(empty)}")
    without = {name: len(files) for name, files in pictures.items() if files and name not in classes}
    if set(without) - {"Faces"}:
        notes.append(f"no recordings of the image classes {few(sorted(without))}")
    elif without:
        notes.append(f"the {without['Faces']} images of Faces are not used: N-Caltech101 has no recordings of them")
    return tuple(notes)
