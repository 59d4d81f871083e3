"""Which static image each recording shows, by a table that `match` writes, or anybody.

Axes: n recordings, S side of a frame, F pixels per cell of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.datasets.tables import SAME_FOLDERS, read_pairs, refuse_lines
from spikebridge.pipeline.images.colour import POOLED
from spikebridge.pipeline.measurement.placing import Placing
from spikebridge.pipeline.measurement.recordings import as_grey
from spikebridge.pipeline.measurement.sources import Sources, sources_of_files


def paired_files(
    table: Path, recordings: Path, static: Path, *, sensor: tuple[int, int] | None = None
) -> tuple[Sources, Mapping[Path, int]]:
    """Return both folders as they are listed, and the position of the image that each recording shows, by its file.

    Recordings without an image in the table are left out. Names are those of `sources_of_files`.

    Raises:
        SettingsError: the table cannot be read, names what is not there, or no image at all.
        LayoutError: nothing usable in a folder.
    """
    sources = sources_of_files(recordings, static, sensor=sensor)
    files = dict(zip(sources.recordings, sources.files, strict=True))
    images = {name: position for position, name in enumerate(sources.images)}
    pairs = read_pairs(table)
    wrong = [f"line {p.line}: no recording {p.recording!r} in {recordings}" for p in pairs if p.recording not in files]
    wrong += [f"line {p.line}: no image {p.image!r} in {static}" for p in pairs if p.image and p.image not in images]
    refuse_lines(table, wrong, remedy=SAME_FOLDERS)
    found = {files[pair.recording]: images[pair.image] for pair in pairs if pair.image}
    if not found:
        raise SettingsError(f"{table}: names a static image for no recording; leave the table out")
    return sources, found


def read_shown(sources: Sources, positions: Sequence[int], placing: Placing) -> NDArray[np.float32]:
    """Read images at positions, [n,1,FS,FS] in [0, 1], as `recordings.read_static_images` does.

    Raises:
        RecordingError: one cannot be decoded.
    """
    return as_grey(np.stack([placing.place(sources.read_image(one), POOLED) for one in positions]))
