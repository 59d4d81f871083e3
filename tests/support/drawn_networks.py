"""Networks with drawn weights that fire in every layer, and two streams for them."""

import torch

from spikebridge.models import build_model

WIDTHS = {
    "vgg_snn": 0.05,
    "resnet18_snn": 0.05,
    "resnet34_snn": 0.03,
    "scnn": 0.2,
    "nmnist_snn": 0.03,
    "speck_snn": 0.1,
}


def draw_case(kind, *, T, B, size, seed, **how):
    torch.manual_seed(seed)
    net = build_model(kind, num_classes=3, time_steps=T, width=WIDTHS[kind], input_size=size, **how).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(8 if kind == "speck_snn" else 2)  # deep layers should fire
            elif "bn" in name or name.endswith(".w"):
                parameter.add_(0.4 * torch.rand_like(parameter))
    if kind == "nmnist_snn":
        net.dropout1.p = net.dropout2.p = 0.0
    static = torch.rand(T, B, 2, *net.settings.input_size, dtype=torch.float64)
    return net, static, torch.poisson(0.6 * torch.ones_like(static))
