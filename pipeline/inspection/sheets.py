"""Contact sheets: many recordings of a set, class by class, those with anomalies first.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, SettingsError, shorten
from spikebridge.pipeline.datasets.pairs import Listing, PairReader
from spikebridge.pipeline.inspection.pages import require_matplotlib
from spikebridge.pipeline.inspection.sets import SetSummary
from spikebridge.pipeline.inspection.views import make_full_frames, sensor_of
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.ui.paint import event_pixels

Cell = tuple[str, NDArray[np.uint8], bool]
"""Name of a recording, its pixels [H,W,3], and whether it has anomalies."""
SHEET_ROWS, SHEET_COLUMNS, SHEET_BINS = 20, 8, 10
MOST_CELLS = 320
"""Recordings on a page, where there is no room for a row of every class."""


@dataclass(frozen=True)
class ContactSheet:
    """Content of a contact sheet."""

    summary: SetSummary
    classes: Sequence[str]
    members: Sequence[Sequence[str]]
    """Names of the recordings of every class, those with anomalies first, else in their order."""
    paint: Callable[[str], NDArray[np.uint8] | None]
    """Returns the pixels of a recording, [H,W,3]; None where it cannot be read."""
    only: str | None
    """The one class that is shown; None shows all."""

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in self.classes:
            raise SettingsError(f"no class is called {self.only!r}; there are {shorten(self.classes, most=20)}.")

    def cells(self, label: int, most: int) -> list[Cell]:
        """Return up to `most` recordings of a class, with their pixels and whether they have anomalies."""
        odd = {facts.name for facts in self.summary.odd}
        painted = ((name, self.paint(name)) for name in self.members[label][:most])
        return [(name, pixels, name in odd) for name, pixels in painted if pixels is not None]

    def png(self) -> bytes:
        """Draw the sheet as PNG: classes as rows, or many recordings of one class."""
        require_matplotlib()
        from spikebridge.pipeline.inspection.figures import draw_contact_sheet

        classes = [self.only] if self.only else list(self.classes)[:SHEET_ROWS]
        rows = []
        for name in classes:
            cells = self.cells(self.classes.index(name), SHEET_COLUMNS * (SHEET_ROWS if self.only else 1))
            rows += [(name, cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
        title = self.summary.name + (", SIMULATED recordings" if self.summary.simulated else "")
        return draw_contact_sheet(rows, title=title)

    def page_cells(self) -> list[tuple[str, Cell]]:
        """Return classes and recordings for a page, which has room for more classes, with fewer recordings of each."""
        classes = [self.only] if self.only else list(self.classes)[:MOST_CELLS]
        each = MOST_CELLS if self.only else max(1, min(SHEET_COLUMNS, MOST_CELLS // max(1, len(classes))))
        return [(name, cell) for name in classes for cell in self.cells(self.classes.index(name), each)]

    def describe_omission(self, most: int) -> str:
        """Say which classes a sheet of up to `most` classes leaves out, or return an empty text."""
        if self.only or len(self.classes) <= most:
            return ""
        return f"the first {most} of {len(self.classes):,} classes; --class NAME shows one"


def paint_busiest_bin(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Paint the time bin with most events of frames [T,P,H,W] as pixels [H,W,3]; all bins together are a blur."""
    sums = np.asarray(frames, np.float64).sum((1, 2, 3))  # [T]
    return event_pixels(frames[int(sums.argmax()), None])[0]


def make_shard_sheet(shards: ShardSet, summary: SetSummary, *, only: str | None) -> ContactSheet:
    """Make the contact sheet of a shard set.

    Raises:
        SettingsError: no class of that name.
    """
    keys = [
        (key, int(label))
        for split in shards.splits.values()
        for key, label in zip(split.keys, split.labels, strict=True)
    ]
    position = {key: (split, i) for split in shards.splits.values() for i, key in enumerate(split.keys)}

    def paint(key: str) -> NDArray[np.uint8]:
        split, i = position[key]
        return paint_busiest_bin(split.read([i])[0])

    return ContactSheet(summary, shards.classes, _group_by_class(summary, shards.classes, keys), paint, only)


def make_raw_sheet(reader: PairReader, listing: Listing, summary: SetSummary, *, only: str | None) -> ContactSheet:
    """Make the contact sheet of a raw data set; recordings that cannot be read are left out.

    Raises:
        SettingsError: no class of that name.
    """
    unreadable = {name for name, _ in summary.unreadable}
    by_name = {recording.name: recording for recording in listing.recordings}
    names = [(r.name, r.label) for r in listing.recordings if r.name not in unreadable]

    def paint(name: str) -> NDArray[np.uint8] | None:
        try:
            return paint_busiest_bin(
                make_full_frames(
                    reader.read_recording(by_name[name], sensor_size=sensor_of(listing, by_name[name])), SHEET_BINS
                )
            )
        except RecordingError:
            return None  # one beyond the limit, which was not inspected

    return ContactSheet(summary, listing.classes, _group_by_class(summary, listing.classes, names), paint, only)


def _group_by_class(summary: SetSummary, classes: Sequence[str], names: Sequence[tuple[str, int]]) -> list[list[str]]:
    odd = {facts.name for facts in summary.odd}
    members: list[list[str]] = [[] for _ in classes]
    for name, label in sorted(names, key=lambda item: item[0] not in odd):
        members[label].append(name)
    return members
