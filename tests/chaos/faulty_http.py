"""A web server over a folder that fails as told, in threads of this process.

Faults: none; failing (three of ten answers are errors 500 or 503); cut (bodies end early); lying (a bit of the body
differs); rubbish (a web page in place of files); stalling (some bodies stop half way and stay open); endless (bodies
that go on for ever).
"""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = ("none", "failing", "cut", "lying", "rubbish", "stalling", "endless")
PAGE = b"<!doctype html><html><body>Please sign in</body></html>"


class _Handler(BaseHTTPRequestHandler):
    """Files of a folder with ranges, and a fault in some of the answers."""

    protocol_version = "HTTP/1.1"
    root: Path
    fault: str
    rng: random.Random
    closing: threading.Event

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.root / self.path.lstrip("/")
        fault = self.fault if self.rng.random() < 0.3 else "none"
        if fault == "failing":
            return self.send_error(self.rng.choice([500, 503]))
        if not path.is_file():
            return self.send_error(404)
        data = PAGE if fault == "rubbish" else path.read_bytes()
        start, stop, asked = 0, len(data), self.headers.get("Range", "")
        partly = asked.startswith("bytes=") and fault != "rubbish"
        if partly:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        part = bytearray(data[start:stop])
        if fault == "lying" and part:
            part[self.rng.randrange(len(part))] ^= 1 << self.rng.randrange(8)
        self.send_response(206 if partly else 200)
        length = ("Transfer-Encoding", "chunked") if fault == "endless" else ("Content-Length", str(len(part)))
        self.send_header(*length)
        if partly:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._send(part, fault)
        return None

    def _send(self, part: bytearray, fault: str) -> None:
        try:
            if fault == "endless":
                block = b"%x\r\n" % 2**16 + bytes(2**16) + b"\r\n"
                for _ in range(2**16):  # 4 GB: a reader without a bound has been found out long before
                    self.wfile.write(block)
            elif fault in ("cut", "stalling"):
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                if fault == "stalling":
                    self.closing.wait()
                self.close_connection = True
            else:
                self.wfile.write(part)
        except OSError:  # the reader has had enough
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Stay silent: a killed reader is no news."""


@contextmanager
def serving(folder: Path, fault: str, seed: str, *, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Give out a folder, with `context` by HTTPS; yields the address."""
    closing = threading.Event()
    members = {"root": folder, "fault": fault, "rng": random.Random(seed), "closing": closing}
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), members)) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        finally:
            closing.set()
            server.shutdown()
