"""Where a program may keep what it can make again: the user's cache folder, else one for temporary files."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

FOLDER = "SPIKEBRIDGE_CACHE"
"""Variable that names the folder of what this program keeps."""
NUMBA_FOLDER = "NUMBA_CACHE_DIR"
"""Variable that tells numba where it keeps compiled loops; processes inherit it."""

log = logging.getLogger(__name__)


def cache_base() -> Path:
    """Return the user's cache folder; where it cannot be written, a folder for temporary files, said once."""
    return user_cache() or _fall_back()


def cache_folder() -> Path:
    """Return the folder of what this program keeps: `$SPIKEBRIDGE_CACHE`, else `spikebridge` in `cache_base`."""
    configured = os.environ.get(FOLDER)
    return Path(configured).expanduser() if configured else cache_base() / "spikebridge"


def user_cache() -> Path | None:
    """Return the user's cache folder, there or not; None where the user has none that can be written."""
    configured = os.environ.get("XDG_CACHE_HOME")
    base = Path(configured) if configured else Path(os.path.expanduser("~")) / ".cache"  # `~`: unknown user, no HOME
    return base if base.is_absolute() and can_be_written(base) else None


@cache
def _fall_back() -> Path:
    folder = temporary_folder()
    log.warning("no cache folder of this user can be written; what is kept to save time goes to %s", folder)
    return folder


def can_be_written(path: Path) -> bool:
    """Return whether files can be made in a folder, which may have to be made first."""
    here = next(folder for folder in (path, *path.parents) if folder.exists())
    return here.is_dir() and os.access(here, os.W_OK | os.X_OK)


def in_the_way(path: Path, *, overwrite: bool) -> str | None:
    """Return why a file must not be written, in words that follow its name; None where it may be.

    Asked before anything is read or computed: what an earlier command made is replaced on request alone, and what is
    made of minutes of work must find its place.
    """
    if path.is_dir():
        return "is a folder; choose a file, which the folder may hold"
    if path.exists() and not overwrite:
        return "exists; choose another file, or pass --overwrite"
    if not can_be_written(path.parent):
        return f"cannot be written: {path.parent} is no folder that can be written; choose another one"
    return None


def temporary_folder() -> Path:
    """Make this user's folder for temporary files, or another where somebody else made that.

    Numba's cache holds code that is run, so nobody else may write there.
    """
    path = Path(tempfile.gettempdir()) / f"spikebridge-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="spikebridge-"))
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return path if ours else Path(tempfile.mkdtemp(prefix="spikebridge-"))


def place_compiled_code(code: Path) -> None:
    """Choose numba's folder where it would find none: neither beside the code nor in the user's cache folder.

    Numba then refuses to be imported. It looks here at its first import, in this process or one that this one starts.
    """
    if NUMBA_FOLDER not in os.environ and not can_be_written(code) and user_cache() is None:
        os.environ[NUMBA_FOLDER] = str(cache_base() / "numba")
