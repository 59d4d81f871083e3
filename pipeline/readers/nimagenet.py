"""N-ImageNet and mini N-ImageNet with ImageNet: recordings of a moved camera before a screen, read inside their zips.

Source: Kim, Bae, Park, Zhang, Kim 2021, and its public implementation for the files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.containers.zip_members import Member, list_members, read_member
from spikebridge.pipeline.datasets.layout import list_entries, list_folders
from spikebridge.pipeline.datasets.pairs import UNUSED, DatasetCard, Listing, PairReader, Recording, register
from spikebridge.pipeline.datasets.published import RECORDED_AGAIN
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.tables.numpy_files import stream_npz
from spikebridge.pipeline.readers.esimagenet import list_image_files, list_images

TOP = re.compile(r"(?:extracted_)?(train|val|(?:val_)?(?:brightness_[4-7]|mode_[13567]))", re.IGNORECASE)
"""Folders of recordings: training, validation, and the nine validation sets that were recorded again."""
MAX_BYTES = 2**31
"""Of one recording; those of the set have some megabytes."""


class NImageNetReader(PairReader):
    """Base of both sets: npz files by class and ImageNet's own name, in zips or unpacked; pairs are exact by stem.

    The validation set is tested; each of the nine that were recorded again takes its place with `--splits`.
    """

    endings = (".npz",)

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = self.find_root(
            events_root, "events", below=("events", "N_Imagenet"), holds=lambda folder: any(_sources(folder))
        )
        image_root = self.find_root(
            static_root,
            "static",
            below=("static", "ILSVRC/Data/CLS-LOC", "imagenet"),
            holds=lambda folder: next(list_image_files(folder), None) is not None,
        )
        found: dict[str, Recording] = {}
        class_of: dict[str, str] = {}
        for path in _sources(root):
            for name, detail in _list_source(path, root):
                placed = _place(name)
                assert placed is not None
                part, wnid, stem = placed
                key = f"{part}/{wnid}/{stem}"
                file = str(path if detail else path / name)
                if key in found:
                    raise LayoutError(f"{found[key].file} and {file} both hold {key}; expected it once. Remove one.")
                subset = {"train": "train", "val": "test"}.get(part, UNUSED)
                found[key] = Recording(
                    key, file, 0, subset, f"{part}-{stem}" if subset == UNUSED else stem, stem, detail
                )
                class_of[key] = wnid
        if not found:
            raise LayoutError(f"{root}: no recordings found; expected {self.card.events_layout}.")
        classes = tuple(sorted(set(class_of.values())))
        label = {name: i for i, name in enumerate(classes)}
        recordings = [replace(found[name], label=label[class_of[name]]) for name in sorted(found)]
        notes: list[str] = []
        images, _ = list_images(image_root, {r.stem.rpartition("-")[2]: r.label for r in recordings}, notes)
        counts = Counter(name.partition("/")[0] for name in found)
        if again := [f"{counts[name]:,} of {name}" for name in RECORDED_AGAIN if counts[name]]:
            notes.append(f"recorded again, tested with --splits NAME alone: {', '.join(again)}")
        images.sort(key=lambda image: image.name)
        return Listing(classes, tuple(recordings), tuple(images), (640, 480), notes=tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        path, content = recording.path, None
        if recording.detail:
            path = path.with_name(f"{recording.stem}.npz")
            source = f"{recording.name}.npz"
            content = read_member(recording.path, Member(*recording.detail), source=source, max_bytes=MAX_BYTES)
        return stream_npz(path, content=content).decoded().annotated()


def _card(title: str, download: str, **facts: object) -> DatasetCard:
    return DatasetCard(
        title=title,
        events_layout="zips, not unpacked, or folders: extracted_{train,val}/<wnid>/<stem of ImageNet>.npz, and "
        "extracted_{brightness_<4-7>,mode_<1,3,5,6,7>} for the validation sets recorded again",
        static_layout="ImageNet: [train/ or val/]<wnid>/<stem>.JPEG, or val/<stem>.JPEG",
        download=download,
        licence="N-ImageNet: as its authors say; ImageNet: non-commercial research, as its terms of access say",
        citation="Kim, Bae, Park, Zhang, Kim: N-ImageNet: towards robust, fine-grained object recognition with event "
        "cameras, ICCV 2021. Deng et al.: ImageNet: a large-scale hierarchical image database, CVPR 2009.",
        pairing="exact, by the stem of the static image",
        images="1,281,167 train, 50,000 val of ImageNet",
        strict="val tests, and 10 % of each class's training recordings validate; --splits NAME tests a set that was "
        "recorded again",
        **facts,  # type: ignore[arg-type]
    )


@register
class NImageNet(NImageNetReader):
    """N-ImageNet: 1,000 classes."""

    name = "nimagenet"
    card = _card(
        "N-ImageNet (events) and ImageNet (images)",
        "https://github.com/82magnolia/n_imagenet and https://image-net.org",
        expected={"train": 1_281_167, "test": 50_000},
    )


@register
class MiniNImageNet(NImageNetReader):
    """Mini N-ImageNet: 100 of the classes."""

    name = "mininimagenet"
    card = _card(
        "mini N-ImageNet (events) and ImageNet (images)",
        "https://github.com/82magnolia/n_imagenet and https://image-net.org",
        expected={},
    )


def _sources(root: Path) -> Iterator[Path]:
    """Yield the zips in a folder, and the folder itself where recordings lie in it unpacked."""
    for path in sorted(root.iterdir()):
        if path.suffix.lower() == ".zip" and path.is_file():
            status = path.stat()
            if _list_zip(path, status.st_size, status.st_mtime_ns):
                yield path
    if any(TOP.fullmatch(folder.name) for folder in list_folders(root)):
        yield root


@lru_cache(maxsize=16)
def _list_zip(path: Path, _size: int, _changed_ns: int) -> list[tuple[str, tuple[int, ...]]]:
    """List name and place of every recording in a zip, once for each state of the file.

    Raises:
        LayoutError: a zip that is not whole.
    """
    return [(name, tuple(member)) for name, member in list_members(path) if _place(name)]


def _list_source(path: Path, root: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and place of every recording in a zip or a folder; the place is empty in a folder.

    Raises:
        LayoutError: a zip that is not whole.
    """
    if path != root:
        status = path.stat()
        yield from _list_zip(path, status.st_size, status.st_mtime_ns)
        return
    for top in list_folders(root):
        if TOP.fullmatch(top.name):
            for folder in list_folders(top):
                names = (f"{top.name}/{folder.name}/{file.name}" for file in list_entries(folder))
                yield from ((name, ()) for name in names if name.endswith(".npz"))


def _place(name: str) -> tuple[str, str, str] | None:
    """Return part, class and stem of a recording by its name in a zip or a folder, or None for other files."""
    if not name.endswith(".npz"):
        return None
    parts = PurePosixPath(name).parts
    for i in range(len(parts) - 2):
        if match := TOP.fullmatch(parts[i]):
            return match[1].lower().removeprefix("val_"), parts[-2], PurePosixPath(parts[-1]).stem
    return None
