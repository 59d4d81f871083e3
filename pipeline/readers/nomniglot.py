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

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.datasets.layout import find_child, list_entries, list_folders, number_files
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat import aedat4

EVENT_FOLDERS = ("dvs_background", "dvs_evaluation")
IMAGE_FOLDERS = ("images_background", "images_evaluation")
SENSOR_SIZE = (346, 260)
DRAWERS = 20
TRAINING_DRAWERS = 15
"""Drawers 1 to 15 train, 16 to 20 test, in both folders: the published split of the classification task."""


@register
class NOmniglot(PairReader):
    """N-Omniglot with Omniglot; pairs are exact: drawing NNNN_MM by character number and drawer.

    Classes are the characters of the recordings, in the order of their numbers NNNN, which is the order of the
    folders' names as Omniglot spells them; alphabets that N-Omniglot spells otherwise change no label. Drawings are
    left as they are, ink 0 on paper 255: the published code does not invert them.
    """

    name = "nomniglot"
    endings = (".aedat4",)
    card = DatasetCard(
        title="N-Omniglot (events) and Omniglot (images)",
        events_layout="dvs_background/<Alphabet>/character<NN>/<NNNN>.aedat4 and <NNNN>.csv, and dvs_evaluation/ "
        "the same; NNNN the number of the character",
        static_layout="images_background/<Alphabet>/character<NN>/<NNNN>_<MM>.png, and images_evaluation/ the same; "
        "MM the drawer",
        download="https://doi.org/10.6084/m9.figshare.16821427 and https://github.com/brendenlake/omniglot",
        licence="N-Omniglot: as its authors say; Omniglot: MIT",
        citation="Li, Dong, Zhao, Zeng: N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse "
        "few-shot learning, Scientific Data 9, 2022. Lake, Salakhutdinov, Tenenbaum: Human-level concept learning "
        "through probabilistic program induction, Science 350, 2015.",
        pairing="exact",
        expected={"train": 24_345, "test": 8_115},
        images="32,460 drawings of 1,623 characters",
        strict="drawers 16 to 20 test, and 10 % of each class's other recordings validate",
        legacy="drawers 1 to 15 train, 16 to 20 test",
    )
    crop = (54, 4, 304, 254)
    many_per_file = True

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        listing = self.list_events(events_root)
        image_root = self.find_root(
            static_root,
            "static",
            below=("static", "omniglot", "omniglot-py", "python"),
            holds=lambda folder: any(find_child(folder, name) for name in IMAGE_FOLDERS),
        )
        label = {recording.path.stem: recording.label for recording in listing.recordings}
        drawings = _list_files(image_root, IMAGE_FOLDERS, r"(\d{4}_\d\d)\.png", ".png", self.card.static_layout)
        images = tuple(
            StaticImage(stem, str(path), label[stem[:4]], _subset(int(stem[5:])), stem)
            for stem, path in sorted(drawings.items())
            if stem[:4] in label
        )
        notes = listing.notes
        if unused := len(drawings) - len(images):
            notes = (*notes, f"{unused} drawings of characters without recordings are not used")
        return replace(listing, images=images, notes=notes)

    def list_events(self, events_root: Path) -> Listing:
        """List the recordings alone, without drawings.

        Raises:
            LayoutError: see `list_pair`.
        """
        root = self.find_root(
            events_root,
            "events",
            below=("events", "N-Omniglot", "NOmniglot"),
            holds=lambda folder: any(find_child(folder, name) for name in EVENT_FOLDERS),
        )
        files = _list_files(root, EVENT_FOLDERS, r"(\d{4})\.aedat4", ".aedat4", self.card.events_layout)
        if not files:
            raise LayoutError(f"{root}: no recordings found; expected {self.card.events_layout}.")
        label = {number: i for i, number in enumerate(sorted(files))}
        classes = tuple(f"{files[n].parent.parent.name}/{files[n].parent.name}" for n in sorted(files))
        notes = [f"no folder {name}" for name in EVENT_FOLDERS if find_child(root, name) is None]
        recordings: list[Recording] = []
        for number, path in files.items():
            alphabet, character = path.parents[1].name, path.parents[0].name
            folder = f"{path.parents[2].name.casefold()}/{alphabet}/{character}"
            of_file = list_recordings(path, folder, label[number])
            if not of_file[0].detail:
                notes.append(f"{folder}/{path.stem}: its csv file is missing or damaged, its recordings cannot be used")
            elif len(of_file) != DRAWERS:
                notes.append(f"{folder}/{path.stem}: {len(of_file)} of {DRAWERS} recordings in its csv file")
            recordings += of_file
        recordings.sort(key=lambda recording: recording.name)
        return Listing(classes, tuple(recordings), (), SENSOR_SIZE, notes=tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        return cut_recording(aedat4.read(recording.path), recording)

    def read_file(self, recording: Recording) -> Iterator[tuple[str, Events | RecordingError]]:
        siblings = list_recordings(recording.path, recording.name.rpartition("/")[0], recording.label)
        events: Events | RecordingError
        try:
            read_windows(find_table(recording.path))
            events = aedat4.read(recording.path)
        except RecordingError as error:
            events = error
        for sibling in siblings:
            try:
                if isinstance(events, RecordingError):
                    yield sibling.name, events
                    continue
                yield sibling.name, cut_recording(events, sibling)
                events = replace(events, passed_over=())  # counted once for a file
            except RecordingError as error:
                yield sibling.name, error


def list_recordings(path: Path, folder: str, label: int) -> list[Recording]:
    """List the recordings of one `.aedat4` file, from the table beside it.

    `folder` is its folder below the root, for the names.

    Returns:
        One for each row of the table; where that is missing or damaged, one for each drawer without `detail`, which
        cannot be read.
    """
    windows: list[tuple[int, int]] | list[tuple[()]]
    try:
        windows = read_windows(find_table(path))
    except RecordingError:
        windows = [()] * DRAWERS
    return [
        Recording(f"{folder}/{stem}", str(path), label, _subset(drawer), stem, image=stem, detail=window)
        for drawer, window in enumerate(windows, start=1)
        for stem in [f"{path.stem}_{drawer:02d}"]
    ]


def find_table(path: Path) -> Path:
    """Return the path of the `.csv` file beside an `.aedat4` file, there or not."""
    return next((t for end in (".csv", ".CSV") if (t := path.with_suffix(end)).is_file()), path.with_suffix(".csv"))


def read_windows(path: Path) -> list[tuple[int, int]]:
    """Read when the recordings of a file begin (inclusive) and end (exclusive), in microseconds, by drawer.

    The `.csv` file holds a header, then a row for each drawer with index, start and end.

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


def cut_recording(events: Events, recording: Recording) -> Events:
    """Return the events of one recording of a file, with what the whole file passed over.

    Raises:
        RecordingError: its window is not known (see `read_windows`), or the file's time stamps go back (`unsorted`).
    """
    if not recording.detail:
        read_windows(find_table(recording.path))
    if len(events) > 1 and bool((events.t[1:] < events.t[:-1]).any()):
        raise RecordingError(
            f"{recording.path.name}: time stamps go back; expected them in order. Copy it again.", reason="unsorted"
        )
    first, last = np.searchsorted(events.t, recording.detail)
    return replace(events, **{column: getattr(events, column)[first:last] for column in "txyp"})


def _subset(drawer: int) -> str:
    return "train" if drawer <= TRAINING_DRAWERS else "test"


def _list_files(root: Path, names: tuple[str, ...], pattern: str, ending: str, layout: str) -> dict[str, Path]:
    """List files `<name>/<Alphabet>/character<NN>/<number><ending>` by the number in their names.

    Raises:
        LayoutError: a file of the ending that is called otherwise, or a number that is there twice.
    """
    tops = [top for name in names if (top := find_child(root, name))]
    characters = [character for top in tops for alphabet in list_folders(top) for character in list_folders(alphabet)]
    paths = (path for folder in characters for path in list_entries(folder) if path.suffix.lower() == ending)
    return number_files(paths, re.compile(pattern, re.IGNORECASE), str, expected=layout)
