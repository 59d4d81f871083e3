"""Running statistics from event recordings: right, deterministic, and no part of training."""

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from safetensors.torch import load_file

from spikebridge.models import backends, build_model
from spikebridge.train.data.frames import Frames
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")
SMALL = {"model": "vgg_snn", "width": 0.05, "recalibrate": True}


def network(name="vgg_snn", **how):
    torch.manual_seed(0)
    size = {"num_classes": 3, "time_steps": 4, "width": 0.05, "input_size": 16}
    return build_model(name, **size, **how).double()


def frames(tmp_path, n=24):
    shards = FakeShardSet(tmp_path / "shards", train=n)
    return Frames(shards.split("train"), np.arange(n), sample_shape=shards.sample_shape)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("statistics", ["per_step", "pooled", "domain"])
def test_statistics_of_the_first_layer_are_those_of_the_recordings(tmp_path, statistics, backend):
    net, data = network(statistics=statistics), frames(tmp_path)
    with backends.use(backend):
        assert recalibrate(net, data, batch_size=24, device=CPU) == 8
    events = data.take(torch.arange(24)).double()  # [B,T,P,H,W]
    with torch.no_grad():
        layer = net.feature["0"]
        steps = layer.conv(events.flatten(0, 1)).unflatten(0, (24, 4))  # [B,T,C,H,W]
    axes = (0, 1, 3, 4) if statistics == "pooled" else (0, 3, 4)
    mean, variance = steps.mean(axes), steps.var(axes)
    if statistics != "pooled":
        mean, variance = mean.mean(0), variance.mean(0)  # over time steps
    found = (layer.bn.running_mean, layer.bn.running_var)
    if statistics == "domain":
        assert (found[0][0] == 0).all()
        assert (found[1][0] == 1).all()
        found = (found[0][1], found[1][1])
    torch.testing.assert_close(found, (mean, variance), rtol=1e-6, atol=1e-9)
    assert layer.bn.num_batches_tracked == 0


def test_it_is_deterministic_and_forgets_what_was_there(tmp_path):
    net, data = network(), frames(tmp_path)
    found = []
    for _ in range(2):
        recalibrate(net, data, batch_size=10, device=CPU)  # 10, 10, 4
        found.append({name: value.clone() for name, value in net.state_dict().items()})
        net.train()(torch.rand(4, 5, 2, 16, 16), torch.rand(4, 5, 2, 16, 16))  # moves the running statistics
    kept = [name for name in found[0] if not name.endswith("tracked")]
    assert all(torch.equal(found[0][name], found[1][name]) for name in kept)


def test_mode_dropout_and_networks_without_batchnorm(tmp_path):
    data = frames(tmp_path)
    net = network("nmnist_snn").train()
    net.bn1.eval()
    state = torch.get_rng_state()
    assert recalibrate(net, data, batch_size=24, device=CPU) == 2
    assert torch.equal(state, torch.get_rng_state())  # no dropout was drawn
    assert [net.training, net.bn1.training, net.bn2.training] == [True, False, True]
    before = net.bn1.running_mean.clone()
    net.train()(None, torch.rand(4, 2, 2, 16, 16))
    assert not torch.equal(net.bn1.running_mean, before)  # they move again
    assert recalibrate(network("scnn"), data, batch_size=24, device=CPU) == 0


def test_training_is_untouched_and_evaluate_reproduces(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    results, weights = {}, {}
    for on in (False, True):
        run = tmp_path / f"run{on}"
        results[on] = train(shards, tiny_recipe(**{**SMALL, "recalibrate": on}), run, device="cpu")
        weights[on] = load_file(run / "weights" / "last.safetensors")
    for name, value in weights[True].items():
        assert torch.equal(value, weights[False][name]) == (not name.endswith(("running_mean", "running_var"))), name
    assert results[True]["test_loss"] != results[False]["test_loss"]
    again = evaluate(tmp_path / "runTrue", shards, device="cpu")
    assert (again["accuracy"], again["loss"]) == (results[True]["test_accuracy"], results[True]["test_loss"])


def test_a_stopped_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    shards, recipe = FakeShardSet(tmp_path / "shards", validation=0), tiny_recipe(**SMALL)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    real, steps = epochs.Trainer._step, iter(range(100))

    def stop(self, *args):
        if next(steps) == 4:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(epochs.Trainer, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(shards, recipe, tmp_path / "parts", device="cpu")
    train(shards, recipe, tmp_path / "parts", device="cpu")
    a, b = (load_file(tmp_path / name / "weights" / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)
