"""Where shard sets are published: a folder on this machine or a shared disk, an HTTP(S), S3, SFTP or hub address.

Credentials come from where each protocol's tools look for them (environment, ~/.aws, ~/.ssh, an agent) and are masked
in everything that is shown. fsspec and its helpers are imported only for addresses (extra `[sharing]`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from spikebridge.pipeline.base.errors import PipelineError, SettingsError, ShardSetError
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, FileLock
from spikebridge.pipeline.base.foreign_json import MAX_BYTES
from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.sharing import http, hub, sftp

NEEDS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "sftp": "sshfs"}
"""Package that a protocol needs besides fsspec."""
READ_ONLY = ("http", "https")
_LEAVING = re.compile(r"(.+)\.[0-9a-f]{8}\.partial")
"""Unfinished file of a publisher, see `RemoteFolder.put`."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""Two letters at least: one is a drive of Windows."""
CURRENT = "current.json"
"""In a folder of published sets: names the one that readers get."""
PART_BYTES = 2**23
"""Most bytes of a file in memory at a time."""
TRIES = 7
"""Failures in a row, without a byte in between, after which a folder counts as unreachable."""
FIRST_PAUSE_S = 0.1
"""Pause after the first failure; each further one doubles it."""
ABANDONED_S = 24 * 3600
"""Age of an unfinished file from which on its publisher counts as dead, where no lock can tell."""
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""A disk that is full or takes nothing, rather than a connection that fails."""

Result = TypeVar("Result")


class TransferStopped(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A transfer was asked to stop; what arrived is kept."""


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path."""
    return _SCHEME.match(text) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on this machine or elsewhere."""

    protocol: str
    """`file`, `http`, `https`, `s3`, `sftp` or `hf`."""
    path: str
    """As its file system wants it, without a slash at the end."""
    shown: str
    """The path for people, without credentials."""
    files: Any
    """The file system of fsspec."""

    def below(self, name: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder(self.protocol, f"{self.path}/{name}", f"{self.shown}/{name}", self.files)

    def stream(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes start to stop of a file, `PART_BYTES` at most at a time; fewer where it ends before.

        Raises:
            FileNotFoundError: no such file.
            OSError: or whatever the protocol raises when the connection fails or stalls.
        """
        path = f"{self.path}/{name}"
        if self.protocol in READ_ONLY:
            yield from http.stream(self.files, path, start, stop, shown=f"{self.shown}/{name}")
        elif self.protocol == "sftp":
            yield from sftp.stream(self.files, path, start, stop)
        elif self.protocol == "s3":
            while start < stop and (part := self.files.cat_file(path, start=start, end=min(start + PART_BYTES, stop))):
                yield bytes(part)
                start = start + len(part) if len(part) == PART_BYTES else stop
        else:
            with self.files.open(path, "rb") as file:
                file.seek(start)
                while start < stop and (part := file.read(min(PART_BYTES, stop - start))):
                    yield bytes(part)
                    start += len(part)

    def read_small(self, name: str) -> bytes | None:
        """Read a file that is no larger than a manifest may be; None where there is none.

        Raises:
            ShardSetError: it is larger, or the folder cannot be reached.
        """
        shown = f"{self.shown}/{name}"
        try:
            data = persist(lambda: b"".join(self.stream(name, 0, MAX_BYTES + 1)), shown)
        except FileNotFoundError:
            return None
        if len(data) > MAX_BYTES:
            raise ShardSetError(f"{shown}: larger than any manifest. Is the address right?")
        return data

    def holds(self, entry: FileEntry) -> bool:
        """Return whether a file is there with the size and hash that a manifest gives; it is read to its end.

        Raises:
            ShardSetError: the folder cannot be reached.
        """

        def compare() -> bool:
            if self.size(entry["name"]) != entry["bytes"]:
                return False
            digest = hashlib.sha256()
            for part in self.stream(entry["name"], 0, entry["bytes"]):
                digest.update(part)
            return digest.hexdigest() == entry["sha256"]

        try:
            return persist(compare, f"{self.shown}/{entry['name']}")
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return int(self.files.info(f"{self.path}/{name}", **self._limits)["size"])
        except FileNotFoundError:
            return None

    def put(self, source: Path | bytes, name: str) -> None:
        """Write a file, so that readers see the whole file or none."""
        target = f"{self.path}/{name}"
        if self.protocol == "s3":  # which is atomic by itself
            return self._send(source, target)
        aside = f"{target}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
        self.files.makedirs(self.path, exist_ok=True, **self._limits)
        try:
            with FileLock(Path(aside)) if self.protocol == "file" else nullcontext():  # it tells that somebody writes
                self._send(source, aside)
                if self.protocol == "file":
                    os.replace(aside, target)
                else:  # OpenSSH's rename replaces at once; where a server lacks it, sshfs copies
                    self.files.mv(aside, target, **self._limits)
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell; a partial file harms nobody
                self.files.rm_file(aside, **self._limits)
            raise

    def remove_leavings(self, names: Collection[str]) -> None:
        """Remove what publishers that were killed left of these files: unfinished, and written by nobody now."""
        if self.protocol == "s3" or not self.files.isdir(self.path, **self._limits):
            return
        for found in self.files.ls(self.path, detail=True, **self._limits):
            path = found["name"]
            match = _LEAVING.fullmatch(path.rpartition("/")[2])
            if match and match[1] in names and self._is_abandoned(path, found["mtime"]):
                with suppress(FileNotFoundError):  # another publisher was faster
                    self.files.rm_file(path, **self._limits)

    @property
    def _limits(self) -> dict[str, float]:
        """Return the options that bound the time of a call, where the server may stall."""
        return {"timeout": sftp.STALL_S} if self.protocol == "sftp" else {}

    def _is_abandoned(self, path: str, changed: Any) -> bool:
        """Return whether nobody writes an unfinished file: its lock is free, or without locks it is old."""
        if self.protocol == "file":
            try:
                with FileLock(Path(path), wait=False) as lock:
                    if lock.held:
                        return True
            except BlockingIOError:
                return False
        seconds: float = changed if isinstance(changed, float | int) else changed.timestamp()
        return time.time() - seconds > ABANDONED_S

    def _send(self, source: Path | bytes, target: str) -> None:
        if self.protocol == "sftp":
            sftp.send(self.files, source, target)
        elif isinstance(source, bytes):
            self.files.pipe_file(target, source)
        else:
            self.files.put_file(str(source), target)


def open_folder(text: str) -> RemoteFolder:
    """Open a folder by its path or address.

    Raises:
        SettingsError: an address that is none of the known kinds or holds what no folder's address has, or a package
            that is missing.
    """
    if not is_address(text):
        path = str(Path(text).expanduser().absolute())
        _require_package("fsspec", "file")
        import fsspec

        return RemoteFolder("file", path, text.rstrip("/") or text, fsspec.filesystem("file", auto_mkdir=True))
    if hub.is_hub(text):
        repository = hub.parse_address(text)
        hub.require_hub()
        commit = hub.find_commit(repository)
        return RemoteFolder("hf", f"{repository.path}@{commit}", repository.at(commit), hub.open_files())
    shown = masked(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:  # whose text may hold a piece of a password
        raise SettingsError(f"{shown}: expected a port in digits, and %2F for a slash in a password.") from error
    if parts.scheme not in NEEDS or not text.startswith(f"{parts.scheme}://") or "::" in text:
        raise SettingsError(
            f"{shown}: expected a path, or an address that begins with {', '.join((*NEEDS, 'hf'))} and ://."
        )
    if parts.query or parts.fragment or re.search(r"[\s{}\[\]*?|<>\"'`\\]|\.\.", text) or not parts.hostname:
        raise SettingsError(
            f"{shown}: expected the plain address of a folder, without blanks, wildcards, braces, quotes, `..`, ? or #."
        )
    _require_package(NEEDS[parts.scheme], parts.scheme)
    folder = parts.path.rstrip("/")
    if parts.scheme == "sftp":
        login = {"username": parts.username, "password": unquote(parts.password) if parts.password else None}
        known = {name: value for name, value in {**login, "port": port}.items() if value is not None}
        try:
            files = sftp.open_files(parts.hostname, **known)
        except Exception as error:  # it connects at once, and asyncssh has errors of its own
            raise unreachable(shown, error) from error
        return RemoteFolder("sftp", unquote(folder), shown, files)
    import fsspec

    if parts.scheme == "s3":
        files = fsspec.filesystem("s3", use_listings_cache=False)
        return RemoteFolder("s3", f"{parts.netloc}{unquote(folder)}", shown, files)
    return RemoteFolder(parts.scheme, text.rstrip("/"), shown, http.open_files(parts.scheme))


def masked(text: str) -> str:
    """Return an address without user, password and query."""
    if hub.is_hub(text):  # what stands behind @ is a commit
        return text.rstrip("/")
    return re.sub(r"\?.*", "?***", re.sub(r"//\S*@", "//***@", text)).rstrip("/")


def _require_package(package: str, protocol: str) -> None:
    for name in ("fsspec", package):
        if find_spec(name) is None:
            raise SettingsError(
                f"{protocol} addresses need the package {name}, which is not installed; {install_command('sharing')}"
            )


def is_page(data: bytes) -> bool:
    """Return whether bytes begin as a web page does, which some servers send instead of a file."""
    return data[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))


def persist(
    attempt: Callable[[], Result], shown: str, *, stop: Event | None = None, progress: Callable[[], int] = lambda: 0
) -> Result:
    """Try again what fails, with longer and longer pauses, until it has failed `TRIES` times in a row.

    Args:
        attempt: what is tried; goes on where it failed if it can.
        shown: the folder or file, for the message.
        stop: no further attempt begins once it is set.
        progress: grows whenever an attempt has brought something, after which failures count from 1 again.

    Raises:
        FileNotFoundError: there is no such file; not tried again.
        ShardSetError: it cannot be reached, or access is denied.
        TransferStopped: `stop` was set meanwhile.
    """
    failures, before = 0, progress()
    stop = stop or Event()
    while True:
        try:
            return attempt()
        except (FileNotFoundError, PipelineError, TransferStopped):
            raise
        except Exception as error:  # each protocol has errors of its own
            failures = 1 if progress() > before else failures + 1
            before = progress()
            if failures == TRIES or isinstance(error, PermissionError):
                raise unreachable(shown, error) from error
            if stop.wait(FIRST_PAUSE_S * 2 ** (failures - 1)):
                raise TransferStopped from error


@contextmanager
def reaching(shown: str) -> Iterator[None]:
    """Turn the errors of any protocol into a ShardSetError that names the folder or file."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # each protocol has errors of its own
        raise unreachable(shown, error) from error


def unreachable(shown: str, error: Exception) -> ShardSetError:
    """Return the error of a folder that does not answer, or take files, as it should."""
    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
        return ShardSetError(
            f"{shown}: {error.strerror}. What was sent before is whole and stays; once there is room, the same command "
            "continues."
        )
    detail = masked(str(error)).strip() or type(error).__name__
    if type(error).__name__ == "HostKeyNotVerifiable":
        detail += " (log in once with `ssh`, which asks and adds it to ~/.ssh/known_hosts)"
    return ShardSetError(f"{shown}: {type(error).__name__}: {detail}. Check the address, the network and your access.")
