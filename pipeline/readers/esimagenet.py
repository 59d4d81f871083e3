"""ES-ImageNet samples and the ImageNet images they were simulated from.

Source: Lin, Ding, Qu, Deng, Li 2021, "ES-ImageNet: a million event-stream classification dataset for spiking neural
networks", Frontiers in Neuroscience 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.containers.npy import read_npz
from spikebridge.pipeline.datasets.layout import find_child, is_litter, list_entries, list_folders
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.images.decode import EXTENSIONS

SUBSETS = {"train": "train", "val": "test"}
CANVAS = 256
EXTENT = 254
"""Largest height and width of a sample; smaller ones are put into the middle of it."""
MOST = 2**15
"""No number of a label file is larger; one that is would not fit into a coordinate."""
STEPS = 8
STEP_US = 1000
"""The samples count steps, not time; a step is called a millisecond."""
MAX_BYTES = 2**26
"""All cells of a sample (8 x 2 x 256 x 256) as three 64-bit numbers each are 24 MiB."""


@register
class ESImageNet(PairReader):
    """ES-ImageNet with ImageNet; pairs are exact: samples keep the stem of their static image.

    The validation subset of ImageNet is the test subset here. Classes are called after the folders of their
    images, or `class<k>` where none is there, in the order of the numbers k. A cell that stands in a sample twice
    counts once, as published.
    Differs: polarity 0 is OFF (`neg`), 1 is ON (`pos`); the published loader has them the other way round.
    """

    name = "esimagenet"
    endings = (".npz",)
    card = DatasetCard(
        title="ES-ImageNet (simulated events) and ImageNet (images)",
        events_layout="train/class<k>/*.npz, val/*.npz, trainlabel.txt and vallabel.txt "
        "(lines: file class height width)",
        static_layout="[train/ or val/]<class>/<stem>.JPEG, or val/<stem>.JPEG",
        download="https://cloud.tsinghua.edu.cn/d/94873ab4ec2a4eb497b3 and https://image-net.org",
        licence="ES-ImageNet: as its authors say; ImageNet: non-commercial research, as its terms of access say",
        citation="Lin, Ding, Qu, Deng, Li: ES-ImageNet: a million event-stream classification dataset for spiking "
        "neural networks, Frontiers in Neuroscience 15, 2021. Deng et al.: ImageNet: a large-scale hierarchical image "
        "database, CVPR 2009. The events are simulated.",
        pairing="exact",
        expected={"train": 1_257_035, "test": 49_881},
        images="1,281,167 train, 50,000 val",
        strict="val tests, and 10 % of each class's training samples validate",
        legacy="nothing validates",
        simulated=True,
    )
    crop = (16, 16, 240, 240)
    span_us = STEPS * STEP_US

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = self.find_root(
            events_root,
            "events",
            below=("events", "ES-imagenet-0.18", "ES-ImageNet"),
            holds=lambda folder: any((folder / f"{name}label.txt").is_file() for name in SUBSETS),
        )
        image_root = self.find_root(
            static_root,
            "static",
            below=("static", "ILSVRC/Data/CLS-LOC", "imagenet"),
            holds=lambda folder: next(list_image_files(folder), None) is not None,
        )
        notes: list[str] = []
        recordings = [r for folder in SUBSETS for r in _list_subset(root, folder, notes)]
        if not recordings:
            raise LayoutError(f"{root}: no samples found; expected {self.card.events_layout}.")
        images, names = list_images(image_root, {r.stem: r.label for r in recordings}, notes)
        numbers = sorted({r.label for r in recordings})
        label = {number: i for i, number in enumerate(numbers)}
        return Listing(
            tuple(names.get(number, f"class{number}") for number in numbers),
            tuple(replace(r, label=label[r.label]) for r in sorted(recordings, key=lambda r: r.name)),
            tuple(replace(i, label=label[i.label]) for i in sorted(images, key=lambda i: i.name)),
            (CANVAS, CANVAS),
            notes=tuple(notes),
        )

    def read_events(self, recording: Recording) -> Events:
        arrays = read_npz(recording.path, names=("pos", "neg"), max_bytes=MAX_BYTES)
        if not recording.detail:
            raise RecordingError(
                f"{recording.name}: its size stands in the lists of ES-ImageNet; expected one of the whole set.",
                reason="unlisted",
            )
        height, width = recording.detail
        cells = []
        for polarity, name in enumerate(("neg", "pos")):
            rows, columns, steps = _read_columns(arrays.get(name), f"{recording.name}.npz, array {name}")
            cells.append(
                np.stack(
                    [
                        steps - 1,
                        np.full_like(steps, polarity),
                        rows + (EXTENT - height) // 2,
                        columns + (EXTENT - width) // 2,
                    ]
                )
            )
        t, p, y, x = np.unique(np.concatenate(cells, axis=1), axis=1)  # sorted by step first
        return Events(t * STEP_US, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def _read_columns(array: NDArray[np.generic] | None, source: str) -> NDArray[np.int64]:
    """Return row, column and step of every event, [3,N].

    Raises:
        RecordingError: missing (`columns`), not [N,3] (`shape`), fractions (`fractional`), steps or pixels off the
            canvas (`out_of_range`).
    """
    if array is None:
        raise RecordingError(f"{source}: missing; expected the arrays pos and neg. Copy it again.", reason="columns")
    if array.size == 0:
        return np.zeros((3, 0), np.int64)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iuf":
        raise RecordingError(
            f"{source}: {array.dtype} of shape {array.shape}; expected N x 3 numbers. Copy it again.", reason="shape"
        )
    numbers = array.astype(np.float64)
    if not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()):
        raise RecordingError(f"{source}: holds fractions; expected row, column and step.", reason="fractional")
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    if low[2] < 1 or high[2] > STEPS or low[:2].min() < -CANVAS or high[:2].max() > CANVAS:
        raise RecordingError(
            f"{source}: rows, columns and steps from {low.tolist()} to {high.tolist()}; expected steps 1 to {STEPS} "
            f"and pixels below {EXTENT}.",
            reason="out_of_range",
        )
    return numbers.T.astype(np.int64)


def _list_subset(root: Path, folder: str, notes: list[str]) -> Iterator[Recording]:
    """List the samples of a label file that are there; their labels are still the numbers of that file.

    Raises:
        LayoutError: a line that is not a label, or a path that leads out of the folder.
    """
    labels = root / f"{folder}label.txt"
    if not labels.is_file():
        notes.append(f"no file {labels.name}: no {SUBSETS[folder]} samples")
        return
    top = find_child(root, folder)
    present = {
        path.relative_to(inner if inner == top else inner.parent).as_posix(): path
        for inner in ((top, *list_folders(top)) if top else ())
        for path in inner.iterdir()
        if path.suffix == ".npz" and not is_litter(path)
    }
    listed, missing = 0, 0
    with open(labels, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                name, label, height, width = line.split()
                facts = int(label), int(height), int(width)
            except ValueError:
                raise LayoutError(
                    f"{labels}, line {number}: {line.strip()[:80]!r}; expected file, class, height and width."
                ) from None
            sample = PurePosixPath(name)
            if min(facts) < 0 or max(facts) > MOST or sample.is_absolute() or ".." in sample.parts:
                raise LayoutError(f"{labels}, line {number}: {line.strip()[:80]!r} is no sample of {root / folder}.")
            listed += 1
            names = (sample.with_suffix(".npz").as_posix(), f"class{facts[0]}/{sample.stem}.npz", f"{sample.stem}.npz")
            path = next((present.pop(name) for name in names if name in present), None)
            if path is None:
                missing += 1
                continue
            below = f"{folder}/{path.relative_to(top or root).with_suffix('').as_posix()}"
            yield Recording(below, str(path), facts[0], SUBSETS[folder], path.stem, path.stem, detail=facts[1:])
    if missing:
        notes.append(f"{missing:,} of {listed:,} samples of {labels.name} are not there")
    if present:
        notes.append(f"{len(present):,} samples in {folder} have no line in {labels.name} and are not used")


def list_image_files(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield the folder of the class (None where there is none) and the path of every image."""
    for parent, subset in ((root, ""), (find_child(root, "train"), "train"), (find_child(root, "val"), "val")):
        if parent is None:
            continue
        for folder in list_folders(parent):
            if not (parent == root and folder.name.lower() in SUBSETS):
                yield from ((folder.name, path) for path in list_entries(folder) if path.suffix.lower() in EXTENSIONS)
        if subset == "val":
            yield from ((None, path) for path in list_entries(parent) if path.suffix.lower() in EXTENSIONS)


def list_images(root: Path, label_of: dict[str, int], notes: list[str]) -> tuple[list[StaticImage], dict[int, str]]:
    """List images with the numbers of their classes, and return the names of the classes.

    A folder's class is that of the samples whose stems lie in it; images of folders without any are left out.

    Raises:
        LayoutError: a folder with images of two classes, or a class in two folders.
    """
    files = list(list_image_files(root))
    number: dict[str, int] = {}
    for folder, path in files:
        label = label_of.get(path.stem)
        if folder is not None and label is not None and number.setdefault(folder, label) != label:
            raise LayoutError(
                f"{path.parent}: images of the classes {number[folder]} and {label} of the label files lie "
                "together. Are these the images of the same data set?"
            )
    names: dict[int, str] = {}
    for folder, label in number.items():
        if names.setdefault(label, folder) != folder:
            raise LayoutError(f"{root}: class {label} lies in the folders {names[label]} and {folder}; expected one.")
    images: dict[str, StaticImage] = {}
    unused = 0
    for folder, path in files:
        label = label_of.get(path.stem) if folder is None else number.get(folder)
        if label is None:
            unused += 1
            continue
        if path.stem in images:
            raise LayoutError(f"{path} and {images[path.stem].file} have one name; expected each image once.")
        held_out = (
            path.stem.startswith("ILSVRC2012_val") or "val" in path.relative_to(root).as_posix().lower().split("/")[:-1]
        )
        images[path.stem] = StaticImage(path.stem, str(path), label, "test" if held_out else "train", path.stem)
    if unused:
        notes.append(f"{unused:,} images of classes without samples are not used")
    return list(images.values()), names
