"""Notices the end of another process of a training, or of torchrun, at once, whatever this process is at.

A collective operation finds out that a partner is gone only when it is begun, and on a GPU perhaps never. So every rank
holds a connection to rank 0, on which it says goodbye. The kernel closes it when a process is killed, and after seconds
when its machine is gone; a process that is slow or paused keeps it. A thread listens, and ends this process where the
main thread does not within `GRACE_S`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)

GRACE_S = 6.0
"""What the main thread gets to end by itself: with a checkpoint, or at the next collective operation."""
POLL_S = 0.5
"""How often a process looks for torchrun."""
NOTICE_S = 3.0
"""How long a failed collective operation waits for the notice of who is gone."""
BYE, FAILED, KILLED = b"B", b"F", b"K"
_MESSAGE = struct.Struct(">cI")  # kind, rank
_TOKEN_BYTES = 16


class PeerWatch:
    """Watches the other processes while a `with` block runs; all processes enter it together.

    Args:
        rank: of this process.
        world_size: how many there are.
        broadcast_bytes: gives all of them the bytes of rank 0.

    Attributes:
        loss: a sentence on who is gone; empty while nobody is.
    """

    def __init__(self, rank: int, world_size: int, broadcast_bytes: Callable[[bytes], bytes]) -> None:
        self.loss = ""
        self._rank, self._world_size = rank, world_size
        self._lost, self._left = threading.Event(), threading.Event()
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, int | None] = {}
        """Connections, and who is at the other end; None before it has said so."""
        self._listener: socket.socket | None = None
        self._token = b""
        self._connect(broadcast_bytes)
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)

    def _connect(self, broadcast_bytes: Callable[[bytes], bytes]) -> None:
        """Open a connection to rank 0; without one the watch is for torchrun alone, which is logged."""
        host = os.environ.get("MASTER_ADDR", "localhost")
        place = b""
        if self._rank == 0:
            try:
                self._listener = _listen(host)
                self._token = secrets.token_bytes(_TOKEN_BYTES)
                place = json.dumps([self._listener.getsockname()[1], self._token.hex()]).encode()
                self._selector.register(self._listener, selectors.EVENT_READ)
            except OSError as error:
                log.info("no port to watch the other processes on (%s)", error)
        place = broadcast_bytes(place)
        if not place or self._rank == 0:
            return
        port, token = json.loads(place)
        try:
            peer = socket.create_connection((host, port), timeout=NOTICE_S)
            peer.sendall(bytes.fromhex(token) + _MESSAGE.pack(b"H", self._rank))
            self._add(peer, 0)
        except OSError as error:
            log.info("rank %d cannot watch the others (%s)", self._rank, error)

    def _add(self, peer: socket.socket, rank: int | None) -> None:
        peer.settimeout(NOTICE_S)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):  # Linux's names
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peers[peer] = rank
        self._selector.register(peer, selectors.EVENT_READ)

    def __enter__(self) -> PeerWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, RuntimeError):  # a collective operation failed: because of whom?
            self._lost.wait(NOTICE_S)
        self._left.set()
        self._tell(BYE if kind is None else FAILED, self._rank)
        self._thread.join()
        for connection in [*self._peers, *([self._listener] if self._listener else [])]:
            connection.close()
        self._selector.close()

    def _tell(self, kind: bytes, rank: int, *, but: socket.socket | None = None) -> None:
        for peer in list(self._peers):
            if peer is not but:
                try:
                    peer.sendall(_MESSAGE.pack(kind, rank))
                except OSError:
                    continue  # gone, which its own end of the connection tells

    def _watch(self) -> None:
        while not self._left.is_set():
            for key, _ in self._selector.select(POLL_S):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection is self._listener:
                    self._add(connection.accept()[0], None)
                elif not self._hear(connection):
                    self._selector.unregister(connection)
                    self._peers.pop(connection)
                    connection.close()
            if self._parent is not None and os.getppid() != self._parent:
                self._parent = None
                self._lose(f"rank {self._rank} of {self._world_size}: torchrun has ended", aloud=True)
                os.kill(os.getpid(), signal.SIGTERM)  # all ranks end with a checkpoint

    def _hear(self, peer: socket.socket) -> bool:
        """Take one message; returns whether more may come."""
        try:
            if self._peers[peer] is None:
                hello = _receive(peer, _TOKEN_BYTES + _MESSAGE.size)
                if not secrets.compare_digest(hello[:_TOKEN_BYTES], self._token):
                    return False
                self._peers[peer] = _MESSAGE.unpack(hello[_TOKEN_BYTES:])[1]
                return True
            kind, rank = _MESSAGE.unpack(_receive(peer, _MESSAGE.size))
        except (EOFError, OSError):  # closed by the kernel, or a machine that no longer answers
            kind, rank = KILLED, self._peers[peer]
        if rank is None or kind == BYE:
            return False
        how = "ended without notice: killed, or its machine is gone" if kind == KILLED else "ended with an error"
        self._lose(f"rank {rank} of {self._world_size} {how}", aloud=kind == KILLED)
        if self._rank == 0:
            self._tell(kind, rank, but=peer)
        return False

    def _lose(self, sentence: str, *, aloud: bool) -> None:
        """Note the first loss, and see to it that this process ends soon."""
        if self._lost.is_set() or self._left.is_set():
            return
        self.loss = sentence
        self._lost.set()
        if aloud:
            log.error("%s; this process ends too, and the last checkpoint counts", sentence)
        threading.Thread(target=self._end, name="end", daemon=True).start()

    def _end(self) -> None:
        if not self._left.wait(GRACE_S):
            log.error("%s; the same command continues from the last checkpoint", self.loss)
            os._exit(1)


def _listen(host: str) -> socket.socket:
    """Listen on a free port of a host's address, or on all addresses where that is not one of this machine."""
    try:
        return socket.create_server((host, 0))
    except OSError:
        return socket.create_server(("", 0))


def _receive(peer: socket.socket, size: int) -> bytes:
    """Receive so many bytes.

    Raises:
        EOFError: the other end has closed.
    """
    data = b""
    while len(data) < size:
        if not (part := peer.recv(size - len(data))):
            raise EOFError
        data += part
    return data
