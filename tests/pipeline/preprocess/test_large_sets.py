"""A set of 5 GB and a static pool of 0.7 GB: written, verified and read for training in under 1 GB of memory each."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, SUPPORT
from large_set import IMAGES_PER_CLASS

from spikebridge.pipeline.datasets.pairs import READERS
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import StoredImages, read_static

LIMIT = 10**9


def run(step, folder, gigabytes, stored):
    command = [sys.executable, str(SUPPORT / "large_set.py"), step, str(folder), str(gigabytes)]
    done = subprocess.run(
        [*command, "--format", stored[0], "--codec", stored[1]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("stored", [("webdataset", "raw"), ("hdf5", "raw")])
def test_memory_does_not_grow_with_the_set(tmp_path, stored):
    written = run("write", tmp_path / "set", 5, stored)
    assert written["set_bytes"] >= 5 * 10**9
    for step in (written, run("verify", tmp_path / "set", 5, stored), run("train", tmp_path / "set", 5, stored)):
        print(json.dumps({**step, "stored": stored}))
        assert step["samples"] == written["samples"]
        assert step["peak_bytes"] < LIMIT, step


def test_images_that_stay_on_the_disk_are_those_in_memory(shard_set, monkeypatch):
    shards = ShardSet(shard_set())
    kept = shards.static_pool()
    monkeypatch.setattr("spikebridge.pipeline.shards.reader.RESIDENT_BYTES", 0)
    stored = shards.static_pool()
    assert isinstance(stored.images, StoredImages)
    assert len(stored.images) == len(kept)
    rows = np.random.default_rng(0).integers(0, len(kept), 50)
    np.testing.assert_array_equal(stored.images[rows], kept.images[rows])
    np.testing.assert_array_equal(stored.images[3], kept.images[3])
    whole = read_static(shards.path / "static.h5", resident=False).images
    blocks = np.concatenate(list(whole.blocks()))
    np.testing.assert_array_equal(blocks, read_static(shards.path / "static.h5").images)


def test_training_draws_the_same_images_from_the_disk(shard_set, monkeypatch):
    import torch

    from spikebridge.train.config.settings import TrainSettings
    from spikebridge.train.data.batches import TrainingBatches

    settings = TrainSettings(method="kt", model="scnn", batch_size=8, epochs=1, lr=1e-3, augmentation="none")

    def first(**options):
        shards = ShardSet(shard_set(**options))
        return TrainingBatches(shards, settings, device=torch.device("cpu"), needs_static=True, residence="disk").batch(
            0, 0
        )

    batches = [first(format=f, codec=c) for f in ("webdataset", "hdf5") for c in ("raw", "gzip")]
    monkeypatch.setattr("spikebridge.pipeline.shards.reader.RESIDENT_BYTES", 0)
    batches.append(first())
    for batch in batches[1:]:
        assert torch.equal(batch.events, batches[0].events)
        assert torch.equal(batch.images, batches[0].images)
        assert torch.equal(batch.labels, batches[0].labels)


def test_the_large_set_is_made_as_it_should_be(tmp_path, monkeypatch):
    """The same with one small shard, so that `make test` notices when the generator breaks."""
    assert IMAGES_PER_CLASS * 10 * 48 * 48 > 2**29
    monkeypatch.setattr("large_set.PER_SHARD", 20)
    monkeypatch.setattr("large_set.IMAGES_PER_CLASS", 10)
    import large_set

    monkeypatch.setitem(READERS, "generated", large_set.Generated)
    count = large_set.write(tmp_path / "set", gigabytes=0.0005, format_="webdataset", codec="gzip")
    assert count == large_set.check(tmp_path / "set") == large_set.train(tmp_path / "set")
