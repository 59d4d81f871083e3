"""Files that a folder holds besides recordings and static images: counted by ending, and what to do with each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from spikebridge.pipeline.datasets.layout import LITTER_NAMES

ADVICE = {
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".xz", ".bz2"), "unpack them"),
    **dict.fromkeys((".bag", ".db3", ".mcap"), "convert them: rosbag_to_h5.py of event_utils, or bag_to_raw"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "videos: make events of them, for example with v2e"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth"), "pickles are not opened: save t, x, y, p with numpy.savez"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"), "give with --static"),
    **dict.fromkeys((".heic", ".jxl", ".jp2", ".svg", ".cr2", ".nef", ".dng", ".raf"), "save them as PNG"),
    **dict.fromkeys((".txt", ".csv"), "tables need lines of numbers t x y p; give columns with --columns"),
    **dict.fromkeys((".mat", ".h5", ".hdf5", ".npy", ".npz"), "name the group of their events with --group"),
    **dict.fromkeys((".part", ".crdownload", ".download", ".tmp"), "unfinished downloads: fetch them again"),
    **dict.fromkeys((".xlsx", ".ods", ".parquet", ".feather", ".arrow"), "save them as CSV with columns t,x,y,p"),
}
"""What to do with files of an ending, in lower case."""
UNKNOWN = "not known: save t, x, y, p with numpy.savez, one file each"
MOST_FILES = 100_000
"""No more files are counted."""


def count_endings(root: Path, *, but: Collection[Path] = (), names: Collection[str] = ()) -> dict[str, int]:
    """Count the files below a folder by ending, the most frequent first.

    Left out are hidden files, what systems leave behind, the files `but`, and those of these `names`.
    """
    counts: Counter[str] = Counter()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith(".") or name.casefold() in LITTER_NAMES or name in names or Path(folder, name) in but:
                continue
            counts[Path(name).suffix.lower() or "no ending"] += 1
        if counts.total() >= MOST_FILES:
            break
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return numbers of files by ending in words: `3 .mp4, 1 .zip`."""
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.items())


def advise(endings: Iterable[str], *, side: str) -> str:
    """Return what to do with files of these endings on a side, `events` or `static`, one phrase each."""
    known = {ending: ADVICE.get(ending, UNKNOWN) for ending in endings}
    if side == "static":
        known = {e: "save them as PNG" if ADVICE.get(e, "") not in ("unpack them", "save them as PNG") else a
                 for e, a in known.items()}  # fmt: skip
    return "; ".join(f"{ending}: {advice}" for ending, advice in known.items())
