"""Which GPU a worker takes, on machines that are not there; and which shard set."""

import shutil

import pytest
import torch

from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.studies import workers


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def test_a_machine_with_gpus_has_one_worker_for_each(three_gpus):
    assert [workers.usual_workers(device) for device in ("auto", "cuda", "cuda:1")] == [3, 3, 1]
    assert workers.usual_workers("cpu") == usable_processors()


def test_workers_share_the_gpus(three_gpus, monkeypatch):
    assert workers.device_of_worker("auto") == "auto"  # this process is none
    found = []
    for number in range(4):
        monkeypatch.setattr(workers, "worker_number", lambda number=number: number)
        found.append(workers.device_of_worker("auto"))
    assert found == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert [workers.device_of_worker(device) for device in ("cpu", "cuda:2")] == ["cpu", "cuda:2"]


def test_a_worker_refuses_a_set_that_was_replaced_since_the_study_opened_it(shard_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(shard_set(size=16, seed=1), folder)
    there, meant = ShardSet(folder).id, ShardSet(shard_set(size=16)).id
    spec = workers.RunSpec(
        str(folder),
        meant,
        load_recipe("digits", overrides=["time_bins=4", "size=16", "extent='canvas'"]),
        str(tmp_path / "run"),
        str(tmp_path / "stop"),
        device="cpu",
        backend="auto",
        checkpoint_every="10s",
    )
    outcome = workers.train_run(spec)
    assert outcome.kind == "failed"
    assert f"holds shard set {there}; expected {meant}" in outcome.message
    assert not (tmp_path / "run").exists()
