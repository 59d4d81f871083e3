"""A neuron and a method of a user's file: known to recipes, trained with, scored, and named in the result."""

import sys

import pytest
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.models.neurons import NEURONS
from spikebridge.pipeline.plugins import loading as plugins
from spikebridge.pipeline.plugins.loading import add_plugin
from spikebridge.train.errors import RecipeError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.methods import REGISTRY
from spikebridge.train.trainer.run import train

PLUGIN = """
import torch
from torch import nn

from spikebridge.models.neurons import NEURONS, Neuron
from spikebridge.models.registry import register
from spikebridge.train.methods import method
from spikebridge.train.methods.kt import KnowledgeTransfer


@register(NEURONS, "BoundedLIF")
class BoundedLIF(Neuron):
    def __init__(self, surrogate, reset):
        super().__init__(surrogate, reset)
        self.w = nn.Parameter(torch.tensor(0.0))

    def gain(self):
        return 0.2 + 0.6 * self.w.sigmoid()


@method
class Stairs(KnowledgeTransfer):
    def replacement_probability(self, step):
        return min(step * 4 // max(self.steps, 1), 3) / 3
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No plugin imported, and what the test imports is forgotten."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_loaded", {})
    yield
    NEURONS.pop("BoundedLIF", None)
    REGISTRY.pop("my_stairs", None)
    sys.modules.pop("spikebridge_plugins.my_stairs", None)


def test_a_neuron_and_a_method_of_a_plugin(tmp_path):
    words = {"neuron": "BoundedLIF", "method": "my_stairs"}
    for name in words.items():
        with pytest.raises(RecipeError, match="is not known"):
            tiny_recipe(**dict([name]))
    path = tmp_path / "my_stairs.py"
    path.write_text(PLUGIN)
    add_plugin(str(path))
    shards = FakeShardSet(tmp_path / "shards")
    result = train(shards, tiny_recipe(epochs=1, width=0.05, **words), tmp_path / "run", device="cpu")
    assert result["method"] == "my_stairs"
    assert list(result["environment"]["plugins"]) == ["my_stairs.py"]
    assert evaluate(tmp_path / "run", shards, device="cpu")["accuracy"] == result["test_accuracy"]
