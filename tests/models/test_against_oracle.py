"""Every backend equals the step-by-step oracle: float64 end to end, float32 layer by layer."""

import numpy as np
import pytest
import torch
from drawn_networks import draw_case
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle, loss

from spikebridge.models import FEATURES, SURROGATES, backends, kernels_numba
from spikebridge.models.fire_numba import AS_BITS
from spikebridge.models.layers import fire
from spikebridge.models.neurons import NEURONS, make_neuron
from spikebridge.models.normalization import STATISTICS, StepNorm
from spikebridge.train.losses import transfer_loss

BACKENDS = ("torch", "numba")
SIZES = {"vgg_snn": (16, 17), "resnet18_snn": (9, 12), "scnn": (16, 19), "nmnist_snn": (4, 9), "speck_snn": (16, 17)}
SPATIAL = ("vgg_snn", "resnet18_snn")
SPIKING = [name for name, kind in NEURONS.items() if kind.spiking]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", list(SIZES))
def test_whole_network(kind, backend, data):
    how = {
        "surrogate": data.draw(st.sampled_from(sorted(SURROGATES))),
        "neuron": data.draw(st.sampled_from(sorted(NEURONS if backend == "torch" else SPIKING))),
        "reset": data.draw(st.sampled_from(("hard", "soft"))),
        "statistics": data.draw(st.sampled_from(STATISTICS)),
        "feature": data.draw(st.sampled_from([name for name in FEATURES if name != "pooled" or kind in SPATIAL])),
    }
    T, B, seed = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5)), data.draw(st.integers(0, 99))
    low, high = SIZES[kind]
    size = data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))
    net, static, event = draw_case(kind, T=T, B=B, size=size, seed=seed, **how)
    replaced = data.draw(st.lists(st.booleans(), min_size=B, max_size=B))  # sliding: these are shown events instead
    static[:, torch.tensor(replaced)] = event[:, torch.tensor(replaced)]
    streams = data.draw(st.sampled_from(("both", "static", "event")))
    static, event = (None if streams == "event" else static), (None if streams == "static" else event)
    net.train(data.draw(st.booleans()))
    agree(kind, backend, net, static, event, how)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "feature"), [(kind, name) for kind in SIZES for name in FEATURES if name != "pooled" or kind in SPATIAL]
)
def test_every_feature_on_every_backend(kind, feature, backend):
    how = {"feature": feature, "neuron": "PLIF"}
    net, static, event = draw_case(kind, T=3, B=4, size=SIZES[kind][0], seed=3, **how)
    agree(kind, backend, net, static, event, how)


@pytest.mark.parametrize("backend", BACKENDS)
def test_resnet34(backend):
    net, static, event = draw_case("resnet34_snn", T=2, B=3, size=9, seed=4)
    agree("resnet34_snn", backend, net, static, event, {})


def agree(kind, backend, net, static, event, how):
    """Outputs, gradients and buffers of one pass equal the oracle's."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    oracle = Oracle(kind, {**{name: b.clone() for name, b in net.named_buffers()}, **weights}, **how)
    oracle.training = net.training
    expected = oracle(static, event)
    with backends.use(backend), backends.record() as ran:
        out = net(static, event)
    assert set(ran) == {backend}

    found = ((out.static_logits, out.static_features), (out.event_logits, out.event_features))
    scalar, oracle_scalar = 0.0, 0.0
    for mine, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert mine == (None, None)
            continue
        for a, b in zip(mine, theirs, strict=True):
            close(a, b)
            mix = torch.linspace(-1, 1, b.numel(), dtype=b.dtype).view_as(b)
            scalar, oracle_scalar = scalar + (a * mix).sum(), oracle_scalar + (b * mix).sum()
    scalar.backward()
    oracle_scalar.backward()
    for name, parameter in net.named_parameters():
        if weights[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any()
        else:
            close(parameter.grad, weights[name].grad)
    for name, buffer in net.named_buffers():
        if not (net.settings.statistics == "pooled" and name.endswith("tracked")):
            close(buffer, oracle.state[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("regularization", [True, False])
@pytest.mark.parametrize("tet", [True, False])
def test_loss_and_its_gradients(tet, regularization, backend):
    net, static, event = draw_case("scnn", T=3, B=5, size=16, seed=1)
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    labels = torch.tensor([0, 1, 2, 1, 0])
    how = {"domain_coefficient": 0.5, "tet": tet, "regularization": regularization}
    expected = loss(*Oracle("scnn", weights)(static, event), labels, weights["coefficients"], **how)
    expected.backward()
    with backends.use(backend):
        found = transfer_loss(net(static, event), labels, net.coefficients, **how)
    found.total.backward()
    close(found.total, expected)
    for name, parameter in net.named_parameters():
        if weights[name].grad is not None:
            close(parameter.grad, weights[name].grad)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 5),
    B=st.integers(1, 3),
    size=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    neuron=st.sampled_from(sorted(SPIKING)),
    surrogate=st.sampled_from(sorted(SURROGATES)),
    reset=st.sampled_from(("hard", "soft")),
    normalized=st.booleans(),
    pool=st.booleans(),
)
def test_one_layer_in_float32(seed, T, B, size, neuron, surrogate, reset, normalized, pool):
    """The numba layer follows the float32 torch layer from the same input, and float64 within float32's reach."""
    torch.manual_seed(seed)
    x = torch.randn(B, 2, T, 3, *size)
    # inputs in steps of 1/64 are exact: without BatchNorm no rounding can flip a spike
    x = x if normalized else (x * 64).round() / 64
    results = {}
    for backend, dtype in (("torch", torch.float32), ("numba", torch.float32), ("torch", torch.float64)):
        node = make_neuron(neuron, surrogate=surrogate, reset=reset).to(dtype)
        norm = StepNorm(3).to(dtype) if normalized else None
        leaf = x.to(dtype).detach().clone().requires_grad_()
        with backends.use(backend), backends.record() as ran:
            spikes, potential = fire(leaf, node, norm, streams=(0, 1), pool=pool, potential=True)
        assert ran == {backend: 1}
        (spikes.sum() + potential.square().sum()).backward()
        results[backend, dtype] = [each.double() for each in (spikes.detach(), potential.detach(), leaf.grad)]
    exact = results["torch", torch.float64]
    for key in (("torch", torch.float32), ("numba", torch.float32)):
        if torch.equal(results[key][0], exact[0]):  # a flipped spike changes everything after it
            for a, b in zip(results[key], exact, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        else:
            assert normalized or neuron == "PLIF"


@pytest.mark.parametrize(
    ("neuron", "statistics", "pool", "size"),
    [("LIF", "per_step", True, (6, 6)), ("PLIF", "pooled", False, (3, 5)), ("IF", None, True, (5, 7))],
)
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_numba_computes_16_bits_in_float32(neuron, statistics, pool, size, narrow):
    """To the bit, and rounds once: the gradient of the input. Spikes and their averages are exact."""
    torch.manual_seed(0)
    x, found = torch.randn(2, 2, 3, 4, *size).to(narrow), []
    for kind in (narrow, torch.float32):
        node = make_neuron(neuron, surrogate="SigmoidGrad", reset="hard")
        norm = None if statistics is None else StepNorm(4, statistics=statistics)
        leaf = x.to(kind, copy=True).requires_grad_()
        with backends.use("numba"), backends.record() as ran:
            spikes, potential = fire(leaf, node, norm, streams=(0, 1), pool=pool, potential=True)
        assert ran == {"numba": 1}
        assert (spikes.dtype, potential.dtype) == (kind, torch.float32)
        (spikes.float().sum() * 3 + potential.square().sum()).backward()
        assert leaf.grad.dtype == kind
        moved = [] if norm is None else [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        moved += [p.grad for p in node.parameters()]
        found.append([spikes.detach().float(), potential.detach(), leaf.grad.to(narrow), *moved])
    assert found[0][0].any()
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_16_bits_is_read_as_it_is(narrow):
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(narrow)
    sums, squares = np.empty((2, 1, len(every), 1))
    bits = every.view(AS_BITS[narrow]).numpy()[None, :, None]  # frames [R,T,N] of one number
    kernels_numba.moments(bits, np.empty(0, np.float32), 1, sums, squares, 0, 1)
    torch.testing.assert_close(torch.from_numpy(sums).flatten(), every.double(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_gradients_are_rounded_to_16_bits_as_torch_does(narrow):
    """Every number of 16 bits, halfway to the next, and the float32 beside either: to the bit."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(narrow).float().view(torch.int32)
    half = 1 << (15 if narrow == torch.bfloat16 else 12)
    beside = torch.stack([every + half * up + step for up in (0, 1) for step in (-1, 0, 1)]).flatten()
    tiny = torch.arange(-(2**12), 2**12) * 2.0**-27  # between the subnormals of float16
    grad = torch.cat([beside.view(torch.float32), tiny]) + 0.0  # -0 + 0, which the kernel adds, is 0
    frames, ones = grad.numpy()[None, :, None], np.ones((1, len(grad), 1), np.float32)  # [R,T,N] of one number
    bits = np.zeros(frames.shape, np.uint16 if narrow == torch.bfloat16 else np.int16)
    out = np.empty_like(bits)
    kernels_numba.normalize_backward(bits, frames, ones, 0 * ones, 0 * ones, out, 0, 1)
    found = torch.from_numpy(out.view(np.int16)).view(narrow).flatten()
    torch.testing.assert_close(found, grad.to(narrow), rtol=0, atol=0, equal_nan=True)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr("spikebridge.models.fire_numba.SMALLEST_SHARE", 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.manual_seed(0)
            x = torch.randn(3, 2, 4, 5, 6, 6, requires_grad=True)
            norm, node = StepNorm(5), make_neuron("PLIF", surrogate="QGateGrad", reset="hard")
            torch.set_num_threads(threads)
            with backends.use("numba"):
                spikes, _ = fire(x, node, norm, streams=(0, 1), pool=True)
            spikes.square().sum().backward()
            found.append((spikes.detach(), x.grad, norm.weight.grad, norm.running_var, node.w.grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
