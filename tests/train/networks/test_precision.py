"""16-bit training, on the CPU: close to fp32, deterministic, resumable."""

import contextlib
import logging

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from run_folders import same_run
from safetensors.torch import load_file

from spikebridge.models import backends, build_model
from spikebridge.models.neurons import Neuron
from spikebridge.models.normalization import StepNorm
from spikebridge.train.errors import RunStoppedError
from spikebridge.train.losses import transfer_loss
from spikebridge.train.networks import precision
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.networks.precision import Precision
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")
EPS = {"bf16": 2.0**-8, "fp16": 2.0**-11}


class StopAfter(StopRequest):
    """Asks for an end when it has been looked at so many times."""

    def __init__(self, looks):
        self.left, self._signal = looks, 0

    @property
    def signal(self):
        self.left -= 1
        return 15 if self.left < 0 else 0


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["vgg_snn", "resnet18_snn", "scnn"])
def test_layers_are_close_to_fp32_and_state_and_losses_are_fp32(kind, name):
    """Every convolution and linear layer on the inputs that it got: one rounding of weights and result."""
    torch.manual_seed(0)
    net = build_model(kind, num_classes=3, time_steps=2, width=0.1, input_size=16)
    static, event = torch.rand(2, 4, 2, 16, 16), torch.poisson(torch.full((2, 4, 2, 16, 16), 0.5))
    seen = []

    def look(layer, given, out):
        assert out.dtype == precision.TYPES[name]
        exact = torch.nn.functional.conv2d if isinstance(layer, torch.nn.Conv2d) else torch.nn.functional.linear
        how = {"stride": layer.stride, "padding": layer.padding} if isinstance(layer, torch.nn.Conv2d) else {}
        with torch.autocast("cpu", enabled=False):
            expected = exact(given[0].float(), layer.weight, layer.bias, **how)
            size = exact(
                given[0].float().abs(), layer.weight.abs(), None if layer.bias is None else layer.bias.abs(), **how
            )
        assert ((out.float() - expected).abs() <= 4 * EPS[name] * size + 1e-6).all()
        seen.append(layer)

    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(look)
    with backends.record() as ran:
        out = Precision(name, CPU).forward(net, static, event, None)
    assert set(seen) == set(layers)
    assert set(ran) == {"numba"}
    assert out.static_logits.dtype == out.event_logits.dtype == torch.float32
    loss = transfer_loss(out, torch.tensor([0, 1, 2, 0]), net.coefficients)
    assert {part.dtype for part in (loss.total, loss.static, loss.event, loss.domain, loss.cka)} == {torch.float32}
    loss.total.backward()
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}
    assert {b.dtype for n, b in net.named_buffers() if "running" in n} <= {torch.float32}
    assert any(isinstance(module, Neuron) for module in net.modules())


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_trains_like_fp32_and_continues_with_the_same_bits(tmp_path, name, caplog, monkeypatch):
    monkeypatch.setattr(precision, "cpu_computes", lambda _: False)
    shards = FakeShardSet(tmp_path / "shards")
    losses = {}
    for chosen in ("fp32", name):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            train(shards, tiny_recipe(precision=chosen), tmp_path / chosen, device="cpu")
        assert (f"precision {name}: this CPU has no instructions" in caplog.text) == (chosen == name)
        losses[chosen] = [line["loss_total"] for line in read_metrics(tmp_path / chosen)]
    assert losses[name] != losses["fp32"]
    assert losses[name] == pytest.approx(losses["fp32"], rel=0.1)
    with pytest.raises(RunStoppedError):
        train(shards, tiny_recipe(precision=name), tmp_path / "parts", device="cpu", stop=StopAfter(3))
    kept = [load_file(file) for file in (tmp_path / "parts" / "checkpoint").glob("epoch-*")]
    assert [("loss_scale" in tensors) for tensors in kept] == [name == "fp16"]
    train(shards, tiny_recipe(precision=name), tmp_path / "parts", device="cpu")
    same_run(tmp_path / name, tmp_path / "parts")


def test_an_overflow_leaves_out_the_update_and_halves_the_scale(tmp_path):
    settings = tiny_recipe(precision="fp16").train
    net = make_network(network_arguments(settings, FakeShardSet(tmp_path)), seed=0)
    chosen = Precision("fp16", CPU)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    before = net.coefficients.detach().clone()
    (scale, good), expected = chosen.tensors()["loss_scale"].tolist(), []
    for factor in (1e38, 1.0):
        optimizer.zero_grad()
        chosen.backward(net.coefficients.sum() * factor)
        chosen.update(optimizer)
        expected.append(chosen.tensors()["loss_scale"].tolist())
        if factor > 1:
            assert torch.equal(net.coefficients, before)
    assert expected == [[scale / 2, 0], [scale / 2, good + 1]]
    assert not torch.equal(net.coefficients, before)
    other = Precision("fp16", CPU)
    other.restore(chosen.tensors())
    assert torch.equal(other.tensors()["loss_scale"], chosen.tensors()["loss_scale"])
    assert Precision("bf16", CPU).tensors() == Precision("fp32", CPU).tensors() == {}


def test_golden_types_are_left_alone(tmp_path):
    """A float64 network stays float64 whatever the precision."""
    net = build_model("scnn", num_classes=3, time_steps=2, width=0.2, input_size=16).double()
    frames = torch.rand(2, 3, 2, 16, 16, dtype=torch.float64)
    plain = net(frames, frames)
    for name in precision.TYPES:
        out = Precision(name, CPU).forward(net, frames, frames, None)
        assert torch.equal(out.event_logits, plain.event_logits)


def kept_bytes(name):
    """Of what backward keeps of a step of a VGG-SNN, weights aside."""
    net = build_model("vgg_snn", num_classes=3, time_steps=2, width=0.1, input_size=48)
    weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    frames, kept = torch.rand(2, 2, 2, 48, 48), {}

    def keep(x):
        kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        Precision(name, CPU).forward(net, frames, frames, None)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_step_in_16_bits_keeps_about_half(name):
    assert kept_bytes(name) <= 0.6 * kept_bytes("fp32")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_running_statistics_move_in_fp32(kind):
    moved = []
    for around in (contextlib.nullcontext(), torch.autocast("cpu", dtype=kind)):
        norm, generator = StepNorm(64), torch.Generator().manual_seed(0)
        for _ in range(20):
            mean, variance = torch.rand((2, 2, 10, 64), generator=generator)
            with around:
                norm.update_running(mean, variance, (0, 1))
        moved.append((norm.running_mean, norm.running_var))
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-6, atol=1e-6)
