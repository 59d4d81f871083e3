"""Networks of neurons that do not spike: closed form, and what they are refused for."""

import pytest
import torch

from spikebridge.models import backends, build_model
from spikebridge.models.errors import BackendError, ExportError
from spikebridge.models.layers import fire
from spikebridge.models.neurons import make_neuron
from spikebridge.models.normalization import StepNorm


def test_a_layer_passes_on_what_is_above_zero():
    x = torch.tensor([-1.0, 0.0, 2.0, 0.3]).view(1, 1, 4, 1).requires_grad_()  # [B,S,T,F]
    node = make_neuron("ReLU", surrogate="QGateGrad", reset="hard")
    node.record = True
    output, potential = fire(x, node, potential=True)
    assert output.flatten().tolist() == pytest.approx([0, 0, 2.0, 0.3])
    torch.testing.assert_close(potential, x)
    assert float(node.rate) == 0.5
    output.sum().backward()
    assert x.grad.flatten().tolist() == [0, 0, 1, 1]


def test_normalised_and_pooled():
    x, norm = torch.randn(3, 1, 2, 4, 5, 6), StepNorm(4)
    output, potential = fire(x, make_neuron("ReLU", surrogate="QGateGrad", reset="soft"), norm, streams=(1,), pool=True)
    assert output.shape == (3, 1, 2, 4, 2, 3)
    assert potential is None
    expected = torch.nn.functional.batch_norm(x[:, 0, 1], None, None, training=True).relu()
    torch.testing.assert_close(output[:, 0, 1], torch.nn.functional.avg_pool2d(expected, 2))


def test_steps_are_independent_and_the_parameters_those_of_the_spiking_network():
    torch.manual_seed(0)
    net = build_model("scnn", num_classes=3, time_steps=4, width=0.2, neuron="ReLU").double()
    spiking = build_model("scnn", num_classes=3, time_steps=4, width=0.2)
    assert {n: p.shape for n, p in net.named_parameters()} == {n: p.shape for n, p in spiking.named_parameters()}
    frames = torch.rand(4, 2, 2, 28, 28, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(None, frames[order]).event_logits, net(None, frames).event_logits[order])


@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_fused_backends_refuse_and_auto_takes_torch(backend, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x, node = torch.rand(1, 1, 2, 3), make_neuron("ReLU", surrogate="QGateGrad", reset="hard")
    with backends.use(backend), pytest.raises(BackendError, match=r"do not spike|triton is not installed"):
        fire(x, node)
    with backends.record() as ran:
        fire(x, node)
    assert ran == {"torch": 1}


def test_nir_is_for_spiking_networks():
    from spikebridge.models.to_nir import to_nir

    with pytest.raises(ExportError, match="an ANN"):
        to_nir(build_model("scnn", num_classes=3, time_steps=4, width=0.2, neuron="ReLU").eval())
