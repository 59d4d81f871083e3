"""The methods that train on simulated recordings of static images, on the shard set in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.losses import classification_loss
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.checkpoints import read_weights
from spikebridge.train.trainer.run import train

METHODS = ("simulate", "simulate_only", "simulate_pretrain", "simulate_kt")


def started(tmp_path, method, **settings):
    shards = FakeShardSet(tmp_path)
    recipe = tiny_recipe(method=method, **settings).train
    kind = find_method(method)
    data = TrainingBatches(
        shards, recipe, device=torch.device("cpu"), needs_static=kind.needs_static, draw_from_pool=kind.draw_from_pool
    )
    network = make_network(network_arguments(recipe, shards), seed=0)
    made = kind(recipe, steps=recipe.epochs * data.steps_per_epoch)
    made.attach(network, data)
    return made, data, network


@pytest.mark.parametrize("each", [1, 3])
def test_recordings_come_first_and_simulated_ones_after(tmp_path, each):
    made, data, _ = started(tmp_path, "simulate", simulated_per_recording=each)
    batch = data.batch(1, 0)
    inputs = made.inputs(batch, 3)
    B = len(batch.labels)
    assert inputs.static is None
    assert inputs.event.shape == (4, (1 + each) * B, 2, 16, 16)
    assert torch.equal(inputs.event[:, :B], batch.events)
    assert torch.equal(inputs.labels[:B], batch.labels)
    assert len(inputs.labels) == len(inputs.dropout_seeds) == (1 + each) * B
    assert len(set(inputs.dropout_seeds.tolist())) == (1 + each) * B
    again = made.inputs(data.batch(1, 0), 3)
    assert torch.equal(inputs.event, again.event)
    assert torch.equal(inputs.labels, again.labels)
    other = made.inputs(data.batch(1, 1), 4)
    assert not torch.equal(inputs.event[:, B : 2 * B], other.event[:, : len(other.labels)][:, -B:])


def test_simulated_frames_show_the_class_they_are_labelled_with(tmp_path):
    """The pool's classes have their bright columns apart: the events lie around them."""
    made, data, _ = started(tmp_path, "simulate_only", simulated_per_recording=9)
    inputs = made.inputs(data.batch(0, 0), 0)
    assert set(inputs.labels.tolist()) == {0, 1, 2}
    columns = inputs.event.sum((0, 2, 3))  # [N,W]
    middles = (columns * torch.arange(16.0)).sum(1) / columns.sum(1)
    means = [float(middles[inputs.labels == c].mean()) for c in range(3)]
    assert means[0] + 1 < means[1]
    assert means[1] + 1 < means[2]


def test_the_loss_weighs_simulated_against_real(tmp_path):
    for weight in (0.0, 0.25, 1.0):
        made, data, network = started(tmp_path, "simulate", simulated_weight=weight)
        batch = data.batch(0, 0)
        inputs = made.inputs(batch, 0)
        out = network(None, inputs.event)
        loss = made.loss(out, inputs, network.coefficients, {})
        B = len(batch.labels)
        real = classification_loss(out.event_logits[:, :B], inputs.labels[:B], tet=True)
        simulated = classification_loss(out.event_logits[:, B:], inputs.labels[B:], tet=True)
        torch.testing.assert_close(loss.total, (1 - weight) * real + weight * simulated)
        torch.testing.assert_close(loss.event, real)
        torch.testing.assert_close(loss.extra["simulated"], simulated)


def test_pretraining_ends_after_its_share(tmp_path):
    made, data, _ = started(tmp_path, "simulate_pretrain", pretrain_share=0.5)
    batch = data.batch(0, 0)
    assert made.steps == 9
    assert made.inputs(batch, 5).event is batch.events
    before = made.inputs(batch, 4)
    assert before.event.shape[1] == 2 * len(batch.labels)


def test_kt_shows_a_simulated_recording_of_the_image(tmp_path):
    made, data, _ = started(tmp_path, "simulate_kt", sliding="off")
    batch = data.batch(0, 0)
    inputs = made.inputs(batch, 0)
    expected = made.simulator.frames(batch.images, epoch=0, draws=batch.draws)
    assert torch.equal(inputs.static, expected)
    assert torch.equal(inputs.event, batch.events)
    made, data, _ = started(tmp_path, "simulate_kt", sliding="step", sliding_step=0.5)
    assert torch.equal(made.inputs(batch, 8).static, batch.events)


def test_parts_of_a_batch_are_simulated_like_the_whole(tmp_path):
    made, data, _ = started(tmp_path, "simulate_only", simulated_per_recording=2)
    whole = made.inputs(data.batch(0, 0), 0)
    for rank in (0, 1):
        part = made.inputs(data.batch(0, 0, rank=rank, world=2), 0)
        own = (torch.arange(10)[rank::2, None] * 3 + torch.arange(3)).flatten()
        assert torch.equal(part.labels, whole.labels[own])
        assert torch.equal(part.dropout_seeds, whole.dropout_seeds[own])
        # A logarithm's last bit may depend on its place in memory.
        assert (part.event != whole.event[:, own]).float().mean() < 1e-3


def test_simulate_only_knows_no_label_of_a_recording(tmp_path):
    """Other recordings and other labels of them leave the weights as they are, to the bit."""
    recipe = tiny_recipe(method="simulate_only", epochs=1)
    weights = []
    for name in ("a", "b"):
        shards = FakeShardSet(tmp_path / name)
        if name == "b":
            split = shards.split("train")
            split.labels = np.roll(split.labels, 1)
            split.frames = split.frames[::-1].copy()
        train(shards, recipe, tmp_path / f"run-{name}")
        weights.append(read_weights(tmp_path / f"run-{name}" / "weights" / "last.safetensors")[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_run_from_start_to_result(tmp_path, method):
    recipe = tiny_recipe(method=method, epochs=1, simulated_per_recording=2, simulation="smooth")
    result = train(FakeShardSet(tmp_path / "set"), recipe, tmp_path / "run")
    assert result["method"] == method
    assert result["static_images"] == 15
    assert 0 <= result["test_accuracy"] <= 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert ("loss_simulated" in lines) == (method == "simulate")


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    recipe, shards = tiny_recipe(method="simulate", epochs=2), FakeShardSet(tmp_path / "set")
    train(shards, recipe, tmp_path / "whole", device="cpu")
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=4)
    same_run(tmp_path / "whole", tmp_path / "parts")
