"""Files that a reader sees whole or not at all, locks between processes, and hashes."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypedDict

from spikebridge.pipeline.base.foreign_json import Count, Pattern, Sha256

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written; whoever owns the folder may delete such files when it starts."""

PART_BYTES = 2**18
"""What is read of a file at a time to be hashed: it stays in the cache of a core."""

UNHARMED = "Nothing half-written was kept."
"""Note of the errors of `replacing`."""

SETTLED_NS = 2 * 10**9
"""Age of a file's last change from which on its stamps tell changes apart."""

log = logging.getLogger(__name__)


def real_path(path: Path) -> Path:
    """Return the absolute path of a place without its links; of a link in a circle the link itself.

    `Path.resolve` of Python 3.11 and 3.12 raises RuntimeError there.
    """
    return Path(os.path.realpath(path))


@contextmanager
def replacing(path: Path, *, sole_writer: bool = False, flush: bool = True) -> Iterator[Path]:
    """Write a file aside, then move it into place.

    Args:
        path: of the file, in a folder that exists.
        sole_writer: no other process writes this file now. The name aside is then always the same and hidden, so that
            the next call replaces what a killed process left.
        flush: have the content and the name on the disk before returning.

    Yields:
        The path to write to, in the same folder. On an exception it is deleted and `path` stays as it was.
    """
    name = f".{path.name}" if sole_writer else f"{path.name}.{secrets.token_hex(4)}"
    partial = path.with_name(name + PARTIAL_SUFFIX)
    try:
        yield partial
        if flush:
            _flush(partial, os.O_RDWR)
        os.replace(partial, path)
        if flush:
            with suppress(OSError):  # some network disks refuse this for a folder; the file itself is safe
                _flush(path.parent, os.O_RDONLY)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.filename in (None, str(partial)):  # a full disk does not say where
            named = OSError(error.errno, error.strerror, str(path))
            named.add_note(UNHARMED)
            raise named from error
        error.add_note(UNHARMED)
        raise


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Make sure that the disk has room for a file before a library writes it.

    The library behind HDF5 does not survive a disk that is full when it writes: the process ends with a segmentation
    fault when what it could not close is collected. What is claimed here is given back when the library opens the file.

    The file is made, or emptied; `size` is an upper bound of its bytes.

    Raises:
        OSError: there is no room, or a file may not be as large.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(1, size))


def write_bytes(path: Path, data: bytes, *, sole_writer: bool = False, flush: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; see `replacing`."""
    with replacing(path, sole_writer=sole_writer, flush=flush) as partial:
        partial.write_bytes(data)


class FileLock:
    """Hold a lock on a file until the `with` block or the process ends, however it ends.

    Args:
        path: of the file, which is made where it is missing and stays.
        shared: let others in that are content to share, too.
        wait: until the lock is free.

    Attributes:
        held: False on a file system without locks, of which a warning is logged.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is off.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, shared: bool = False, wait: bool = True) -> None:
        self.path = path
        mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, mode)
                self.held = True
                if os.path.samestat(os.fstat(self._descriptor), os.stat(path)):
                    return
            except FileNotFoundError:
                pass
            except BlockingIOError:
                self.release()
                raise
            except OSError as error:
                self.held = False
                log.warning("%s: this file system has no locks (%s); start no second process", path, error.strerror)
                return
            self.release()  # the owner removed the file meanwhile, and the next one makes a new file

    def release(self) -> None:
        """Let others in; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Return whether a process on this machine holds a `FileLock` on a file; takes none itself, so nobody is refused.

    False where the system does not list its locks (only Linux does), or the file is absent.
    """
    try:
        inode, locks = path.stat().st_ino, Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    rows = (line.split() for line in locks.splitlines())
    return any("->" not in row and row[1] == "FLOCK" and row[5].endswith(f":{inode}") for row in rows)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with HashedFile(path) as file:
        return file.sha256()


def sha256_once(path: Path) -> str:
    """Return the SHA-256 of a file, which is read once per process while it stays the same file, unchanged.

    The kernel stamps every change of a file; a file that was changed just now is read every time, for the stamps are
    coarse.
    """
    status = path.stat()
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) <= SETTLED_NS:
        return sha256_file(path)
    return _sha256_of(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_status: int) -> str:
    """Hash a file; its status takes part in the key of what is remembered."""
    return sha256_file(path)


class HashedFile:
    """Read a file once from front to back, in a `with` statement, and hash it on the way."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed by __exit__)
        self.size = os.fstat(self._file.fileno()).st_size
        self._digest = hashlib.sha256()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(self, target: memoryview) -> int:
        """Read the next bytes; returns how many there were, fewer than asked for at the end of the file."""
        filled = 0
        while count := self._file.readinto(target[filled : filled + PART_BYTES]):
            self._digest.update(target[filled : filled + count])
            filled += count
        return filled

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, of which the rest is read now."""
        part = memoryview(bytearray(min(PART_BYTES, self.size + 1)))
        while self.fill(part):
            pass
        return self._digest.hexdigest()


class FileEntry(TypedDict):
    """A file as a manifest lists it."""

    name: Annotated[str, Pattern("[A-Za-z0-9_][A-Za-z0-9_.-]*", "a plain name of a file in the same folder")]
    bytes: Count
    sha256: Sha256
    samples: Count
    """Recordings or images in it."""


def file_entry(path: Path, samples: int, sha256: str | None = None) -> FileEntry:
    """Return a file of a shard set as its manifest lists it; hashed where its `sha256` is not known."""
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256 or sha256_file(path),
        "samples": samples,
    }
