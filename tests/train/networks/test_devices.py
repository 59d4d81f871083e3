"""Which device a run takes, on machines that are not there."""

import pytest
import torch

from spikebridge.train.errors import DeviceError
from spikebridge.train.networks.build import choose_device


@pytest.fixture
def two_gpus(monkeypatch):
    """Two CUDA devices, as far as asking goes; returns those that were made the current one."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_device_that_is_named_becomes_the_current_one(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert two_gpus == [torch.device("cuda:1")]


def test_whichever_is_current_stays_so_where_none_is_named(two_gpus):
    assert {choose_device("auto"), choose_device("cuda")} == {torch.device("cuda")}
    choose_device("cpu")
    assert not two_gpus


def test_devices_that_are_not_there(two_gpus, monkeypatch):
    with pytest.raises(DeviceError, match="cuda:2: this machine offers 2 CUDA devices"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="offers 0 CUDA devices"):
        choose_device("cuda")
    assert not two_gpus
