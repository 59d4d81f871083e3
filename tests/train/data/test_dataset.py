"""A shard set as a stock data set: the same samples, tonic's transforms, and workers that open their own files."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.data import dataset
from spikebridge.train.data.dataset import ShardDataset


@pytest.fixture(params=["webdataset", "hdf5"])
def folder(request, shard_set):
    return shard_set(format=request.param)


def test_it_holds_the_samples_of_the_split(folder):
    for name in ("train", "validation", "test"):
        split = ShardSet(folder).split(name)
        data = ShardDataset(folder, name)
        assert isinstance(data, Dataset)
        assert len(data) == len(split)
        for i, (frames, label) in enumerate(data):
            np.testing.assert_array_equal(frames, split.read([i])[0])
            assert frames.dtype == split.dtype
            assert type(label) is int
            assert label == split.labels[i] == data.targets[i]
        assert data.keys == split.keys
    assert data.sensor_size == (12, 12, 2)
    assert data.classes == ShardSet(folder).classes


def test_indices(folder):
    data = ShardDataset(folder, "test")
    np.testing.assert_array_equal(data[-1][0], data[len(data) - 1][0])
    np.testing.assert_array_equal(data[np.int64(1)][0], data[1][0])
    with pytest.raises(IndexError):
        data[len(data)]
    data[0][0][:] = 0  # a copy: the next reader sees the file's content
    assert data[0][0].any()
    with pytest.raises(ShardSetError, match="no split 'dev'"):
        ShardDataset(folder, "dev")


def test_transforms_are_those_of_tonic(shard_set):
    import tonic

    plain = ShardDataset(shard_set(), "test")
    data = ShardDataset(
        shard_set(),
        "test",
        transform=tonic.transforms.Compose([tonic.transforms.NumpyAsType(np.float32), lambda frames: frames * 2]),
        target_transform=lambda label: label + 10,
        transforms=lambda frames, label: (frames + label, label),
    )
    frames, label = data[2]
    assert label == plain[2][1] + 10
    np.testing.assert_array_equal(frames, plain[2][0].astype(np.float32) * 2 + label)
    cached = tonic.MemoryCachedDataset(plain)
    batch, labels = next(
        iter(DataLoader(cached, batch_size=4, collate_fn=tonic.collation.PadTensors(batch_first=False)))
    )
    assert batch.shape == (4, 4, 2, 12, 12)  # [T,B,P,H,W]
    np.testing.assert_array_equal(batch[:, 1].numpy(), plain[1][0])
    assert labels.tolist() == plain.targets[:4]


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_what_one_process_reads(shard_set, start, workers):
    data = ShardDataset(shard_set(), "train")
    first = data[0]  # files are open here before the workers start
    loader = DataLoader(data, batch_size=5, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    frames, labels = torch.cat([f for f, _ in batches]), torch.cat([label for _, label in batches])
    assert frames.dtype == torch.uint8
    np.testing.assert_array_equal(frames.numpy(), ShardSet(shard_set()).split("train").read_all())
    assert labels.tolist() == data.targets
    np.testing.assert_array_equal(data[0][0], first[0])


def test_a_copy_opens_its_own_files(shard_set, tmp_path, monkeypatch):
    data = ShardDataset(shard_set(), "train")
    frames, _ = data[0]
    content = pickle.dumps(data)
    assert len(content) < 10_000  # no files, no frames
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pickle.loads(content)[0][0], frames)


def test_a_spawned_worker_never_reads_another_set_under_the_old_targets(shard_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(shard_set(), folder)
    data = ShardDataset(folder, "train")
    shutil.rmtree(folder)
    shutil.copytree(shard_set(seed=1), folder)
    loader = DataLoader(data, batch_size=5, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(ShardSetError, match="expected " + data.shards.id):
        list(loader)


def test_the_three_lines_of_its_docstring_run(shard_set, tmp_path, monkeypatch):
    (tmp_path / "shards").symlink_to(shard_set())
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in dataset.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert names["frames"].shape == (4, 2, 12, 12)
    assert isinstance(names["label"], int)
