"""Every ablation switch does its own thing and no other, and the run's record says how it stood."""

import json

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import NetworkError, RecipeError
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.run import train

SWITCHES = (
    {"domain_coefficient": 0.0},
    {"regularization": False},
    {"coefficient": "fixed", "coefficient_start": -2.0},
    {"coefficient": "scheduled", "coefficient_start": 2.0, "coefficient_end": -2.0},
    {"tet": False},
    {"sliding": "off"},
    {"sliding": "linear"},
    {"sliding": "cosine"},
    {"sliding": "step", "sliding_step": 0.0},
    {"sliding_power": 0.5},
    {"augmentation": "none"},
    {"cka": "debiased"},
    {"feature": "before_reset"},
    {"feature": "spikes"},
    {"feature": "pooled"},
    {"sampling": "class_balanced"},
    {"reset": "soft"},
    {"statistics": "pooled"},
    {"statistics": "domain"},
    {"events_per_class": 2},
)
BASE = {"model": "vgg_snn", "width": 0.05, "epochs": 2, "batch_size": 12}


def name(switch):
    return "-".join(f"{key}={value}" for key, value in switch.items())


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return FakeShardSet(tmp_path_factory.mktemp("shards") / "set")


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("plain") / "run"
    return train(shards, tiny_recipe(**BASE), run, device="cpu"), read_metrics(run)


@pytest.mark.parametrize("switch", SWITCHES, ids=name)
def test_a_switch_is_recorded_and_leaves_the_log_its_shape(shards, plain, tmp_path, switch):
    result = train(shards, tiny_recipe(**BASE, **switch), tmp_path / "run", device="cpu")
    stored = json.loads((tmp_path / "run" / "result.json").read_text())["recipe"]["train"]
    assert stored == {**plain[0]["recipe"]["train"], **switch}
    assert result.keys() == plain[0].keys()
    lines = read_metrics(tmp_path / "run")
    assert [line.keys() for line in lines] == [line.keys() for line in plain[1]]
    kept = ("loss_static", "loss_event", "loss_domain", "cka", "validation_loss")
    assert [[line[key] for key in kept] for line in lines] != [[line[key] for key in kept] for line in plain[1]]


def first_loss(shards, step=1, **settings):
    """Loss of one batch of a fresh network."""
    train_settings = tiny_recipe(**{**BASE, **settings}).train
    cls = find_method(train_settings.method)
    data = TrainingBatches(shards, train_settings, device=torch.device("cpu"), needs_static=cls.needs_static)
    method = cls(train_settings, steps=train_settings.epochs * data.steps_per_epoch)
    net = make_network(network_arguments(train_settings, shards), seed=0)
    method.begin_epoch(net, 0)
    batch = data.batch(0, 0)
    inputs = method.inputs(batch, step)
    return method.loss(net(inputs.static, inputs.event), inputs, net.coefficients, {}), net


def test_without_sliding_the_domain_loss_stays(shards):
    loss, _ = first_loss(shards, sliding="off")
    assert loss.domain > 0
    torch.testing.assert_close(loss.total, loss.static + loss.event + 0.5 * loss.domain)


def test_without_domain_loss_classification_is_unchanged(shards):
    (on, _), (off, _) = first_loss(shards), first_loss(shards, domain_coefficient=0.0)
    assert (on.static, on.event, on.domain) == (off.static, off.event, off.domain)
    torch.testing.assert_close(off.total, on.static + on.event)


def test_tet_and_regularization_are_independent(shards):
    losses = {
        (tet, reg): first_loss(shards, tet=tet, regularization=reg)[0] for tet in (True, False) for reg in (True, False)
    }
    share = torch.sigmoid(torch.ones(()))
    for tet in (True, False):  # the weight of the alignment does not depend on TET
        torch.testing.assert_close(losses[tet, True].domain, share * losses[tet, False].domain)
        assert losses[tet, True].static == losses[tet, False].static
    torch.testing.assert_close(losses[True, True].event, (1 - share) * losses[True, False].event)
    assert losses[False, True].event == losses[False, False].event


def test_the_replaced_share_follows_the_course(shards):
    images = first_loss(shards, sliding="off")[0].static
    assert first_loss(shards, step=0, sliding="step", sliding_step=0.0)[0].static != images
    assert first_loss(shards, step=0, sliding="linear")[0].static == images


@pytest.mark.parametrize("kind", ["fixed", "scheduled"])
def test_coefficients_that_are_not_learned(shards, tmp_path, kind):
    settings = {"coefficient": kind, "coefficient_start": 1.5, "coefficient_end": -0.5, "epochs": 3}
    loss, net = first_loss(shards, **settings)
    loss.total.backward()
    assert net.coefficients.grad is None
    assert net.coefficients.tolist() == [1.5] * 4
    train(shards, tiny_recipe(**{**BASE, **settings}), tmp_path / "run", device="cpu")
    logged = [line["coefficients"] for line in read_metrics(tmp_path / "run")]
    assert logged == ([[1.5] * 4] * 3 if kind == "fixed" else [[1.5] * 4, [0.5] * 4, [-0.5] * 4])


def test_a_fixed_coefficient_of_one_is_where_learning_starts(shards):
    fixed, learned = (first_loss(shards, coefficient=kind)[0] for kind in ("fixed", "learned"))
    assert fixed.total == learned.total


def test_a_feature_that_the_network_lacks_is_refused(shards, tmp_path):
    recipe = tiny_recipe(**{**BASE, "model": "scnn", "feature": "pooled"})
    with pytest.raises(NetworkError, match="no height and width"):
        train(shards, recipe, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"sliding": "steps"}, "did you mean step"),
        ({"sliding_step": 1.5}, "too large"),
        ({"coefficient": "learn"}, "did you mean learned"),
        ({"coefficient_start": "1"}, "a finite number"),
        ({"feature": "spike"}, "did you mean spikes"),
        ({"statistics": "per step"}, "did you mean per_step"),
        ({"recalibrate": 1}, "true or false"),
        ({"precision": "fp64"}, "expected one of fp32"),
    ],
)
def test_wrong_values_are_explained(setting, words):
    with pytest.raises(RecipeError, match=words):
        tiny_recipe(**setting)
