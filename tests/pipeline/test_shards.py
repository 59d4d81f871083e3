"""Shards: both containers give the same tensors and order; the stock webdataset reader opens the tars."""

import json
import warnings

import h5py
import numpy as np
import pytest

from pipeline.errors import ShardSetError
from pipeline.shards import Sample, index_path, npy_header, write_shard
from pipeline.shardset import ShardSet, read_index


def samples(count=7, shape=(3, 2, 5, 5)):
    rng = np.random.default_rng(0)
    return [
        Sample(f"train-{i % 2}-{i:05d}", i % 2, rng.integers(0, 9, shape).astype(np.uint8), json.dumps({"events": i}))
        for i in range(count)
    ]


@pytest.mark.parametrize("ending", [".tar", ".h5"])
def test_index_points_at_the_raw_numbers(tmp_path, ending):
    path = tmp_path / f"events-train-00000{ending}"
    written = samples()
    write_shard(path, written, shape=(3, 2, 5, 5), dtype=np.dtype("u1"), key_bytes=20)
    data = path.read_bytes()
    for row, sample in zip(read_index(index_path(path)), written, strict=True):
        start, length = int(row["offset"]), int(row["length"])
        assert data[start : start + length] == sample.frames.tobytes()
        assert row["key"].decode() == sample.key
        assert row["label"] == sample.label
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("ending", [".tar", ".h5"])
def test_an_empty_shard_is_a_valid_file(tmp_path, ending):
    path = tmp_path / f"events-train-00000{ending}"
    write_shard(path, [], shape=(3, 2, 5, 5), dtype=np.dtype("u1"), key_bytes=0)
    assert len(read_index(index_path(path))) == 0


def test_npy_header_is_numpys_own(tmp_path):
    for dtype in ("u1", "<u2", "<f2"):
        array = np.zeros((4, 2, 7, 7), dtype)
        np.save(tmp_path / "a.npy", array)
        assert (tmp_path / "a.npy").read_bytes() == npy_header(array.shape, array.dtype) + array.tobytes()


def test_formats_give_identical_tensors_and_order(shard_set):
    tar, hdf5 = ShardSet(shard_set()), ShardSet(shard_set(format="hdf5"))
    assert tar.id != hdf5.id
    for name in ("train", "validation", "test"):
        one, other = tar.split(name), hdf5.split(name)
        assert one.keys == other.keys
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.read_all(), other.read_all())
        assert len(one) > 0


def test_stock_webdataset_reads_the_tars(shard_set):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        shards = ShardSet(shard_set())
        paths = [str(path) for path in shards.event_shards("train")]
        found = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode())
    split = shards.split("train")
    assert [sample["__key__"] for sample in found] == list(split.keys)
    for sample, frames, label in zip(found, split.read_all(), split.labels, strict=True):
        np.testing.assert_array_equal(sample["frames.npy"], frames)
        assert sample["frames.npy"].dtype == frames.dtype
        assert sample["cls"] == label
        assert sample["json"]["static"].startswith("static-")


def test_stock_h5py_reads_the_hdf5_shards(shard_set):
    shards = ShardSet(shard_set(format="hdf5"))
    (path,) = shards.event_shards("train")
    with h5py.File(path) as file:
        assert file["frames"].fletcher32
        assert file["frames"].chunks == (1, *shards.sample_shape)
        np.testing.assert_array_equal(file["frames"][()], shards.split("train").read_all())


@pytest.mark.parametrize("format_", ["webdataset", "hdf5"])
def test_a_flipped_bit_is_noticed_when_read(shard_set, tmp_path, format_):
    import shutil

    copy = tmp_path / "set"
    shutil.copytree(shard_set(format=format_), copy)
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
    with pytest.raises(ShardSetError, match="cannot be opened"):
        ShardSet(copy).split("train").read([3])


def test_the_static_pool_is_ordered_by_class(shard_set):
    pool = ShardSet(shard_set()).static_pool()
    assert pool.images.dtype == np.uint8
    for label in range(len(pool.class_offsets) - 1):
        rows = slice(pool.class_offsets[label], pool.class_offsets[label + 1])
        assert set(pool.labels[rows]) == ({label} if label < 3 else set())
    assert set(pool.roles) == {"pool"}
    assert len(pool) == pool.class_offsets[-1]
