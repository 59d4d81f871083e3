"""Contact sheets: pictures of many recordings of a set, class by class, odd ones first and framed.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RecordingError, SettingsError
from pipeline.inspection.one import whole_frames
from pipeline.inspection.pages import need_matplotlib
from pipeline.inspection.paint import event_pixels
from pipeline.inspection.sets import SetFacts
from pipeline.pairs import Listing, PairReader
from pipeline.shardset import ShardSet

SHEET_ROWS, SHEET_COLUMNS, SHEET_BINS = 20, 8, 10


def busiest(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """The time bin with most events of frames [T,P,H,W], as a picture [H,W,3]; all together are a blur."""
    sums = np.asarray(frames, np.float64).sum((1, 2, 3))  # [T]
    return event_pixels(frames[int(sums.argmax()), None])[0]


def sheet_of_shards(shards: ShardSet, found: SetFacts, *, only: str | None) -> bytes:
    """Contact sheet of a shard set: classes as rows, or many samples of one class; odd ones first and framed.

    Raises:
        SettingsError: no class of that name.
    """
    keys = [
        (key, int(label))
        for split in shards.splits.values()
        for key, label in zip(split.keys, split.labels, strict=True)
    ]
    place = {key: (split, i) for split in shards.splits.values() for i, key in enumerate(split.keys)}

    def picture(key: str) -> NDArray[np.uint8] | None:
        split, i = place[key]
        return busiest(split.read([i])[0])

    return _sheet(found, shards.classes, keys, picture, only)


def sheet_of_raw(reader: PairReader, listing: Listing, found: SetFacts, *, only: str | None) -> bytes:
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

    return _sheet(found, listing.classes, names, picture, only)


def _sheet(
    found: SetFacts,
    classes: Sequence[str],
    names: Sequence[tuple[str, int]],
    picture: Callable[[str], NDArray[np.uint8] | None],
    only: str | None,
) -> bytes:
    need_matplotlib()
    from pipeline.inspection.figures import contact_sheet

    if only is not None and only not in classes:
        raise SettingsError(f"no class is called {only!r}; there are {', '.join(classes[:20])}.")
    odd = {facts.name for facts in found.odd}
    of_class: dict[int, list[str]] = {}
    for name, label in sorted(names, key=lambda item: item[0] not in odd):  # odd ones first, else in their order
        of_class.setdefault(label, []).append(name)
    wanted = [only] if only else list(classes)[:SHEET_ROWS]
    rows = []
    for name in wanted:
        members = of_class.get(classes.index(name), [])[: SHEET_COLUMNS * (SHEET_ROWS if only else 1)]
        cells = [(m, pixels, m in odd) for m in members if (pixels := picture(m)) is not None]
        rows += [(name, cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    return contact_sheet(rows, title=found.name + (", SIMULATED recordings" if found.simulated else ""))


def left_out(found: SetFacts) -> str:
    """What a contact sheet of all classes leaves out, or an empty text."""
    if len(found.classes) <= SHEET_ROWS:
        return ""
    return f"the first {SHEET_ROWS} of {len(found.classes):,} classes are shown; --class NAME shows one"
