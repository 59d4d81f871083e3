"""Members of large zip files, found once and read one by one without the zip's directory, which may be megabytes.

Source: PKWARE, APPNOTE.TXT, sections 4.3.7 (local headers) and 4.4.5 (methods).
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, blame_machine

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
STORED, DEFLATED = 0, 8


class Member(NamedTuple):
    """Where a member lies in its zip."""

    offset: int
    """First byte of its local header."""
    packed: int
    size: int
    """Bytes in the file, and unpacked."""
    method: int
    crc32: int


def list_members(path: Path) -> Iterator[tuple[str, Member]]:
    """Yield name and place of every file in a zip, in the order of its directory.

    Raises:
        LayoutError: no whole zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename:  # of which Python 3.11 cannot say whether it is a folder
                    raise zipfile.BadZipFile("a member has no name")
                if not info.is_dir():
                    place = (info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
                    yield info.filename, Member(*place)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        blame_machine(error, str(path))
        raise LayoutError(f"{path}: no whole zip file ({error}). Copy or download it again.") from error


def read_member(path: Path, member: Member, *, source: str, max_bytes: int) -> bytes:
    """Read one member; never more memory is taken than it says, nor more than `max_bytes`.

    Raises:
        RecordingError: cut or changed (`damaged`), of a method that is not read (`format`), or too large (`too_large`).
    """
    if member.size > max_bytes or member.packed > max_bytes:
        raise RecordingError(f"{source}: {member.size:,} bytes; at most {max_bytes:,} are read.", reason="too_large")
    with open(path, "rb") as file:
        start = find_content(file, member.offset, path, source=source)
        there = max(0, os.fstat(file.fileno()).st_size - start)  # no more room is made than the file has bytes
        data = os.pread(file.fileno(), min(member.packed, there), start)
    if member.method == DEFLATED:
        try:
            inflate = zlib.decompressobj(-15)
            data = inflate.decompress(data, member.size + 1)
        except zlib.error as error:
            raise _damaged(source, path, str(error)) from error
    elif member.method != STORED:
        raise RecordingError(
            f"{source}: packed in {path.name} by method {member.method}; stored and deflated members are read. Unpack "
            "the zip and give the folder.",
            reason="format",
        )
    if len(data) != member.size or zlib.crc32(data) != member.crc32:
        raise _damaged(source, path, "its checksum differs")
    return data


def find_content(file: BinaryIO, offset: int, path: Path, *, source: str) -> int:
    """Return where the content of a member begins whose header stands at `offset` of an open zip.

    Raises:
        RecordingError: no header stands there (`damaged`).
    """
    head = os.pread(file.fileno(), LOCAL_HEADER.size, offset) if offset >= 0 else b""
    if len(head) < LOCAL_HEADER.size or not head.startswith(b"PK\x03\x04"):
        raise _damaged(source, path, "no header stands where it begins")
    *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(head)
    return offset + LOCAL_HEADER.size + name_bytes + extra_bytes


def _damaged(source: str, path: Path, what: str) -> RecordingError:
    return RecordingError(f"{source}: damaged in {path.name} ({what}). Copy the zip again.", reason="damaged")
