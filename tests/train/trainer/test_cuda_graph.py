"""The step that a CUDA graph would hold, on the CPU: the same function of tensors, unrecorded."""

import dataclasses

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from test_train_run import same_run

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import NonFiniteError, RunStoppedError
from spikebridge.train.methods import find_method, kt
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.cuda_graph import DeviceStep, why_not_capturable
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")
RECIPE = {"batch_size": 5, "sampling": "class_balanced", "weight_decay": 0.1}  # 24 samples: a last batch of 4
DROPOUT = {"model": "nmnist_snn", "width": 0.05}


class Watched(DeviceStep):
    """Steps that were taken on the device; takes and undoes some before the first, as a recording does."""

    taken = ()

    def launch(self):
        if not Watched.taken:
            with self.state_restored():
                for _ in range(3):
                    self.compute()
        Watched.taken = (*Watched.taken, int(self._step))
        self.compute()


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(Watched, "taken", ())
    monkeypatch.setattr(epochs, "why_not_capturable", lambda *_: None)
    monkeypatch.setattr(epochs, "CudaGraphStep", Watched)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param({}, id="kt"),
        pytest.param({"method": "event_only"}, id="event_only"),
        pytest.param({"model": "vgg_snn", "width": 0.0625, "sliding": "step"}, id="vgg"),
        pytest.param(DROPOUT, id="dropout"),
        pytest.param({"precision": "fp16"}, id="fp16"),
    ],
)
def test_the_device_step_takes_the_same_updates(tmp_path, on_device, recipe):
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**RECIPE, **recipe, epochs=2)
    train(shards, chosen, tmp_path / "plain", device="cpu", graph=False)
    assert Watched.taken == ()
    train(shards, chosen, tmp_path / "device", device="cpu", residence="device")
    assert Watched.taken == (0, 1, 2, 3, 5, 6, 7, 8)  # the partial batches are not among them
    same_run(tmp_path / "plain", tmp_path / "device")


def test_a_run_that_stopped_continues_with_the_same_bits(tmp_path, on_device):
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**RECIPE, epochs=2)
    train(shards, chosen, tmp_path / "whole", device="cpu", graph=False)
    stop = StopRequest()
    compute = Watched.launch

    def asks(self):
        compute(self)
        if Watched.taken[-1] == 6:
            stop.ask(15)

    Watched.launch, before = asks, Watched.launch
    try:
        with pytest.raises(RunStoppedError):
            train(shards, chosen, tmp_path / "parts", device="cpu", residence="device", stop=stop)
    finally:
        Watched.launch = before
    Watched.taken = ()
    train(shards, chosen, tmp_path / "parts", device="cpu", residence="device")
    assert Watched.taken == (7, 8)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_loss_that_is_not_finite_is_noticed(tmp_path, on_device, monkeypatch):
    shards, real = FakeShardSet(tmp_path / "shards"), kt.transfer_loss

    def infinite(*given, **how):
        loss = real(*given, **how)
        return dataclasses.replace(loss, total=loss.total * float("inf"))

    monkeypatch.setattr(kt, "transfer_loss", infinite)
    with pytest.raises(NonFiniteError, match="step 0: the loss is not finite"):
        train(shards, tiny_recipe(batch_size=12), tmp_path / "run", device="cpu", residence="device")
    assert not read_metrics(tmp_path / "run")


def test_what_keeps_a_step_from_being_recorded(tmp_path):
    cuda, shards = torch.device("cuda"), FakeShardSet(tmp_path)

    def reason(method=None, *, device=cuda, residence="device", distributed=None, **recipe):
        settings = tiny_recipe(**recipe).train
        data = TrainingBatches(shards, settings, device=CPU, needs_static=True, residence=residence)
        return why_not_capturable(
            data, method or find_method(settings.method), settings, distributed or Distributed(), device
        )

    class Derived(find_method("kt")):
        pass

    assert reason() is None
    assert reason(method=find_method("event_only")) is None
    assert "need CUDA" in reason(device=CPU)
    assert "elsewhere (host)" in reason(residence="host")
    assert "in parts" in reason(accumulate=2)
    assert "several processes" in reason(distributed=Distributed(0, 2))
    assert "no full batch" in reason(batch_size=25)
    assert "method kt" in reason(method=Derived)
