"""MATLAB files of version 5 (`.mat`, saved by MATLAB 5 to 7.2) that hold numbers, and events out of their columns.

A file is 128 bytes of header, then elements: an 8-byte tag (type, bytes) and the data, either a matrix or a zlib stream
that unpacks to one. A matrix is again a row of elements: flags, dimensions, name, numbers. The fields of a structure
of one element are matrices in it; they go by names such as `TD.x`. Whatever a file says, no more than `MAX_BYTES` are
unpacked, and only matrices of numbers that were asked for are decoded: objects, function handles, cells and strings
never are.

The bytes are read here because scipy.io.loadmat (1.17.1) ends the process on some damaged files, and these data sets
come with damaged files.

Source: MathWorks, "MAT-File Format" (version 5).
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError

HEADER_BYTES, TAG_BYTES = 128, 8
MATRIX, COMPRESSED = 14, 15
NAME, FLAGS, DIMENSIONS = 1, 6, 5
"""Types of the elements before the numbers of a matrix: bytes, unsigned and signed 32-bit numbers."""
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How the numbers of a matrix are stored, by the type of their element."""
STRUCTURE, OPAQUE = 2, 17
DEEPEST = 6
"""Levels of structures in structures that are looked into."""
MOST_FIELDS, MOST_FIELD_NAME = 1000, 256
"""Of a structure: fields, and bytes of a field's name."""
CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", OPAQUE: "opaque"}
NUMERIC_CLASSES = range(6, 16)
"""double, single, int8, uint8, ... uint64."""
COMPLEX = 0x0800
"""Bit of the flags."""
MAX_BYTES = 2**28
"""Most bytes that a file may unpack to: six double columns of 5.6 million events."""

Order = Literal["little", "big"]


def read(data: bytes, names: Sequence[str], *, source: str, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Decode some variables of a file.

    Args:
        data: the whole file.
        names: the variables that are wanted.
        source: file name for messages.
        max_bytes: most bytes that are unpacked.

    Returns:
        The variables by name, in the type in which they are stored; arrays of two or more axes.

    Raises:
        RecordingError: no bytes (`empty`); not such a file, cut, failing its checksum, or without a variable
            (`damaged`); it unpacks to more than `max_bytes` (`too_large`); or a variable holds something else than real
            numbers (`not_numeric`).
    """
    order, found = _variables(data, source, max_bytes)
    if missing := [name for name in names if name not in found]:
        raise damaged(source, f"no variable {', '.join(missing)}; it holds {', '.join(sorted(found)[:8]) or 'none'}")
    return {name: _numbers(found[name], order, source) for name in names}


def names(data: bytes, *, source: str, max_bytes: int = MAX_BYTES) -> list[str]:
    """The names of a file's variables, sorted.

    Raises:
        RecordingError: as `read`.
    """
    return sorted(_variables(data, source, max_bytes)[1])


def _variables(data: bytes, source: str, max_bytes: int) -> tuple[Order, dict[str, _Matrix]]:
    """The byte order of a file, and its variables by name, their numbers not yet looked at."""
    if not data:
        raise RecordingError(f"{source}: 0 bytes; expected a MATLAB file. Copy the file again.", reason="empty")
    if data.startswith((b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3")):
        raise damaged(source, "a file of MATLAB 7.3 (HDF5); expected version 5: save it with save -v7")
    order: Order | None = {b"IM": "little", b"MI": "big"}.get(data[126:HEADER_BYTES])  # type: ignore[assignment]
    if order is None and (other := _other_format(data)):
        raise RecordingError(
            f"{source}: a file of {other}; expected MATLAB 5 or later. Write it again with save -v7.", reason="format"
        )
    if order is None:
        raise damaged(source, f"begins with {data[:8].hex()}; expected a header of 128 bytes that ends in IM or MI")
    found: dict[str, _Matrix] = {}
    for content in _unpack(data, order, source=source, max_bytes=max_bytes):
        matrix = _matrix(content, order, source)
        if matrix.name in found:
            raise damaged(source, f"variable {matrix.name} stands there twice")
        found[matrix.name] = matrix
        if matrix.flags & 0xFF == STRUCTURE:
            for field in _fields(matrix.name, content, order, source):
                found.setdefault(field.name, field)
    return order, found


def _other_format(data: bytes) -> str:
    """Return the name of a format that goes by `.mat`, too: Octave's text, or version 4, whose numbers begin it."""
    if data.startswith(b"# Created by Octave"):
        return "Octave's text"
    for order, thousands in (("<", 0), (">", 1)):
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data.ljust(20, b"\xff"))
        name = data[20 : 20 + max(0, length)]
        plain = kind in range(1000 * thousands, 1000 * thousands + 53) and min(rows, columns) >= 0
        if plain and imaginary in (0, 1) and 1 < length <= 64 and name.endswith(b"\0") and name[:-1].isascii():
            return "MATLAB 4"
    return ""


def _fields(name: str, content: memoryview, order: Order, source: str, *, depth: int = 1) -> Iterator[_Matrix]:
    """The fields of a structure of one element, and of structures in it, as variables; of other structures none."""
    parts = list(_elements(content, order, source))
    shape, length, names = parts[1:2], parts[3:4], parts[4:5]
    if not names or length[0].kind != DIMENSIONS or names[0].kind != NAME or shape[0].kind != DIMENSIONS:
        return
    sizes = [int.from_bytes(shape[0].data[i : i + 4], order, signed=True) for i in range(0, len(shape[0].data), 4)]
    step = int.from_bytes(length[0].data[:4], order)
    if any(size != 1 for size in sizes) or not 0 < step <= MOST_FIELD_NAME or len(names[0].data) > step * MOST_FIELDS:
        return
    fields = [bytes(names[0].data[i : i + step]).split(b"\0")[0] for i in range(0, len(names[0].data), step)]
    if len(parts) != 5 + len(fields):
        raise damaged(source, f"structure {name} of {len(fields)} fields holds {len(parts) - 5}")
    for field, part in zip(fields, parts[5:], strict=True):
        if part.kind == MATRIX and len(part.data):
            inner = f"{name}.{field.decode('latin1')}"
            matrix = _matrix(part.data, order, source)
            yield matrix._replace(name=inner)
            if matrix.flags & 0xFF == STRUCTURE and depth < DEEPEST:
                yield from _fields(inner, part.data, order, source, depth=depth + 1)


class _Element(NamedTuple):
    """Part of a file: its type and its data."""

    kind: int
    data: memoryview


class _Matrix(NamedTuple):
    """A variable, its numbers not yet looked at."""

    name: str
    flags: int
    shape: tuple[int, ...]
    parts: list[_Element]


def _unpack(data: bytes, order: Order, *, source: str, max_bytes: int) -> Iterator[memoryview]:
    """Data of the matrices of a file; every zlib stream is unpacked to its end, so that its checksum is checked."""
    room = max_bytes
    for element in _elements(memoryview(data)[HEADER_BYTES:], order, source, padded=False):
        matrix = element
        if element.kind == COMPRESSED:
            inflate = zlib.decompressobj()
            try:
                content = inflate.decompress(element.data, room + 1)
            except zlib.error as error:
                raise damaged(source, f"a compressed variable fails its check ({error})") from error
            room -= len(content)
            if room < 0:
                raise RecordingError(
                    f"{source}: unpacks to more than {max_bytes} bytes; expected one recording. Is the file what it "
                    "says?",
                    reason="too_large",
                )
            if not inflate.eof:
                raise damaged(source, "a compressed variable is cut")
            matrix = next(_elements(memoryview(content), order, source), element)
        if matrix.kind != MATRIX:
            raise damaged(source, f"an element of type {matrix.kind}; expected matrices")
        yield matrix.data


def _elements(data: memoryview, order: Order, source: str, *, padded: bool = True) -> Iterator[_Element]:
    """The elements that lie one behind the other, each on a multiple of 8 bytes inside a matrix."""
    position = 0
    while position < len(data):
        tag = data[position : position + TAG_BYTES]
        kind = int.from_bytes(tag[:4], order)
        small = kind >> 16  # up to 4 bytes of data lie in the tag itself
        size = small or int.from_bytes(tag[4:], order)
        start = position + (4 if small else TAG_BYTES)
        if len(tag) < TAG_BYTES or start + size > len(data) or small > 4:
            raise damaged(source, f"a part needs {size} bytes, {max(0, len(data) - start)} are left")
        yield _Element(kind & 0xFFFF if small else kind, data[start : start + size])
        position = position + TAG_BYTES if small else start + size + (-size % 8 if padded else 0)


def _matrix(content: memoryview, order: Order, source: str) -> _Matrix:
    """Split a variable; of what is no matrix of numbers, only the name is looked at."""
    parts = _elements(content, order, source)
    flags, shape, name = (next(parts, _Element(0, memoryview(b""))) for _ in range(3))
    if flags.kind != FLAGS or len(flags.data) != 8:
        raise damaged(source, "a variable without flags")
    word = int.from_bytes(flags.data[:4], order)
    if word & 0xFF not in NUMERIC_CLASSES:
        named = shape if word & 0xFF == OPAQUE else name  # an opaque object has no dimensions
        return _Matrix(bytes(named.data).decode("latin1"), word, (), [])
    if shape.kind != DIMENSIONS or name.kind != NAME or len(shape.data) % 4 or len(shape.data) < 8:
        raise damaged(source, "a variable without dimensions or name")
    sizes = tuple(int.from_bytes(shape.data[i : i + 4], order, signed=True) for i in range(0, len(shape.data), 4))
    return _Matrix(bytes(name.data).decode("latin1"), word, sizes, list(parts))


def _numbers(matrix: _Matrix, order: Order, source: str) -> NDArray[Any]:
    kind = matrix.flags & 0xFF
    if kind not in NUMERIC_CLASSES or matrix.flags & COMPLEX:
        what = "complex numbers" if kind in NUMERIC_CLASSES else f"the class {CLASSES.get(kind, kind)}"
        raise RecordingError(
            f"{source}: variable {matrix.name} is of {what}; expected real numbers.", reason="not_numeric"
        )
    if len(matrix.parts) != 1 or matrix.parts[0].kind not in NUMBERS or min(matrix.shape) < 0:
        raise damaged(source, f"variable {matrix.name} of shape {matrix.shape} without numbers")
    stored = np.dtype(NUMBERS[matrix.parts[0].kind]).newbyteorder("<" if order == "little" else ">")
    if math.prod(matrix.shape) * stored.itemsize != len(matrix.parts[0].data):
        raise damaged(
            source, f"variable {matrix.name} of shape {matrix.shape} with {len(matrix.parts[0].data)} bytes of numbers"
        )
    try:
        values = np.frombuffer(matrix.parts[0].data, stored).reshape(matrix.shape, order="F")
    except ValueError as error:  # no numbers, but sizes or axes beyond numpy's
        raise damaged(source, f"variable {matrix.name}: {error}") from error
    return values if order == sys.byteorder else values.astype(stored.newbyteorder("="))


def damaged(source: str, detail: str) -> RecordingError:
    """Return the error of a file that is damaged, or no MATLAB file."""
    return RecordingError(f"{source}: damaged or not a recording ({detail}). Copy it again.", reason="damaged")
