"""Operations counted while a network runs, against counts by hand; energy by its formula."""

import pytest
import torch
from torch import nn

from spikebridge.models import build_model
from spikebridge.train.evaluation.energy import Cost, LayerCost, counting, energy_nj


class Layers(nn.Module):
    """Layers in a row; the events between them are given by the test."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs):
        for layer, x in zip(self.layers, inputs, strict=True):
            layer(x)


def spikes(*places, shape=(1, 1, 4, 4)):
    x = torch.zeros(shape)
    for place in places:
        x[place] = 1
    return x


def test_convolutions_count_connections():
    first, same, halving = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 5, 3, 2, 1)
    corner, middle = (0, 0, 0, 0), (0, 0, 1, 1)
    with counting(net := Layers(first, same, halving)) as layers:
        net(spikes(middle), spikes(corner, middle), spikes(corner))
    cost = Cost(1, layers, 1)
    assert list(cost.layers) == ["layers.0", "layers.1", "layers.2"]
    assert [cost.dense(name) for name in cost.layers] == [16 * 9 * 2, 16 * 9 * 2, 4 * 9 * 5]
    assert [cost.accumulates(name) for name in cost.layers] == [0, (4 + 9) * 2, 1 * 5]
    assert [cost.multiplies(name) for name in cost.layers] == [16 * 9 * 2, 0, 0]  # the first reads data


def test_linear_layers_and_what_is_no_spike():
    first, averaged, graded = nn.Linear(4, 3), nn.Linear(4, 7), nn.Linear(4, 5)
    with counting(net := Layers(first, averaged, graded)) as layers:
        for _ in range(2):
            net(
                torch.tensor([[1.0, 0, 1, 0]]),
                torch.tensor([[[0.25, 0, 1, 0.5]]]),  # means over 2x2: 1, 4 and 2 spikes
                torch.tensor([[0.3, 0, 0, 0]]),
            )
    cost = Cost(1, layers, 2)
    assert [cost.dense(name) for name in cost.layers] == [12, 28, 20]
    assert [cost.accumulates(name) for name in cost.layers] == [0, 7 * 7, 0]
    assert [cost.multiplies(name) for name in cost.layers] == [12, 0, 20]


def test_a_network_of_neurons_that_do_not_spike_multiplies_everywhere():
    frames = torch.rand(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    costs = {}
    for neuron in ("LIF", "ReLU"):
        torch.manual_seed(0)
        net = build_model("scnn", num_classes=3, time_steps=2, input_size=16, width=0.3, neuron=neuron).eval()
        with torch.no_grad(), counting(net) as layers:
            net(None, 3 * frames)
        costs[neuron] = Cost(2, layers, 3)
    assert costs["LIF"].energy_nj < costs["LIF"].dense_energy_nj == costs["ReLU"].dense_energy_nj
    assert costs["ReLU"].energy_nj == costs["ReLU"].dense_energy_nj


def test_hooks_are_gone_afterwards():
    net = Layers(nn.Linear(4, 3))
    with counting(net) as layers:
        net(torch.ones(2, 4))
    net(torch.ones(2, 4))
    assert layers["layers.0"].dense == 2 * 12


def test_what_cannot_be_counted_is_refused():
    net = Layers(nn.Conv2d(2, 2, 3, groups=2))
    with pytest.raises(ValueError, match="grouped"), counting(net):
        net(torch.ones(1, 2, 4, 4))


def test_energy():
    assert energy_nj(1000, 1000) == pytest.approx(0.9 + 4.6)
    layers = {"a": LayerCost(dense=4000, spiking=False), "b": LayerCost(dense=2000, accumulates=500)}
    cost = Cost(steps=2, layers=layers, recordings=2)
    assert cost.energy_nj == pytest.approx((2000 * 4.6 + 250 * 0.9) / 1000)
    assert cost.dense_energy_nj == pytest.approx(3000 * 4.6 / 1000)
