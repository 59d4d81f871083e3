"""Networks whose every layer fires: random weights, and BatchNorm statistics as a trained one might have them."""

import torch

from spikebridge.models import build_model
from spikebridge.models.neurons import PLIF
from spikebridge.models.normalization import StepNorm

SIZES = {"vgg_snn": 17, "resnet18_snn": 18, "resnet34_snn": 16, "scnn": 20, "nmnist_snn": 13, "speck_snn": 21}
"""Sides that divide badly, so that pooling drops rows."""


def lively(name, *, seed=0, **settings):
    """A small network of 5 classes and 4 time steps in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_model(name, num_classes=5, time_steps=4, width=0.1, input_size=SIZES[name], **settings)
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, StepNorm):
                    module.running_mean.uniform_(-0.3, 0.3)
                    module.running_var.uniform_(0.3, 2.0)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(0.0, 0.5)
                elif isinstance(module, PLIF):
                    module.w.uniform_(-1, 1)
                elif isinstance(module, torch.nn.Linear) and module.bias is not None:
                    module.bias.uniform_(0.0, 1.5)
                elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and name == "speck_snn":
                    module.weight.mul_(8)  # no bias lifts its neurons
    return net.eval()


def frames(net, *, batch=3, seed=1):
    """Event counts [T,B,P,H,W] for a network."""
    settings = net.settings
    shape = (settings.time_steps, batch, settings.in_channels, *settings.input_size)
    return torch.poisson(torch.full(shape, 0.5), generator=torch.Generator().manual_seed(seed))
