"""Small files that unpack to gigabytes: refused, in a process that may not take much memory."""

import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, make_events
from event_files import write_aedat4
from hypothesis import given
from hypothesis import strategies as st
from memory import peak_bytes

from spikebridge.pipeline.containers.packed import LZ4, ZSTD, unpacked_at_most
from spikebridge.pipeline.shards.writer import npy_header

GIB = 2**30
ROOM = 768 * 2**20
"""Bytes that a reader may map beyond what the imported packages take."""


def deflated(size, wbits):
    """A DEFLATE stream of zeros, made of one part over and over; its closing checksum is wrong."""
    part = 2**24
    packer = zlib.compressobj(9, wbits=wbits)
    first = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (size // part - 1) + packer.flush()


def npz(path, *, size, claimed):
    """An archive whose column `t` unpacks to `size` bytes and says `claimed`."""
    header = npy_header((claimed // 8,), np.dtype("<i8"))
    name, raw = b"t.npy", deflated(size, -15)
    packed = zlib.compressobj(9, wbits=-15)
    body = packed.compress(header) + packed.flush(zlib.Z_FULL_FLUSH) + raw
    sizes = struct.pack("<III", 0, len(body), min(claimed + len(header), 2**32 - 1))
    local = b"PK\3\4" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", len(name), 0) + name
    entry = b"PK\1\2" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
    entry += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local) + len(body), 0)
    path.write_bytes(local + body + entry + end)
    assert zipfile.ZipFile(path).namelist() == ["t.npy"]


def mat(path, *, size):
    packed = deflated(size, 15)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed)


def zstd_frame(size):
    """A frame of blocks that each repeat a byte 128 Ki times."""
    blocks = size // 2**17
    body = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (2**17 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return ZSTD + b"\x00\x58" + body * (blocks - 1) + last


def lz4_frame(size):
    """A frame of blocks that each repeat a byte for 4 MiB; its header's checksum is made up."""
    more = (2**22 - 5 - 1 - 19) // 255
    block = b"\x1fa\1\0" + b"\xff" * more + bytes([2**22 - 5 - 1 - 19 - 255 * more]) + b"\x50aaaaa"
    one = len(block).to_bytes(4, "little") + block
    return LZ4 + b"\x60\x70\x73" + one * (size // 2**22) + bytes(4)


def aedat4(path, frame, *, compression):
    """A recording whose first packet of events is another frame."""
    write_aedat4(path, make_events(0), compression=compression)
    data = path.read_bytes()
    at = data.index(ZSTD if compression == "ZSTD" else LZ4)
    length = int.from_bytes(data[at - 4 : at], "little")
    new = data[: at - 4] + len(frame).to_bytes(4, "little") + frame + data[at + length :]
    # The position of the table of packets moves by the difference.
    table, grown = data.index(struct.pack("<q", _table(data))), len(frame) - length
    path.write_bytes(new[:table] + struct.pack("<q", _table(data) + grown) + new[table + 8 :])


def _table(data):
    from spikebridge.pipeline.formats.aedat.aedat4 import MAGIC, _table_position

    start = len(MAGIC) + 4
    return _table_position(data[start : start + int.from_bytes(data[start - 4 : start], "little")], Path("x"))


def hdf5(path):
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file.create_dataset(name, shape=(GIB // 2,), dtype="<i8", chunks=(2**16,), compression="gzip")


CHILD = """
import resource, sys
import numpy, h5py, aedat, zipfile
from memory import peak_bytes
from pathlib import Path
from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.containers import idx, mat, npy
from spikebridge.pipeline.formats import recording

def read(path):
    if path.suffix == ".mat":
        return mat.read(path.read_bytes(), ["x"], source=path.name)
    if path.suffix == ".gz":
        return idx.read(path)
    if path.name.startswith("named"):
        return npy.read_npz(path, names=["t"], max_bytes=2**26)
    return recording.read(path)

taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[2]),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read(path)
        print(path.name, "read")
    except RecordingError as error:
        print(path.name, error.reason)
    except LayoutError:
        print(path.name, "refused")
print("peak", peak_bytes())
"""


def test_recordings_that_unpack_to_gigabytes(tmp_path):
    npz(tmp_path / "honest.npz", size=2 * GIB, claimed=2 * GIB)
    npz(tmp_path / "named.npz", size=2 * GIB, claimed=2**25)
    npz(tmp_path / "liar.npz", size=2 * GIB, claimed=80)
    mat(tmp_path / "bomb.mat", size=2 * GIB)
    aedat4(tmp_path / "zstd.aedat4", zstd_frame(4 * GIB), compression="ZSTD")
    aedat4(tmp_path / "lz4.aedat4", lz4_frame(2 * GIB), compression="LZ4")
    hdf5(tmp_path / "empty.h5")
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(deflated(2 * GIB, 31))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert max(sizes.values()) < 10 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(ROOM)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, peak = done.stdout.splitlines()
    assert dict(line.split() for line in lines) == {
        "honest.npz": "too_large",
        "named.npz": "damaged",
        "liar.npz": "damaged",
        "bomb.mat": "too_large",
        "zstd.aedat4": "too_large",
        "lz4.aedat4": "too_large",
        "empty.h5": "too_large",
        "images-idx3-ubyte.gz": "refused",
    }
    assert int(peak.split()[1]) < GIB


@pytest.mark.parametrize(("compression", "magic"), [("ZSTD", ZSTD), ("LZ4", LZ4), ("LZ4_HIGH", LZ4)])
def test_honest_frames_are_bounded_from_above_and_not_by_much(tmp_path, compression, magic):
    write_aedat4(tmp_path / "a.aedat4", make_events(0, count=20_000), compression=compression, packet=20_000)
    data = (tmp_path / "a.aedat4").read_bytes()
    at = data.index(magic)
    packet = data[at : at + int.from_bytes(data[at - 4 : at], "little")]
    assert 16 * 20_000 <= unpacked_at_most(packet) < 16 * 20_000 + 2**18
    assert unpacked_at_most(packet + packet) == 2 * unpacked_at_most(packet)
    assert unpacked_at_most(b"plain" + packet) == 5 + len(packet)


@given(st.sampled_from([ZSTD, LZ4, b""]), st.binary(max_size=400))
def test_bounds_of_anything_end(magic, data):
    assert unpacked_at_most(magic + data) >= 0


def test_frames_of_bombs_say_their_size():
    assert unpacked_at_most(zstd_frame(4 * GIB)) == 4 * GIB
    assert 2 * GIB - 2**24 < unpacked_at_most(lz4_frame(2 * GIB)) <= 2 * GIB


def test_a_block_counts_as_far_as_it_goes():
    """Whatever length it states: a few damaged bytes ask for no room."""
    cut = {
        LZ4 + b"\x40\x40\xc0" + b"\xff" * 4 + b"abc": 3,
        LZ4 + b"\x40\x40\xc0" + b"\xff\xff\xff\x7f" + b"abc": 3 * 255,
    }
    cut[ZSTD + b"\x00\x58" + b"\xf9\xff\xff" + b"abc"] = 3
    assert {frame: unpacked_at_most(frame) for frame in cut} == cut


def test_packed_samples_stop_at_the_size_of_a_sample():
    from spikebridge.pipeline.shards.codec import unpack

    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", mtime=0) as file:
        for _ in range(8):
            file.write(bytes(2**24))
    packed = bomb.getvalue()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="does not hold 46080 bytes"):
            unpack(packed, 46080)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_peak_of_a_process_is_its_own_and_not_its_parents():
    held = np.ones(2**28, np.uint8)
    assert peak_bytes() > held.nbytes
    code = "from memory import peak_bytes; "
    code += "print(peak_bytes()); held = bytearray(2**26); print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 2**26 <= after < 2**28
