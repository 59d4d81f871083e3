"""N-MNIST recordings and the MNIST images they were made from.

Source: Orchard et al. 2015 (recordings); LeCun et al. 1998 (images).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.datasets.layout import find_child, list_entries, list_folders
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import PackedEvents
from spikebridge.pipeline.formats import bin40

SUBSETS = {"Train": "train", "Test": "test"}
DIGITS = tuple("0123456789")
SENSOR_SIZE = (34, 34)
SHOWN_FRACTION = 28 / 34
"""A 28x28 image fills 28 of 34 pixels: in 20 real recordings the events' centre lies within 0.4 pixels of that."""
MNIST_PREFIX = {"train": "train", "test": "t10k"}


def find_digit_folders(root: Path, subset: str, ending: str) -> list[Path]:
    """Return folders of digits below a subset's folder that hold files of an ending, or nothing yet."""
    subset_folder = find_child(root, subset)
    return [
        folder
        for folder in (list_folders(subset_folder) if subset_folder else ())
        if folder.name in DIGITS and all(path.suffix.lower() == ending for path in list_entries(folder)[:1])
    ]


class DigitReader(PairReader):
    """Base of the readers of recordings in the format and layout of N-MNIST."""

    endings = (".bin",)

    def list_recordings(self, events_root: Path) -> tuple[list[Recording], list[str]]:
        """List `{Train,Test}/<digit>/<NNNNN>.bin` below a root; `image` is `<Subset>/<NNNNN>`.

        Returns:
            Recordings sorted by name, and notes about what is missing.

        Raises:
            LayoutError: no recordings, a folder that is no digit, or a file name that is no index.
        """
        root = self.find_root(
            events_root,
            "events",
            below=("events", "N-MNIST", "NMNIST"),
            holds=lambda folder: any(find_digit_folders(folder, subset, ".bin") for subset in SUBSETS),
        )
        recordings, notes = [], []
        for folder, subset in SUBSETS.items():
            subset_folder = find_child(root, folder)
            if subset_folder is None:
                notes.append(f"no folder {folder}: no {subset} recordings")
                continue
            for class_folder in list_entries(subset_folder):
                if class_folder.name not in DIGITS or not class_folder.is_dir():
                    raise LayoutError(
                        f"{class_folder} is not a digit's folder; expected the folders 0 to 9 below {subset_folder}. "
                        "Move it out of the data set."
                    )
                for path in list_entries(class_folder):
                    if not re.fullmatch(r"\d+\.bin", path.name, re.IGNORECASE):
                        raise LayoutError(f"{path} is no recording; expected names like 00012.bin. Move it out.")
                    label, stem = int(class_folder.name), path.stem
                    name = f"{folder}/{class_folder.name}/{stem}"
                    recordings.append(Recording(name, str(path), label, subset, stem, f"{folder}/{int(stem):05d}"))
            present = {recording.label for recording in recordings if recording.subset == subset}
            if missing := [digit for digit in DIGITS if int(digit) not in present]:
                notes.append(f"no {subset} recordings of {', '.join(missing)}")
        if not recordings:
            raise LayoutError(f"{root}: no recordings found; expected {self.card.events_layout}.")
        return recordings, notes

    def read_events(self, recording: Recording) -> Events:
        return bin40.decode(recording.path.read_bytes(), source=f"{recording.name}.bin")[0]

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> PackedEvents:
        data = recording.path.read_bytes()
        return bin40.decode_packed(data, sensor_size=sensor_size, source=f"{recording.name}.bin")


@register
class NMNIST(DigitReader):
    """N-MNIST with MNIST; pairs are exact: NNNNN is the 1-based MNIST index in the same subset."""

    name = "nmnist"
    card = DatasetCard(
        title="N-MNIST (events) and MNIST (images)",
        events_layout="Train/<digit>/<NNNNN>.bin and Test/<digit>/<NNNNN>.bin, NNNNN the 1-based index of the image",
        static_layout="{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
        download="https://www.garrickorchard.com/datasets/n-mnist and https://ossci-datasets.s3.amazonaws.com/mnist/ "
        "(the four idx files)",
        licence="N-MNIST: CC BY-SA 4.0; MNIST: CC BY-SA 3.0",
        citation="Orchard, Jayawant, Cohen, Thakor: Converting static image datasets to spiking neuromorphic datasets "
        "using saccades, Frontiers in Neuroscience 9, 2015. LeCun, Bottou, Bengio, Haffner: Gradient-based learning "
        "applied to document recognition, Proc. IEEE 86, 1998.",
        pairing="exact",
        expected={"train": 60_000, "test": 10_000},
        images="60,000 train, 10,000 test",
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        recordings, notes = self.list_recordings(events_root)
        root = self.find_root(
            static_root,
            "static",
            below=("static", "MNIST/raw", "MNIST", "raw"),
            holds=lambda folder: any(_find_idx(folder, prefix, "images") for prefix in MNIST_PREFIX.values()),
        )
        images = []
        for folder, subset in SUBSETS.items():
            prefix = MNIST_PREFIX[subset]
            path, labels_path = _find_idx(root, prefix, "images"), _find_idx(root, prefix, "labels")
            if path is None or labels_path is None:
                notes.append(f"no {prefix} idx files: {subset} recordings have no image")
                continue
            count, labels = len(_load(path)), idx.read(labels_path)
            if len(labels) != count:
                raise LayoutError(
                    f"{path} holds {count} images and {labels_path} {len(labels)} labels; expected as many."
                )
            if count and int(labels.max()) >= len(DIGITS):
                raise LayoutError(f"{labels_path}: label {int(labels.max())} found; expected 0 to 9.")
            images += [
                StaticImage(f"{folder}/{i + 1:05d}", str(path), int(label), subset, f"{subset}{i + 1:05d}", row=i)
                for i, label in enumerate(labels)
            ]
        by_name = {image.name: image.label for image in images}
        for recording in recordings:
            label = by_name.get(recording.image or "", recording.label)
            if label != recording.label:
                raise LayoutError(
                    f"{recording.file}: lies in the folder of digit {recording.label}, but MNIST image "
                    f"{recording.image} is a {label}. Was it moved, or are these the idx files of another set?"
                )
        recordings.sort(key=lambda recording: recording.name)
        return Listing(DIGITS, tuple(recordings), tuple(images), SENSOR_SIZE, SHOWN_FRACTION, notes=tuple(notes))

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return np.repeat(_load(image.path)[image.row][..., None], 3, -1)  # [H,W,3]


@lru_cache(maxsize=2)
def _load(path: Path) -> NDArray[np.uint8]:
    array = idx.read(path)
    if array.ndim != 3:
        raise LayoutError(f"{path}: rank {array.ndim}; expected images [N,H,W].")
    return array


def _find_idx(folder: Path, prefix: str, kind: str) -> Path | None:
    """Return the idx file of a subset in any of its usual spellings, the plain file first.

    It may lie in a folder of its own name, as some mirrors unpack.
    """
    rank = {"images": 3, "labels": 1}[kind]
    for separator in ("-", "."):
        for ending in ("", ".gz"):
            name = f"{prefix}-{kind}{separator}idx{rank}-ubyte{ending}"
            for path in (folder / name, folder / name / name, folder / name.removesuffix(".gz") / name):
                if path.is_file():
                    return path
    return None
