"""CEP-DVS: recordings and static images of one scene, 20 classes.

Source: the public implementation of He et al. 2024, which is the only description of the files that there is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.containers import mat
from spikebridge.pipeline.datasets.layout import find_child, list_entries, number_files
from spikebridge.pipeline.datasets.pairs import (
    UNUSED,
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    register,
)
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.tables import mat_events

CLASSES = (
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
)
"""In the published order of labels."""
SENSOR_SIZE = (346, 260)
"""Pixels of a DAVIS346. No source names the camera: a recording that reaches beyond is rejected."""
LABELS_FILE, RECORDINGS, IMAGES = "pathFile.csv", "data/MAT/img", "data/img"
LABEL_TOKEN = 4
"""0-based position of the class among the words of a row."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
BLOCK, PUBLISHED_TRAIN_SHARE, PUBLISHED_REST_SHARE = 500, 0.5, 0.8
"""The published code takes 50 % of every 500 recordings for training and the next 20 % (100 % - 80 %) for testing."""


@register
class CEPDVS(PairReader):
    """CEP-DVS; pairs are exact: recording, static image and label are joined on the number i.

    Labels number the classes of which there are recordings, in the published order; with all 20 they are the published
    labels. Time stamps are taken as microseconds; those that are not whole numbers are rejected.
    """

    name = "cepdvs"
    endings = (".mat",)
    card = DatasetCard(
        title="CEP-DVS (events and images of one scene)",
        events_layout="pathFile.csv (class = 5th word of row i) and data/MAT/img/<i>.mat",
        static_layout="data/img/<i>.jpg or .png (usually the same root)",
        download="from its authors, as their paper says; there is no public mirror that could be named here",
        licence="not stated in public: ask the authors before passing anything on",
        citation="Deng, Chen, Chen, Li: Learning from images: a distillation learning framework for event cameras, "
        "IEEE Transactions on Image Processing 30, 2021. He, Zhao, Li, Shen, Dong, Zeng: An efficient knowledge "
        "transfer strategy for spiking neural networks from static to event domain, AAAI 2024 (labels and split).",
        pairing="exact",
        expected={"unsplit": 10_000},
        images="10,000",
        legacy="of each 500 in the order of names as text 50 % train, 20 % test, 30 % are unused",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        listing = self.list_events(events_root)
        rows = _read_labels(_find_labels_file(self._find_events(events_root)))
        image_root = self.find_root(
            static_root,
            "static",
            below=("static", "CEP-DVS", "CEPDVS", "events", "static/CEP-DVS"),
            holds=lambda folder: find_child(folder, *IMAGES.split("/")) is not None,
        )
        label = {name: i for i, name in enumerate(listing.classes)}
        image_files = _list_numbered(image_root, IMAGES, IMAGE_ENDINGS)
        images = [
            StaticImage(f"{IMAGES}/{i}", str(path), label[rows[i]], None, str(i))
            for i, path in image_files.items()
            if i < len(rows) and rows[i] in label
        ]
        images.sort(key=lambda image: image.name)
        notes = list(listing.notes)
        if unlabelled := [number for number in image_files if number >= len(rows)]:
            notes.append(f"{len(unlabelled)} images have no row in {LABELS_FILE} and are not used")
        return replace(listing, images=tuple(images), notes=tuple(notes))

    def list_events(self, events_root: Path) -> Listing:
        """List the recordings alone, without images.

        Raises:
            LayoutError: see `list_pair`.
        """
        root = self._find_events(events_root)
        labels_file = _find_labels_file(root)
        rows = _read_labels(labels_file)
        files = _list_numbered(root, RECORDINGS, (".mat",))
        if not files:
            raise LayoutError(f"{root / RECORDINGS}: no recordings found; expected {self.card.events_layout}.")
        if unlabelled := [number for number in files if number >= len(rows)]:
            raise LayoutError(
                f"{labels_file} has {len(rows)} rows; {len(unlabelled)} recordings lie beyond, the first is "
                f"{files[unlabelled[0]].name}. Is the file of labels whole?"
            )
        present = {rows[number] for number in files}
        classes = tuple(name for name in CLASSES if name in present)
        label = {name: i for i, name in enumerate(classes)}
        recordings = [
            Recording(f"{RECORDINGS}/{path.stem}", str(path), label[rows[i]], None, path.stem, f"{IMAGES}/{i}")
            for i, path in files.items()
        ]
        recordings.sort(key=lambda recording: recording.name)
        notes = ["the sensor is taken for a DAVIS346 (346x260 pixels) and time stamps for microseconds: none is stated"]
        if len(classes) != len(CLASSES):
            notes.append(f"recordings of {len(classes)} classes found, {len(CLASSES)} expected: labels number those")
        return Listing(classes, tuple(recordings), (), SENSOR_SIZE, notes=tuple(notes))

    def _find_events(self, events_root: Path) -> Path:
        below = ("events", "CEP-DVS", "CEPDVS", "events/CEP-DVS")
        return self.find_root(events_root, "events", below=below, holds=lambda f: _find_labels_file(f).is_file())

    def read_events(self, recording: Recording) -> Events:
        source = f"{recording.name}.mat"
        columns = mat.read(recording.path.read_bytes(), ("x", "y", "ts", "p"), source=source)
        events = mat_events.from_vectors(columns["ts"], columns["x"], columns["y"], columns["p"], source=source)
        width, height = SENSOR_SIZE
        if len(events) and (int(events.x.max()) >= width or int(events.y.max()) >= height):
            raise RecordingError(
                f"{source}: events reach x = {int(events.x.max())}, y = {int(events.y.max())}; the sensor is taken for "
                f"a DAVIS346 of {width}x{height} pixels, which no source confirms. Is this another camera?",
                reason="out_of_range",
            )
        return events

    def apply_published_split(self, listing: Listing, *, seed: int) -> Listing:
        """Split blocks of 500 in the order of names as text: half trains, the next fifth tests, the rest is unused.

        Source: He et al. 2024, public implementation, with its mix-up: positions among the training recordings (names
        as text) pick static images from the listing by number, so that few partners are of the class they stand for.
        The label of such an image is here that of the recordings it stands beside. An order of 10,000 files is
        known exactly; nothing is drawn.
        """
        ordered = sorted(listing.recordings, key=lambda r: r.path.name)
        subset: dict[str, str] = {}
        for start in range(0, len(ordered), BLOCK):
            block = ordered[start : start + BLOCK]
            training = round(PUBLISHED_TRAIN_SHARE * len(block))
            testing = len(block) - round(PUBLISHED_REST_SHARE * len(block))
            for i, recording in enumerate(block):
                subset[recording.name] = "train" if i < training else "test" if i < training + testing else UNUSED
        labels = [recording.label for recording in ordered if subset[recording.name] == "train"]
        by_number = sorted(listing.images, key=lambda image: int(image.stem))
        images = [
            replace(image, label=labels[i], subset="train") if i < len(labels) else replace(image, subset="test")
            for i, image in enumerate(by_number)
        ]
        note = (
            "legacy: blocks of 500 of the listing (names as text) are cut into 50 % train, 20 % test, 30 % unused; "
            "static partners are mixed up as published, few are of the class they stand for"
        )
        return replace(
            listing,
            recordings=tuple(replace(r, subset=subset[r.name]) for r in listing.recordings),
            images=tuple(sorted(images, key=lambda image: image.name)),
            notes=(*listing.notes, note),
        )


def _find_labels_file(root: Path) -> Path:
    """Return the file of labels, whatever the case of its letters."""
    folded = LABELS_FILE.casefold()
    files = (path for path in list_entries(root) if path.name.casefold() == folded and path.is_file())
    return next(files, root / LABELS_FILE)


def _read_labels(path: Path) -> list[str]:
    """Read the class of row i, 0-based after the header.

    Raises:
        LayoutError: no rows, or a row whose fifth word is no class.
    """
    lines = [line for line in path.read_text("utf-8-sig", errors="replace").splitlines() if line.strip()]
    labels = []
    for row, line in enumerate(lines[1:]):
        words = [word.strip("\"',;") for word in line.split()]
        name = words[LABEL_TOKEN] if len(words) > LABEL_TOKEN else ""
        if name not in CLASSES:
            raise LayoutError(
                f"{path}: row {row} (0-based, after the header) has {name!r} as its fifth word; expected one of the "
                f"{len(CLASSES)} classes, such as {CLASSES[0]}. Is the file whole?"
            )
        labels.append(name)
    if not labels:
        raise LayoutError(f"{path}: no rows found; expected a header and one row per recording.")
    return labels


def _list_numbered(root: Path, below: str, endings: Sequence[str]) -> dict[int, Path]:
    """List files `<i><ending>` in a folder below a root by i, in the order of i.

    Raises:
        LayoutError: no such folder, a file of another name, or two of one number.
    """
    folder = find_child(root, *below.split("/"))
    if folder is None:
        raise LayoutError(f"{root / below} does not exist; expected files like 17{endings[0]} in it.")
    pattern = re.compile(f"([0-9]+)(?:{'|'.join(map(re.escape, endings))})", re.IGNORECASE)
    paths = (path for path in list_entries(folder) if path.is_file())
    return dict(sorted(number_files(paths, pattern, int, expected=f"names like 17{endings[0]}").items()))
