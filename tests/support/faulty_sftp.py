"""An SFTP server over the files of this machine that fails as told, in a thread of this process.

Faults: none; failing (requests are refused); cut (the connection ends); lying (a bit of what is read differs);
stalling (some requests are never answered).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path
from typing import Any

import asyncssh

FAULTS = ("none", "failing", "cut", "lying", "stalling")
SHARE = 0.15
"""Of the requests that meet the fault."""


class SFTP:
    """The server; its keys, and what OpenSSH's client wants to know of it, lie below a folder."""

    def __init__(self, folder: Path) -> None:
        self.fault, self.rng = "none", random.Random(0)
        self._folder, self._loop, self.known_hosts = folder, asyncio.new_event_loop(), folder / "known_hosts"
        self.connections: set[Any] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> int:
        host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
        self._folder.mkdir(parents=True)
        client.write_private_key(self._folder / "client_key")
        os.chmod(self._folder / "client_key", 0o600)
        (self._folder / "authorized").write_bytes(client.export_public_key())
        self._server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Clients(self.connections),
            server_host_keys=[host],
            authorized_client_keys=str(self._folder / "authorized"),
            sftp_factory=lambda channel: _Files(channel, self),
        )
        port = self._server.get_port()
        key = host.export_public_key().decode().strip()
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n")
        return int(port)

    def write_home(self, home: Path) -> None:
        """Write what a client's home holds: the host `shelf`, and its key."""
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "config").write_text(
            f"Host shelf\n  HostName 127.0.0.1\n  Port {self.port}\n  User someone\n"
            f"  IdentityFile {self._folder / 'client_key'}\n  UserKnownHostsFile {self.known_hosts}\n"
        )

    def close(self) -> None:
        """End the server."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for connection in self.connections:
            connection.abort()
        await self._server.wait_closed()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Clients(asyncssh.SSHServer):  # type: ignore[misc]
    """Keeps the connections of a server."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections

    def connection_made(self, conn: Any) -> None:
        self._connections.add(conn)


class _Files(asyncssh.SFTPServer):  # type: ignore[misc]
    """Files of this machine, and the server's fault in some of the answers."""

    def __init__(self, channel: Any, server: SFTP) -> None:
        super().__init__(channel)
        self._server = server

    async def _meet_fault(self) -> None:
        """Do what the fault is in some requests; a lie is told by `read`."""
        if self._server.rng.random() >= SHARE:
            return
        if self._server.fault == "failing":
            raise asyncssh.SFTPFailure("the disk is not well")
        if self._server.fault == "cut":
            self.channel.get_connection().abort()
        if self._server.fault == "stalling":
            await asyncio.sleep(3600)

    async def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        await self._meet_fault()
        return super().open(path, pflags, attrs)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        await self._meet_fault()
        data: bytes = super().read(file_obj, offset, size)  # type: ignore[assignment]
        if self._server.fault == "lying" and data and self._server.rng.random() < SHARE:
            changed = bytearray(data)
            changed[self._server.rng.randrange(len(data))] ^= 1
            return bytes(changed)
        return data

    async def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        await self._meet_fault()
        return super().write(file_obj, offset, data)  # type: ignore[return-value]

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._meet_fault()
        super().posix_rename(oldpath, newpath)
