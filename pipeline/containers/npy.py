"""Arrays from untrusted `.npy` and `.npz` files: never a pickle, never more memory than a file may ask for."""

from __future__ import annotations

import io
import math
import re
import threading
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, blame_machine
from spikebridge.pipeline.containers.packed import allowed

MAX_BYTES = 2**32
"""Largest size of all arrays of a file together unless a reader says otherwise: 4 GiB."""


_ONE_HEADER = threading.Lock()


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order (true: Fortran's) and type that the header of an `.npy` file states, and stand behind it.

    One thread at a time: numpy evaluates a header as Python's literals, and Python 3.11 can mistake two evaluations at
    once for a fault of its own (SystemError: AST constructor recursion depth mismatch; not 3.12 and later).

    Raises:
        ValueError: not of version 1.0 or 2.0. numpy's parser also lets through whatever Python's own raises.
    """
    with _ONE_HEADER:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format")


def read_npy(path: Path, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read one `.npy` file.

    Raises:
        RecordingError: no array, or a header that does not fit the content (`damaged`); Python objects inside
            (`pickle`); more than `max_bytes` (`too_large`).
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise _too_large(path, size, max_bytes)
    return _parse(path.read_bytes(), path.name)


def read_npz(
    path: Path,
    *,
    names: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
    objects: list[str] | None = None,
    content: bytes | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz` file, by name.

    Args:
        path: the file.
        names: read only these; None reads all.
        max_bytes: most that the arrays may take, unpacked; nothing is unpacked when the file says more, and unpacking
            stops where it says less than the truth.
        objects: filled with the names of arrays of Python objects, which are left out; None refuses the file.
        content: the bytes of the file where it lies inside another one; `path` then only names it.

    Raises:
        RecordingError: as `read_npy`; also no archive, one that is damaged or encrypted, or two arrays of one name
            (`damaged`).
    """
    arrays = {}
    try:
        size = path.stat().st_size if content is None else len(content)
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if (names is None or name in names) and members.setdefault(name, info) is not info:
                    raise ValueError(f"array {name} stands there twice")
            total, most = sum(info.file_size for info in members.values()), min(max_bytes, allowed(size))
            if total > most:
                raise _too_large(path, total, most)
            for name, info in members.items():
                with archive.open(info) as file:
                    data = file.read(info.file_size)
                    if file.read(1):
                        raise ValueError(f"{info.filename} is longer than it says")
                try:
                    arrays[name] = _parse(data, f"{path.name}, array {name}")
                except RecordingError as error:
                    if objects is None or error.reason != "pickle":
                        raise
                    objects.append(name)
    except (FileNotFoundError, PermissionError):
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        blame_machine(error, path.name)
        raise _damaged(path.name, str(error)) from error
    return arrays


def _parse(data: bytes, source: str) -> NDArray[Any]:
    """An array from the bytes of an `.npy` file; a view on them."""
    file = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = read_header(file)
        if dtype.hasobject:
            raise pickled(source)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
            raise ValueError(f"the header promises {shape} of {dtype}, {len(data) - file.tell()} bytes are there")
        array = np.frombuffer(data, dtype, count=math.prod(shape), offset=file.tell())
        return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)
    except RecordingError:
        raise
    except Exception as error:  # numpy's parser of headers lets through whatever Python's own raises
        # Python's own text may hold the address of an object, so it would not be the same twice.
        raise _damaged(source, re.sub(r" at 0x[0-9a-f]+", "", str(error))) from error


def pickled(source: str) -> RecordingError:
    """Return the error of a file that holds Python objects."""
    return RecordingError(
        f"{source}: holds Python objects (a pickle), which are never loaded: they could run any program. Load it "
        "yourself where you trust it, with numpy.load(..., allow_pickle=True), and save its columns with numpy.savez("
        "..., t=..., x=..., y=..., p=...).",
        reason="pickle",
    )


def _damaged(source: str, what: str) -> RecordingError:
    return RecordingError(
        f"{source}: no plain array can be read ({what}). Write it again with numpy.save or numpy.savez.",
        reason="damaged",
    )


def _too_large(path: Path, size: int, max_bytes: int) -> RecordingError:
    return RecordingError(
        f"{path.name}: {size:,} bytes of arrays; at most {max_bytes:,} are read. Is this a recording?",
        reason="too_large",
    )
