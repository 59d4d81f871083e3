"""Shards: both containers give the same tensors and order; the stock webdataset reader opens the tars."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import warnings
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import LayoutError, ShardSetError
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.codec import unpack
from spikebridge.pipeline.shards.reader import ShardSet, read_index
from spikebridge.pipeline.shards.writer import MEMBERS, Sample, index_path, npy_header, write_shard


def samples(count=7, shape=(3, 2, 5, 5)):
    rng = np.random.default_rng(0)
    return [
        Sample(f"train-{i % 2}-{i:05d}", i % 2, rng.integers(0, 9, shape).astype(np.uint8), json.dumps({"events": i}))
        for i in range(count)
    ]


SHAPE = (3, 2, 5, 5)
KINDS = [(ending, codec) for ending in (".tar", ".h5") for codec in ("raw", "gzip")]


def by_the_standard_library(written, codec):
    """The archive that `tarfile` makes of the samples."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in written:
            array = io.BytesIO()
            np.save(array, sample.frames)
            packed = zlib.compressobj(4, wbits=31)
            frames = array.getvalue() if codec == "raw" else packed.compress(array.getvalue()) + packed.flush()
            if codec == "gzip":
                frames = frames[:9] + b"\xff" + frames[10:]  # the system, which zlib fills in
            contents = (str(sample.label).encode(), frames, sample.metadata.encode())
            for member, content in zip(MEMBERS["frames", codec], contents, strict=True):
                info = tarfile.TarInfo(f"{sample.key}.{member}")
                info.size, info.mode, info.mtime = len(content), 0o444, 0
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("codec", ["raw", "gzip"])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_a_tar_is_what_the_standard_library_writes(tmp_path, codec, count):
    path = tmp_path / "events-train-00000.tar"
    written = [
        Sample(f"train-{i}-{'k' * i}", i * 37, sample.frames, json.dumps({"text": "x" * (i * 97)}))
        for i, sample in enumerate(samples(count))
    ]
    write_shard(path, written, shape=SHAPE, dtype=np.dtype("u1"), key_bytes=60, codec=codec)
    assert path.read_bytes() == by_the_standard_library(written, codec)


@given(st.integers(0, 100), st.one_of(st.integers(0, 2000), st.integers(0, 8**11 - 1)))
def test_headers_are_those_of_the_standard_library(length, size):
    name = ("train-3-" + "abcXYZ019_-." * 9)[:length]
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    assert tar.header(name.encode(), size) == info.tobuf(tarfile.USTAR_FORMAT)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 8**11 - 1)), min_size=1, max_size=20))
def test_many_headers_at_once_are_those_one_by_one(members):
    names = np.array([("train-3-" + "abcXYZ019_-." * 9)[:length].encode() for length, _ in members], np.bytes_)
    sizes = np.array([size for _, size in members])
    blocks = tar.headers(names, sizes)
    assert [block.tobytes() for block in blocks] == list(map(tar.header, names.tolist(), sizes.tolist()))
    assert np.array_equal(tar.sizes(blocks), sizes)


@pytest.mark.parametrize(("length", "size"), [(101, 0), (1, 8**11), (256, 5)])
def test_what_a_tar_cannot_hold_is_refused(length, size):
    info = tarfile.TarInfo("n" * length)
    info.size = size
    with pytest.raises(ValueError, match=r"too long|overflow"):
        info.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(LayoutError, match="a tar holds names of 100"):
        tar.header(b"n" * length, size)
    with pytest.raises(LayoutError, match="a tar holds names of 100"):
        tar.headers(np.array([b"good", b"n" * length]), np.array([7, size]))


def test_a_key_too_long_for_a_tar_leaves_nothing_behind(tmp_path):
    long = Sample("train-0-" + "k" * 82, 0, samples(1)[0].frames, "{}")
    write_shard(tmp_path / "a.h5", [long], shape=SHAPE, dtype=np.dtype("u1"), key_bytes=90)
    with pytest.raises(LayoutError, match="--format hdf5"):
        write_shard(tmp_path / "b.tar", [long], shape=SHAPE, dtype=np.dtype("u1"), key_bytes=90)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.idx.npy"]


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_index_points_at_what_is_stored(tmp_path, ending, codec):
    path = tmp_path / f"events-train-00000{ending}"
    wanted = samples()
    written = write_shard(path, iter(wanted), shape=SHAPE, dtype=np.dtype("u1"), key_bytes=20, codec=codec)
    data = path.read_bytes()
    for row, sample in zip(read_index(index_path(path)), wanted, strict=True):
        start, length = int(row["offset"]), int(row["length"])
        stored = data[start : start + length]
        if codec == "gzip":
            stored = (
                gzip.decompress(stored)[len(npy_header(SHAPE, sample.frames.dtype)) :]
                if ending == ".tar"
                else (zlib.decompress(stored))
            )
        assert stored == sample.frames.tobytes()
        assert row["crc32"] == zlib.crc32(sample.frames.tobytes())
        assert row["key"].decode() == sample.key
        assert row["label"] == sample.label
    np.testing.assert_array_equal(written.index, read_index(index_path(path)))
    for entry in written.files:
        content = (tmp_path / entry["name"]).read_bytes()
        assert (entry["bytes"], entry["samples"]) == (len(content), len(wanted))
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(entry["name"] for entry in written.files)


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_an_empty_shard_is_a_valid_file(tmp_path, ending, codec):
    path = tmp_path / f"events-train-00000{ending}"
    write_shard(path, [], shape=SHAPE, dtype=np.dtype("u1"), key_bytes=0, codec=codec)
    assert len(read_index(index_path(path))) == 0


def test_npy_header_is_numpys_own(tmp_path):
    for dtype in ("u1", "<u2", "<f2"):
        array = np.zeros((4, 2, 7, 7), dtype)
        np.save(tmp_path / "a.npy", array)
        assert (tmp_path / "a.npy").read_bytes() == npy_header(array.shape, array.dtype) + array.tobytes()


def test_formats_and_codecs_give_identical_tensors_and_order(shard_set):
    sets = [ShardSet(shard_set(format=f, codec=c)) for f in ("webdataset", "hdf5") for c in ("raw", "gzip")]
    assert len({shards.id for shards in sets}) == 4
    for name in ("train", "validation", "test"):
        first = sets[0].split(name)
        order = np.random.default_rng(0).permutation(len(first))
        for other in (shards.split(name) for shards in sets[1:]):
            assert first.keys == other.keys
            np.testing.assert_array_equal(first.labels, other.labels)
            np.testing.assert_array_equal(first.read_all(), other.read_all())
            np.testing.assert_array_equal(first.read(order), other.read(order))
        assert len(first) > 0


@pytest.mark.parametrize("codec", ["raw", "gzip"])
def test_stock_webdataset_reads_the_tars(shard_set, codec):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        shards = ShardSet(shard_set(codec=codec, samples_per_shard=7))
        paths = [str(path) for path in shards.event_shards("train")]
        found = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode())
    split = shards.split("train")
    assert len(paths) > 1
    assert [sample["__key__"] for sample in found] == list(split.keys)
    for sample, frames, label in zip(found, split.read_all(), split.labels, strict=True):
        stored = sample[MEMBERS["frames", codec][1]]
        np.testing.assert_array_equal(stored, frames)
        assert stored.dtype == frames.dtype
        assert sample["cls"] == label
        assert sample["json"]["static"].startswith("static-")


@pytest.mark.parametrize(("codec", "filters"), [("raw", (True, None)), ("gzip", (False, "gzip"))])
def test_stock_h5py_reads_the_hdf5_shards(shard_set, codec, filters):
    shards = ShardSet(shard_set(format="hdf5", codec=codec))
    (path,) = shards.event_shards("train")
    with h5py.File(path) as file:
        assert (file["frames"].fletcher32, file["frames"].compression) == filters
        assert file["frames"].chunks == (1, *shards.sample_shape)
        np.testing.assert_array_equal(file["frames"][()], shards.split("train").read_all())


@pytest.mark.parametrize("codec", ["raw", "gzip"])
@pytest.mark.parametrize("format_", ["webdataset", "hdf5"])
def test_a_flipped_bit_is_noticed_when_read(shard_set, tmp_path, format_, codec):
    copy = tmp_path / "set"
    shutil.copytree(shard_set(format=format_, codec=codec), copy)
    (path,) = ShardSet(copy).event_shards("train")
    row = read_index(index_path(path))[3]
    data = bytearray(path.read_bytes())
    data[int(row["offset"]) + 17] ^= 4
    path.write_bytes(data)
    split = ShardSet(copy).split("train")
    split.read([0, 1, 2])
    with pytest.raises(ShardSetError, match=row["key"].decode()):
        split.read([3])
    path.write_bytes(data[: int(row["offset"])])
    with pytest.raises(ShardSetError, match="damaged or cut"):
        ShardSet(copy).split("train").read([3])
    path.unlink()
    with pytest.raises(ShardSetError, match="cannot be opened or read"):
        ShardSet(copy).split("train").read([3])


def test_unpacking_stops_at_the_known_size():
    packed = zlib.compress(bytes(1000))
    assert unpack(packed, 1000) == bytes(1000)
    assert unpack(gzip.compress(b"numbers"), 7) == b"numbers"
    for size in (0, 999, 1001):
        with pytest.raises(ValueError, match="does not hold"):
            unpack(packed, size)
    for bad in (packed[:-1], packed + b"x", b"", packed[:4] + b"\0" * 20):
        with pytest.raises(ValueError, match=r"does not hold|Error"):
            unpack(bad, 1000)


def test_the_static_pool_is_ordered_by_class(shard_set):
    pool = ShardSet(shard_set()).static_pool()
    assert pool.images.dtype == np.uint8
    for label in range(len(pool.class_offsets) - 1):
        rows = slice(pool.class_offsets[label], pool.class_offsets[label + 1])
        assert set(pool.labels[rows]) == ({label} if label < 3 else set())
    assert set(pool.roles) == {"pool"}
    assert len(pool) == pool.class_offsets[-1]
