"""Real servers in processes of their own, on free ports of this machine: HTTP, S3 (moto) and SFTP (asyncssh).

python servers.py http FOLDER LOG [--no-ranges] [--die-after BYTES]    prints its port, then serves; a line per file
                                                                       request goes to LOG: path, start, bytes sent
python servers.py sftp FOLDER                                          writes FOLDER/../client_key and known_hosts
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server; yields what it printed first (its port) and its process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Files(BaseHTTPRequestHandler):
    """Files of a folder, with or without ranges."""

    protocol_version = "HTTP/1.1"
    root: Path
    log: Path
    ranges = True
    left: int | None = None
    """Bytes after which the process ends in the middle of an answer."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted, start, stop = self.headers.get("Range"), 0, len(data)
        partly = self.ranges and wanted is not None and wanted.startswith("bytes=")
        if partly:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        self.send_response(206 if partly else 200)
        self.send_header("Content-Length", str(stop - start))
        if partly:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        part = data[start:stop]
        with open(self.log, "a") as log:
            log.write(f"{self.path} {start} {len(part)}\n")
        if Files.left is not None:
            if len(part) > Files.left:
                self.wfile.write(part[: Files.left])
                self.wfile.flush()
                os._exit(1)
            Files.left -= len(part)
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def serve_http(folder: Path, log: Path, *, ranges: bool, die_after: int | None) -> None:
    Files.root, Files.log, Files.ranges, Files.left = folder, log, ranges, die_after
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


def serve_s3() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    threading.Event().wait()


async def serve_sftp(folder: Path) -> None:
    import asyncssh

    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    around = folder.parent
    client.write_private_key(around / "client_key")
    os.chmod(around / "client_key", 0o600)
    (around / "authorized").write_bytes(client.export_public_key())
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=str(around / "authorized"), sftp_factory=True
    )
    port = server.get_port()
    key = host.export_public_key().decode().strip()
    (around / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["http", "s3", "sftp"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("log", type=Path, nargs="?")
    parser.add_argument("--no-ranges", action="store_true")
    parser.add_argument("--die-after", type=int)
    given = parser.parse_args()
    if given.kind == "http":
        serve_http(given.folder, given.log, ranges=not given.no_ranges, die_after=given.die_after)
    elif given.kind == "s3":
        serve_s3()
    else:
        asyncio.run(serve_sftp(given.folder))
