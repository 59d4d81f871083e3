"""The moving average of the weights, and the run that ends with it."""

import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.models import build_model
from spikebridge.train.runs.checkpoints import read_weights
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.averaging import EARLY, WeightAverage
from spikebridge.train.trainer.run import train


def test_the_average_follows_the_weights():
    """Short at first, then over 1 / (1 - decay) steps; counters are taken as they are, and no memory is shared."""
    network = build_model("vgg_snn", num_classes=2, time_steps=2, in_channels=1, input_size=16, width=0.05)
    average, expected = WeightAverage(network, 0.5), {}
    for step in range(20):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)
        share = 1 - min(0.5, step / (step + EARLY))
        for name, tensor in network.state_dict().items():
            before = expected.get(name, tensor)
            expected[name] = before + share * (tensor - before) if tensor.is_floating_point() else tensor.clone()
        average.update(step)
    torch.testing.assert_close(dict(average.network.state_dict()), expected)
    other = WeightAverage(build_model(**network.config), 0.5)
    other.restore(average.tensors() | {"network.x": torch.zeros(1)})
    torch.testing.assert_close(dict(other.network.state_dict()), expected)


def test_a_run_validates_and_keeps_the_average(tmp_path, monkeypatch):
    """Training is the same; what is scored and written is another network, the last average that was taken."""
    shards, taken = FakeShardSet(tmp_path / "shards"), []

    class Watched(WeightAverage):
        def update(self, step):
            super().update(step)
            taken.append(self.tensors())

    monkeypatch.setattr("spikebridge.train.trainer.epochs.WeightAverage", Watched)
    found = {}
    for decay in (0.0, 0.9):
        recipe = tiny_recipe(epochs=2, weight_average=decay)
        found[decay] = train(shards, recipe, tmp_path / str(decay), device="cpu")
    plain, kept = (read_weights(tmp_path / str(decay) / "weights" / "last.safetensors")[0] for decay in found)
    assert len(taken) == 6
    assert all(torch.equal(taken[-1][f"average.{name}"], kept[name]) for name in kept)
    assert not all(torch.equal(plain[name], kept[name]) for name in kept)
    losses = [[line["loss_event"] for line in read_metrics(tmp_path / str(decay))] for decay in found]
    assert losses[0] == losses[1]
