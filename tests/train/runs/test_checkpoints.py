import errno
import os
from dataclasses import asdict

import pytest
import torch
from torch import nn

from spikebridge.train.errors import RunError
from spikebridge.train.runs import checkpoints
from spikebridge.train.runs.checkpoints import CheckpointInterval
from spikebridge.train.runs.state import TrainState


def trained(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def save(folder, network, optimizer, state, **more):
    tensors = checkpoints.collect_tensors(network, optimizer)
    full = asdict(TrainState("shards", threads=1, step=7 * state["epoch"]))
    checkpoints.save_checkpoint(folder, tensors, full | state, **more)


def restore(folder, state, network, optimizer):
    path = folder / state["tensors"]
    tensors = checkpoints.read_tensors(path.read_bytes(), source=path)
    checkpoints.restore_checkpoint(tensors, network, optimizer, source=path)


def test_round_trip_of_weights_and_moments(tmp_path):
    network, optimizer = trained(0)
    save(tmp_path, network, optimizer, {"epoch": 3, "loss": 0.1 + 0.2})
    state = checkpoints.read_state(tmp_path)
    assert state["loss"] == 0.1 + 0.2
    other, second = trained(1)
    restore(tmp_path, state, other, second)
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(value, second.state_dict()["state"][index][name])


def test_only_the_last_two_checkpoints_stay(tmp_path):
    network, optimizer = trained(0)
    (tmp_path / ".epoch-000001.safetensors.partial").write_bytes(b"half")
    for epoch in range(3):
        save(tmp_path, network, optimizer, {"epoch": epoch})
    tensors = ["epoch-000001-step-000000007.safetensors", "epoch-000002-step-000000014.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before.json", *tensors, "state.json"]
    before = checkpoints.read_state(tmp_path, "before.json")
    assert [state["tensors"] for state in (before, checkpoints.read_state(tmp_path))] == tensors


def test_a_full_disk_leaves_the_last_checkpoint_alone(tmp_path, monkeypatch):
    network, optimizer = trained(0)
    save(tmp_path, network, optimizer, {"epoch": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*the same command again: what is finished stays"):
        save(tmp_path, network, optimizer, {"epoch": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damage_is_an_error_of_ours(tmp_path):
    network, optimizer = trained(0)
    assert checkpoints.read_state(tmp_path) is None
    save(tmp_path, network, optimizer, {"epoch": 1})
    state = checkpoints.read_state(tmp_path)
    with pytest.raises(RunError, match="does not fit"):
        restore(tmp_path, state, nn.Linear(2, 2), optimizer)
    path = tmp_path / state["tensors"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        restore(tmp_path, state, network, optimizer)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(RunError, match=r"state\.json: not JSON .* Start again with --overwrite"):
        checkpoints.read_state(tmp_path)


def test_pickles_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        checkpoints.read_weights(tmp_path / "weights.safetensors")


def test_the_best_weights_are_committed_with_the_rest(tmp_path):
    network, optimizer = trained(0)
    save(tmp_path, network, optimizer, {"epoch": 1}, best=(1, b"first"))
    before = (tmp_path / "best-000001.safetensors").stat().st_mtime_ns
    save(tmp_path, network, optimizer, {"epoch": 2}, best=(1, b"first"))
    assert (tmp_path / "best-000001.safetensors").stat().st_mtime_ns == before  # not written again
    (tmp_path / "best-000003.safetensors").write_bytes(b"killed before its commit, on another device")
    save(tmp_path, network, optimizer, {"epoch": 3}, best=(3, b"third"))
    assert checkpoints.read_state(tmp_path)["best_tensors"] == "best-000003.safetensors"
    assert (tmp_path / "best-000003.safetensors").read_bytes() == b"third"
    save(tmp_path, network, optimizer, {"epoch": 4}, best=(3, b"third"))
    assert not (tmp_path / "best-000001.safetensors").exists()


def test_another_schema_is_refused(tmp_path):
    checkpoints.write_json(tmp_path / "state.json", {"epoch": 1, "tensors": "epoch-000001.safetensors"})
    with pytest.raises(RunError, match="a checkpoint of schema 1, this version reads 2 and 3"):
        checkpoints.read_state(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds", "steps"), [("30s", 30, None), ("1.5m", 90, None), ("1h", 3600, None), ("500", None, 500)]
)
def test_checkpoint_interval_reads_time_or_steps(text, seconds, steps):
    assert CheckpointInterval.parse(text) == CheckpointInterval(seconds, steps)


@pytest.mark.parametrize("text", ["", "s", "0", "-1s", "nans", "infs", "1.5", "10 steps", "1d"])
def test_checkpoint_interval_refuses_the_rest(text):
    with pytest.raises(RunError, match="expected a time such as 30s"):
        CheckpointInterval.parse(text)


def test_checkpoint_interval_keeps_commits_cheap():
    clock = CheckpointInterval.parse("10s")
    assert not clock.is_due(step=1, elapsed=9.9, cost=0.01)
    assert clock.is_due(step=1, elapsed=10, cost=0.5)
    assert not clock.is_due(step=1, elapsed=19, cost=1)  # a slow disk: 5 % at most
    assert clock.is_due(step=1, elapsed=20, cost=1)
    assert [step for step in range(1, 10) if CheckpointInterval.parse("3").is_due(step=step, elapsed=0, cost=9)] == [
        3,
        6,
        9,
    ]
