"""The base of readers whose recordings are files that lists or names describe, with class folders of static images.

Such a reader says which recordings there are; labels, images and pairs follow from class names and stems. Where no
static images are known to belong to a data set, class folders of any images make a pool of the class, or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from spikebridge.pipeline.base.errors import LayoutError, shorten
from spikebridge.pipeline.datasets.layout import list_entries, list_folders, unpacked
from spikebridge.pipeline.datasets.pairs import UNUSED, Listing, PairReader, Recording, StaticImage
from spikebridge.pipeline.images.decode import EXTENSIONS

SUBSETS = {"train": "train", "training": "train", "val": "test", "test": "test", "testing": "test"}
"""Official subsets of static images by the names of folders above the classes, in lower case."""
Labelled = tuple[Recording, str]
"""A recording whose label is not yet a number, and the name of its class; `image` is the stem of the wanted image."""


class DescribedReader(PairReader):
    """Base of readers that list recordings with the names of their classes.

    Attributes:
        sensor_size: (W, H) in pixels.
        classes: names in the order of the labels; empty for the sorted names that are there.
        exact: recordings name their static image by its stem.
        folders: where the events root may lie below a given one.
    """

    sensor_size: ClassVar[tuple[int, int]]
    classes: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = False
    folders: ClassVar[tuple[str, ...]] = ()

    def list_recordings(self, root: Path, notes: list[str]) -> Iterable[Labelled]:
        """List the recordings below a root that `is_root` accepts, and note what is missing or assumed.

        Raises:
            LayoutError: files that do not belong there.
        """
        raise NotImplementedError

    def is_root(self, folder: Path) -> bool:
        """Return whether a folder holds the data set."""
        raise NotImplementedError

    def group_of(self, stem: str, class_name: str) -> str:
        """Return the group that the stem of a recording or of its static image names; empty for none."""
        return ""

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        """List recordings and images, joined by stem where the data set has them in common, else by class.

        Raises:
            LayoutError: see `list_recordings`; no recordings, or a class that the data set does not have.
        """
        root = self.find_root(events_root, "events", below=("events", *self.folders), holds=self.is_root)
        notes = list[str]()
        labelled = sorted(self.list_recordings(root, notes), key=lambda pair: pair[0].name)
        if not labelled:
            raise LayoutError(f"{root}: no recordings found; expected {self.card.events_layout}.")
        for (one, _), (other, _) in pairwise(labelled):
            if one.name == other.name:
                raise LayoutError(f"{one.file} and {other.file} both hold {one.name}; expected it once. Remove one.")
        present = {name for _, name in labelled}
        if self.classes and (unknown := sorted(present - set(self.classes))):
            raise LayoutError(f"{root}: no class is called {shorten(unknown)}; expected {shorten(self.classes)}.")
        classes = tuple(name for name in self.classes or sorted(present) if name in present)
        if self.classes and len(classes) < len(self.classes):
            found = f"recordings of {len(classes)} classes found, {len(self.classes)} expected"
            notes.append(f"{found}: labels number those found")
        label = {name: i for i, name in enumerate(classes)}
        images = list(self._list_images(static_root, label))
        by_stem = {(image.label, image.name.rpartition("/")[2].casefold()): image.name for image in images}
        exact = self.exact and any((label[name], (r.image or "").casefold()) in by_stem for r, name in labelled)
        recordings = []
        for recording, name in labelled:
            wanted = by_stem.get((label[name], (recording.image or "").casefold()), recording.name)
            recordings.append(replace(recording, label=label[name], image=wanted if exact else None))
        if not images:
            notes.append("no static images of these classes: only methods that need none can train")
        elif not exact:
            notes.append("static images belong to recordings by class alone")
        pairing = "exact" if exact else "class"
        return Listing(classes, tuple(recordings), tuple(images), self.sensor_size, pairing=pairing, notes=tuple(notes))

    def _list_images(self, static_root: Path, label: dict[str, int]) -> Iterator[StaticImage]:
        """List the images of class folders, in `train` and `test` or directly below a root; none is no error.

        A folder in a class folder holds the frames of one video: the middle one counts.
        """
        if not static_root.is_dir():
            raise LayoutError(f"static folder {static_root} does not exist; expected {self.card.static_layout}.")
        folded = {name.casefold(): name for name in label}
        parents = [(parent, SUBSETS[parent.name.casefold()]) for parent in _subset_folders(static_root)]
        roots: list[tuple[Path, str | None]] = [*parents]
        for parent, subset in roots or [(p, None) for p in (static_root, static_root / "static") if p.is_dir()]:
            for folder in list_folders(parent):
                if (name := folded.get(folder.name.casefold())) is None:
                    continue
                for path, stem in _list_pictures(unpacked(folder)):
                    below = f"{subset}/{name}" if subset else name
                    key = f"{subset}-{stem}" if subset else stem
                    group = self.group_of(stem, name) if self.exact else ""
                    yield StaticImage(f"{below}/{stem}", str(path), label[name], subset, key, group=group)


def _subset_folders(root: Path) -> list[Path]:
    for parent in (root, root / "static"):
        if parent.is_dir() and (found := [f for f in list_folders(parent) if f.name.casefold() in SUBSETS]):
            return found
    return []


def _list_pictures(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images of a class and their stems."""
    for path in list_entries(folder):
        if path.is_dir():
            if frames := [frame for frame in list_entries(path) if frame.suffix.lower() in EXTENSIONS]:
                yield frames[len(frames) // 2], path.name
        elif path.suffix.lower() in EXTENSIONS:
            yield path, path.stem


def read_list(path: Path) -> list[list[str]]:
    """Read the words of every line of a list that is not empty."""
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    return [line.split() for line in lines if line.strip()]


def apply_lists(labelled: Sequence[Labelled], subset_of: dict[str, str], notes: list[str], what: str) -> list[Labelled]:
    """Give recordings the subsets of official lists, by stem; those that no list names are not used."""
    given = [(replace(r, subset=subset_of.get(r.path.stem, UNUSED)), name) for r, name in labelled]
    if unlisted := sum(r.subset == UNUSED for r, _ in given):
        notes.append(f"{unlisted:,} recordings are in none of the lists {what} and are not used")
    if missing := len(subset_of.keys() - {r.path.stem for r, _ in labelled}):
        notes.append(f"{missing:,} recordings of the lists {what} are not there")
    return given
