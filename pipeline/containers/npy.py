"""Arrays from untrusted `.npy` and `.npz` files: never a pickle, never more memory than a file may ask for."""

from __future__ import annotations

import io
import math
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, blame_machine, shorten
from spikebridge.pipeline.containers.packed import allowed
from spikebridge.pipeline.containers.zip_members import find_content

MAX_BYTES = 2**32
"""Largest size of all arrays of a file together unless a reader says otherwise: 4 GiB."""

MOST_COLUMNS = 64
"""Of a table that is read in blocks."""
MAGIC = b"\x93NUMPY"

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


@dataclass(frozen=True)
class StoredArray:
    """An array of too many numbers for the memory, read in blocks of rows."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    open_behind: Callable[[int, bool], AbstractContextManager[BinaryIO]]
    """Opens the bytes behind so many others; told whether all will be read, so that their sum can be checked."""
    seekable: bool = True
    """Any of its rows can be read without unpacking those before."""

    @property
    def ndim(self) -> int:
        """Return the number of axes, as numpy's arrays do."""
        return len(self.shape)

    @property
    def length(self) -> int:
        """Return the number of rows; of a table of four rows and more columns that of its columns."""
        return max(self.shape) if self._lies or 1 in self.shape else self.shape[0]

    @property
    def _lies(self) -> bool:
        """Whether the rows of a table are its columns."""
        return self.ndim == 2 and self.shape[0] == 4 != self.shape[1]

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[NDArray[Any]]:
        """Yield a vector in blocks [n], a table [N,k] in blocks [n,k]; one of four rows and more columns is turned.

        Args:
            rows: of a block.
            start: first row.
            stop: the row behind the last; None for all.

        Raises:
            RecordingError: neither (`shape`), or the file ends before its numbers do, or holds others (`damaged`).
        """
        if self.ndim not in (1, 2) or (self.ndim == 2 and not 1 <= min(self.shape) <= MOST_COLUMNS):
            raise RecordingError(
                f"an array of the shape {self.shape}; expected a column of events or a table [N,4].", reason="shape"
            )
        count = self.length
        vector = self.ndim == 1 or 1 in self.shape
        width = 1 if vector else min(self.shape) if self._lies else self.shape[1]
        apart = not vector and self._lies != self.fortran_order  # each column lies together
        runs = range(width if apart else 1)
        size = (width // len(runs)) * self.dtype.itemsize  # of a row of a run
        with ExitStack() as opened:
            files = [opened.enter_context(self.open_behind((run * count + start) * size, stop is None)) for run in runs]
            for first in range(start, count if stop is None else stop, rows):
                taken = min(rows, (count if stop is None else stop) - first)
                parts = [self._read(file, taken * size) for file in files]
                yield np.stack(parts, axis=1) if apart else parts[0] if vector else parts[0].reshape(taken, width)
            if stop is None and files[-1].read(1):
                raise ValueError("it is longer than it says")

    def _read(self, file: BinaryIO, size: int) -> NDArray[Any]:
        data = file.read(size)
        if len(data) < size:
            raise ValueError("it is shorter than it says")
        return np.frombuffer(data, self.dtype)


def stored_npy(path: Path) -> StoredArray:
    """Return the array of an `.npy` file, to be read in blocks; errors as `read_npy`."""

    @contextmanager
    def open_behind(start: int, all_of_it: bool) -> Iterator[BinaryIO]:
        with _refusing(path), open(path, "rb") as file:
            file.seek(begin + start)
            yield file

    with open(path, "rb") as file:
        shape, fortran_order, dtype = _header(file, path.stat().st_size, path.name)
        begin = file.tell()
    return StoredArray(dtype, shape, fortran_order, open_behind)


def stored_npz(path: Path, *, objects: list[str], others: list[str]) -> dict[str, StoredArray]:
    """Return the arrays of an `.npz` file by name, to be read in blocks; arguments and errors as `read_npz`."""

    def opener(info: zipfile.ZipInfo, begin: int) -> Callable[[int, bool], AbstractContextManager[BinaryIO]]:
        @contextmanager
        def open_behind(start: int, all_of_it: bool) -> Iterator[BinaryIO]:
            if info.compress_type == zipfile.ZIP_STORED and not all_of_it:  # the module would read all bytes before
                with _refusing(path), open(path, "rb") as plain:
                    plain.seek(find_content(plain, info.header_offset, path, source=path.name) + begin + start)
                    yield plain
                return
            with _refusing(path), zipfile.ZipFile(path) as archive, archive.open(info) as file:
                file.seek(begin + start)
                yield file  # type: ignore[misc]

        return open_behind

    arrays = {}
    with _refusing(path), zipfile.ZipFile(path) as archive:
        for name, info in _members(archive, None, allowed(path.stat().st_size), path, others).items():
            with archive.open(info) as file:
                try:
                    shape, fortran_order, dtype = _header(file, info.file_size, f"{path.name}, array {name}")  # type: ignore[arg-type]
                except RecordingError as error:
                    if error.reason != "pickle":
                        raise
                    objects.append(name)
                    continue
                arrays[name] = StoredArray(
                    dtype, shape, fortran_order, opener(info, file.tell()), info.compress_type == zipfile.ZIP_STORED
                )
    return arrays


def unpacked_bytes(path: Path) -> int:
    """Return what the arrays of an `.npz` file take, as it says.

    Raises:
        RecordingError: no archive (`damaged`).
    """
    with _refusing(path), zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


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
    others: list[str] | None = None,
    content: bytes | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz` file, by name.

    Args:
        path: the file.
        names: read only these; None reads all.
        max_bytes: most that the arrays may take, unpacked; nothing is unpacked when the file says more, and unpacking
            stops where it says less than the truth.
        objects: filled with the names of arrays of Python objects, which are left out; None refuses the file.
        others: filled with the names of files in it that are no arrays, which are left out; None refuses the file.
        content: the bytes of the file where it lies inside another one; `path` then only names it.

    Raises:
        RecordingError: as `read_npy`; also no archive, one that is damaged or encrypted, or two arrays of one name
            (`damaged`).
    """
    arrays = {}
    size = path.stat().st_size if content is None else len(content)
    with _refusing(path), zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
        for name, info in _members(archive, names, min(max_bytes, allowed(size)), path, others).items():
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
    return arrays


def _members(
    archive: zipfile.ZipFile, names: Collection[str] | None, most: int, path: Path, others: list[str] | None
) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays of an archive, by name, which may take so many bytes together; what is none goes to `others`.

    Raises:
        RecordingError: more bytes (`too_large`), or no array at all (`format`).
        ValueError: two of one name.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if others is not None and name == info.filename and not _is_array(archive, info):
            others.append(name)
            continue
        if (names is None or name in names) and members.setdefault(name, info) is not info:
            raise ValueError(f"array {name} stands there twice")
    if (total := sum(info.file_size for info in members.values())) > most:
        raise _too_large(path, total, most)
    if others and not members:
        raise RecordingError(
            f"{path.name}: a zip archive without arrays; it holds {shorten(others, most=4)}. Unpack it: recordings are "
            "files of their own.",
            reason="format",
        )
    return members


def _is_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Return whether a file of an archive begins as an array, though its name does not say so."""
    with archive.open(info) as file:
        return file.read(len(MAGIC)) == MAGIC


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside a file into a `RecordingError` (`damaged`)."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        blame_machine(error, path.name)
        raise _damaged(path.name, str(error)) from error


def _parse(data: bytes, source: str) -> NDArray[Any]:
    """An array from the bytes of an `.npy` file; a view on them."""
    file = io.BytesIO(data)
    shape, fortran_order, dtype = _header(file, len(data), source)
    array = np.frombuffer(data, dtype, count=math.prod(shape), offset=file.tell())
    with _no_array(source):
        return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


def _header(file: BinaryIO, size: int, source: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """As `read_header`, of a file of so many bytes, which it must fit."""
    with _no_array(source):
        shape, fortran_order, dtype = read_header(file)
        if dtype.hasobject:
            raise pickled(source)
        promised = math.prod(shape) * dtype.itemsize if dtype.itemsize and min(shape, default=0) >= 0 else -1
        if promised != size - file.tell():
            raise ValueError(f"the header promises {shape} of {dtype}, {size - file.tell()} bytes are there")
        return shape, fortran_order, dtype


@contextmanager
def _no_array(source: str) -> Iterator[None]:
    """Turn what numpy finds wrong with a header into a `RecordingError`."""
    try:
        yield
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
