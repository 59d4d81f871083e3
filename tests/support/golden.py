"""The published figures: inputs and weights as they were made, and the comparison of a network with them.

Needs no pytest, so that the benchmark of a GPU can begin with it.
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from spikebridge.models import backends, build_model
from spikebridge.models.published import neuron_constants, published_names
from spikebridge.train.losses import transfer_loss

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = ("vgg_full", "vgg_tet_only", "vgg_plain", "resnet18_full", "scnn_omniglot")
NAMES = {"vgg_snn": "vgg_snn", "resnet18": "resnet18_snn", "scnn": "scnn"}
SPIKING_LAYERS = {"vgg_snn": 8, "resnet18": 19, "scnn": 3}
TWICE = ("fc1", "feature.0.weight", "feature.3.weight")


def generator(name):
    return np.random.RandomState(zlib.crc32(name.encode()))


@cache
def uniform(name, shape):
    return generator(name).uniform(-1, 1, size=shape)


def published_weight(name, shape):
    if name.startswith("coefficient"):
        return 1 + 0.5 * uniform(name, shape)
    if name.endswith(("running_mean", "num_batches_tracked")):
        return np.zeros(shape)
    if name.endswith("running_var"):
        return np.ones(shape)
    if len(shape) == 1:
        return 1 + 0.2 * uniform(name, shape) if name.endswith("weight") else 0.2 * uniform(name, shape)
    scale = np.sqrt(3 / np.prod(shape[1:])) * (2 if name.startswith(TWICE) else 1)
    return uniform(name, shape) * scale


def published_state(net):
    shapes = {theirs: tuple(net.state_dict()[ours].shape) for ours, theirs in published_names(net).items()}
    shapes |= {f"coefficient.{t}": (1,) for t in range(len(net.coefficients))}
    state = {name: torch.tensor(published_weight(name, shape)) for name, shape in shapes.items()}
    return state | {name: torch.tensor(value) for name, value in neuron_constants(net).items()}


def inputs(case):
    T, B, S, K = case["T"], case["B"], case["size"], case["classes"]
    event = torch.tensor(generator("events").poisson(0.5, size=(B, T, 2, S, S)) * 0.75)
    image = torch.tensor(generator("static").uniform(0, 1, size=(B, 1, S, S)))
    labels = torch.tensor(generator("label").randint(0, K, size=B))
    replaced = torch.tensor(generator("replaced").uniform(0, 1, size=B) < case["replace_p"])
    static = torch.where(replaced[:, None, None, None, None], event, image[:, None].expand_as(event))
    return static.transpose(0, 1), event.transpose(0, 1), labels


def agree(found, expected):
    found = found.detach().cpu().numpy() if torch.is_tensor(found) else found
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def check(name, backend, *, device="cpu"):
    """Compare one case on one backend with its figures (float64, 1e-9); AssertionError names what differs."""
    golden = np.load(GOLDEN / f"{name}.npz")
    case = json.loads(str(golden["case"]))
    net = build_model(
        NAMES[case["model"]], num_classes=case["classes"], time_steps=case["T"], surrogate=case["surrogate"]
    ).double()
    assert net.load_published(published_state(net))
    net.to(device)
    static, event, labels = (each.to(device) for each in inputs(case))
    with backends.use(backend), backends.record() as ran:
        out = net(static, event)
    assert ran == {backend: SPIKING_LAYERS[case["model"]]}
    loss = transfer_loss(
        out,
        labels,
        net.coefficients,
        domain_coefficient=case["domain_coefficient"],
        tet=case["tet"],
        regularization=case["regularization"],
    )
    loss.total.backward()

    agree(out.static_logits, golden["logits_static"])
    agree(out.event_logits, golden["logits_event"])
    agree(out.static_features.norm(dim=(1, 2)), golden["feature_static_norm"])
    agree(out.event_features.norm(dim=(1, 2)), golden["feature_event_norm"])
    agree(loss.cka, golden["cka"])
    for part, key in (("total", "loss"), ("static", "loss_static"), ("event", "loss_event"), ("domain", "loss_domain")):
        agree(getattr(loss, part), golden[key])

    ours = dict(net.named_parameters())
    by_published = {theirs: ours[mine].grad for mine, theirs in published_names(net).items() if mine in ours}
    if net.coefficients.grad is not None:
        by_published |= {f"coefficient.{t}": g.view(1) for t, g in enumerate(net.coefficients.grad)}
    names = [str(each) for each in golden["grad_names"]]
    assert set(names) == {each for each, grad in by_published.items() if grad is not None}
    agree(np.array([float(by_published[each].norm()) for each in names]), golden["grad_norms"])
    for each in names:
        head = golden[f"grad_head/{each}"]
        atol = 1e-9 * float(by_published[each].abs().max())
        np.testing.assert_allclose(by_published[each].flatten()[: len(head)].cpu().numpy(), head, rtol=1e-9, atol=atol)

    state = net.state_dict()
    for key in (each for each in golden.files if each.startswith("bn_norm/")):
        agree(state[key.removeprefix("bn_norm/")].norm(), golden[key])
    net.eval()
    with torch.no_grad(), backends.use(backend), backends.record() as ran:
        agree(net(None, event).event_logits, golden["eval_logits_event"])
    assert ran == {backend: SPIKING_LAYERS[case["model"]]}
