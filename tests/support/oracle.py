"""The method step by step, slowly and by the book: what every backend must equal.

Written from the method's description alone: a loop over time inside a loop over streams (static first), BatchNorm as
nn.BatchNorm2d does it, autograd through every operation. Weights come as a dictionary of published names; nothing is
shared with `models` but the surrogates' names. Shapes: frames [T,B,C,H,W], logits [T,B,K], features [T,B,F].
"""

import math

import torch
import torch.nn.functional as F

BLOCKS = {"resnet18_snn": (2, 2, 2, 2), "resnet34_snn": (3, 4, 6, 3)}
VGG = (0, 1, "pool", 3, 4, "pool", 6, 7, "pool", 9, 10, "pool")


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, name):
        ctx.save_for_backward(u)
        ctx.name = name
        return (u >= 0).to(u.dtype) if name == "SigmoidGrad" else (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        a, size = 2.0, u.abs()
        zero, one = torch.zeros_like(u), torch.ones_like(u)
        slope = {
            "QGateGrad": torch.where(size <= 1 / a, a - a * a * size, zero),
            "BackEIGateGrad": torch.where(size < 0.5, one, zero),
            "GateGrad": torch.where(size < 1 / a, one, zero),
            "SigmoidGrad": a * torch.exp(-a * u) / (1 + torch.exp(-a * u)) ** 2,
            "AtanGrad": (a / 2) / (1 + (math.pi * a * u / 2) ** 2),
        }[ctx.name]
        return grad * slope, None


class Neuron:
    """One layer's neurons; `potential` lives from reset to reset."""

    def __init__(self, surrogate, neuron="LIF", reset="hard", w=None):
        self.surrogate, self.neuron, self.hard, self.w = surrogate, neuron, reset == "hard", w
        self.potential = self.charged = 0.0

    def __call__(self, x):
        if self.neuron == "ReLU":
            self.charged = self.potential = x
            return torch.where(x > 0, x, torch.zeros_like(x))
        v = self.potential
        if self.neuron == "LIF":
            v = v + (x - v) / 2.0
        elif self.neuron == "PLIF":
            v = v + (x - v) * torch.sigmoid(self.w)
        else:
            v = v + x
        self.charged = v
        spike = Spike.apply(v - 0.5, self.surrogate)
        self.potential = v * (1 - spike.detach()) if self.hard else v - 0.5 * spike.detach()
        return spike


class Oracle:
    """Forward of one network from its weights.

    Args:
        kind: "vgg_snn", "resnet18_snn", "resnet34_snn", "scnn", "nmnist_snn" or "speck_snn".
        state: our state dictionary, whose tensors may require gradients; running statistics are replaced in it.
        feature: what the alignment compares of the last neurons.
    """

    def __init__(
        self,
        kind,
        state,
        *,
        surrogate="QGateGrad",
        neuron="LIF",
        reset="hard",
        statistics="per_step",
        feature="published",
    ):
        self.kind, self.state = kind, state
        self.settings = {"surrogate": surrogate, "neuron": neuron, "reset": reset}
        self.statistics, self.feature = statistics, feature
        self.training = True

    def norm(self, name, x, stream):
        """x [B,C,H,W] of one step, or [T*B,C,H,W] where pooled."""
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        own = self.statistics == "domain"
        layer = torch.nn.BatchNorm2d(x.shape[1]).to(x.dtype)
        layer.running_mean.copy_(mean[stream] if own else mean)
        layer.running_var.copy_(var[stream] if own else var)
        layer.train(self.training)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        y = F.batch_norm(x, layer.running_mean, layer.running_var, weight, bias, self.training, 0.1, 1e-5)
        for key, value in ((f"{name}.running_mean", layer.running_mean), (f"{name}.running_var", layer.running_var)):
            new = self.state[key].clone()
            new[stream if own else slice(None)] = value
            self.state[key] = new
        if self.training:
            self.state[f"{name}.num_batches_tracked"] = self.state[f"{name}.num_batches_tracked"] + 1
        return y

    def norm_fire(self, bn, node, xs, stream):
        """Steps xs through BatchNorm `bn` (or None) and the neurons `node`: spikes and features, lists over T."""
        if bn is not None:
            if self.statistics == "pooled":
                xs = list(self.norm(bn, torch.cat(xs), stream).chunk(len(xs)))
            else:
                xs = [self.norm(bn, x, stream) for x in xs]
        neuron = Neuron(w=self.state.get(f"{node}.w"), **self.settings)
        spikes, features = [], []
        for x in xs:
            spikes.append(neuron(x))
            feature = {"spikes": spikes[-1], "before_reset": neuron.charged}.get(self.feature, neuron.potential)
            features.append(feature.mean((2, 3)) if self.feature == "pooled" and feature.ndim == 4 else feature)
        return spikes, features

    def conv(self, name, xs, **how):
        return [F.conv2d(x, self.state[f"{name}.weight"], **how) for x in xs]

    def linear(self, name, xs):
        return [F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias")) for x in xs]

    def stream(self, frames, stream):
        head = ("static_head", "event_head")[stream]
        logits, features = getattr(self, self.kind.removesuffix("_snn").rstrip("0123456789"))(
            list(frames), stream, head
        )
        return torch.stack(logits), torch.stack([f.flatten(1) for f in features])

    def __call__(self, static, event):
        """((static logits, features), (event logits, features)); None for an absent stream."""
        return tuple(None if x is None else self.stream(x, s) for s, x in enumerate((static, event)))

    def vgg(self, xs, stream, head):
        for step in VGG:
            if step == "pool":
                xs = [F.avg_pool2d(x, 2) for x in xs]
            else:
                xs = self.conv(f"feature.{step}.conv", xs, padding=1)
                xs, features = self.norm_fire(f"feature.{step}.bn", f"feature.{step}.node", xs, stream)
        return self.linear(head, [x.flatten(1) for x in xs]), features

    def resnet(self, xs, stream, head):
        xs = self.conv("conv1", xs, padding=1)
        for layer, blocks in enumerate(BLOCKS[self.kind], start=1):
            for block in range(blocks):
                p = f"layer{layer}.{block}"
                stride = 2 if layer > 1 and block == 0 else 1
                ys, _ = self.norm_fire(f"{p}.bn1", f"{p}.node1", xs, stream)
                ys = self.conv(f"{p}.conv1", ys, padding=1, stride=stride)
                ys, features = self.norm_fire(f"{p}.bn2", f"{p}.node2", ys, stream)
                ys = self.conv(f"{p}.conv2", ys, padding=1)
                if stride == 2:
                    xs, _ = self.norm_fire(f"{p}.downsample.0", f"{p}.downsample.1", xs, stream)
                    xs = self.conv(f"{p}.downsample.2", xs, stride=2)
                xs = [x + y for x, y in zip(xs, ys, strict=True)]
        if self.statistics == "pooled":
            xs = self.norm("bn1", torch.cat(xs), stream).chunk(len(xs))
        else:
            xs = [self.norm("bn1", x, stream) for x in xs]
        pooled = [F.adaptive_avg_pool2d(x, 1).flatten(1) for x in xs]
        return self.linear(head, pooled), pooled if self.feature in ("published", "pooled") else features

    def scnn(self, xs, stream, head):
        for conv, node in ((0, 1), (3, 4)):
            xs, _ = self.norm_fire(None, f"feature.{node}", self.conv(f"feature.{conv}", xs), stream)
            xs = [F.avg_pool2d(x, 2) for x in xs]
        xs, features = self.norm_fire(None, "node1", self.linear("fc1", [x.flatten(1) for x in xs]), stream)
        return self.linear("fc2", xs), features

    def nmnist(self, xs, stream, head):
        """Without dropout."""
        for i in (1, 2):
            xs, _ = self.norm_fire(f"bn{i}", f"node{i}", self.conv(f"conv{i}", xs, padding=1), stream)
            xs = [F.avg_pool2d(x, 2) for x in xs]
        xs, features = self.norm_fire(None, "node3", self.linear("fc", [x.flatten(1) for x in xs]), stream)
        votes, _ = self.norm_fire(None, head.replace("head", "node"), self.linear(head, xs), stream)
        return [v.view(len(v), -1, 10).mean(-1) for v in votes], features

    def speck(self, xs, stream, head):
        for i in (1, 2):
            xs, _ = self.norm_fire(None, f"node{i}", self.conv(f"conv{i}", xs), stream)
            xs = [F.avg_pool2d(x, 2) for x in xs]
        xs, features = self.norm_fire(None, "node3", self.linear("fc", [x.flatten(1) for x in xs]), stream)
        spikes, _ = self.norm_fire(None, head.replace("head", "node"), self.linear(head, xs), stream)
        return [10 * s for s in spikes], features


def cka(x, y):
    """Biased linear CKA of [B,F] and [B,F'], by definition."""
    n = len(x)
    h = torch.eye(n, dtype=x.dtype) - 1 / n
    k, m = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return (k * m).sum() / (k.pow(2).sum().sqrt() * m.pow(2).sum().sqrt() + 1e-7)


def loss(static, event, labels, coefficients, *, domain_coefficient, tet, regularization):
    """Total loss, step by step, of two (logits, features)."""
    T = len(static[0])
    total_s = total_e = domain = 0.0
    for t in range(T):
        share = torch.sigmoid(coefficients[t])
        domain = domain + (share if regularization else 1) * (1 - abs(cka(static[1][t], event[1][t]))) / T
        terms = []
        for logits in (static[0][t], event[0][t]):
            half = torch.full_like(logits, 0.5)
            terms.append(0.999 * F.cross_entropy(logits, labels) + 0.001 * F.mse_loss(logits, half))
        total_s = total_s + terms[0] / T
        total_e = total_e + (1 - share if regularization else 1) * terms[1] / T
    if not tet:
        total_s = F.cross_entropy(static[0].mean(0), labels)
        total_e = F.cross_entropy(event[0].mean(0), labels)
    return total_s + total_e + domain_coefficient * domain
