"""What lies in folders of raw data, however they were unpacked and whatever else was left in them.

A data set's folder may be given, or one above it; an archive may have been unpacked into a folder of its own name; and
systems, browsers and archives leave files behind that belong to no data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from spikebridge.pipeline.base.errors import LayoutError

LITTER_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "icon\r"}
LITTER_ENDINGS = {
    *(".txt", ".md", ".pdf", ".html", ".htm", ".url", ".lnk", ".ini", ".log"),  # texts
    *(".md5", ".sha1", ".sha256", ".sfv"),  # checksums
    *(".zip", ".rar", ".7z", ".tar", ".tgz", ".part", ".crdownload", ".download"),  # archives and unfinished downloads
}
DEEPEST, MOST_FOLDERS = 4, 5000
"""How far below a given folder the right one is sought, and in how many folders at most."""


def is_litter(path: Path) -> bool:
    """Whether a file or folder belongs to no data set: hidden, or left by a system, a browser or an archive.

    Of the archives `.gz` is none: files of data sets may be packed with it.
    """
    name = path.name.casefold()
    return name.startswith(".") or name in LITTER_NAMES or (path.suffix.casefold() in LITTER_ENDINGS and path.is_file())


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name as text, without litter; links count as what they lead to."""
    return sorted((path for path in folder.iterdir() if not is_litter(path)), key=lambda path: path.name)


def folders(folder: Path) -> list[Path]:
    """The folders in a folder."""
    return [path for path in entries(folder) if path.is_dir()]


def child(folder: Path, *names: str) -> Path | None:
    """The folder `folder/name/name/...` whatever the case of its letters, or None.

    Where a folder holds nothing but one of its own name, which is what unpacking into a new folder leaves, the inner
    one is meant. A name of the right case comes before another.
    """
    for name in names:
        wanted = name.casefold()
        found = [path for path in folders(folder) if path.name.casefold() == wanted]
        if not found:
            return None
        folder = next((path for path in found if path.name == name), found[0])
        while len(inside := entries(folder)) == 1 and inside[0].name.casefold() == wanted and inside[0].is_dir():
            folder = inside[0]
    return folder


def find_root(root: Path, *, below: Sequence[str], holds: Callable[[Path], bool], what: str, layout: str) -> Path:
    """Find the folder that has the right layout: `root` itself or one below it.

    Args:
        root: what the user gave.
        below: relative folders to try before all others, in order.
        holds: says whether a folder looks right.
        what: `events` or `static`, for the message.
        layout: what it should look like, for the message.

    Raises:
        LayoutError: missing, no folder, empty, of another layout, or several that look right equally far below.
    """
    if not root.exists():
        raise LayoutError(f"{what} folder {root} does not exist; expected {layout}.")
    if not root.is_dir():
        raise LayoutError(f"{what} path {root} is a file; expected a folder that holds {layout}.")
    for folder in (root, *(root / name for name in below)):
        if folder.is_dir() and holds(folder):
            return folder
    for level in _levels(root):
        found = [folder for folder in level if holds(folder)]
        if len({folder.resolve() for folder in found}) > 1:
            raise LayoutError(
                f"{what} folder {root}: {found[0]} and {found[1]} both look right; expected one folder with {layout}. "
                f"Give the right one with --{what}."
            )
        if found:
            return found[0]
    names = sorted(entry.name for entry in root.iterdir())
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise LayoutError(
        f"{what} folder {root} {'holds ' + shown if names else 'is empty'}; expected {layout}. "
        f"Give the right folder with --{what}."
    )


def _levels(root: Path) -> Iterator[list[Path]]:
    """The folders one below a root, then those two below, and so on."""
    level, seen = [root], 0
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in folders(outer)]
        seen += len(level)
        if seen > MOST_FOLDERS:
            return
        yield level
