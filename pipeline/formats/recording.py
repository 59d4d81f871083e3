"""Events from a file of any format that can be read, chosen by its first bytes, or by its ending.

A file in gzip (`.bin.gz`, `.csv.gz`) is unpacked as it is read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.containers.packed import allowed
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40, event_stream
from spikebridge.pipeline.formats.aedat import aedat2, aedat3, aedat4
from spikebridge.pipeline.formats.decoded import Decoded, Stream
from spikebridge.pipeline.formats.prophesee import dat, evt
from spikebridge.pipeline.formats.source import BLOCK_BYTES, HEAD_BYTES, Source
from spikebridge.pipeline.formats.tables import hdf5_files, mat_events, numpy_files, text
from spikebridge.pipeline.formats.tables.columns import DEFAULT, TableOptions

TEXT = ".txt"
"""Ending of recordings, and of much else."""
GZIP = b"\x1f\x8b"
KEPT_BYTES = 2**26
"""Bytes that a file in gzip may unpack to and be kept in memory."""
HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_STARTS = (0, 512, 1024, 2048)
"""Where the signature of HDF5 may stand, behind what a program puts before it (MATLAB: 512 bytes)."""


DECODERS: dict[str, Callable[[Source, TableOptions], Stream]] = {
    "bin40": lambda source, options: bin40.stream(source),
    "aedat2": lambda source, options: aedat2.stream(source),
    "aedat3": lambda source, options: aedat3.stream(source),
    "evt": lambda source, options: evt.stream(source),
    "dat": lambda source, options: dat.stream(source),
    "event_stream": lambda source, options: event_stream.stream(source),
    "text": text.stream,
}
"""How the bytes of a recording are decoded, by format."""
OF_PATHS: dict[str, Callable[[Path, TableOptions], Stream]] = {
    "aedat4": lambda path, options: aedat4.stream(path),
    "hdf5": hdf5_files.stream,
    "mat": lambda path, options: Stream.of(partial(mat_events.decode, path, options)),
    "npy": numpy_files.stream_npy,
    "npz": numpy_files.stream_npz,
}
"""Likewise, of formats whose libraries take a path."""
FORMATS: dict[str, str] = {
    ".bin": "bin40",
    ".bs2": "bin40",
    ".aedat": "aedat2",
    ".aedat4": "aedat4",
    ".mat": "mat",
    ".raw": "evt",
    ".dat": "dat",
    ".es": "event_stream",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npy": "npy",
    ".npz": "npz",
    ".csv": "text",
    ".txt": "text",
    ".bin.gz": "bin40",
    ".bs2.gz": "bin40",
    ".dat.gz": "dat",
    ".csv.gz": "text",
    ".txt.gz": "text",
}
"""Decoder of each ending, in lower case."""
SIZES: dict[str, Callable[[Path, bytes], tuple[int, int] | None]] = {
    "aedat2": lambda path, head: aedat2.stream(Source.of_file(path)).sensor_size,
    "aedat3": lambda path, head: aedat3.sensor_size(Source.of_file(path)),
    "aedat4": lambda path, head: aedat4.sensor_size(path),
    "evt": lambda path, head: evt.parse_header(head, path.name).sensor_size,
    "dat": lambda path, head: dat.sensor_size(head, path.name),
    "event_stream": lambda path, head: event_stream.sensor_size(head, path.name),
    "hdf5": lambda path, head: hdf5_files.sensor_size(path),
    "text": lambda path, head: text.sensor_size(head),
}
"""How to learn the sensor's size, from a file's path and first bytes; other formats never state it."""
MAGIC: dict[bytes, str] = {
    b"#!AER-DAT4": "aedat4",
    b"#!AER-DAT3": "aedat3",
    b"#!AER-DAT": "aedat2",
    event_stream.MAGIC: "event_stream",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    HDF5: "hdf5",
    b"MATLAB 5.0": "mat",
}
"""Decoders by the first bytes of a file, whatever its ending; the longest match counts."""
BAGS = {b"#ROSBAG V": "ROS 1 bag", b"\x89MCAP0\r\n": "ROS 2 bag (mcap)", b"SQLite format 3\0": "ROS 2 bag (db3)"}
"""First bytes of containers of messages, which are not read."""
INSTEAD = {
    "a web page": (
        re.compile(rb"\s*(\xef\xbb\xbf)?\s*(<!doctype html|<html)", re.I),
        "Its site may ask you to sign in.",
    ),
    "a pointer of Git LFS": (re.compile(rb"version https://git-lfs"), "git lfs pull fetches what it stands for."),
    "a pointer of git-annex": (re.compile(rb"\S*[./]git/annex/objects/|/annex/objects/"), "git annex get fetches it."),
}
"""What downloads leave in place of a file, how its first bytes look, and what to do."""
PROPHESEE = re.compile(rb"% ?[A-Za-z][^\0\n]*\n%? ?[A-Za-z%]")
"""First bytes of a text header of Prophesee's, of two lines; no records of five bytes look like that."""
HEADERLESS = ("bin40",)
"""Formats without a header: their first bytes may look like anything short."""


def ending(path: Path) -> str:
    """Return the ending of a file in lower case: the last one, with the one before it where the file is packed."""
    rest, last = _split(path.name.lower())
    return _split(rest)[1] + last if last == ".gz" else last


def _split(name: str) -> tuple[str, str]:
    """Return a name without its last ending, and that: as pathlib does, in a tenth of the time."""
    rest, dot, last = name.rpartition(".")
    return (rest, dot + last) if rest and last else (name, "")


def stem(path: Path) -> str:
    """Return the name of a file without its `ending`."""
    return path.name[: len(path.name) - len(ending(path))]


def is_recording(path: Path) -> bool:
    """Return whether a file is taken for a recording: of a known ending and not hidden; a `.txt` must hold numbers."""
    kind = FORMATS.get(ending(path))
    if kind is None or path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() != TEXT:
        return True
    with open(path, "rb") as file:
        return text.looks_like_text(file.read(HEAD_BYTES))


def list_recordings(path: Path) -> list[Path]:
    """List the recordings below a folder, in order; a file stands for itself, whatever its ending.

    Raises:
        LayoutError: no such file, or a folder without recordings.
    """
    if not path.is_dir():
        if path.exists():
            return [path]
        raise LayoutError(f"{path}: no such file; expected a recording, or a folder of recordings.")
    found = sorted(one for one in path.rglob("*") if is_recording(one))
    if not found:
        raise LayoutError(f"{path}: no recording below it; expected files ending in {', '.join(FORMATS)}.")
    return found


def read(path: Path, options: TableOptions = DEFAULT) -> Events:
    """Read the events of a recording; not yet checked, and t not shifted; what was passed over and doubted with them.

    Raises:
        RecordingError: as `decode`.
    """
    return decode(path, options).annotated()


def decode(path: Path, options: TableOptions = DEFAULT) -> Decoded:
    """Decode a recording at once: its events, and the facts about its file.

    Args:
        path: the file.
        options: of the user, for files whose columns leave their meaning open.

    Raises:
        RecordingError: no known format (`format`), or a file that is not a whole recording.
    """
    return stream(path, options).decoded()


def stream(path: Path, options: TableOptions = DEFAULT) -> Stream:
    """Return a recording that is decoded in chunks where its format allows it; arguments and errors as `decode`."""
    source = Source.of_file(path)
    if not source.size:
        raise RecordingError(f"{path.name}: 0 bytes; expected a recording. Copy the file again.", reason="empty")
    if source.head.startswith(GZIP) and FORMATS.get(path.suffix.lower()) not in HEADERLESS:
        source = _unpacked(path)
    name = kind_of(source.head, path)
    if name in DECODERS:
        return DECODERS[name](source, options)
    if source.path is None or source.packed:
        raise RecordingError(f"{path.name}: a {name} file in gzip. Unpack it with gunzip first.", reason="format")
    return OF_PATHS[name](path, options)


def kind_of(head: bytes, path: Path) -> str:
    """Return the name of the decoder for a file, a key of `DECODERS` or `OF_PATHS`.

    Args:
        head: its first `HEAD_BYTES` bytes, unpacked.
        path: for its ending and for messages.

    Raises:
        RecordingError: a container that is not read, what a download left in place of a file, or nothing that is known
            (`format`).
    """
    for magic, what in BAGS.items():
        if head.startswith(magic):
            raise RecordingError(
                f"{path.name}: a {what}, which is not read. Convert it: event_utils (rosbag_to_h5.py) for messages of "
                "dvs_msgs, event_camera_tools (bag_to_raw) for those of event_camera_msgs.",
                reason="format",
            )
    for instead, (looks, advice) in INSTEAD.items():
        if looks.match(head):
            raise RecordingError(
                f"{path.name}: {instead} in place of a recording: the file itself was never downloaded. {advice}",
                reason="format",
            )
    by_ending = FORMATS.get(ending(path))
    for magic, name in MAGIC.items():
        if head.startswith(magic) and not (by_ending in HEADERLESS and len(magic) < 6):
            return "hdf5" if name == "mat" and _is_hdf5(head) else name
    if _is_hdf5(head):
        return "hdf5"
    if by_ending in HEADERLESS and not PROPHESEE.match(head):
        return by_ending
    if head.startswith(b"%") and by_ending in ("evt", "dat", *HEADERLESS, None):
        return "evt" if by_ending == "evt" or b"% evt " in head or b"% format EVT" in head else "dat"
    if by_ending in ("dat", None) and text.looks_like_text(head):
        return "text"
    if by_ending is None:
        raise RecordingError(f"{path.name}: no known recording; expected one of {', '.join(FORMATS)}.", reason="format")
    return by_ending


def sensor_size(path: Path) -> tuple[int, int] | None:
    """Return (W, H) as the file states it, or None where it does not.

    Nothing but headers is read, except of AEDAT 2.0 without a line that names the camera.

    Raises:
        RecordingError: its header cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(GZIP):
        head = b"".join(_inflated(path, most=HEAD_BYTES))[:HEAD_BYTES]
    look = SIZES.get(kind_of(head, path))
    return look(path, head) if look else None


def _is_hdf5(head: bytes) -> bool:
    return any(head[start : start + len(HDF5)] == HDF5 for start in HDF5_STARTS)


def _unpacked(path: Path) -> Source:
    """Return the content of a gzip file: in memory, or unpacked anew in every pass where it is long.

    Raises:
        RecordingError: as `_inflated`.
    """
    parts, size = list[bytes](), 0
    for part in _inflated(path):
        size += len(part)
        parts = [*parts, part] if size <= KEPT_BYTES else []
    return (
        Source.of_bytes(b"".join(parts), path.name)
        if size <= KEPT_BYTES
        else Source(path.name, size, path, packed=True)
    )


def _inflated(path: Path, most: int | None = None) -> Iterator[bytes]:
    """Yield the content of a gzip file in parts, or no more of it than it needs for its first bytes.

    Raises:
        RecordingError: damaged or cut (`damaged`, `truncated`), or unpacking to far more than a recording
            (`too_large`).
    """
    room = allowed(path.stat().st_size) if most is None else most
    inflate, inside = zlib.decompressobj(31), False
    try:
        with open(path, "rb") as file:
            while data := file.read(BLOCK_BYTES):
                full = False  # more may come of what was read already
                while data or full:
                    inside = True
                    part = inflate.decompress(data, BLOCK_BYTES)
                    room -= len(part)
                    if room < 0 and most is None:
                        raise RecordingError(
                            f"{path.name}: unpacks to far more than a recording of its size. Is the file what it says?",
                            reason="too_large",
                        )
                    yield part
                    if room <= 0 and most is not None:
                        return
                    data, full = inflate.unconsumed_tail, len(part) == BLOCK_BYTES
                    if inflate.eof:
                        data, inflate, inside, full = inflate.unused_data, zlib.decompressobj(31), False, False
    except zlib.error as error:
        raise RecordingError(f"{path.name}: damaged gzip ({error}). Copy it again.", reason="damaged") from error
    if inside:
        raise RecordingError(f"{path.name}: truncated, its gzip stream has no end. Copy it again.", reason="truncated")
