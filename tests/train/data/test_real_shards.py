"""Training on shard sets that the pipeline wrote."""

import json

import pytest

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.runs.checkpoints import tensors_sum
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.run import train


@pytest.mark.parametrize("format_", ["webdataset", "hdf5"])
@pytest.mark.parametrize("method", ["kt", "event_only"])
def test_from_shards_to_result(shard_set, tmp_path, format_, method):
    path = shard_set(size=16, format=format_, samples_per_shard=4)
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    shards = ShardSet(path)
    tables = {
        "shards": {name: shards.settings[name] for name in ("dataset", "time_bins", "size", "reduction", "extent")}
        | {"encoding": "v", "protocol": "strict"},
        "train": {"method": method, "model": "scnn", "width": 0.2, "epochs": 2, "batch_size": 8, "lr": 1e-3}
        | {"sampling": "windowed", "sampling_window": 2, "events_per_class": 5},
    }
    result = train(path, recipe_from(tables), tmp_path / "run", device="cpu", expect=shards.id)
    assert result["samples"] == {name: len(shards.split(name)) for name in ("validation", "test")} | {"train": 15}
    assert len(read_metrics(tmp_path / "run")) == 2
    assert evaluate(tmp_path / "run", path, device="cpu")["accuracy"] == result["test_accuracy"]
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before
    assert json.loads((tmp_path / "run" / "result.json").read_text())["simulated"] is True


def test_both_formats_train_to_the_same_bits(shard_set, tmp_path):
    weights = []
    for format_ in ("webdataset", "hdf5"):
        shards = ShardSet(shard_set(size=16, format=format_, samples_per_shard=4))
        tables = {
            "shards": {name: shards.settings[name] for name in ("dataset", "time_bins", "size", "reduction", "extent")}
            | {"encoding": "v", "protocol": "strict"},
            "train": {"method": "kt", "model": "scnn", "width": 0.2, "epochs": 1, "batch_size": 8, "lr": 1e-3},
        }
        train(shards, recipe_from(tables), tmp_path / format_, device="cpu")
        weights.append(tensors_sum(tmp_path / format_ / "weights" / "last.safetensors"))
    assert weights[0] == weights[1]
