"""Folders of raw data, however they were unpacked and whatever else was left in them.

A data set's folder may be given, or one above it; an archive may have been unpacked into a folder of its own name; and
systems, browsers and archives leave files behind that belong to no data set.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from spikebridge.pipeline.base.errors import LayoutError, shorten
from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.datasets.endings import LITTER_NAMES, count_endings, describe_endings

Key = TypeVar("Key", bound=Hashable)

LITTER_ENDINGS = {
    *(".txt", ".md", ".pdf", ".html", ".htm", ".url", ".lnk", ".ini", ".log"),  # texts
    *(".md5", ".sha1", ".sha256", ".sfv"),  # checksums
    *(".zip", ".rar", ".7z", ".tar", ".tgz", ".part", ".crdownload", ".download"),  # archives and unfinished downloads
}
DEEPEST, MOST_FOLDERS = 4, 5000
"""Limits of the search for the right folder: levels below a given one, and folders in all."""


def is_litter(path: Path) -> bool:
    """Return whether a file or folder belongs to no data set: hidden, or left by a system, a browser or an archive.

    Of the archives `.gz` is none: files of data sets may be packed with it.
    """
    name = path.name.casefold()
    litter = os.path.splitext(name)[1] in LITTER_ENDINGS  # pathlib's own takes ten times as long
    return name.startswith(".") or name in LITTER_NAMES or (litter and path.is_file())


def list_entries(folder: Path) -> list[Path]:
    """List a folder by name as text, without litter; links count as what they lead to."""
    return sorted((path for path in folder.iterdir() if not is_litter(path)), key=lambda path: path.name)


def list_folders(folder: Path) -> list[Path]:
    """List the folders in a folder, as `list_entries` does."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [path for path in map(folder.joinpath, names) if not is_litter(path)]


def find_child(folder: Path, *names: str) -> Path | None:
    """Return the folder `folder/name/name/...` whatever the case of its letters, unpacked (`unpacked`), or None.

    A name of the right case comes before another. Lists `folder`: of a folder that was listed take `unpacked`.
    """
    for name in names:
        folded = name.casefold()
        matches = [path for path in list_folders(folder) if path.name.casefold() == folded]
        if not matches:
            return None
        folder = unpacked(next((path for path in matches if path.name == name), matches[0]))
    return folder


def unpacked(folder: Path) -> Path:
    """Return the folder that is meant: one of its own name, where it holds nothing else.

    That is what unpacking into a new folder leaves.
    """
    folded = folder.name.casefold()
    while len(inside := _first_entries(folder, 2)) == 1 and inside[0].name.casefold() == folded and inside[0].is_dir():
        folder = inside[0]
    return folder


def _first_entries(folder: Path, count: int) -> list[Path]:
    """Return some entries of a folder, in any order, without litter."""
    with os.scandir(folder) as entries:
        wanted = (path for entry in entries if not is_litter(path := folder / entry.name))
        return list(itertools.islice(wanted, count))


def number_files(
    paths: Iterable[Path], pattern: re.Pattern[str], key: Callable[[str], Key], *, expected: str, lenient: bool = False
) -> dict[Key, Path]:
    """Return files by the number in their names, in their order.

    `pattern` matches the whole name; `key` turns its first group into the number: `int` takes 7 and 007 for one. With
    `lenient`, files of other names are left out.

    Raises:
        LayoutError: a file of another name (and not `lenient`), or two of one number.
    """
    files: dict[Key, Path] = {}
    for path in paths:
        match = pattern.fullmatch(path.name)
        if match is None:
            if lenient:
                continue
            raise LayoutError(f"{path} does not belong here; expected {expected}. Move it out.")
        number = key(match[1])
        if number in files:
            raise LayoutError(f"{files[number]} and {path} have one number; expected one file each. Remove one.")
        files[number] = path
    return files


def refuse_equal_stems(paths: Iterable[Path], *, stem: Callable[[Path], str] = lambda path: path.stem) -> None:
    """Refuse files of one folder that differ by their endings alone, because samples are named after stems.

    Raises:
        LayoutError: two files of one stem.
    """
    stems: dict[str, Path] = {}
    for path in paths:
        if (other := stems.setdefault(f"{path.parent.name}/{stem(path)}", path)) != path:
            raise LayoutError(f"{other} and {path} have one stem; expected one file each. Rename one.")


def find_root(root: Path, *, below: Sequence[str], holds: Callable[[Path], bool], what: str, layout: str) -> Path:
    """Find the folder that has the right layout: `root` itself or one below it.

    The relative folders `below` are tried before all others, in order; `holds` returns whether a folder has the layout.

    Raises:
        LayoutError: missing, no folder, empty, of another layout, or several that have the layout equally far below.
    """
    if not root.exists():
        raise LayoutError(f"{what} folder {root} does not exist; expected {layout}.")
    if not root.is_dir():
        raise LayoutError(f"{what} path {root} is a file; expected a folder that holds {layout}.")
    for folder in (root, *(root / name for name in below)):
        if folder.is_dir() and holds(folder):
            return folder
    for level in _levels(root):
        fitting = [folder for folder in level if holds(folder)]
        if len({real_path(folder) for folder in fitting}) > 1:
            raise LayoutError(
                f"{what} folder {root}: {fitting[0]} and {fitting[1]} both have the layout; expected one folder with "
                f"{layout}. Give the right one with --{what}."
            )
        if fitting:
            return fitting[0]
    names = sorted(entry.name for entry in root.iterdir())
    counts = count_endings(root)
    files = f" Its files: {describe_endings(counts, side=what)}." if counts else ""
    raise LayoutError(
        f"{what} folder {root} {'holds ' + shorten(names, most=6) if names else 'is empty'}; expected {layout}."
        f"{files} Give the right folder with --{what}."
    )


def _levels(root: Path) -> Iterator[list[Path]]:
    """Yield the folders one below a root, then those two below, and so on."""
    level, count = [root], 0
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in list_folders(outer)]
        count += len(level)
        if count > MOST_FOLDERS:
            return
        yield level
