"""The published way to compute a step, as its code does it and as fast as that can be in eager PyTorch.

A loop over time inside a loop over the streams; one library call per layer, step and stream; neurons of a few tensor
operations each with an autograd function for the spike; losses and alignment of one time step after the other. Nothing
is computed twice and nothing is copied that the published code does not copy. `training.check_equal` compares it with
our networks in float64. Written for the benchmarks; the oracle of the tests covers more cases, slowly.

Axes: T time, B batch, C channels, H, W, F features, K classes.

Source: He et al., AAAI 2024.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikebridge.models import TransferNetwork
from spikebridge.models.vgg import CONVOLUTIONS, POOLED

THRESHOLD, TAU = 0.5, 2.0


class Spike(torch.autograd.Function):
    """Step, with the triangular surrogate (QGateGrad, alpha 2) backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """1 where u is positive."""
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Slope 2 - 4 |u|, not below 0."""
        (u,) = ctx.saved_tensors
        return grad * (2.0 - 4.0 * u.abs()).clamp(min=0)


class Layer:
    """A layer's neurons; `v` is the potential after reset."""

    def __init__(self) -> None:
        self.v: Tensor | float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Spikes of one step."""
        v = self.v + (x - self.v) / TAU
        spike: Tensor = Spike.apply(v - THRESHOLD)
        self.v = v * (1 - spike.detach())
        return spike


class StepByStep(nn.Module):
    """vgg_snn, resnet18_snn or scnn with the weights of one of ours, under the same names.

    Args:
        net: LIF, QGateGrad, hard reset, statistics per step; a copy of its weights is taken.
    """

    def __init__(self, net: TransferNetwork) -> None:
        super().__init__()
        self.kind = net.settings.name
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(p.detach().clone()) for name, p in net.named_parameters()}
        )
        for name, buffer in net.named_buffers():
            self.register_buffer(name.replace(".", "/"), buffer.clone())

    def forward(self, static: Tensor, event: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Logits [T,B,K] and features, a list over T of [B,F], of the static and of the event stream."""
        step = {"vgg_snn": self._vgg, "resnet18_snn": self._resnet, "scnn": self._scnn}[self.kind]
        found = []
        for frames, head in ((static, "static_head"), (event, "event_head")):
            layers: dict[str, Layer] = {}
            steps = [step(x, layers, head) for x in frames]
            found.append((torch.stack([logits for logits, _ in steps]), [f.flatten(1) for _, f in steps]))
        return found

    def _fire(self, x: Tensor, layers: dict[str, Layer], name: str) -> Tensor:
        return layers.setdefault(name, Layer())(x)

    def _conv(self, x: Tensor, name: str, **how: Any) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}/weight"], **how)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}/weight"], self.weights[f"{name}/bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = self.get_buffer(f"{name}/running_mean"), self.get_buffer(f"{name}/running_var")
        self.get_buffer(f"{name}/num_batches_tracked").add_(1)
        return F.batch_norm(
            x, mean, variance, self.weights[f"{name}/weight"], self.weights[f"{name}/bias"], True, 0.1, 1e-5
        )

    def _vgg(self, x: Tensor, layers: dict[str, Layer], head: str) -> tuple[Tensor, Tensor]:
        name = ""
        for index, _ in CONVOLUTIONS:
            name = f"feature/{index}"
            x = self._fire(self._norm(self._conv(x, f"{name}/conv", padding=1), f"{name}/bn"), layers, name)
            if index in POOLED:
                x = F.avg_pool2d(x, 2)
        return self._linear(x.flatten(1), head), self._potential(layers[name])

    def _scnn(self, x: Tensor, layers: dict[str, Layer], head: str) -> tuple[Tensor, Tensor]:
        for conv in ("feature/0", "feature/3"):
            x = F.avg_pool2d(self._fire(self._conv(x, conv), layers, conv), 2)
        x = self._fire(self._linear(x.flatten(1), "fc1"), layers, "fc1")
        return self._linear(x, "fc2"), self._potential(layers["fc1"])

    def _resnet(self, x: Tensor, layers: dict[str, Layer], head: str) -> tuple[Tensor, Tensor]:
        x = self._conv(x, "conv1", padding=1)
        for layer in (1, 2, 3, 4):
            for block in (0, 1):
                name, stride = f"layer{layer}/{block}", 2 if layer > 1 and block == 0 else 1
                y = self._fire(self._norm(x, f"{name}/bn1"), layers, f"{name}/node1")
                y = self._conv(y, f"{name}/conv1", padding=1, stride=stride)
                y = self._fire(self._norm(y, f"{name}/bn2"), layers, f"{name}/node2")
                y = self._conv(y, f"{name}/conv2", padding=1)
                if stride == 2:
                    x = self._fire(self._norm(x, f"{name}/downsample/0"), layers, f"{name}/downsample")
                    x = self._conv(x, f"{name}/downsample/2", stride=2)
                x = x + y
        pooled = F.adaptive_avg_pool2d(self._norm(x, "bn1"), 1).flatten(1)
        return self._linear(pooled, head), pooled

    @staticmethod
    def _potential(layer: Layer) -> Tensor:
        assert isinstance(layer.v, Tensor)
        return layer.v

    def loss(self, static: Tensor, event: Tensor, labels: Tensor, *, domain_coefficient: float) -> Tensor:
        """Forward, and the whole loss (TET, regularisation) of one time step after the other."""
        (static_logits, static_features), (event_logits, event_features) = self(static, event)
        T, coefficients = len(static_logits), self.weights["coefficients"]
        total_static = total_event = domain = torch.zeros((), device=labels.device)
        for t in range(T):
            share = torch.sigmoid(coefficients[t])
            total_static = total_static + _tet(static_logits[t], labels) / T
            total_event = total_event + (1 - share) * _tet(event_logits[t], labels) / T
            domain = domain + share * (1 - _cka(static_features[t], event_features[t]).abs()) / T
        return total_static + total_event + domain_coefficient * domain


def _tet(logits: Tensor, labels: Tensor) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return 0.999 * F.cross_entropy(logits, labels) + 0.001 * F.mse_loss(logits, torch.full_like(logits, 0.5))


def _cka(x: Tensor, y: Tensor) -> Tensor:
    """Biased linear CKA of [B,F] and [B,F], with the centring matrix as published."""
    x, y = (each if each.dtype == torch.float64 else each.float() for each in (x, y))
    with torch.autocast(x.device.type, enabled=False):
        n = len(x)
        centre = torch.eye(n, dtype=x.dtype, device=x.device) - 1.0 / n
        k, m = centre @ (x @ x.T) @ centre, centre @ (y @ y.T) @ centre
        return (k * m).sum() / (k.square().sum().sqrt() * m.square().sum().sqrt() + 1e-7)
