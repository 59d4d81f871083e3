"""A set of many shards is read with few open files, by many threads."""

import os
import resource
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.shards import reader
from spikebridge.pipeline.shards.open_files import MOST_OPEN, OpenFiles
from spikebridge.pipeline.shards.reader import ShardSet, Split
from spikebridge.pipeline.shards.writer import index_dtype

PER_SHARD, LIMIT = 2, 256
SHAPE = (2, 2, 3, 3)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")


@pytest.fixture
def few_files():
    """At most LIMIT open files in this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def many_shards(tmp_path):
    """A factory of splits of many shards with two samples each, and their frames [n,T,P,H,W]."""

    def make(count):
        frames = np.random.default_rng(0).integers(0, 9, (count * PER_SHARD, *SHAPE)).astype("u1")
        index = np.zeros(len(frames), index_dtype(16))
        size = frames[0].nbytes
        for i, sample in enumerate(frames):
            index[i] = (i % PER_SHARD * size, size, zlib.crc32(sample.tobytes()), 0, f"train-0-{i}".encode())
        paths = [tmp_path / f"events-train-{i:05d}.tar" for i in range(count)]
        for i, path in enumerate(paths):
            path.write_bytes(frames[i * PER_SHARD : (i + 1) * PER_SHARD].tobytes())
        shard_of = np.repeat(np.arange(count), PER_SHARD)
        return Split(paths, index, shard_of, shape=SHAPE, dtype=np.dtype("u1"), reopen=lambda: make(count)[0]), frames

    return make


def open_shards(folder):
    """Shards of a folder that this process has open."""
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the listing itself
            continue
    return [target for target in targets if target.startswith(str(folder))]


@linux_only
@pytest.mark.usefixtures("few_files")
def test_two_thousand_shards_are_read_under_a_limit_of_256_files(many_shards, tmp_path):
    split, frames = many_shards(2000)
    np.testing.assert_array_equal(split.read_all(), frames)
    assert len(open_shards(tmp_path)) == MOST_OPEN

    def read(seed):
        chosen = np.random.default_rng(seed).integers(0, len(frames), 300)
        return bool((split.read(chosen) == frames[chosen]).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(64)))
    assert len(open_shards(tmp_path)) == MOST_OPEN


@linux_only
def test_files_that_nobody_reads_any_more_are_closed(many_shards, tmp_path):
    split, _ = many_shards(3)
    split.read([0, 1, 2])
    assert len(open_shards(tmp_path)) == 2
    del split._files
    assert not open_shards(tmp_path)


@pytest.mark.parametrize(("container", "codec"), [("webdataset", "raw"), ("hdf5", "gzip")])
def test_the_order_of_what_is_read_is_that_of_the_positions(shard_set, monkeypatch, container, codec):
    folder = shard_set(format=container, codec=codec, samples_per_shard=2)
    whole = ShardSet(folder).split("train").read_all()
    monkeypatch.setattr(reader, "MOST_OPEN", 1)
    split = ShardSet(folder).split("train")
    assert len(split.shards) > 5
    chosen = np.random.default_rng(0).integers(0, len(split), 100)
    np.testing.assert_array_equal(split.read(chosen), whole[chosen])
    assert split.read([]).shape == (0, *split.shape)


def test_a_missing_shard_is_named(many_shards):
    split, _ = many_shards(8)
    split.shards[7].unlink()
    with pytest.raises(ShardSetError, match=r"events-train-00007\.tar: cannot be opened or read \(No such file"):
        split.read([14])


def test_a_file_that_is_read_stays_open_and_the_one_used_longest_ago_goes_first(tmp_path):
    paths = [tmp_path / name for name in "abcd"]
    for path in paths:
        path.write_bytes(path.name.encode())
    a, b, c, d = paths
    files = OpenFiles(2)
    with files.reading(a) as held:
        for path in (b, c, d):
            with files.reading(path) as file:
                assert os.pread(file, 1, 0) == path.name.encode()
        assert os.pread(held, 1, 0) == b"a"
        assert list(files._files) == [a, d]
    with files.reading(a), files.reading(b):
        assert list(files._files) == [a, b]


@linux_only
@pytest.mark.usefixtures("few_files")
def test_at_the_limit_of_the_process_idle_files_are_closed_for_others(tmp_path):
    paths = [tmp_path / f"{i}" for i in range(LIMIT + 20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    files = OpenFiles(10 * LIMIT)
    for path in paths:
        with files.reading(path) as file:
            assert os.pread(file, 9, 0) == path.name.encode()
