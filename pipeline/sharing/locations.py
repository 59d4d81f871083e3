"""Where shard sets are published: a folder on this machine or a shared disk, an HTTP(S), S3 or SFTP address.

Credentials come from where each protocol's tools look for them (environment, ~/.aws, ~/.ssh, an agent) and are masked
in everything that is shown. fsspec and its helpers are imported only for addresses (extra `[sharing]`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.installation import install_command

NEEDS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "sftp": "sshfs"}
"""Package that a protocol needs besides fsspec."""
READ_ONLY = ("http", "https")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""Two letters at least: one is a drive of Windows."""
CURRENT = "current.json"
"""In a folder of published sets: names the one that readers get."""


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path."""
    return _SCHEME.match(text) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on this machine or elsewhere."""

    protocol: str
    """`file`, `http`, `https`, `s3` or `sftp`."""
    path: str
    """As its file system wants it, without a slash at the end."""
    shown: str
    """The path for people, without credentials."""
    files: Any
    """The file system of fsspec."""

    def below(self, name: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder(self.protocol, f"{self.path}/{name}", f"{self.shown}/{name}", self.files)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Read bytes start to stop of a file; the whole file where the server knows no ranges.

        Raises:
            FileNotFoundError: no such file.
            OSError: or whatever the protocol raises when the connection fails.
        """
        path = f"{self.path}/{name}"
        if self.protocol in ("file", "sftp"):
            with self.files.open(path, "rb") as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        return bytes(self.files.cat_file(path, start=start, end=stop))

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return int(self.files.info(f"{self.path}/{name}")["size"])
        except FileNotFoundError:
            return None

    def put(self, source: Path | bytes, name: str) -> None:
        """Write a file, so that readers see the whole file or none."""
        target = f"{self.path}/{name}"
        if self.protocol == "s3":  # which is atomic by itself
            return self._send(source, target)
        aside = f"{target}.{secrets.token_hex(4)}.partial"
        self.files.makedirs(self.path, exist_ok=True)
        try:
            self._send(source, aside)
            if self.protocol == "file":
                os.replace(aside, target)
            else:
                self.files.mv(aside, target)  # OpenSSH's rename replaces at once; where a server lacks it, sshfs copies
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell; a partial file harms nobody
                self.files.rm_file(aside)
            raise

    def _send(self, source: Path | bytes, target: str) -> None:
        if isinstance(source, bytes):
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
    shown = masked(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:  # whose text may hold a piece of a password
        raise SettingsError(f"{shown}: expected a port in digits, and %2F for a slash in a password.") from error
    if parts.scheme not in NEEDS or not text.startswith(f"{parts.scheme}://") or "::" in text:
        raise SettingsError(f"{shown}: expected a path, or an address that begins with {', '.join(NEEDS)} and ://.")
    if parts.query or parts.fragment or re.search(r"[\s{}\[\]*?|<>\"'`\\]|\.\.", text) or not parts.hostname:
        raise SettingsError(
            f"{shown}: expected the plain address of a folder, without blanks, wildcards, braces, quotes, `..`, ? or #."
        )
    _require_package(NEEDS[parts.scheme], parts.scheme)
    folder = parts.path.rstrip("/")
    if parts.scheme == "sftp":
        from sshfs import SSHFileSystem

        login = {"username": parts.username, "password": unquote(parts.password) if parts.password else None}
        known = {name: value for name, value in {**login, "port": port}.items() if value is not None}
        try:
            files = SSHFileSystem(parts.hostname, **known)
        except Exception as error:  # it connects at once, and asyncssh has errors of its own
            raise unreachable(shown, error) from error
        return RemoteFolder("sftp", unquote(folder), shown, files)
    import fsspec

    if parts.scheme == "s3":
        files = fsspec.filesystem("s3", use_listings_cache=False)
        return RemoteFolder("s3", f"{parts.netloc}{unquote(folder)}", shown, files)
    return RemoteFolder(parts.scheme, text.rstrip("/"), shown, fsspec.filesystem(parts.scheme))


def masked(text: str) -> str:
    """Return an address without user, password and query."""
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


@contextmanager
def reaching(shown: str) -> Iterator[None]:
    """Turn the errors of any protocol into a ShardSetError that names the folder or file."""
    try:
        yield
    except ShardSetError:
        raise
    except Exception as error:  # each protocol has errors of its own
        raise unreachable(shown, error) from error


def unreachable(shown: str, error: Exception) -> ShardSetError:
    """Return the error of a folder that does not answer as it should."""
    detail = masked(str(error)).strip() or type(error).__name__
    return ShardSetError(f"{shown}: {type(error).__name__}: {detail}. Check the address, the network and your access.")
