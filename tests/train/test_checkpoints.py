import errno

import pytest
import torch
from torch import nn

from train import checkpoints
from train.errors import RunError


def trained(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def test_round_trip_of_weights_and_moments(tmp_path):
    network, optimizer = trained(0)
    checkpoints.save_checkpoint(tmp_path, network, optimizer, {"epoch": 3, "loss": 0.1 + 0.2})
    state = checkpoints.read_state(tmp_path)
    assert state["loss"] == 0.1 + 0.2
    other, second = trained(1)
    checkpoints.restore_checkpoint(tmp_path, state, other, second)
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(value, second.state_dict()["state"][index][name])


def test_only_the_last_checkpoint_stays(tmp_path):
    network, optimizer = trained(0)
    (tmp_path / ".epoch-000001.safetensors.partial").write_bytes(b"half")
    for epoch in range(3):
        checkpoints.save_checkpoint(tmp_path, network, optimizer, {"epoch": epoch})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000002.safetensors", "state.json"]


def test_a_full_disk_leaves_the_last_checkpoint_alone(tmp_path, monkeypatch):
    network, optimizer = trained(0)
    checkpoints.save_checkpoint(tmp_path, network, optimizer, {"epoch": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*continues from the last checkpoint"):
        checkpoints.save_checkpoint(tmp_path, network, optimizer, {"epoch": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damage_is_an_error_of_ours(tmp_path):
    network, optimizer = trained(0)
    assert checkpoints.read_state(tmp_path) is None
    checkpoints.save_checkpoint(tmp_path, network, optimizer, {"epoch": 1})
    state = checkpoints.read_state(tmp_path)
    with pytest.raises(RunError, match="does not fit"):
        checkpoints.restore_checkpoint(tmp_path, state, nn.Linear(2, 2), optimizer)
    path = tmp_path / state["tensors"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        checkpoints.restore_checkpoint(tmp_path, state, network, optimizer)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.read_state(tmp_path)


def test_pickles_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        checkpoints.read_weights(tmp_path / "weights.safetensors")
