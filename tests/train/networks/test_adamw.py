"""AdamW without the compiler is torch's, to the bit."""

import torch
from torch import nn

from spikebridge.train.networks.adamw import AdamW


def trained(optimizer_class):
    torch.manual_seed(0)
    net = nn.Linear(5, 3)
    groups = [{"params": [net.weight], "weight_decay": 0.1}, {"params": [net.bias], "weight_decay": 0.0}]
    optimizer = optimizer_class(groups, lr=0.01, eps=1e-8)
    for step in range(6):
        if step == 3:  # as a continued run does
            state = optimizer.state_dict()
            optimizer = optimizer_class(groups, lr=0.5)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        net(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        assert torch.is_grad_enabled()
    return [*net.parameters(), *optimizer.state[net.weight].values()]


def test_it_computes_what_torch_computes():
    ours, theirs = trained(AdamW), trained(torch.optim.AdamW)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(ours) == 5
