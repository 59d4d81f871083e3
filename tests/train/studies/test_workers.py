"""Which GPU a worker takes, on machines that are not there."""

import pytest
import torch

from spikebridge.pipeline.base.processors import usable_processors
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
