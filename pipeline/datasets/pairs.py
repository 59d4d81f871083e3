"""The base of all readers: listings of recordings and static images, joined by name, and reading one of each.

A reader is a small class with no state but its facts; listings are plain picklable data, so a worker process needs only
the reader's name and the items it is given.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base import names
from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.datasets.intervals import cut
from spikebridge.pipeline.datasets.layout import find_root
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import LARGEST_SENSOR, CheckedEvents, pack
from spikebridge.pipeline.images.decode import decode_image

SIMULATION_NOTE = "simulated.json"
"""File beside the events and static folders of a simulated data set."""
PAIRS_UNKNOWN = "which image a recording shows is not known"
"""Begins the note of a data set that pairs by class alone."""
UNUSED = "unused"
"""Subset of the recordings that a published split leaves out."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One event recording on disk."""

    name: str
    """Path below the events root without the ending, unique in the data set."""
    file: str
    """Path of its file; as a text, because a `Path` takes four times the memory, and there may be a million."""
    label: int
    """Class index in the reader's own list of classes."""
    subset: str | None
    """Official split, `train`, `validation` or `test`; None where the data set has none. A published split may add
    `unused`."""
    stem: str
    """Name unique within (subset, label), for the sample's key."""
    image: str | None
    """Name of the static image it shows; None when only the class is known."""
    detail: tuple[int, ...] = ()
    """Numbers that the reader needs to find or read it inside its file, and that the listing's hash covers."""
    sensor_size: tuple[int, int] | None = None
    """(W, H) in pixels as its file states it, where the recordings of the listing have no size in common."""
    group: str = ""
    """Subject, source video or session: no split parts the recordings of a group. Empty: a group of its own."""
    interval: tuple[int, int] | None = None
    """(start, stop) of the part of its file that it is, stop exclusive, see `PairReader.intervals`; None for all."""

    @property
    def path(self) -> Path:
        """Return the path of its file."""
        return Path(self.file)


@dataclass(frozen=True, slots=True)
class StaticImage:
    """One static image on disk."""

    name: str
    """Unique in the data set; what `Recording.image` refers to."""
    file: str
    """Path of its file, as `Recording.file`."""
    label: int
    subset: str | None
    """Official split; an image of the `test` subset never enters a strict static pool."""
    stem: str
    """Name unique within the class, for the image's key."""
    row: int = 0
    """Position inside `file` when that holds many images."""
    group: str = ""
    """As `Recording.group`, where its name says it: an image of a held-out group stays out of the pool."""

    @property
    def path(self) -> Path:
        """Return the path of its file."""
        return Path(self.file)


@dataclass(frozen=True)
class Listing:
    """Recordings and images below the two roots, in a fixed order."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    recordings: tuple[Recording, ...]
    """Sorted by name, as are the images."""
    images: tuple[StaticImage, ...]
    sensor_size: tuple[int, int] | None
    """(W, H) in pixels of the sensor of all recordings; events outside are an error, and extent `canvas` stretches it.
    None where not all files state one size: a conversion then goes by the recordings."""
    shown_fraction: float | None = None
    """Where it is known how the camera saw the static images: the share of the sensor that an image fills, centred and
    with its aspect kept. Extent `canvas` then places the static images likewise."""
    pairing: str = "exact"
    """`exact` when recordings name their static image, `class` when only classes are known."""
    notes: tuple[str, ...] = ()
    """One line each on what is missing or assumed; they stand in the manifest, so a changed word changes IDs."""

    @property
    def files(self) -> dict[str, set[str]]:
        """Return the paths of all files by side, `events` and `static`."""
        return {"events": {r.file for r in self.recordings}, "static": {image.file for image in self.images}}

    def sha256(self) -> str:
        """Return the hash of names, labels, subsets and file sizes: equal listings, equal plan, whatever the folder."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        """Return the hash of a listing, as its files were when it was first asked for."""
        digest = hashlib.sha256()
        file, size = "", 0  # of the last item: those of one file follow each other
        for item in chain[Recording | StaticImage](self.recordings, self.images):
            if item.file != file:
                file, size = item.file, os.stat(item.file).st_size
            partner = item.image if isinstance(item, Recording) else item.row
            line = f"{type(item).__name__} {item.name} {item.label} {item.subset} {partner} {size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if isinstance(item, Recording) and item.detail:
                digest.update(f"{item.detail}\n".encode())
            if isinstance(item, Recording) and (item.group or item.interval):
                digest.update(f"group {item.group} {item.interval}\n".encode("utf-8", "surrogateescape"))
        digest.update(f"{self.sensor_size} {self.shown_fraction} {self.classes}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


OFFICIAL = "the official test subset, and 10 % of each class's training recordings validate"
DRAWN = "20 % of each class test, and 10 % of the others validate, by seed"


@dataclass(frozen=True)
class DatasetCard:
    """Facts about a data set for `datasets` and for the card of a shard set.

    Title, download, licence and citation stand in the card, so a changed word changes the IDs of shard sets.
    """

    title: str
    events_layout: str
    """What the events root holds."""
    static_layout: str
    """What the static root holds."""
    download: str
    licence: str
    citation: str
    pairing: str
    """`exact`, `class`, or how it is decided."""
    expected: dict[str, int]
    """Recordings per official subset of the whole set; empty where there is no whole."""
    images: str = "as many as there are"
    """Static images of the whole set, in words."""
    strict: str = ""
    """What the protocol `strict` makes of the subsets, in words; by default what follows from `expected`."""
    legacy: str = "the official subsets, nothing validates"
    """What the protocol `legacy` makes of them."""
    groups: str = ""
    """What the groups of recordings are that no split parts, such as `subjects`; empty where there are none."""
    simulated: bool = False

    @property
    def splits(self) -> str:
        """Return what the protocols make of the subsets, in words."""
        return f"strict: {self.strict or (OFFICIAL if 'test' in self.expected else DRAWN)}; legacy: {self.legacy}"


class PairReader:
    """Base of all readers: facts as class attributes, listing, reading, and the published split where there is one.

    Attributes:
        name: of the data set on the command line.
        card: facts for people.
        crop: (left, top, right, bottom) in pixels of what frames show, right and bottom exclusive; None for all.
        span_us: see `pipeline.events.framing.to_frames`.
        image_bits: bits of a pixel in static images of more than 8, see `pipeline.images.decode.decode_image`.
        endings: of the files of its recordings, in lower case; new recordings of other endings are read by their own
            format. Empty: `read_events` tells formats apart.
        from_corner: x and y count from the leftmost and the topmost event of each recording.
        many_per_file: a file holds several recordings; a conversion then calls `read_file`, once per file.
        intervals: what the intervals of recordings count: microseconds from the first event of their file
            (`elapsed_us`), microseconds as the file states them (`file_us`), or `events`.
    """

    name: ClassVar[str]
    card: ClassVar[DatasetCard]
    crop: ClassVar[tuple[int, int, int, int] | None] = None
    span_us: ClassVar[int | None] = None
    endings: ClassVar[tuple[str, ...]] = ()
    from_corner: ClassVar[bool] = False
    many_per_file: ClassVar[bool] = False
    image_bits: int = 0
    intervals: ClassVar[str] = "elapsed_us"

    def describe(self) -> dict[str, str]:
        """Return the facts that `spikebridge datasets NAME` prints."""
        card = self.card
        expected = ", ".join(f"{count:,} {subset}" for subset, count in card.expected.items())
        return {
            "name": self.name,
            "title": card.title,
            "download": card.download,
            "events": f"EVENTS, or a folder in it, holds {card.events_layout}",
            "static": f"STATIC, or a folder in it, holds {card.static_layout}",
            "expected": f"recordings: {expected or 'as many as there are'}; images: {card.images}",
            "pairs": card.pairing,
            "splits": card.splits,
            **({"groups": f"{card.groups}; no split parts one"} if card.groups else {}),
            "licence": card.licence,
            "cite": card.citation,
            "convert": command("preprocess", "--dataset", self.name) + " --events EVENTS --static STATIC --out SHARDS",
        }

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        """List recordings and images without decoding them.

        Raises:
            LayoutError: nothing usable, or a folder that does not belong there.
        """
        raise NotImplementedError

    def read_events(self, recording: Recording) -> Events:
        """Read one recording, where it has an interval all of its file; not yet checked.

        Raises:
            RecordingError: the file is not a whole recording.
        """
        raise NotImplementedError

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> CheckedEvents:
        """Read, check and pack one recording, all of its file; a reader with a faster way replaces this.

        Raises:
            RecordingError: the file is not a whole recording, or a check fails.
        """
        return pack(self.read_events(recording), sensor_size=sensor_size, source=recording.name)

    def read_recording(self, recording: Recording, *, sensor_size: tuple[int, int]) -> CheckedEvents:
        """Read, check and pack one recording, or the part of its file that it is.

        Raises:
            RecordingError: as `read_packed` and `pipeline.datasets.intervals.cut`.
        """
        if recording.interval is None:
            return self.read_packed(recording, sensor_size=sensor_size)
        whole = self.read_packed(recording, sensor_size=LARGEST_SENSOR)
        parts = cut(whole, {recording.name: recording.interval}, unit=self.intervals, sensor_size=sensor_size)
        ((_, part),) = parts
        if isinstance(part, RecordingError):
            raise part
        return part

    def read_window(
        self, recording: Recording, *, sensor_size: tuple[int, int], window_us: tuple[int, ...]
    ) -> CheckedEvents:
        """Read as `read_recording`, for who wants a time window alone, (start, stop) counted from the first event.

        A reader that finds it without reading all of the file says how many events it did not read; a filter cuts.

        Raises:
            RecordingError: as `read_recording`.
        """
        return self.read_recording(recording, sensor_size=sensor_size)

    def read_file(self, recording: Recording) -> Iterator[tuple[str, Events | RecordingError]]:
        """Decode the file of a recording once; yield the name of every recording in it, and its events or its error."""
        raise NotImplementedError

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        """Decode one image to [H,W,3]; a reader whose images are not files of their own replaces this.

        Raises:
            RecordingError: it cannot be decoded.
        """
        return decode_image(image.path.read_bytes(), source=f"{image.name}{image.path.suffix}", bits=self.image_bits)

    def find_root(self, root: Path, side: str, *, below: Sequence[str], holds: Callable[[Path], bool]) -> Path:
        """Find the folder of one side, `events` or `static`; see `pipeline.datasets.layout.find_root`.

        Raises:
            LayoutError: no such folder, or several.
        """
        layout = self.card.events_layout if side == "events" else self.card.static_layout
        return find_root(root, below=below, holds=holds, what=side, layout=layout)

    def apply_published_split(self, listing: Listing, *, seed: int) -> Listing:
        """Write the split of the published experiments into the subsets, for the protocol `legacy`.

        Recordings become `train`, `test`, or `unused`; images of the subset `test` stay out of the static pool. What
        deviates from the official subsets, or cannot be known, stands in the notes. The default changes nothing: the
        official subsets are the published ones.

        The listing is whole: classes are selected afterwards. `seed` replaces an order of files that nobody can know.
        """
        return listing


def make_key_part(text: str) -> str:
    """Make a name safe inside a sample key: letters, digits, `_` and `-` stay, anything else becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def find_simulation_note(events_root: Path) -> Path | None:
    """Return the file that `spikebridge simulate` writes beside its recordings; None where there is none."""
    for folder in (events_root, events_root.parent):
        if (folder / SIMULATION_NOTE).is_file():
            return folder / SIMULATION_NOTE
    return None


READERS: dict[str, type[PairReader]] = {}


def register(reader: type[PairReader]) -> type[PairReader]:
    """Register a reader class under its name, as a decorator."""
    return names.register(READERS, reader.name, reader)
