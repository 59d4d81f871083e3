"""Files that a folder holds besides what is used: counted by ending, and what to do with each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

LITTER_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "icon\r"}
"""What systems leave in folders, in lower case."""
RECORDINGS = (
    *(".aedat", ".aedat4", ".bin", ".bs2", ".csv", ".dat", ".es", ".h5", ".hdf5"),
    *(".mat", ".npy", ".npz", ".raw"),
)
IMAGES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings, in lower case, of what is read where it lies in the right place."""
DOCUMENTS = (
    *(".md", ".rst", ".pdf", ".html", ".htm", ".url", ".lnk", ".ini", ".log"),
    *(".md5", ".sha1", ".sha256", ".sfv"),
)
"""Endings, in lower case, of what people and archives put beside data."""
PACKED = "unpack them"
ADVICE = {
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".xz", ".bz2"), PACKED),
    **dict.fromkeys((".bag", ".db3", ".mcap"), "convert them with rosbag_to_h5.py of event_utils, or bag_to_raw"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "videos: make events of them, for example with v2e"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth"), "never opened, may run code: save t, x, y, p with numpy.savez"),
    **dict.fromkeys((".xlsx", ".ods", ".parquet", ".feather", ".arrow"), "save them as CSV with the columns t,x,y,p"),
    **dict.fromkeys((".part", ".crdownload", ".download", ".tmp"), "unfinished downloads: fetch them again"),
    **dict.fromkeys((".heic", ".jxl", ".jp2", ".svg", ".cr2", ".nef", ".dng"), "save static images as PNG"),
    ".txt": "as recordings they need lines of numbers t x y p",
}
"""What to do with files of an ending, in lower case, wherever they lie."""
MOST_FILES, MOST_FOLDERS = 20_000, 2_000
"""No more of them are gone through."""


def count_endings(root: Path, *, but: Collection[str] = (), names: Collection[str] = ()) -> dict[str, int]:
    """Count the files below a folder by ending, the most frequent first; of very many, the first.

    Left out are hidden files, documents, what systems leave behind, the files `but`, and those of these `names`.
    """
    counts: Counter[str] = Counter()
    for number, (folder, folders, files) in enumerate(os.walk(root)):
        folders[:] = sorted(name for name in folders if not _is_left_behind(name))
        for name in files:
            if not (_is_left_behind(name) or name in names or os.path.join(folder, name) in but):
                counts[Path(name).suffix.lower() or "without ending"] += 1
        if counts.total() >= MOST_FILES or number >= MOST_FOLDERS:
            break
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_passed_over(
    sides: Mapping[str, Collection[str]], *, but: Collection[str] = (), names: Collection[str] = ()
) -> dict[str, dict[str, int]]:
    """Count by side (`events`, `static`) and ending the files that lie among those used on a side and are not.

    Left out are the files `but`, and those of these `names`; see `count_endings`.
    """
    used = {*but, *(path for paths in sides.values() for path in paths)}
    counts, seen = {}, set[Path]()
    for side, paths in sides.items():
        root = Path(os.path.commonpath({os.path.dirname(path) for path in paths})) if paths else None
        if root and root not in seen:
            counts[side] = count_endings(root, but=used, names=names)
            seen.add(root)
    return counts


def describe_passed_over(passed_over: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return one sentence for each side of a raw data set that holds files of no use, with what to do with them."""
    what = {"events": "recordings", "static": "static images"}
    return [
        f"files passed over among the {what[side]}: {describe_endings(counts, side=side)}"
        for side, counts in passed_over.items()
        if counts
    ]


def _is_left_behind(name: str) -> bool:
    lower = name.casefold()
    return lower.startswith(".") or lower in LITTER_NAMES or lower.endswith(DOCUMENTS)


def describe_endings(counts: Mapping[str, int], *, side: str, most: int = 6) -> str:
    """Return numbers of files by ending with what to do: `3 .mp4 (videos: ...), 1 .zip (unpack them)`.

    `side` is where they lie, `events` or `static`; of many endings the first `most` are named.
    """
    named = [f"{count:,} {ending} ({_advise(ending, side)})" for ending, count in list(counts.items())[:most]]
    rest = sum(list(counts.values())[most:])
    return ", ".join(named) + (f" and {rest:,} of other endings" if rest else "")


def _advise(ending: str, side: str) -> str:
    here, there = (RECORDINGS, IMAGES) if side == "events" else (IMAGES, RECORDINGS)
    if ending in here:
        classes = "class folders" if side == "events" else "the folders of classes with recordings"
        return f"put them into {classes}, <class>/<name>{ending}"
    if ending in there:
        return "give their folder with --" + ("static" if side == "events" else "events")
    other = "save t, x, y, p with numpy.savez, a file each" if side == "events" else "save static images as PNG"
    return ADVICE.get(ending, other if ending != "without ending" else f"{other}, or give them their ending")
