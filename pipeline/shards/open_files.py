"""A bounded number of open files: those that were read last stay open, however many there are."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOST_OPEN = 32
"""Files that stay open of a split: three splits of two sets fit into 256, which is the least usual limit."""


@dataclass
class _OpenFile:
    """A file and its readers."""

    descriptor: int
    """Opened for reading."""
    readers: int = 0
    """`with` blocks that use it now."""


class OpenFiles:
    """Files that are opened when they are read; safe to share between threads, and by processes that were forked.

    Args:
        most: files that stay open. One that is being read is never closed, so that many readers of different files may
            hold more for a moment.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: OrderedDict[Path, _OpenFile] = OrderedDict()  # the one that was used longest ago first
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, path: Path) -> Iterator[int]:
        """Keep a file open while the `with` block lasts.

        Yields:
            Its descriptor; read from it by offset.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            if path not in self._files:
                self._files[path] = _OpenFile(self._open(path))
            self._files.move_to_end(path)
            file = self._files[path]
            file.readers += 1
            self._close_surplus()
        try:
            yield file.descriptor
        finally:
            with self._lock:
                file.readers -= 1
                self._close_surplus()

    def _open(self, path: Path) -> int:
        while True:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:  # the process has no more than `ulimit -n` allows, whoever holds them
                if error.errno != errno.EMFILE or not self._close_one():
                    raise

    def _close_surplus(self) -> None:
        while len(self._files) > self._most and self._close_one():
            pass

    def _close_one(self) -> bool:
        """Close the file that was used longest ago of those that nobody reads; return whether there was one."""
        idle = next((path for path, file in self._files.items() if not file.readers), None)
        if idle is None:
            return False
        os.close(self._files.pop(idle).descriptor)
        return True

    def close(self) -> None:
        """Close all files; nobody may be reading one."""
        for file in self._files.values():
            os.close(file.descriptor)
        self._files.clear()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()
