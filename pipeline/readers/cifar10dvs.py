"""CIFAR10-DVS recordings and the images of CIFAR-10, which share classes only.

Source: Li, Liu, Ji, Li, Shi 2017 (recordings); Krizhevsky 2009 (images); Deng et al. 2022, TET (the `.mat` copies).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.containers import cifar
from spikebridge.pipeline.datasets.layout import (
    find_child,
    list_entries,
    list_folders,
    number_files,
    refuse_equal_stems,
    unpacked,
)
from spikebridge.pipeline.datasets.pairs import (
    PAIRS_UNKNOWN,
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    register,
)
from spikebridge.pipeline.datasets.splits import split_by_first_share
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat import aedat2, aedat4
from spikebridge.pipeline.formats.tables import mat_events
from spikebridge.pipeline.images.decode import EXTENSIONS

SENSOR_SIZE = (aedat2.SIDE, aedat2.SIDE)
RECORDING_NAME = r"(?:cifar10_{}_)?([0-9]+)\.(?:aedat|aedat4|mat)"
"""Pattern of the recordings of a class."""
ANY_RECORDING = re.compile(RECORDING_NAME.format("[a-z]+"), re.IGNORECASE)
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
    endings = (".aedat", ".aedat4", ".mat")
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
        pairing=f"class: {PAIRS_UNKNOWN}",
        expected={"unsplit": 10_000},
        images="50,000 train, 10,000 test",
        legacy="the first 90 % of each class train, the rest test, in a seeded order (9,000 and 1,000)",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = self.find_root(
            events_root,
            "events",
            below=("events", "CIFAR10DVS", "CIFAR10-DVS", "DVS_Cifar10", "events/CIFAR10DVS", "events/CIFAR10-DVS"),
            holds=lambda folder: (
                any(find_child(folder, name) for name in cifar.CLASSES) and bool(_find_folders(folder))
            ),
        )
        image_root = self.find_root(
            static_root,
            "static",
            below=("static", *ARCHIVES, *(f"static/{name}" for name in ARCHIVES), "CIFAR10", "cifar10"),
            holds=lambda folder: bool(_find_batches(folder) or _find_image_folders(folder)),
        )
        class_folders = _find_folders(root)
        if other := sorted(set(class_folders) - set(cifar.CLASSES)):
            raise LayoutError(
                f"{class_folders[other[0]]} holds recordings, but is no class; expected {', '.join(cifar.CLASSES)}. "
                "Move it out."
            )
        classes = tuple(name for name in cifar.CLASSES if name in class_folders)
        recordings = [r for label, name in enumerate(classes) for r in _list_class(class_folders[name], name, label)]
        if any(r.path.suffix.lower() == ".aedat4" for r in recordings) and importlib.util.find_spec("aedat") is None:
            raise SettingsError(
                f"{root} holds .aedat4 files, and the package aedat, which reads them, is not installed. "
                "Run pip install aedat, or use the original .aedat recordings."
            )
        batches = _find_batches(image_root)
        images = [
            replace(image, label=classes.index(name))
            for image in (_list_batch_images(batches) if batches else _list_folder_images(image_root))
            if (name := cifar.CLASSES[image.label]) in classes
        ]
        recordings.sort(key=lambda recording: recording.name)
        images.sort(key=lambda image: image.name)
        notes = [f"{PAIRS_UNKNOWN}; recorded were images of all of CIFAR-10, its test too"]
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
        return aedat2.decode_dvs128(recording.path.read_bytes(), source=source)[0]

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        if image.path.suffix.lower() in EXTENSIONS:
            return super().read_image(image)
        return _load(image.path).images[image.row]  # [H,W,3]

    def apply_published_split(self, listing: Listing, *, seed: int) -> Listing:
        """Train on nine tenths of each class; CIFAR-10's test images are in the static pool.

        Source: He et al. 2024, public implementation. Differs: there the label itself picks the partner, so that all
        partners come from ten images of one class; here a partner is of the class of its recording.
        """
        note = (
            "legacy: the first 90 % of each class train, in a seeded order for the unknown one of the published "
            "experiments; the test images of CIFAR-10 are in the static pool"
        )
        return replace(
            listing,
            recordings=split_by_first_share(listing.recordings, PUBLISHED_TRAIN_SHARE, seed=seed),
            images=tuple(replace(image, subset="train") for image in listing.images),
            notes=(*listing.notes, note),
        )


def _find_folders(root: Path) -> dict[str, Path]:
    """Return the folders below a root that hold recordings, by their names."""
    inner = {outer.name: unpacked(outer) for outer in list_folders(root)}
    return {
        name.lower() if name.lower() in cifar.CLASSES else name: folder
        for name, folder in inner.items()
        if any(ANY_RECORDING.fullmatch(path.name) for path in list_entries(folder))
    }


def _list_class(folder: Path, name: str, label: int) -> Iterator[Recording]:
    """List the recordings of one class.

    Raises:
        LayoutError: a file that is no recording, of another class, or the second of its number.
    """
    pattern = re.compile(RECORDING_NAME.format(name), re.IGNORECASE)
    expected = f"names like cifar10_{name}_12.aedat"
    for path in number_files(list_entries(folder), pattern, int, expected=expected).values():
        yield Recording(f"{name}/{path.stem}", str(path), label, None, path.stem.rpartition("_")[2], None)


def _find_batches(folder: Path) -> list[Path]:
    """Return the batch files of CIFAR-10 in a folder; the python ones where both forms lie there."""
    for ending in ("", ".bin"):
        if files := [path for name in PYTHON_BATCHES if (path := folder / f"{name}{ending}").is_file()]:
            return files
    return []


def _list_batch_images(batches: list[Path]) -> Iterator[StaticImage]:
    for path in batches:
        for row, label in enumerate(_load(path).labels.tolist()):
            stem = f"{path.stem}-{row:05d}"
            yield StaticImage(f"{path.stem}/{row:05d}", str(path), label, PYTHON_BATCHES[path.stem], stem, row=row)


@lru_cache(maxsize=2)
def _load(path: Path) -> cifar.Batch:
    return cifar.read(path)


def _find_image_folders(root: Path) -> list[Path]:
    """Return class folders of images, in `train` and `test` or directly below the root."""
    parents = [folder for name in SUBSET_FOLDERS if (folder := find_child(root, name))] or [root]
    children = [folder for parent in parents for name in cifar.CLASSES if (folder := find_child(parent, name))]
    return [folder for folder in children if any(path.suffix.lower() in EXTENSIONS for path in list_entries(folder))]


def _list_folder_images(root: Path) -> Iterator[StaticImage]:
    for folder in _find_image_folders(root):
        above = folder.parent if folder.parent.name.lower() != folder.name.lower() else folder.parent.parent
        subset = SUBSET_FOLDERS.get(above.name.lower()) if above != root else None
        paths = [path for path in list_entries(folder) if path.suffix.lower() in EXTENSIONS]
        refuse_equal_stems(paths)
        for path in paths:
            class_name = folder.name.lower()
            name = f"{subset}/{class_name}/{path.stem}" if subset else f"{class_name}/{path.stem}"
            label = cifar.CLASSES.index(class_name)
            yield StaticImage(name, str(path), label, subset, f"{subset}-{path.stem}" if subset else path.stem)
