"""Contact sheets: pictures of many recordings of a set, class by class, odd ones first.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, SettingsError, few
from spikebridge.pipeline.datasets.pairs import Listing, PairReader
from spikebridge.pipeline.inspection.pages import need_matplotlib
from spikebridge.pipeline.inspection.sets import SetFacts
from spikebridge.pipeline.inspection.views import whole_frames
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.ui.paint import event_pixels

Cell = tuple[str, NDArray[np.uint8], bool]
"""Name of a recording, its picture [H,W,3], and whether it looks wrong."""
SHEET_ROWS, SHEET_COLUMNS, SHEET_BINS = 20, 8, 10
MOST_CELLS = 320
"""Pictures on a page, where there is no room for a row of every class."""


@dataclass(frozen=True)
class Sheet:
    """What contact sheets are made from.

    Args:
        found: the set.
        classes: their names.
        members: names of the recordings of every class, odd ones first, else in their order.
        picture: of a recording, [H,W,3]; None where it cannot be read.
        only: the one class that is shown; None shows all.
    """

    found: SetFacts
    classes: Sequence[str]
    members: Sequence[Sequence[str]]
    picture: Callable[[str], NDArray[np.uint8] | None]
    only: str | None

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in self.classes:
            raise SettingsError(f"no class is called {self.only!r}; there are {few(self.classes, most=20)}.")

    def cells(self, label: int, most: int) -> list[Cell]:
        """Up to so many recordings of a class, with their pictures and whether they look wrong."""
        odd = {facts.name for facts in self.found.odd}
        seen = ((name, self.picture(name)) for name in self.members[label][:most])
        return [(name, pixels, name in odd) for name, pixels in seen if pixels is not None]

    def png(self) -> bytes:
        """One picture: classes as rows, or many recordings of one class."""
        need_matplotlib()
        from spikebridge.pipeline.inspection.figures import contact_sheet

        wanted = [self.only] if self.only else list(self.classes)[:SHEET_ROWS]
        rows = []
        for name in wanted:
            cells = self.cells(self.classes.index(name), SHEET_COLUMNS * (SHEET_ROWS if self.only else 1))
            rows += [(name, cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
        title = self.found.name + (", SIMULATED recordings" if self.found.simulated else "")
        return contact_sheet(rows, title=title)

    def page_cells(self) -> list[tuple[str, Cell]]:
        """Classes and recordings for a page, which has room for more classes, with fewer recordings of each."""
        wanted = [self.only] if self.only else list(self.classes)[:MOST_CELLS]
        each = MOST_CELLS if self.only else max(1, min(SHEET_COLUMNS, MOST_CELLS // max(1, len(wanted))))
        return [(name, cell) for name in wanted for cell in self.cells(self.classes.index(name), each)]


def busiest(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """The time bin with most events of frames [T,P,H,W], as a picture [H,W,3]; all together are a blur."""
    sums = np.asarray(frames, np.float64).sum((1, 2, 3))  # [T]
    return event_pixels(frames[int(sums.argmax()), None])[0]


def sheet_of_shards(shards: ShardSet, found: SetFacts, *, only: str | None) -> Sheet:
    """Contact sheet of a shard set.

    Raises:
        SettingsError: no class of that name.
    """
    keys = [
        (key, int(label))
        for split in shards.splits.values()
        for key, label in zip(split.keys, split.labels, strict=True)
    ]
    place = {key: (split, i) for split in shards.splits.values() for i, key in enumerate(split.keys)}

    def picture(key: str) -> NDArray[np.uint8]:
        split, i = place[key]
        return busiest(split.read([i])[0])

    return Sheet(found, shards.classes, _by_class(found, shards.classes, keys), picture, only)


def sheet_of_raw(reader: PairReader, listing: Listing, found: SetFacts, *, only: str | None) -> Sheet:
    """The same of a raw data set; recordings that cannot be read are left out.

    Raises:
        SettingsError: no class of that name.
    """
    lost = {name for name, _ in found.unreadable}
    by_name = {recording.name: recording for recording in listing.recordings}
    names = [(r.name, r.label) for r in listing.recordings if r.name not in lost]

    def picture(name: str) -> NDArray[np.uint8] | None:
        try:
            return busiest(whole_frames(reader.read_events(by_name[name]), SHEET_BINS))
        except RecordingError:
            return None  # one that was not looked into

    return Sheet(found, listing.classes, _by_class(found, listing.classes, names), picture, only)


def _by_class(found: SetFacts, classes: Sequence[str], names: Sequence[tuple[str, int]]) -> list[list[str]]:
    odd = {facts.name for facts in found.odd}
    members: list[list[str]] = [[] for _ in classes]
    for name, label in sorted(names, key=lambda item: item[0] not in odd):
        members[label].append(name)
    return members


def left_out(found: SetFacts, most: int, only: str | None) -> str:
    """What a contact sheet of all classes leaves out that shows so many, or an empty text."""
    if only or len(found.classes) <= most:
        return ""
    return f"the first {most} of {len(found.classes):,} classes; --class NAME shows one"
