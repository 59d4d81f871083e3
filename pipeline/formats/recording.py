"""Events from a file of any format that can be read, chosen by its ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import aedat2, aedat4, bin40, columns, evt, mat_events


def _read_bin(path: Path) -> Events:
    return bin40.decode(path.read_bytes(), source=path.name)[0]


def _read_aedat(path: Path) -> Events:
    return aedat2.decode(path.read_bytes(), source=path.name)[0]


FORMATS: dict[str, Callable[[Path], Events]] = {
    ".bin": _read_bin,
    ".aedat": _read_aedat,
    ".aedat4": aedat4.read,
    ".mat": mat_events.read,
    ".raw": evt.read,
    ".h5": columns.read_hdf5,
    ".hdf5": columns.read_hdf5,
    ".npy": columns.read_numpy,
    ".npz": columns.read_numpy,
}
"""Reader of each ending, in lower case."""
SIZES: dict[str, Callable[[Path], tuple[int, int] | None]] = {
    ".bin": lambda path: (bin40.MAX_WIDTH, bin40.MAX_HEIGHT),
    ".aedat": lambda path: (aedat2.SIDE, aedat2.SIDE),
    ".aedat4": aedat4.sensor_size,
    ".raw": evt.sensor_size,
}
"""How to learn the sensor's size without decoding; `.bin` gives the largest that the format holds."""


def read(path: Path) -> Events:
    """Read the events of a recording; not yet checked, and t not shifted.

    Raises:
        RecordingError: an ending that is not known (`format`), or a file that is not a whole recording.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise RecordingError(f"{path.name}: no known recording; expected one of {', '.join(FORMATS)}.", reason="format")
    return reader(path)


def sensor_size(path: Path) -> tuple[int, int] | None:
    """(W, H) as the file says it, or None where it does not.

    Raises:
        RecordingError: its header cannot be read.
    """
    look = SIZES.get(path.suffix.lower())
    return look(path) if look else None
