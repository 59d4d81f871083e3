"""Method `tsm`: sequences that turn from static image to recording once, and the heads that see it."""

import pytest
import torch
import torch.nn.functional as F
from fake_shards import FakeShardSet, tiny_recipe
from hypothesis import given
from hypothesis import strategies as st
from interrupted import train_in_two_sittings
from run_folders import same_run
from safetensors.torch import load_file

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.draws import uniform
from spikebridge.train.errors import RecipeError
from spikebridge.train.methods import find_method
from spikebridge.train.methods.tsm import event_frames
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.schedules import event_share, switch_probability
from spikebridge.train.trainer.run import train

PUBLISHED = {0.1: 0.0193, 0.3: 0.0661, 0.5: 0.1312, 0.7: 0.2373, 0.9: 0.4998}  # r -> p at T = 10


@pytest.mark.parametrize(("share", "probability"), PUBLISHED.items())
def test_switch_probability_is_the_published_one(share, probability):
    assert switch_probability(share, 10) == pytest.approx(probability, abs=5e-5)


@given(share=st.floats(0, 1), T=st.integers(1, 40))
def test_share_and_probability_are_inverse(share, T):
    p = switch_probability(share, T)
    assert 0 <= p <= 1
    assert event_share(p, T) == pytest.approx(share, abs=1e-9)
    if p > 1e-3:
        assert event_share(p, T) == pytest.approx(1 - (1 - p) * (1 - (1 - p) ** T) / (p * T), abs=1e-9)


def test_ends_and_what_is_refused():
    assert (switch_probability(0.0, 10), switch_probability(1.0, 10)) == (0, 1)
    assert switch_probability(0.3, 1) == pytest.approx(0.3)  # one step: a coin
    for share, T in ((-0.1, 10), (1.1, 10), (0.5, 0)):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            switch_probability(share, T)


def test_a_sequence_switches_once_at_a_geometric_time():
    numbers = uniform(0, "test", 0, torch.arange(20_000))
    p, T = switch_probability(0.5, 10), 10
    mixed = event_frames(numbers, p, T)
    assert bool((mixed[1:] >= mixed[:-1]).all())  # never back
    assert float(mixed.double().mean()) == pytest.approx(0.5, abs=0.01)
    first = mixed[0].double().mean()
    assert float(first) == pytest.approx(p, abs=0.01)
    again = (mixed[1] & ~mixed[0]).double().sum() / (~mixed[0]).double().sum()
    assert float(again) == pytest.approx(p, abs=0.01)  # the same chance at every step
    assert not event_frames(numbers, 0.0, T).any()
    assert event_frames(numbers, 1.0, T).all()


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


def made(shards, **how):
    settings = tiny_recipe(method="tsm", **how).train
    data = TrainingBatches(shards, settings, device=torch.device("cpu"), needs_static=True)
    method = find_method("tsm")(settings, steps=30)
    network = make_network(network_arguments(settings, shards), seed=0)
    method.attach(network, data)
    return method, network, data.batch(0, 0)


def test_frames_of_the_static_stream(shards):
    method, _, batch = made(shards, sliding="linear")
    shares = set()
    for step in (0, 10, 20, 30):
        inputs = method.inputs(batch, step)
        mixed = inputs.extra["event_frames"]
        assert inputs.event is batch.events
        for t in range(4):
            for b in range(10):
                source = batch.events[t, b] if mixed[t, b] else batch.images[b]
                assert torch.equal(inputs.static[t, b], source)
        shares.add(int(mixed.sum()))
    assert min(shares) == 0
    assert max(shares) == 40
    assert len(shares) > 2


def test_losses_of_the_heads_in_closed_form(shards):
    method, network, batch = made(shards, sliding="linear", modality_weight=0.3, ratio_weight=0.7)
    with torch.no_grad():
        for head, bias in (("modality", 0.5), ("mix_ratio", 0.0)):
            method.modules[head].weight.zero_()
            method.modules[head].bias.fill_(bias)
    inputs = method.inputs(batch, 15)
    out = network(inputs.static, inputs.event)
    loss = method.loss(out, inputs, network.coefficients, method.heads(out, inputs))
    mixed = inputs.extra["event_frames"].double()
    share = float(mixed.mean())
    expected = -share * F.logsigmoid(torch.tensor(0.5)) - (1 - share) * F.logsigmoid(torch.tensor(-0.5))
    torch.testing.assert_close(loss.extra["modality"], expected)
    assert float(loss.extra["mix_ratio"].detach()) == pytest.approx(float((mixed.mean(0) - 0.5).square().mean()))
    parts = loss.static + loss.event + 0.5 * loss.domain
    parts = parts + 0.3 * loss.extra["modality"] + 0.7 * loss.extra["mix_ratio"]
    torch.testing.assert_close(loss.total, parts)


def test_heads_learn_are_resumed_and_not_exported(shards, tmp_path):
    how = {"model": "vgg_snn", "width": 0.05, "epochs": 10, "lr": 1e-2, "domain_coefficient": 0.0}
    recipe = tiny_recipe(method="tsm", sliding="linear", modality_weight=1.0, **how)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    lines = read_metrics(tmp_path / "whole")
    assert lines[4]["loss_modality"] < 0.5  # half of the frames are events: .69 by guessing
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=10)
    same_run(tmp_path / "whole", tmp_path / "parts")
    weights = load_file(tmp_path / "whole" / "weights" / "last.safetensors")
    assert not any("modality" in name or "mix_ratio" in name for name in weights)


def test_a_course_that_never_mixes_is_refused():
    with pytest.raises(RecipeError, match="never mixes"):
        tiny_recipe(method="tsm", sliding="off")
