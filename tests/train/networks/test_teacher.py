"""A frozen image network of somebody else's as the teacher of `distill`: opened with care, asked once."""

import dataclasses

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from safetensors.torch import load_file
from torch import nn

from spikebridge.train.config.settings import TEACHER_SUM
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import NetworkError, RecipeError
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.networks.teacher import Teacher, fit_probe
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")


class Columns(nn.Module):
    """Features of three channels: the brightness of eight columns, and of an image as it comes in."""

    def forward(self, images):
        return images.mean((1, 2)).unflatten(1, (8, -1)).mean(2)


class Tokens(nn.Module):
    """What a transformer gives before anything is pooled."""

    def forward(self, images):
        return images.flatten(2)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Programs for any number of images, for two at a time, and of tokens."""
    folder = tmp_path_factory.mktemp("programs")
    any_number = ({0: torch.export.Dim("B")},)
    for name, module, shapes in (("any", Columns(), any_number), ("two", Columns(), None), ("tokens", Tokens(), None)):
        made = torch.export.export(module.eval(), (torch.zeros(2, 3, 24, 24),), dynamic_shapes=shapes)
        torch.export.save(made, folder / f"{name}.pt2")
    return folder


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


def asked(shards, teacher, *, trust=True, **how):
    """Return the predictions of a teacher for the pool."""
    settings = tiny_recipe(method="distill", teacher=str(teacher), **how).train
    data = TrainingBatches(shards, settings, device=CPU, needs_static=True)
    method = find_method("distill")(settings, steps=10)
    method.trust = trust
    method.attach(make_network(network_arguments(settings, shards), seed=0), data)
    prepared = method.prepare(data, CPU, lambda: None)
    method.restore(prepared, CPU)
    return method, data, prepared["predictions"]


@pytest.mark.parametrize("name", ["any", "two"])
def test_a_program_sees_resized_images_and_a_probe_learns_the_classes(shards, programs, name):
    method, data, predictions = asked(
        shards, programs / f"{name}.pt2", teacher_mean=[0.5, 0.5, 0.25], teacher_std=[0.25]
    )
    assert predictions.shape == (15, 3)
    assert (predictions.argmax(1) == torch.arange(15) // 5).all()
    images = nn.functional.interpolate(data.images(torch.arange(15))[:, :1], (24, 24), mode="bilinear", antialias=True)
    shown = torch.cat([(images - mean) / 0.25 for mean in (0.5, 0.5, 0.25)], 1)
    torch.testing.assert_close(predictions, fit_probe(Columns()(shown), torch.arange(15) // 5, 3), rtol=1e-3, atol=1e-3)
    batch = data.batch(0, 0)
    rows = batch.image_rows
    assert torch.equal(data.image_classes(rows), batch.image_labels)
    assert torch.equal(method.inputs(batch, 0).extra["teacher"], predictions[rows])
    assert "teacher" not in method.inputs(batch, 5).extra


def test_a_program_needs_trust(shards, programs, monkeypatch):
    monkeypatch.setattr(torch.export, "load", None)  # not even tried
    with pytest.raises(NetworkError, match=r"can run any code while torch opens it.*pass --trust"):
        asked(shards, programs / "any.pt2", trust=False)


def test_what_is_no_image_network_is_refused(shards, programs, tmp_path):
    with pytest.raises(NetworkError, match=r"gives a tensor \[2, 3, 576\].*expected one tensor \[2,F\]"):
        asked(shards, programs / "tokens.pt2")
    with pytest.raises(NetworkError, match="gives 8 numbers, the shard set has 3 classes"):
        asked(shards, programs / "any.pt2", teacher_output="logits")
    with pytest.raises(NetworkError, match=r"teacher_mean: 2 values; .* takes 3 channels, expected 1 or as many"):
        asked(shards, programs / "any.pt2", teacher_mean=[0.5, 0.5])
    with pytest.raises(NetworkError, match="not finite"):
        asked(shards, programs / "any.pt2", teacher_std=[1e-45])
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(NetworkError, match=r"cannot be opened by torch"):
        asked(shards, tmp_path / "text.pt2")
    made = torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),))
    torch.export.save(made, tmp_path / "linear.pt2")
    with pytest.raises(NetworkError, match=r"takes \[\[2, 3\]\]; expected one tensor \[B,C,H,W\]"):
        asked(shards, tmp_path / "linear.pt2")


def test_the_recipe_knows_the_file_by_its_sum(shards, programs, tmp_path):
    file = tmp_path / "mine.pt2"
    file.write_bytes((programs / "any.pt2").read_bytes())
    recipe = tiny_recipe(method="distill", teacher=str(file))
    name, _, digest = recipe.train.teacher.partition(TEACHER_SUM)
    assert (name, len(digest)) == (str(file), 64)
    file.write_bytes((programs / "two.pt2").read_bytes())
    assert tiny_recipe(method="distill", teacher=str(file)).train.teacher != recipe.train.teacher
    with pytest.raises(NetworkError, match=r"has SHA-256 .* the recipe was read with"):
        train(shards, recipe, tmp_path / "run", device="cpu", trust=True)
    file.unlink()
    with pytest.raises(NetworkError, match="cannot be read"):
        train(shards, recipe, tmp_path / "run", device="cpu", trust=True)
    with pytest.raises(RecipeError, match=r"mine\.pt2: no such file"):
        tiny_recipe(method="distill", teacher=str(file))
    with pytest.raises(RecipeError, match="teacher_mean: expected one value"):
        tiny_recipe(method="distill", teacher_mean=[])


def test_a_run_asks_once_and_keeps_the_answers(shards, programs, tmp_path, monkeypatch):
    file = tmp_path / "teacher.pt2"
    file.write_bytes((programs / "any.pt2").read_bytes())
    recipe = tiny_recipe(method="distill", teacher=str(file), epochs=1, distill_until=1.0)
    monkeypatch.setattr(Teacher, "outputs", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(shards, recipe, tmp_path / "run", device="cpu", trust=True)
    monkeypatch.undo()
    train(shards, recipe, tmp_path / "run", device="cpu", trust=True)
    assert set(load_file(tmp_path / "run" / "prepared.safetensors")) == {"predictions"}
    assert read_metrics(tmp_path / "run")[0]["loss_distillation"] > 0


def _interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("output", ["features", "logits"])
def test_weights_of_ours_need_no_trust(shards, tmp_path, output):
    train(shards, tiny_recipe(method="kt", epochs=1, neuron="ReLU"), tmp_path / "ann", device="cpu")
    weights = tmp_path / "ann" / "weights" / "best.safetensors"
    method, data, predictions = asked(shards, weights, trust=False, teacher_output=output)
    assert predictions.shape == (15, 3)
    if output == "logits":
        network = make_network({**_arguments(shards), "neuron": "ReLU"}, seed=0).eval()
        network.load_state_dict(load_file(weights))
        images = data.images(torch.arange(15)).expand(4, -1, -1, -1, -1)
        torch.testing.assert_close(
            predictions, network(images, None).static_logits.mean(0).detach(), rtol=1e-4, atol=1e-5
        )
    assert dataclasses.asdict(method.settings)["teacher"].startswith(str(weights))


def _arguments(shards):
    return network_arguments(tiny_recipe().train, shards)


def test_the_probe_is_the_optimum_of_its_loss():
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5) + 2 * nn.functional.one_hot(labels, 5)
    logits = fit_probe(features, labels, 3)
    assert torch.equal(logits, fit_probe(features, labels, 3))
    assert (logits.argmax(1) == labels).double().mean() > 0.8
    x = features.double()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    wrong = (logits.double().softmax(1) - nn.functional.one_hot(labels, 3)) / 60
    weights = torch.linalg.lstsq(x, logits.double() - logits.double().mean(0)).solution
    assert (x.T @ wrong + 0.01 * weights).abs().max() < 1e-5  # the gradient
    wide = fit_probe(torch.randn(6, 40), torch.arange(6) % 3, 3)
    assert (wide.argmax(1) == torch.arange(6) % 3).all()
