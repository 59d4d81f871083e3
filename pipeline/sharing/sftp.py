"""Files on SFTP servers: whose host key is known, in parts, and with a limit on the time of every request.

The file system of sshfs compares no host keys unless it is told to, and waits for ever for a server that stalls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STALL_S = 60.0
"""Seconds without an answer after which a server counts as gone."""
CONNECT_S = 60.0
"""Seconds that connecting, and logging in, may take."""
PART_BYTES = 2**21
"""Read or written at a time: within `STALL_S`, whatever the line."""


def open_files(host: str, **login: Any) -> Any:
    """Return the file system of sshfs for a host, whose key must be among those that OpenSSH knows.

    Raises:
        Exception: whatever asyncssh raises: no answer, another key, no access.
    """
    from sshfs import SSHFileSystem

    limits = {"timeout": CONNECT_S, "connect_timeout": CONNECT_S, "login_timeout": CONNECT_S}
    return SSHFileSystem(host, known_hosts=(), **limits, **login)


def stream(files: Any, path: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield bytes start to stop of a file, `PART_BYTES` at most at a time; fewer where it ends before.

    Raises:
        FileNotFoundError: no such file.
        OSError: or another error of asyncssh: the connection fails, or nothing comes for `STALL_S`.
    """
    file = _call(files, _open(files, path, "rb"))
    try:
        while start < stop and (part := _call(files, file.read, min(PART_BYTES, stop - start), start)):
            yield part
            start += len(part)
    finally:
        files.loop.call_soon_threadsafe(_close, file)


def send(files: Any, source: Path | bytes, path: str) -> None:
    """Write a file.

    Raises:
        OSError: or another error of asyncssh: the connection fails, or nothing is taken for `STALL_S`.
    """
    file = _call(files, _open(files, path, "wb"))
    try:
        for start, part in _parts(source):
            _call(files, file.write, part, start)
        _call(files, file.close)
    except BaseException:
        files.loop.call_soon_threadsafe(_close, file)
        raise


def _parts(source: Path | bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of what is sent, each with its place."""
    if isinstance(source, bytes):
        yield from ((start, source[start : start + PART_BYTES]) for start in range(0, len(source), PART_BYTES))
        return
    start = 0
    with open(source, "rb") as file:
        while part := file.read(PART_BYTES):
            yield start, part
            start += len(part)


def _call(files: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Await a coroutine of asyncssh in the thread of the file system, `STALL_S` at most."""
    from fsspec.asyn import sync
    from sshfs.utils import wrap_exceptions

    return sync(files.loop, wrap_exceptions(function), *arguments, timeout=STALL_S)


def _open(files: Any, path: str, mode: str) -> Callable[[], Any]:
    async def open_file() -> Any:
        async with files._pool.get() as channel:
            return await channel.open(path, mode)

    return open_file


def _close(file: Any) -> None:
    """Close a file without waiting for the answer, in the thread of the file system."""
    import asyncio

    async def close() -> None:
        try:
            await asyncio.wait_for(file.close(), STALL_S)
        except Exception:  # the connection is gone, or the file was closed: either way nothing is left to do
            return

    _closing.add(task := asyncio.ensure_future(close()))
    task.add_done_callback(_closing.discard)


_closing: set[Any] = set()
"""Files that are being closed; asyncio keeps no reference."""
