"""What a network promises besides its numbers."""

import argparse
import subprocess
from types import SimpleNamespace

import pytest
import torch

from spikebridge.models import FEATURES, NETWORKS, SURROGATES, backends, build_model
from spikebridge.models.errors import BackendError, CheckpointError, InputShapeError, ModelError, UnknownNameError
from spikebridge.models.layers import fire, keep_mask
from spikebridge.models.neurons import make_neuron
from spikebridge.models.normalization import StepNorm
from spikebridge.models.published import neuron_constants, published_names, read_published
from spikebridge.models.registry import register
from spikebridge.models.resnet import Pointwise
from spikebridge.models.surrogates import surrogate
from spikebridge.train.losses import transfer_loss

SMALLEST = {"vgg_snn": 16, "resnet18_snn": 9, "resnet34_snn": 9, "scnn": 16, "nmnist_snn": 4, "speck_snn": 16}


def small(name, **how):
    return build_model(name, **({"num_classes": 3, "time_steps": 2, "width": 0.05, "input_size": 16} | how))


def frames(net, B=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    H, W = net.settings.input_size
    shape = (net.settings.time_steps, B, net.settings.in_channels, H, W)
    return torch.poisson(torch.ones(shape), generator=generator)


def published_of(net):
    state = {theirs: net.state_dict()[ours].clone() for ours, theirs in published_names(net).items()}
    state |= {f"coefficient.{t}": torch.full((1,), 0.1 * t) for t in range(len(net.coefficients))}
    return state | {name: torch.tensor(value) for name, value in neuron_constants(net).items()}


def test_published_number_of_parameters():
    net = build_model("vgg_snn", num_classes=101, time_steps=10)
    assert sum(p.numel() for p in net.parameters()) + len(neuron_constants(net)) == 10_153_700
    assert torch.equal(net.coefficients, torch.ones(10))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("B", [1, 2, 3, 4])
def test_partial_batches_train(name, B):
    net = small(name, input_size=SMALLEST[name])
    out = net(frames(net, B), frames(net, B, seed=1))
    assert out.event_logits.shape == out.static_logits.shape == (2, B, 3)
    assert out.event_features.shape == out.static_features.shape
    transfer_loss(out, torch.zeros(B, dtype=torch.long), net.coefficients, cka="debiased").total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("channels", [2, 6, 7])
def test_narrow_shortcuts_of_resnets_are_convolutions_with_a_stride(channels):
    """Their backward pass, as torch has it, ends the process."""
    conv, given = Pointwise(channels, 13, stride=2), torch.rand(32, channels, 12, 12)
    weight = conv.weight.detach().double().requires_grad_()
    x, x64 = given.contiguous(memory_format=torch.channels_last).requires_grad_(), given.double().requires_grad_()
    results = []
    for y, inputs in ((conv(x), (x, conv.weight)), (torch.nn.functional.conv2d(x64, weight, stride=2), (x64, weight))):
        results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_config_and_state_rebuild_the_network(name):
    net = small(name, neuron="PLIF", reset="soft", statistics="domain", in_channels=3, input_size=(17, 16))
    net(frames(net), frames(net, seed=1))
    again = build_model(**net.config)
    again.load_state_dict(net.state_dict())
    x = frames(net)
    assert torch.equal(again.eval()(None, x).event_logits, net.eval()(None, x).event_logits)
    assert again.config == net.config


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_smallest_input_is_named(name):
    with pytest.raises(InputShapeError, match=f"smallest input is {SMALLEST[name]}x"):
        small(name, input_size=SMALLEST[name] - 1)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_one_stream_is_the_same_alone_in_evaluation(name):
    net = small(name).eval()
    x, y = frames(net), frames(net, seed=1)
    both, static, event = net(x, y), net(x, None), net(None, y)
    torch.testing.assert_close(both.event_logits, event.event_logits)
    torch.testing.assert_close(both.static_features, static.static_features)
    assert event.static_logits is static.event_logits is event.static_features is None


def test_wrong_frames_are_refused():
    net = small("scnn")
    with pytest.raises(InputShapeError, match="Both streams are None"):
        net(None, None)
    with pytest.raises(InputShapeError, match=r"expected \(2, 2, 2, 16, 16\)"):
        net(None, torch.zeros(3, 2, 2, 16, 16))
    with pytest.raises(InputShapeError, match="B of at least 1"):
        net(None, torch.zeros(2, 0, 2, 16, 16))
    with pytest.raises(InputShapeError, match=r"Found frames \(2, 3"):
        net(torch.zeros(2, 2, 2, 16, 16), torch.zeros(2, 3, 2, 16, 16))


def test_a_batch_without_variance_is_refused():
    with pytest.raises(InputShapeError, match="one value per channel"):
        StepNorm(3)(torch.zeros(1, 2, 4, 3, 1, 1), (0, 1))


def test_settings_out_of_range_are_refused():
    for how in ({"num_classes": 0}, {"width": 0.0}, {"reset": "none"}, {"input_size": (16, 16, 16)}):
        with pytest.raises(ModelError):
            small("scnn", **how)
    with pytest.raises(ModelError, match="per_step"):
        small("vgg_snn", statistics="batch")


def test_unknown_names_list_near_matches_and_duplicates_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean QGateGrad"):
        small("scnn", surrogate="qgate")
    with pytest.raises(UnknownNameError, match="Did you mean vgg_snn"):
        small("vgg")
    with pytest.raises(UnknownNameError, match="There are: IF, LIF, PLIF, ReLU"):
        small("scnn", neuron="Izhikevich")
    with pytest.raises(ValueError, match="registered already"):
        surrogate("AtanGrad")(torch.abs)
    with pytest.raises(ValueError, match="registered already"):
        register(NETWORKS, "scnn")(NETWORKS["scnn"])
    with pytest.raises(UnknownNameError, match="numba, torch"), backends.use("cuda"):
        pass


def test_a_surrogate_without_a_kernel_runs_on_torch():
    surrogate("flat")(lambda u, alpha: torch.ones_like(u))
    try:
        net = small("scnn", surrogate="flat")
        with backends.record() as ran:
            net(None, frames(net))
        assert ran == {"torch": 3}
        with pytest.raises(BackendError, match="no numba code"), backends.use("numba"):
            net(None, frames(net))
    finally:
        del SURROGATES["flat"]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_computes_half_precision_on_a_cpu(kind):
    net = small("vgg_snn")
    with torch.autocast("cpu", dtype=kind), backends.record() as ran:
        out = net(frames(net, 4), frames(net, 4, seed=1))
        loss = transfer_loss(out, torch.tensor([0, 1, 2, 0]), net.coefficients).total
    loss.backward()
    assert ran == {"numba": 8}
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("device", "installed", "T", "expected"),
    [
        ("cuda", ("numba", "triton"), 10, "triton"),
        ("cuda", ("numba", "triton"), backends.MOST_TRITON_STEPS + 1, "torch"),
        ("cuda", ("numba",), 10, "torch"),
        ("cpu", ("numba", "triton"), 10, "numba"),
        ("cpu", ("triton",), 10, "torch"),
    ],
)
def test_what_runs_without_a_choice(monkeypatch, device, installed, T, expected):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: name in installed or None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # the interpreter is no reason to take Triton
    x = SimpleNamespace(device=torch.device(device), dtype=torch.float32, shape=(1, 1, T, 1))
    assert backends.choose(x, small("scnn").make_node().rule) == expected


def test_layers_leave_channels_last():
    """One layout from the first convolution to the last, so that nothing is copied between layers."""
    net = small("vgg_snn", width=0.1)
    seen = []
    for layer in net.feature.values():
        layer.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with backends.use("numba"):
        net(frames(net), frames(net))
    assert len(seen) == 8
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_firing_rates(backend):
    net = small("vgg_snn", input_size=17)
    x = frames(net)
    with backends.use(backend):
        plain = net(None, x)
        assert plain.firing_rates == {}
        net.record_firing_rates = True
        out = net(None, x)
    assert list(out.firing_rates) == [f"feature.{i}.node" for i in (0, 1, 3, 4, 6, 7, 9, 10)]
    assert all(rate.ndim == 0 and not rate.requires_grad and 0 <= rate <= 1 for rate in out.firing_rates.values())
    assert out.firing_rates["feature.0.node"] > 0
    assert torch.equal(out.event_logits, plain.event_logits)
    net.record_firing_rates = False
    assert net(None, x).firing_rates == {}


def test_dropout_is_a_function_of_the_samples_seeds():
    net = small("nmnist_snn")
    x, y, seeds = frames(net, 3), frames(net, 3, seed=1), torch.tensor([5, 2**62, -7])
    net.bn1.eval()
    net.bn2.eval()
    net.dropout1.eval()
    whole = net(x, y, dropout_seeds=seeds).event_logits
    torch.testing.assert_close(net(None, y[:, 1:], dropout_seeds=seeds[1:]).event_logits, whole[:, 1:])
    masks = keep_mask(seeds, streams=(0, 1), time_steps=4, features=500, salt=1, p=0.3)
    assert abs(float(masks.double().mean()) - 0.7) < 0.02
    flat = masks.flatten(0, 2).double()
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 0.25
    assert not torch.equal(masks, keep_mask(seeds, streams=(0, 1), time_steps=4, features=500, salt=2, p=0.3))
    assert torch.equal(masks[:, 1:], keep_mask(seeds, streams=(1,), time_steps=4, features=500, salt=1, p=0.3))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("statistics", ["per_step", "domain"])
def test_published_state_round_trip(name, statistics):
    net, source = small(name, statistics=statistics), small(name)
    assert net.load_published(published_of(source))
    assert torch.equal(net.coefficients, torch.tensor([0.0, 0.1]))
    x = frames(net)
    source.coefficients.data.copy_(net.coefficients)
    assert torch.equal(net.eval()(None, x).event_logits, source.eval()(None, x).event_logits)


def test_a_published_state_that_does_not_fit_says_so():
    net = small("vgg_snn")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = published_of(small("vgg_snn"))
    del state["feature.3.bn.weight"]
    state["feature.2.conv.weight"] = torch.zeros(1)
    state["dvs_fc.1.bias"] = torch.zeros(7)
    state["feature.0.node.threshold"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError) as error:
        net.load_published(state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for part in (
        "missing (1): feature.3.bn.weight",
        "unexpected (1): feature.2.conv.weight",
        "dvs_fc.1.bias: found [7], expected [3]",
        "feature.0.node.threshold: found 1.0, expected 0.5",
    ):
        assert part in str(error.value)
    report = net.load_published(state, strict=False)
    assert report.missing == ("feature.3.bn.weight",)
    assert torch.equal(net.feature["0"].conv.weight, state["feature.0.conv.weight"])


def test_published_files_hold_a_namespace_and_nothing_worse(tmp_path):
    net = small("scnn")
    state = published_of(net)
    good, bad, other = tmp_path / "good.pth", tmp_path / "bad.pth", tmp_path / "other.pth"
    torch.save({"epoch": 3, "arch": "SCNN", "state_dict": state, "args": argparse.Namespace(lr=0.1)}, good)
    torch.save({"state_dict": state, "args": subprocess.Popen}, bad)
    torch.save([1], other)
    assert net.load_published(read_published(good))
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        read_published(bad)
    with pytest.raises(CheckpointError, match="state_dict"):
        read_published(other)
    with pytest.raises(Exception, match="Namespace"):  # the permission ended with the load
        torch.load(good, weights_only=True)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_features_to_compare(name):
    spatial = NETWORKS[name].spatial
    shapes, weights = {}, small(name).state_dict()
    for feature in FEATURES:
        if feature == "pooled" and not spatial:
            with pytest.raises(ModelError, match=f"{name} offers published, potential, before_reset, spikes"):
                small(name, feature=feature)
            continue
        net = small(name, feature=feature)
        net.load_state_dict(weights)
        out = net.eval()(frames(net), frames(net, seed=1))
        shapes[feature] = out.event_features.shape
        assert build_model(**net.config).settings.feature == feature
        if feature == "spikes":
            assert set(out.event_features.unique().tolist()) <= {0.0, 1.0}
        if feature == "potential":
            logits = out.event_logits
            assert (out.event_features <= 0.5).all()
    assert torch.equal(out.event_logits, logits)  # the heads see the same, whatever is compared
    assert shapes["potential"] == shapes["before_reset"] == shapes["spikes"]
    assert shapes["published"] == shapes[NETWORKS[name].published_feature]
    with pytest.raises(ModelError, match="feature is 'membrane'"):
        small(name, feature="membrane")


@pytest.mark.parametrize("feature", FEATURES)
def test_features_in_half_precision(feature):
    net = small("vgg_snn", feature=feature)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(frames(net, 4), frames(net, 4, seed=1))
        loss = transfer_loss(out, torch.tensor([0, 1, 2, 0]), net.coefficients).total
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("neuron", ["LIF", "ReLU"])
@pytest.mark.parametrize("side", [8, 7])  # of an odd side the last row and column are dropped, but count as spikes
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_counting_spikes_changes_no_output_and_misses_none(backend, side, neuron):
    x = 3 * torch.rand(3, 1, 4, 5, side, side, generator=torch.Generator().manual_seed(0)) - 1
    node = make_neuron(neuron, surrogate="QGateGrad", reset="hard")
    with backends.use("torch" if neuron == "ReLU" else backend), torch.no_grad():
        everything, _ = fire(x, node)
        plain, _ = fire(x, node, pool=True)
        node.record = True
        counted, _ = fire(x, node, pool=True)
    assert torch.equal(counted, plain)
    torch.testing.assert_close(node.rate, (everything > 0).float().mean())
    assert node.count == 5 * side * side
