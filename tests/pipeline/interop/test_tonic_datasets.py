"""The data sets that tonic lacks work with tonic's transforms, cache and collation, and with torch's loader."""

import warnings

import numpy as np
import pytest
from raw_sets.cepdvs import COUNT
from raw_sets.cepdvs import write_raw as write_cepdvs
from raw_sets.nomniglot import drawer_events
from raw_sets.nomniglot import write_raw as write_nomniglot

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tonic

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.splits import assign_splits
from spikebridge.pipeline.interop.tonic_datasets import CEPDVS, EVENTS, NOmniglot, ShardFrames
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.reader import ShardSet


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    root = tmp_path_factory.mktemp("nomniglot")
    write_nomniglot(root)
    return root


def test_nomniglot_gives_the_events_of_each_drawer(characters):
    train, test = NOmniglot(characters), NOmniglot(characters, train=False)
    assert (len(train), len(test)) == (45, 15)
    assert len(NOmniglot(characters, train=None)) == 60
    events, target = test[0]
    expected = drawer_events("0001", 16)
    assert events.dtype == EVENTS
    np.testing.assert_array_equal(events["x"], expected.x)
    np.testing.assert_array_equal(events["t"], expected.t - expected.t[0])
    assert test.classes[target].startswith("Alphabet of the Magi")


def test_tonics_transforms_cache_and_collation(characters, tmp_path):
    import torch

    transform = tonic.transforms.ToFrame(sensor_size=NOmniglot.sensor_size, n_time_bins=4)
    data = NOmniglot(characters, train=False, transform=transform, target_transform=lambda target: target + 100)
    frames, target = data[3]
    assert frames.shape == (4, 2, 260, 346)
    assert target == 100
    cached = tonic.DiskCachedDataset(data, str(tmp_path / "cache"))
    np.testing.assert_array_equal(cached[3][0], frames)
    np.testing.assert_array_equal(cached[3][0], frames)  # now from the cache
    loader = torch.utils.data.DataLoader(cached, batch_size=2, collate_fn=tonic.collation.PadTensors())
    batch, targets = next(iter(loader))
    assert batch.shape == (2, 4, 2, 260, 346)
    assert targets.tolist() == [100, 100]


def test_transforms_of_both_come_after_the_others(characters):
    data = NOmniglot(characters, transform=len, target_transform=lambda target: target + 7, transforms=divmod)
    assert data[0] == divmod(60, 7)


def test_cepdvs_has_the_test_recordings_of_a_conversion(tmp_path):
    raw = write_cepdvs(tmp_path / "raw")
    split = assign_splits(get_reader("cepdvs").list_events(raw).recordings, seed=0, protocol="strict")
    train, test = CEPDVS(raw), CEPDVS(raw, train=False)
    assert {r.name for r in test.data} == {name for name, part in split.items() if part == "test"}
    assert len(train) + len(test) == COUNT
    events, target = train[0]
    assert events["t"][0] == 0
    assert set(np.unique(events["p"])) == {0, 1}
    assert train.classes[target] in ("fish", "people", "vehicles_2")


def test_absent_files_are_asked_for(tmp_path):
    with pytest.raises(LayoutError, match=r"pathFile\.csv"):
        CEPDVS(tmp_path)


@pytest.mark.parametrize("container", ["webdataset", "hdf5"])
def test_a_shard_set_is_a_data_set_of_tonics(shard_set, tmp_path, container):
    import torch

    folder = shard_set(format=container)
    stored = ShardSet(folder).split("train")
    data = ShardFrames(folder, "train", transform=tonic.transforms.NumpyAsType(np.float32))
    assert isinstance(data, tonic.dataset.Dataset)
    assert (data.sensor_size, data.ordering, data.dtype) == ((12, 12, 2), ("t", "p", "y", "x"), np.uint8)
    assert data.targets == stored.labels.tolist()
    cached = tonic.DiskCachedDataset(data, str(tmp_path / "cache"))
    for _ in range(2):  # the second time from the cache
        loader = torch.utils.data.DataLoader(cached, batch_size=len(data), collate_fn=tonic.collation.PadTensors())
        frames, targets = next(iter(loader))
        np.testing.assert_array_equal(frames.numpy(), stored.read_all())
        assert targets.tolist() == data.targets
    assert len(ShardFrames(folder, "validation")) == len(ShardSet(folder).split("validation"))
