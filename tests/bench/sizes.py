"""Rows of `bench_pipeline`: bytes an event takes on disk, as stored events and in the ways of others.

All hold the same frames, 48x48x10 of each recording, or the events that they are made of. tonic's cache is its
`DiskCachedDataset` as it comes (HDF5, lzf, int16 as its ToFrame counts). RVT's HDF5 is written as its preprocessing
does, by `rvt_h5.py` in an environment that has hdf5plugin: uint8, a chunk a representation, Blosc with Zstandard.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rounds import Row  # isort: skip  (sets the number of threads)

import numpy as np
import tonic
from PIL import Image

from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

BINS, SIZE = 10, 48
MOST_BYTES = 5.0
"""That an event may take."""


def size_rows(what: str, paths: Sequence[Path], folder: Path, *, sensor: tuple[int, int], python: str) -> list[Row]:
    """Bytes an event of `.bin` recordings takes: stored events beside frames, tonic's cache, and RVT's HDF5.

    Args:
        what: the recordings, in words.
        paths: of them, in folders that name their classes.
        folder: where all is written.
        sensor: (W, H) of the camera.
        python: of an environment with h5py and hdf5plugin; without one the rows of RVT are left out.
    """
    decoded = [bin40.decode_packed(path.read_bytes(), sensor_size=sensor, source=path.name) for path in paths]
    events = sum(map(len, decoded))

    def frames(width: int, height: int) -> np.ndarray:
        made = (
            to_frames(
                each, time_bins=BINS, size=height, width=width, reduction="sum", dtype="uint8", canvas=sensor, source=""
            )
            for each in decoded
        )
        return np.stack([each.frames for each in made])

    small = frames(SIZE, SIZE)
    ours = {
        name: _converted(paths, folder / name, store=store) for name, store in (("events", "events"), ("frames", ""))
    }
    kept = {
        "frames uint8 48x48x10": ours["frames"],
        f"tonic {tonic.__version__} DiskCachedDataset, 48x48x10": _cached(small, folder / "cache"),
    }
    if python:
        kept["RVT's HDF5, 48x48x10"] = _written_by_rvt(small, folder / "small", python)
        kept[f"RVT's HDF5, {sensor[0]}x{sensor[1]}x10"] = _written_by_rvt(frames(*sensor), folder / "full", python)
    rows = []
    for theirs, size in kept.items():
        row = Row(f"size of {what}, {events:,} events", "stored events", theirs, "bytes an event")
        row.quantities, row.bars = (ours["events"] / events, size / events), (MOST_BYTES, None)
        rows.append(row)
    return rows


def _converted(paths: Sequence[Path], folder: Path, *, store: str) -> int:
    """Bytes of the event shards of a set, indexes included, that the recordings are converted to."""
    for path in paths:
        (target := folder / "raw" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / path.name)
        (static := folder / "static" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 28), 7, np.uint8)).save(static / "image.png")
    settings = ConversionSettings(
        dataset="folders", pairing="class", time_bins=BINS, size=SIZE, dtype="uint8", store=store
    )
    convert(prepare(settings, events_root=folder / "raw", static_root=folder / "static"), folder / "set")
    shards = ShardSet(folder / "set")
    assert sum(map(len, shards.splits.values())) == len(paths)
    return _bytes_of(shards.path.glob("events-*"))


def _cached(frames: np.ndarray, folder: Path) -> int:
    """Bytes of tonic's cache of the frames."""
    cached = tonic.DiskCachedDataset([(each.astype(np.int16), 0) for each in frames], str(folder))
    assert all(np.array_equal(cached[i][0], each) for i, each in enumerate(frames))
    return _bytes_of(folder.iterdir())


def _written_by_rvt(frames: np.ndarray, folder: Path, python: str) -> int:
    """Bytes of the files that RVT's preprocessing would write, one a recording."""
    folder.mkdir()
    np.save(folder / "frames.npy", frames)
    script = str(Path(__file__).with_name("rvt_h5.py"))
    subprocess.run([python, script, str(folder / "frames.npy"), str(folder)], check=True)
    return _bytes_of(folder.glob("*.h5"))


def _bytes_of(files: object) -> int:
    return sum(path.stat().st_size for path in files)  # type: ignore[attr-defined]
