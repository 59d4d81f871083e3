from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikebridge.train.errors import NonFiniteError
from spikebridge.train.trainer.finite import broken_weights, first_broken_layer, require_finite, require_finite_weights


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)

    def forward(self, static, event):
        return self.second(self.norm(self.first(event)))


def test_first_broken_layer_and_untouched_statistics():
    network = Two()
    before = network.norm.running_mean.clone()
    assert first_broken_layer(network, (None, torch.ones(3, 2))) == "the loss itself"
    nn.init.constant_(network.first.weight, 3e38)
    assert first_broken_layer(network, (None, torch.ones(3, 2))) == "layer first"
    assert first_broken_layer(network, (None, torch.full((3, 2), float("inf")))) == "the input frames"
    assert torch.equal(before, network.norm.running_mean)


def test_terms_and_step_are_named():
    zero = torch.zeros((), requires_grad=True)
    loss = SimpleNamespace(total=zero / 0, static=zero, event=zero, domain=zero / 0, extra={})
    require_finite(SimpleNamespace(total=zero), Two(), (None, None), step=0)
    with pytest.raises(NonFiniteError, match=r"step 7: the loss is not finite \(domain = nan\).*the loss itself"):
        require_finite(loss, Two(), (None, torch.ones(3, 2)), step=7)


def test_weights_are_named():
    network = Two()
    require_finite_weights(network, step=0)
    nn.init.constant_(network.second.bias, float("nan"))
    assert broken_weights(network) == ["second.bias"]
    with pytest.raises(NonFiniteError, match=r"after step 3: second\.bias"):
        require_finite_weights(network, step=3)
