"""Unlabelled recordings: pseudo-labels of the network's own, and no label of theirs anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run

from spikebridge.train.data import batches
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import MethodError
from spikebridge.train.losses import classification_loss
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.checkpoints import read_weights
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")


def started(shards, method, residence="auto", **settings):
    recipe = tiny_recipe(**{"method": method, "events_per_class": 3, **settings}).train
    kind = find_method(method)
    data = TrainingBatches(
        shards, recipe, device=CPU, needs_static=True, draw_from_pool=True, unlabelled=kind.unlabelled,
        residence=residence,
    )  # fmt: skip
    network = make_network(network_arguments(recipe, shards), seed=0)
    made = kind(recipe, steps=10)
    made.attach(network, data)
    return made, data, network


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


@pytest.mark.parametrize("residence", ["device", "host", "disk"])
def test_unlabelled_recordings_are_those_without_labels(shards, residence):
    _, data, _ = started(shards, "self_training", residence)
    split = shards.split("train")
    assert (len(data), data.unlabelled_recordings) == (9, 15)
    others = np.setdiff1d(np.arange(24), batches.order.training_recordings(split, data._settings))
    assert np.array_equal(data.unlabelled_frames(torch.arange(15)), split.frames[others])
    assert set(data._unlabelled.labels) == {-1}
    assert started(shards, "label_free", residence)[1].unlabelled_recordings == 24


def test_pseudo_labels_are_the_networks_own_of_frames_as_they_are(shards):
    made, data, network = started(shards, "self_training", unlabelled_per_recording=2)
    batch = data.batch(0, 0)
    B = len(batch.labels)
    assert made.inputs(batch, 2).event.shape[1] == 2 * B  # before it trains itself
    with torch.no_grad():
        for layer in (*network.feature.values(), network.fc1, network.fc2):
            if hasattr(layer, "weight"):
                layer.weight.mul_(4)  # as drawn, it hardly fires
    frames, _ = made._draw_unlabelled(batch)
    logits = network.eval()(None, frames.float().transpose(0, 1)).event_logits.mean(0).detach()
    confidence, labels = logits.softmax(1).max(1)
    threshold = float(confidence.median())
    made.settings = replace(made.settings, pseudo_label_threshold=threshold)
    network.train()
    inputs = made.inputs(batch, 5)
    assert network.training
    assert inputs.event.shape[1] == len(inputs.labels) == len(inputs.dropout_seeds) == 4 * B
    assert len(set(inputs.dropout_seeds.tolist())) == 4 * B
    assert torch.equal(inputs.event[:, : 2 * B], made.inputs(batch, 2).event)
    assert torch.equal(inputs.labels[2 * B :], labels)
    assert torch.equal(inputs.extra["accepted"], confidence >= threshold)
    assert 0 < inputs.extra["accepted"].sum() < 2 * B
    assert not torch.equal(inputs.event[:, 2 * B :], frames.float().transpose(0, 1))


@pytest.mark.parametrize("method", ["self_training", "label_free"])
def test_only_accepted_pseudo_labels_are_learned(shards, method):
    made, data, network = started(shards, method, unlabelled_weight=0.5, simulated_weight=0.25)
    inputs = made.inputs(data.batch(0, 0), 9)
    B = len(inputs.batch.labels)
    accepted = torch.arange(B) % 3 == 0
    inputs = replace(inputs, extra={"accepted": accepted})
    out = network(None, inputs.event)
    loss = made.loss(out, inputs, network.coefficients, {})
    known, labels = out.event_logits[:, : 2 * B], inputs.labels
    one, other = (
        classification_loss(known[:, part], labels[: 2 * B][part], tet=True) for part in (slice(B), slice(B, None))
    )
    expected = (0.75 * one + 0.25 * other) if method == "self_training" else (one + other) / 2
    pseudo = sum(
        torch.nn.functional.cross_entropy(out.event_logits[:, i], labels[i].expand(4))
        for i in 2 * B + accepted.nonzero()[:, 0]
    )
    torch.testing.assert_close(loss.total, expected + 0.5 * pseudo / B)
    assert float(loss.extra["accepted"]) == pytest.approx(float(accepted.double().mean()))


@pytest.mark.parametrize("method", ["self_training", "label_free"])
def test_labels_of_unlabelled_recordings_change_nothing(tmp_path, monkeypatch, method):
    """Which recordings are labelled is held fixed: each class gives its first ones, and other labels are others'."""
    labelled = np.arange(9)
    monkeypatch.setattr(batches.order, "training_recordings", lambda split, settings: labelled)
    recipe = tiny_recipe(method=method, epochs=1, self_training_from=0.0, pseudo_label_threshold=0.34)
    weights = []
    for name in ("a", "b"):
        shards = FakeShardSet(tmp_path / name)
        split = shards.split("train")
        if name == "b":
            split.labels[9:] = np.random.default_rng(0).permutation(split.labels[9:])
            if method == "label_free":  # no label of any recording
                split.labels = np.roll(split.labels, 1)
                shards.split("validation").labels[:] = 0
        train(shards, recipe, tmp_path / f"run-{name}", device="cpu")
        weights.append(read_weights(tmp_path / f"run-{name}" / "weights" / "best.safetensors")[0])
        assert read_metrics(tmp_path / f"run-{name}")[-1]["loss_accepted"] > 0
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_no_label_picks_the_epoch_of_label_free(shards, tmp_path):
    result = train(shards, tiny_recipe(method="label_free", epochs=2), tmp_path / "run", device="cpu")
    assert (result["best_epoch"], result["selection"], result["selection_split"]) == (
        2,
        "last epoch, by no label",
        None,
    )
    assert result["changed_by_method"] == {"selection": "last"}
    assert result["validation_accuracy"] is not None
    assert all(line["validation_accuracy"] is None for line in read_metrics(tmp_path / "run"))


def test_self_training_needs_unlabelled_recordings(shards):
    with pytest.raises(MethodError, match="all 24 are labelled; set events_per_class"):
        started(shards, "self_training", events_per_class=0)


def test_an_interrupted_run_ends_with_the_same_bits(shards, tmp_path):
    recipe = tiny_recipe(method="self_training", epochs=3, events_per_class=4, pseudo_label_threshold=0.34)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=4)
    same_run(tmp_path / "whole", tmp_path / "parts")
