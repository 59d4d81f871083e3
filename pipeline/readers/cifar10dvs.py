"""CIFAR10-DVS recordings and the images of CIFAR-10, which share classes only.

Source: Li, Liu, Ji, Li, Shi 2017 (recordings); Krizhevsky 2009 (images); Deng et al. 2022, TET (the `.mat` copies).
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.containers import cifar
from spikebridge.pipeline.datasets.layout import child, entries, find_root, folders
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
from spikebridge.pipeline.formats import aedat2, aedat4, mat_events
from spikebridge.pipeline.images.decode import EXTENSIONS, decode_image

SENSOR_SIZE = (aedat2.SIDE, aedat2.SIDE)
RECORDING_NAME = re.compile(r"(?:cifar10_([a-z]+)_)?([0-9]+)\.(aedat|aedat4|mat)", re.IGNORECASE)
PUBLISHED_TRAIN_SHARE = 0.9
PYTHON_BATCHES = {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"}
SUBSET_FOLDERS = {"train": "train", "test": "test"}
ARCHIVES = ("cifar-10-batches-py", "cifar-10-batches-bin")


@register
class CIFAR10DVS(PairReader):
    """CIFAR10-DVS with CIFAR-10; no list says which image a recording shows, so pairs are by class.

    Recordings: the original `.aedat`; the `.mat` files that TET's scripts make of them, variable `out1` with the
    columns t, 0, -1, x, y, p or (a variant that its code implies and no text describes) t, x, y, p; the re-hosted
    `.aedat4` copy, coordinates as that file has them. The recorded images come from all of CIFAR-10, its test images
    included.

    Labels number the classes of which there are recordings, in alphabetical order; with all ten they are CIFAR-10's.
    """

    name = "cifar10dvs"
    card = DatasetCard(
        title="CIFAR10-DVS (events) and CIFAR-10 (images)",
        events_layout="<class>/cifar10_<class>_<i>.aedat (or .aedat4, or TET's .mat)",
        static_layout="data_batch_1 to 5 and test_batch of CIFAR-10 (python or .bin), or "
        "{train,test}/<class>/<image>, or <class>/<image>",
        download="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 and "
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="CIFAR10-DVS: CC BY 4.0; CIFAR-10: none stated, cite the report",
        citation="Li, Liu, Ji, Li, Shi: CIFAR10-DVS: an event-stream dataset for object classification, Frontiers in "
        "Neuroscience 11, 2017. Krizhevsky: Learning multiple layers of features from tiny images, 2009.",
        pairing="class: which image a recording shows is not known",
        expected={"unsplit": 10_000},
        images="50,000 train, 10,000 test",
        splits=DRAWN + "legacy: the first 90 % of each class train, the rest test, in a seeded order (9,000 and 1,000)",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = find_root(
            events_root,
            below=("events", "CIFAR10DVS", "CIFAR10-DVS", "DVS_Cifar10", "events/CIFAR10DVS", "events/CIFAR10-DVS"),
            holds=lambda folder: any(child(folder, name) for name in cifar.CLASSES) and bool(_of_recordings(folder)),
            what="events",
            layout=self.card.events_layout,
        )
        image_root = find_root(
            static_root,
            below=("static", *ARCHIVES, *(f"static/{name}" for name in ARCHIVES), "CIFAR10", "cifar10"),
            holds=lambda folder: bool(_batches(folder) or _image_folders(folder)),
            what="static",
            layout=self.card.static_layout,
        )
        found = _of_recordings(root)
        if other := sorted(set(found) - set(cifar.CLASSES)):
            raise LayoutError(
                f"{found[other[0]]} holds recordings, but is no class; expected {', '.join(cifar.CLASSES)}. "
                "Move it out."
            )
        classes = tuple(name for name in cifar.CLASSES if name in found)
        recordings = [r for label, name in enumerate(classes) for r in _recordings(found[name], name, label)]
        if any(r.path.suffix.lower() == ".aedat4" for r in recordings) and importlib.util.find_spec("aedat") is None:
            raise SettingsError(
                f"{root} holds .aedat4 files, and the package aedat, which reads them, is not installed. "
                "Run pip install aedat, or use the original .aedat recordings."
            )
        batches = _batches(image_root)
        pictures = _batch_images(batches) if batches else _folder_images(image_root)
        images = [
            replace(i, label=classes.index(name)) for i in pictures if (name := cifar.CLASSES[i.label]) in classes
        ]
        recordings.sort(key=lambda recording: recording.name)
        images.sort(key=lambda image: image.name)
        notes = ["which image a recording shows is not known; recorded were images of all of CIFAR-10, its test too"]
        if len(classes) != len(cifar.CLASSES):
            notes.append(f"recordings of {len(classes)} classes found, 10 expected: labels number those found")
        if batches and (missing := sorted(set(PYTHON_BATCHES) - {path.stem for path in batches})):
            notes.append(f"no {', '.join(missing)}: fewer static images")
        return Listing(classes, tuple(recordings), tuple(images), SENSOR_SIZE, pairing="class", notes=tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        ending = recording.path.suffix.lower()
        source = f"{recording.name}{ending}"
        if ending == ".mat":
            return mat_events.decode_table(recording.path.read_bytes(), source=source)
        if ending == ".aedat4":
            return aedat4.read(recording.path)
        return aedat2.decode(recording.path.read_bytes(), source=source)[0]

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        if image.path.suffix.lower() in EXTENSIONS:
            return decode_image(image.path.read_bytes(), source=f"{image.name}{image.path.suffix}")
        return _load(image.path).images[image.row]  # [H,W,3]

    def published(self, listing: Listing, *, seed: int) -> Listing:
        """Nine tenths of each class train; CIFAR-10's test images are in the static pool.

        Source: He et al. 2024, public implementation. Differs: there the label itself picks the partner, so that all
        partners come from ten images of one class; here a partner is of the class of its recording.
        """
        note = (
            "legacy: the first 90 % of each class train, in a seeded order for the unknown one of the published "
            "experiments; the test images of CIFAR-10 are in the static pool"
        )
        return replace(
            listing,
            recordings=first_share_trains(listing.recordings, PUBLISHED_TRAIN_SHARE, seed=seed),
            images=tuple(replace(image, subset="train") for image in listing.images),
            notes=(*listing.notes, note),
        )


def _of_recordings(root: Path) -> dict[str, Path]:
    """Folders below a root that hold recordings, by their names."""
    found = {outer.name: child(root, outer.name) or outer for outer in folders(root)}
    return {
        name.lower() if name.lower() in cifar.CLASSES else name: folder
        for name, folder in found.items()
        if any(RECORDING_NAME.fullmatch(path.name) for path in entries(folder))
    }


def _recordings(folder: Path, name: str, label: int) -> Iterator[Recording]:
    """Recordings of one class.

    Raises:
        LayoutError: a file that is no recording, of another class, or the second of its number.
    """
    seen: dict[int, Path] = {}
    for path in entries(folder):
        match = RECORDING_NAME.fullmatch(path.name)
        if match is None or (match[1] or name).lower() != name:
            raise LayoutError(
                f"{path} is no recording of this class; expected names like cifar10_{name}_12.aedat. Move it out."
            )
        if other := seen.get(int(match[2])):
            raise LayoutError(f"{other} and {path} are one recording; expected one file each. Remove one.")
        seen[int(match[2])] = path
        yield Recording(f"{name}/{path.stem}", path, label, None, match[2], None)


def _batches(folder: Path) -> list[Path]:
    """Batch files of CIFAR-10 in a folder; the python ones where both forms lie there."""
    for ending in ("", ".bin"):
        if files := [path for name in PYTHON_BATCHES if (path := folder / f"{name}{ending}").is_file()]:
            return files
    return []


def _batch_images(batches: list[Path]) -> Iterator[StaticImage]:
    for path in batches:
        for row, label in enumerate(_load(path).labels.tolist()):
            stem = f"{path.stem}-{row:05d}"
            yield StaticImage(f"{path.stem}/{row:05d}", path, label, PYTHON_BATCHES[path.stem], stem, row=row)


@lru_cache(maxsize=2)
def _load(path: Path) -> cifar.Batch:
    return cifar.read(path)


def _image_folders(root: Path) -> list[Path]:
    """Class folders of images, in `train` and `test` or directly below the root."""
    parents = [folder for name in SUBSET_FOLDERS if (folder := child(root, name))] or [root]
    found = [folder for parent in parents for name in cifar.CLASSES if (folder := child(parent, name))]
    return [folder for folder in found if any(path.suffix.lower() in EXTENSIONS for path in entries(folder))]


def _folder_images(root: Path) -> Iterator[StaticImage]:
    for folder in _image_folders(root):
        above = folder.parent if folder.parent.name.lower() != folder.name.lower() else folder.parent.parent
        subset = SUBSET_FOLDERS.get(above.name.lower()) if above != root else None
        paths = [path for path in entries(folder) if path.suffix.lower() in EXTENSIONS]
        counts = Counter(path.stem for path in paths)
        if twice := [stem for stem, count in counts.items() if count > 1]:
            raise LayoutError(f"{folder}: several images are called {twice[0]}; stems must differ. Rename one.")
        for path in paths:
            class_name = folder.name.lower()
            name = f"{subset}/{class_name}/{path.stem}" if subset else f"{class_name}/{path.stem}"
            label = cifar.CLASSES.index(class_name)
            yield StaticImage(name, path, label, subset, f"{subset}-{path.stem}" if subset else path.stem)
