"""Everything that parses files from elsewhere, as functions of bytes, with valid files to start from.

A target returns for what it can read and for what it refuses properly; any other exception is a finding.
"""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from ecf_chunks import WAYS
from ecf_chunks import encode as ecf_chunk
from event_files import (
    EVT21_HEADER,
    aedat3,
    aedat3_packet,
    dat,
    davis_aedat2,
    event_stream,
    evt21,
    text_lines,
    write_aedat4,
)
from PIL import Image

from spikebridge.pipeline.base.errors import PipelineError, RecordingError, SettingsError, ShardSetError
from spikebridge.pipeline.base.files import HashedFile
from spikebridge.pipeline.checks.leaks import StaticContent
from spikebridge.pipeline.checks.samples import Layout, read_metadata, walk_hdf5, walk_tar
from spikebridge.pipeline.checks.verify import DAMAGE
from spikebridge.pipeline.containers import cifar, idx, lz4, mat, zip_members
from spikebridge.pipeline.containers.packed import unpacked_at_most
from spikebridge.pipeline.datasets.tables import read_class_map, read_labels, read_pairs
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats import bin40, recording
from spikebridge.pipeline.formats.aedat import aedat2, aedat4
from spikebridge.pipeline.formats.decoded import Decoded, Stream
from spikebridge.pipeline.formats.source import Source
from spikebridge.pipeline.formats.tables import ecf_kernel, hdf5_files, mat_events, numpy_files
from spikebridge.pipeline.images.decode import decode_image
from spikebridge.pipeline.readers import nomniglot
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.codec import gzip, unpack
from spikebridge.pipeline.shards.reader import read_index
from spikebridge.pipeline.shards.static_pool import StaticImages, write_static
from spikebridge.pipeline.shards.writer import Sample, write_shard
from spikebridge.pipeline.simulation.fitted import read_camera

EVENTS = Events(
    np.arange(40, dtype=np.int64) * 97,
    (np.arange(40) * 7 % 34).astype(np.int32),
    (np.arange(40) * 5 % 34).astype(np.int32),
    (np.arange(40) % 2).astype(np.uint8),
)
COLUMNS = {"t": EVENTS.t, "x": EVENTS.x, "y": EVENTS.y, "p": EVENTS.p}
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
LAYOUT = Layout((2, 2, 3, 3), np.dtype("u1"), "raw")


def zipped(method: int) -> bytes:
    """A zip of two members, stored (0) or deflated (8)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in ("a.npz", "b/c.npz"):
            archive.writestr(name, bytes(50))
    return buffer.getvalue()


def members(path: Path) -> None:
    """Read every member of a zip."""
    for name, member in zip_members.list_members(path):
        zip_members.read_member(path, member, source=name, max_bytes=2**20)


def user_tables(path: Path) -> None:
    """Read a table of labels, and the same file as one of class names and one of pairs."""
    for read in (
        lambda path: read_labels(path, []),
        lambda path: read_class_map(path, classes="ab", image_classes="ab"),
        read_pairs,
    ):
        with suppress(SettingsError):
            read(path)


class Target(NamedTuple):
    """A parser.

    Args:
        run: feeds it bytes.
        seeds: valid files.
    """

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def in_a_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of paths as one of bytes."""

    def run(data: bytes) -> object:
        path = FOLDER / name
        path.write_bytes(data)
        return read(path)

    return run


def checked(read: Callable[..., Events]) -> Callable[..., object]:
    """A reader of events with the checks that every recording passes behind it."""
    return lambda *where: pack(read(*where), sensor_size=(1280, 720), source="x")


def decoded(kind: str) -> Callable[[bytes], object]:
    """A decoder of bytes, by its name in `recording`, with the checks behind it."""
    stream = recording.DECODERS[kind]
    return checked(lambda data: stream(Source.of_bytes(data, "x"), recording.DEFAULT).decoded().annotated())


def read_from(decode: Callable[[Path], Decoded | Stream]) -> Callable[..., object]:
    """A decoder of paths with the checks behind it."""

    def read(path: Path) -> object:
        found = decode(path)
        return (found.decoded() if isinstance(found, Stream) else found).annotated()

    return checked(read)


def ecf(data: bytes) -> None:
    """Decode a chunk; nothing may be written behind the room that there is."""
    columns = [np.full(len(EVENTS) + 8, 7, column.dtype) for column in EVENTS.columns]
    count = ecf_kernel.decode(np.frombuffer(data, np.uint8), *(column[:-8] for column in columns))
    assert all((column[-8:] == 7).all() for column in columns)
    if count < 0:
        raise RecordingError("a damaged chunk", reason="damaged")
    assert count <= len(EVENTS)


def lz4_frame(data: bytes) -> None:
    """Unpack a frame; likewise."""
    room = np.full(unpacked_at_most(data) + lz4.MARGIN + 8, 7, np.uint8)
    try:
        lz4.unpack(data, room[:-8])
    except ValueError as error:
        raise RecordingError(str(error), reason="damaged") from error
    finally:
        assert (room[-8:] == 7).all()


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def hdf5_columns() -> bytes:
    def save(file: io.BytesIO) -> None:
        with h5py.File(file, "w") as h5:
            for name, column in COLUMNS.items():
                h5[f"events/{name}"] = column

    return saved(save)


def structured() -> np.ndarray:
    array = np.empty(40, [("t", "<i8"), ("x", "<i4"), ("y", "<i4"), ("p", "u1")])
    for name, column in COLUMNS.items():
        array[name] = column
    return array


def table() -> np.ndarray:
    """[N,4] in seconds, as MVSEC and EST have it."""
    return np.column_stack([EVENTS.x, EVENTS.y, EVENTS.t / 1e6, 2.0 * EVENTS.p - 1])


def matlab(packed: bool, table: bool = False) -> bytes:
    """The columns as variables of a `.mat` file, or as the table `out1`."""

    def element(kind: int, data: bytes) -> bytes:
        return np.array([kind, len(data)], "<u4").tobytes() + data + bytes(-len(data) % 8)

    variables = []
    columns = {name: column[:, None] for name, column in COLUMNS.items()}
    for name, column in ({"out1": np.hstack(list(columns.values()))} if table else columns).items():
        numbers = column.astype("<f8").T
        body = element(6, np.array([6, 0], "<u4").tobytes()) + element(5, np.array(column.shape, "<i4").tobytes())
        matrix = element(14, body + element(1, name.encode()) + element(9, numbers.tobytes()))
        deflated = zlib.compress(matrix)
        variables.append(np.array([15, len(deflated)], "<u4").tobytes() + deflated if packed else matrix)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"".join(variables)


def shard_files(ending: str) -> tuple[bytes, bytes]:
    """A shard and its index."""
    digest = "0" * 64
    samples = [
        Sample(
            f"train-0-{i}", 0, np.full((2, 2, 3, 3), i, np.uint8), f'{{"events_sha256": "{digest}", "static": null}}'
        )
        for i in range(2)
    ]
    write_shard(FOLDER / f"seed.{ending}", samples, shape=(2, 2, 3, 3), dtype=np.dtype("u1"), key_bytes=9)
    return (FOLDER / f"seed.{ending}").read_bytes(), (FOLDER / "seed.idx.npy").read_bytes()


TAR, INDEX = shard_files("tar")
(FOLDER / "seed.idx.npy").rename(FOLDER / "known.tar.npy")
HDF5, _ = shard_files("h5")
(FOLDER / "seed.idx.npy").rename(FOLDER / "known.h5.npy")


def walk(path: Path) -> object:
    index = read_index(FOLDER / f"known{path.suffix}.npy")
    with HashedFile(path) as file:
        tarred = path.suffix == ".tar"
        samples = walk_tar(file, index, LAYOUT, name=path.name) if tarred else walk_hdf5(path, index, LAYOUT)
        return read_metadata(samples, index, name=path.name)


def static_file() -> bytes:
    static = StaticImages.sort(
        np.arange(75, dtype=np.uint8).reshape(3, 1, 5, 5),
        labels=[0, 1, 1],
        keys=["static-0-a", "static-1-b", "static-1-c"],
        roles=["pool", "pool", "test"],
        pixels_sha256=np.zeros((3, 32), np.uint8),
        num_classes=2,
    )
    write_static(FOLDER / "seed.h5", static)
    return (FOLDER / "seed.h5").read_bytes()


def damaged_is_refused(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A part of `verify`, which takes these errors for damage."""

    def run(path: Path) -> object:
        try:
            return read(path)
        except DAMAGE as error:
            raise ShardSetError(str(error)) from error

    return run


def picture(format_: str) -> bytes:
    pixels = np.arange(99 * 3, dtype=np.uint8).reshape(9, 11, 3)
    return saved(lambda file: Image.fromarray(pixels).save(file, format_))


def decode_quietly(data: bytes) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it can read all the same
        return decode_image(data, source="x")


def unpacked(data: bytes) -> object:
    try:
        return unpack(data, 100)
    except ValueError:
        return None


def manifest(data: bytes) -> object:
    (FOLDER / "set").mkdir(exist_ok=True)
    (FOLDER / "set" / manifests.MANIFEST).write_bytes(data)
    return manifests.read(FOLDER / "set")


def cifar_batch() -> bytes:
    return bytes([3]) + bytes(range(256)) * 12


def aedat4_file(compression: str) -> bytes:
    write_aedat4(FOLDER / "seed.aedat4", EVENTS, compression=compression)
    return (FOLDER / "seed.aedat4").read_bytes()


def idx_file() -> bytes:
    idx.write(FOLDER / "seed-idx3-ubyte", np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    return (FOLDER / "seed-idx3-ubyte").read_bytes()


EVT2 = b"% evt 2.0\n% geometry 640x480\n" + np.array([8 << 28 | 5, 1 << 28 | 3 << 22 | 9 << 11 | 4], "<u4").tobytes()
EVT3 = (
    b"% evt 3.0\n% end\n" + np.array([8 << 12 | 1, 6 << 12 | 2, 7, 2 << 12 | 9, 3 << 12 | 4, 4 << 12], "<u2").tobytes()
)
CAMERA = b"""sensor = [34, 34]
duration_us = 250000
inverted = false
free = false
[[legs]]
x = 4.4
y = 1.6
start = 0.05
duration = 0.3
[microseconds]
gamma = 0.9
dark_level = 0.09
threshold_on = 0.19
threshold_off = 0.16
threshold_spread = 0.06
bandwidth_hz = 420.0
refractory_us = 800
leak_hz = 0.15
shot_hz = 0.06
shown_fraction = 0.9
x_offset_px = 0.8
y_offset_px = -1.9
"""
LZ4_FRAME, LZ4_SIZED = lz4.LZ4 + b"\x40\x40\xc0", lz4.LZ4 + b"\x48\x40" + (27).to_bytes(8, "little") + b"\0"
LZ4_BLOCKS = (  # eight literals, 14 bytes of them again, two literals; three bytes as they are
    b"\x0e\0\0\0\x8aabcdefgh\x08\0\x20xy" + b"\x03\0\0\x80abc" + bytes(4)
)
TABLE = "index,start,end\n0,5,9\n1,9,12\n"
TARGETS = {
    "aedat2": Target(decoded("aedat2"), (aedat2.encode(EVENTS), davis_aedat2(EVENTS, others=True))),
    "aedat3": Target(decoded("aedat3"), (aedat3(EVENTS), aedat3(EVENTS) + aedat3_packet(2, 36, bytes(72)))),
    "aedat4": Target(in_a_file("a.aedat4", read_from(aedat4.decode)), tuple(map(aedat4_file, ("LZ4", "ZSTD", "NONE")))),
    "bin40": Target(lambda data: bin40.decode_packed(data, sensor_size=(34, 34), source="x"), (bin40.encode(EVENTS),)),
    "camera": Target(in_a_file("camera.toml", read_camera), (CAMERA,)),
    "cifar": Target(in_a_file("data_batch_1", cifar.read), (b"\x80\x02}q\x00.",)),
    "cifar_bin": Target(in_a_file("data_batch_1.bin", cifar.read), (cifar_batch(),)),
    "dat": Target(decoded("dat"), (dat(EVENTS), dat(EVENTS, layout=1, version=1))),
    "ecf": Target(ecf, tuple(ecf_chunk(EVENTS, way) for way in WAYS)),
    "event_stream": Target(decoded("event_stream"), (event_stream(EVENTS), event_stream(EVENTS, atis=True))),
    "evt": Target(decoded("evt"), (EVT2, EVT21_HEADER + evt21(EVENTS), EVT3)),
    "gzip": Target(
        in_a_file("a.txt.gz", checked(recording.read)),
        (gzip(text_lines(EVENTS)), gzip(text_lines(EVENTS, seconds=False))),
    ),
    "hdf5": Target(in_a_file("a.h5", read_from(hdf5_files.stream)), (hdf5_columns(),)),
    "idx": Target(in_a_file("a-idx3-ubyte", idx.read), (idx_file(),)),
    "image": Target(decode_quietly, tuple(map(picture, ("PNG", "JPEG", "GIF", "BMP", "TIFF")))),
    "lz4": Target(lz4_frame, (LZ4_FRAME + LZ4_BLOCKS, LZ4_SIZED + LZ4_BLOCKS)),
    "mat": Target(lambda data: mat.read(data, ["t", "x"], source="x"), (matlab(packed=True), matlab(packed=False))),
    "mat_events": Target(
        in_a_file("a.mat", read_from(mat_events.decode)),
        (matlab(packed=True), matlab(packed=False), matlab(packed=True, table=True), matlab(packed=False, table=True)),
    ),
    "nomniglot_table": Target(in_a_file("0001.csv", nomniglot.read_windows), (TABLE.encode(),)),
    "npy": Target(
        in_a_file("a.npy", read_from(numpy_files.stream_npy)),
        (saved(lambda file: np.save(file, structured())), saved(lambda file: np.save(file, table()))),
    ),
    "npz": Target(
        in_a_file("a.npz", read_from(numpy_files.stream_npz)),
        (saved(lambda f: np.savez(f, **COLUMNS)), saved(lambda f: np.savez_compressed(f, **COLUMNS))),
    ),
    "shard_codec": Target(unpacked, (gzip(bytes(100)), zlib.compress(bytes(100)))),
    "shard_hdf5": Target(in_a_file("b.h5", damaged_is_refused(walk)), (HDF5,)),
    "shard_index": Target(in_a_file("b.idx.npy", read_index), (INDEX,)),
    "shard_manifest": Target(manifest, (manifests.dump(manifests.seal({"schema": 1})),)),
    "shard_static": Target(in_a_file("static.h5", damaged_is_refused(StaticContent.read)), (static_file(),)),
    "shard_tar": Target(in_a_file("b.tar", walk), (TAR,)),
    "user_tables": Target(
        in_a_file("a.csv", user_tables),
        (b"file,label,start,end\na,b,0,9\n", b"static,event\na,b\n", b"recording,image\na,b\nc,\n"),
    ),
    "zip_members": Target(in_a_file("a.zip", members), (zipped(0), zipped(8))),
    "text": Target(decoded("text"), (text_lines(EVENTS), b"x,y,p,t\n1,2,0,5\n3,4,1,9\n")),
}
FRAGILE = ("hdf5", "shard_hdf5", "shard_static")
"""Parsed by a C library that damaged bytes can end; left to `make fuzz`, which runs them in a process of their own."""


def check(name: str, data: bytes) -> bool:
    """Feed a target; True when it could read the bytes, False when it refused them as it should."""
    try:
        TARGETS[name].run(data)
    except PipelineError:
        return False
    return True
