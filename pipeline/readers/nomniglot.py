"""N-Omniglot recordings and the Omniglot drawings they were made from.

Source: Li, Dong, Zhao, Zeng 2022 (recordings); Lake, Salakhutdinov, Tenenbaum 2015 (drawings).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.datasets.layout import child, entries, find_root, folders
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import aedat4
from spikebridge.pipeline.images.decode import decode_image

EVENT_FOLDERS = ("dvs_background", "dvs_evaluation")
IMAGE_FOLDERS = ("images_background", "images_evaluation")
SENSOR_SIZE = (346, 260)
DRAWERS = 20
TRAINING_DRAWERS = 15
"""Drawers 1 to 15 train, 16 to 20 test, in both folders: the published split of the classification task."""
EVENTS_LAYOUT = (
    "dvs_background/<Alphabet>/character<NN>/<NNNN>.aedat4 and <NNNN>.csv, and dvs_evaluation/ the same; NNNN the "
    "number of the character"
)
STATIC_LAYOUT = (
    "images_background/<Alphabet>/character<NN>/<NNNN>_<MM>.png, and images_evaluation/ the same; MM the drawer"
)


@register
class NOmniglot(PairReader):
    """N-Omniglot with Omniglot; pairs are exact: drawing NNNN_MM by character number and drawer.

    Classes are the characters found among the recordings, in the order of their numbers NNNN, which is the order of the
    folders' names as Omniglot spells them; alphabets that N-Omniglot spells otherwise change no label. Drawings are
    left as they are, ink 0 on paper 255: the published code does not invert them.
    """

    name = "nomniglot"
    card = DatasetCard(
        title="N-Omniglot (events) and Omniglot (images)",
        events_layout=EVENTS_LAYOUT,
        static_layout=STATIC_LAYOUT,
        download="https://doi.org/10.6084/m9.figshare.16821427 and https://github.com/brendenlake/omniglot",
        licence="N-Omniglot: as its authors say; Omniglot: MIT",
        citation="Li, Dong, Zhao, Zeng: N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse "
        "few-shot learning, Scientific Data 9, 2022. Lake, Salakhutdinov, Tenenbaum: Human-level concept learning "
        "through probabilistic program induction, Science 350, 2015.",
        pairing="exact",
        expected={"train": 24_345, "test": 8_115},
        images="32,460 drawings of 1,623 characters",
        splits="strict: drawers 16 to 20 test, and 10 % of each class's other recordings validate; legacy: drawers 1 "
        "to 15 train, 16 to 20 test",
    )
    crop = (54, 4, 304, 254)
    many_per_file = True

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        listing = self.list_events(events_root)
        image_root = find_root(
            static_root,
            below=("static", "omniglot", "omniglot-py", "python"),
            holds=lambda folder: any(child(folder, name) for name in IMAGE_FOLDERS),
            what="static",
            layout=STATIC_LAYOUT,
        )
        label = {recording.path.stem: recording.label for recording in listing.recordings}
        drawings = _numbered(image_root, IMAGE_FOLDERS, r"(\d{4}_\d\d)\.png", ".png", STATIC_LAYOUT)
        images = tuple(
            StaticImage(stem, path, label[stem[:4]], _subset(int(stem[5:])), stem)
            for stem, (_, path) in sorted(drawings.items())
            if stem[:4] in label
        )
        notes = listing.notes
        if unused := len(drawings) - len(images):
            notes = (*notes, f"{unused} drawings of characters without recordings are not used")
        return replace(listing, images=images, notes=notes)

    def list_events(self, events_root: Path) -> Listing:
        """The recordings alone, without drawings.

        Raises:
            LayoutError: see `list_pair`.
        """
        root = find_root(
            events_root,
            below=("events", "N-Omniglot", "NOmniglot"),
            holds=lambda folder: any(child(folder, name) for name in EVENT_FOLDERS),
            what="events",
            layout=EVENTS_LAYOUT,
        )
        found_files = _numbered(root, EVENT_FOLDERS, r"(\d{4})\.aedat4", ".aedat4", EVENTS_LAYOUT)
        files = {number: path for number, (_, path) in found_files.items()}
        below = {number: folder for number, (folder, _) in found_files.items()}
        if not files:
            raise LayoutError(f"{root}: no recordings found; expected {EVENTS_LAYOUT}.")
        label = {number: i for i, number in enumerate(sorted(files))}
        classes = tuple(f"{files[n].parent.parent.name}/{files[n].parent.name}" for n in sorted(files))
        notes = [f"no folder {name}" for name in EVENT_FOLDERS if child(root, name) is None]
        recordings: list[Recording] = []
        for number, path in files.items():
            found = list_recordings(path, below[number], label[number])
            if not found[0].detail:
                notes.append(f"{found[0].name[:-3]}: its csv file is missing or damaged, its recordings cannot be used")
            elif len(found) != DRAWERS:
                notes.append(f"{found[0].name[:-3]}: {len(found)} of {DRAWERS} recordings in its csv file")
            recordings += found
        recordings.sort(key=lambda recording: recording.name)
        return Listing(classes, tuple(recordings), (), SENSOR_SIZE, notes=tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        return cut(aedat4.read(recording.path), recording)

    def read_file(self, recording: Recording) -> Iterator[tuple[str, Events | RecordingError]]:
        siblings = list_recordings(recording.path, recording.name.rpartition("/")[0], recording.label)
        events: Events | RecordingError
        try:
            read_windows(table_of(recording.path))
            events = aedat4.read(recording.path)
        except RecordingError as error:
            events = error
        for sibling in siblings:
            try:
                yield sibling.name, events if isinstance(events, RecordingError) else cut(events, sibling)
            except RecordingError as error:
                yield sibling.name, error

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=image.path.name)


def list_recordings(path: Path, folder: str, label: int) -> list[Recording]:
    """The recordings of one `.aedat4` file, from the table beside it.

    Args:
        path: the file.
        folder: its folder below the root, for the names.
        label: class index.

    Returns:
        One for each row of the table; where that is missing or damaged, one for each drawer without `detail`, which
        cannot be read.
    """
    windows: list[tuple[int, int]] | list[tuple[()]]
    try:
        windows = read_windows(table_of(path))
    except RecordingError:
        windows = [()] * DRAWERS
    return [
        Recording(f"{folder}/{stem}", path, label, _subset(drawer), stem, image=stem, detail=window)
        for drawer, window in enumerate(windows, start=1)
        for stem in [f"{path.stem}_{drawer:02d}"]
    ]


def table_of(path: Path) -> Path:
    """The `.csv` file beside an `.aedat4` file, there or not."""
    return next((t for end in (".csv", ".CSV") if (t := path.with_suffix(end)).is_file()), path.with_suffix(".csv"))


def read_windows(path: Path) -> list[tuple[int, int]]:
    """When the recordings of a file begin (inclusive) and end (exclusive), in microseconds, in the order of drawers.

    Args:
        path: the `.csv` file: a header, then a row for each drawer with index, start and end.

    Raises:
        RecordingError: missing (`no_table`); or no table, more than 20 rows, or windows that are empty or go back
            (`damaged_table`).
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row][1:]
        windows = [(int(start), int(end)) for _, start, end, *_ in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise RecordingError(
            f"{path.name}: cannot be read ({error}); expected a header and {DRAWERS} rows of index, start and end in "
            "whole microseconds. Copy it again.",
            reason="no_table" if isinstance(error, FileNotFoundError) else "damaged_table",
        ) from error
    ends_before = all(first[1] <= second[0] for first, second in pairwise(windows))
    if not 0 < len(windows) <= DRAWERS or not ends_before or any(start >= end for start, end in windows):
        raise RecordingError(
            f"{path.name}: {len(windows)} windows that {'follow' if ends_before else 'do not follow'} one another; "
            f"expected {DRAWERS} windows in order, each ending after it starts. Copy it again.",
            reason="damaged_table",
        )
    return windows


def cut(events: Events, recording: Recording) -> Events:
    """The events of one recording of a file.

    Raises:
        RecordingError: nothing says when it was (see `read_windows`), or the file's time stamps go back (`unsorted`),
            so that nothing can be found in it.
    """
    if not recording.detail:
        read_windows(table_of(recording.path))
    if len(events) > 1 and bool((events.t[1:] < events.t[:-1]).any()):
        raise RecordingError(
            f"{recording.path.name}: time stamps go back; expected them in order. Copy it again.", reason="unsorted"
        )
    first, last = np.searchsorted(events.t, recording.detail)
    return Events(events.t[first:last], events.x[first:last], events.y[first:last], events.p[first:last])


def _subset(drawer: int) -> str:
    return "train" if drawer <= TRAINING_DRAWERS else "test"


def _numbered(
    root: Path, names: tuple[str, ...], pattern: str, ending: str, layout: str
) -> dict[str, tuple[str, Path]]:
    """Files `<name>/<Alphabet>/character<NN>/<number><ending>`: their folders and paths by the number in their names.

    Raises:
        LayoutError: a file of the ending that is called otherwise, or a number that is there twice.
    """
    found: dict[str, tuple[str, Path]] = {}
    for name in names:
        top = child(root, name)
        characters = [c for alphabet in (folders(top) if top else ()) for c in folders(alphabet)]
        for path in (p for character in characters for p in entries(character) if p.suffix.lower() == ending):
            match = re.fullmatch(pattern, path.name, re.IGNORECASE)
            if match is None:
                raise LayoutError(f"{path} does not belong here; expected {layout}. Move it out.")
            if match[1] in found:
                raise LayoutError(f"{path} and {found[match[1]][1]} have one number; expected each once. Move one out.")
            found[match[1]] = f"{name}/{path.parent.parent.name}/{path.parent.name}", path
    return found
