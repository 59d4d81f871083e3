"""What a fit leaves on the disk while it runs, so that the same command continues it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.files import FileLock
from spikebridge.train.errors import RunError
from spikebridge.train.runs.checkpoints import write_atomic

KEY = "key"


@contextmanager
def sole(out: Path, writing: str) -> Iterator[None]:
    """Hold a file that is written, and what an interrupted call left of it, so that no other call does.

    Args:
        out: the file, beside which another one is locked until the end; its folder is made.
        writing: what an error says of the other call.

    Raises:
        RunError: another call holds it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    try:
        held = FileLock(lock, wait=False)
    except BlockingIOError:
        raise RunError(f"{out}: {writing}; wait until it is done, or choose another file") from None
    with held:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


class State:
    """Named arrays in one file; those of a fit with another key are passed over.

    Args:
        path: the file; None keeps nothing.
        key: of everything that decides the arrays.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._arrays, self.continued = path, {KEY: np.array(key)}, False
        """`continued`: whether some were there."""
        if path is not None and path.is_file():
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
            except Exception:  # numpy's reader lets through whatever zipfile and zlib raise
                return  # what a damaged file held is computed again
            if str(arrays.get(KEY)) == key:
                self._arrays, self.continued = arrays, True

    def get(self, name: str) -> NDArray[np.float64] | None:
        """Return an array; None where it is not there."""
        return self._arrays.get(name)

    def put(self, name: str, array: NDArray[np.float64]) -> None:
        """Keep an array."""
        self._arrays[name] = array
        if self._path is not None:
            data = io.BytesIO()
            np.savez(data, **self._arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
            write_atomic(self._path, data.getvalue())
