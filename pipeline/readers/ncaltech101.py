"""N-Caltech101 recordings and the Caltech101 images they were made from.

Source: Orchard et al. 2015 (recordings); Fei-Fei, Fergus, Perona 2004 (images).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import shorten
from spikebridge.pipeline.datasets.layout import list_entries, list_folders, number_files
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.datasets.splits import split_by_first_share
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import PackedEvents
from spikebridge.pipeline.formats import bin40

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
    endings = (".bin",)
    from_corner = True
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
        legacy="the first 90 % of each class train, the rest test, in a seeded order (7,839 and 870)",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = self.find_root(
            events_root,
            "events",
            below=("Caltech101", "events", "events/Caltech101", "N-Caltech101", "N-Caltech101/Caltech101"),
            holds=lambda folder: _holds(folder, RECORDING_NAME),
        )
        image_root = self.find_root(
            static_root,
            "static",
            below=("101_ObjectCategories", "static", "static/101_ObjectCategories", "caltech101/101_ObjectCategories"),
            holds=lambda folder: _holds(folder, IMAGE_NAME),
        )
        event_files = _number_by_class(root, RECORDING_NAME, "names like image_0012.bin")
        # BACKGROUND_Google holds a file called tmp, which is not part of the set.
        image_files = _number_by_class(image_root, IMAGE_NAME, "names like image_0012.jpg", lenient=True)
        classes = tuple(sorted(name for name, files in event_files.items() if files))
        recordings, images = [], []
        for label, name in enumerate(classes):
            for number, path in event_files[name].items():
                image = f"{name}/image_{number:04d}"
                recordings.append(Recording(f"{name}/{path.stem}", str(path), label, None, path.stem, image))
            for number, path in image_files.get(name, {}).items():
                stem = f"image_{number:04d}"
                images.append(StaticImage(f"{name}/{stem}", str(path), label, None, stem))
        recordings.sort(key=lambda recording: recording.name)
        images.sort(key=lambda image: image.name)
        notes = _make_notes(classes, event_files, image_files)
        return Listing(classes, tuple(recordings), tuple(images), SENSOR_SIZE, notes=notes)

    def read_events(self, recording: Recording) -> Events:
        return bin40.decode(recording.path.read_bytes(), source=f"{recording.name}.bin")[0].to_corner()

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> PackedEvents:
        data = recording.path.read_bytes()
        return bin40.decode_packed(data, sensor_size=sensor_size, source=f"{recording.name}.bin", from_corner=True)

    def apply_published_split(self, listing: Listing, *, seed: int) -> Listing:
        """Train on each class's first nine tenths, of the recordings and, separately, of the static images.

        Source: He et al. 2024, public implementation. The two listings have different orders, so most images of test
        recordings are in the pool; the images, in the order of their numbers, reach one too far.
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
        recordings = split_by_first_share(listing.recordings, PUBLISHED_TRAIN_SHARE, seed=seed)
        note = (
            "legacy: the first 90 % of each class train, recordings in a seeded order for the unknown one of the "
            "published experiments, photographs (and one more) in the order of their numbers"
        )
        return replace(listing, recordings=recordings, images=images, notes=(*listing.notes, note))


def _holds(root: Path, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(path.name) for folder in list_folders(root) for path in folder.iterdir())


def _number_by_class(
    root: Path, pattern: re.Pattern[str], expected: str, *, lenient: bool = False
) -> dict[str, dict[int, Path]]:
    """Return the files of every class folder by their number, see `pipeline.datasets.layout.number_files`."""
    return {
        folder.name: number_files(list_entries(folder), pattern, int, expected=expected, lenient=lenient)
        for folder in list_folders(root)
    }


def _make_notes(
    classes: tuple[str, ...], event_files: dict[str, dict[int, Path]], image_files: dict[str, dict[int, Path]]
) -> tuple[str, ...]:
    notes = ["x and y count from the smallest of each recording, as published"]
    if len(classes) != CLASS_COUNT:
        notes.append(f"recordings of {len(classes)} classes found, {CLASS_COUNT} expected: labels number those found")
    if empty := sorted(name for name, files in event_files.items() if not files):
        notes.append(f"no recordings in the folders {', '.join(empty)}")
    without = {name: len(files) for name, files in image_files.items() if files and name not in classes}
    if set(without) - {"Faces"}:
        notes.append(f"no recordings of the image classes {shorten(sorted(without))}")
    elif without:
        notes.append(f"the {without['Faces']} images of Faces are not used: N-Caltech101 has no recordings of them")
    return tuple(notes)
