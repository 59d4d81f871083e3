"""Test-time adaptation of BatchNorm: statistics of the recordings scored, no label, and nothing left behind."""

import logging

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from safetensors.torch import load_file

from spikebridge.models import build_model
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation import adaptation
from spikebridge.train.evaluation.adaptation import adapt_and_score, adapted
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import score, split_frames
from spikebridge.train.export.write import export
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")
SMALL = {"model": "vgg_snn", "width": 0.05, "epochs": 1}
HOW = {"batch_size": 64, "device": CPU}


def network(**how):
    torch.manual_seed(0)
    net = build_model("vgg_snn", num_classes=3, time_steps=4, width=0.05, input_size=16, **how).eval()
    for name, value in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.0, 0.01)
    return net


def statistics(net):
    return {name: value.clone() for name, value in net.named_buffers() if "running" in name}


@pytest.mark.parametrize("how", [{}, {"statistics": "domain"}])
def test_statistics_are_mixed_by_the_prior_and_then_put_back(tmp_path, how):
    net, frames = network(**how), split_frames(FakeShardSet(tmp_path / "shards"), "test")
    trained = statistics(net)
    recalibrate(net, frames, **HOW)
    theirs = statistics(net)
    net.load_state_dict(trained, strict=False)
    for prior, share in ((0, 0.0), (12, 0.5), (36, 0.75)):  # of 12 recordings
        with adapted(net, frames, prior=prior, **HOW):
            for name, value in statistics(net).items():
                torch.testing.assert_close(value, share * trained[name] + (1 - share) * theirs[name])
        assert all(torch.equal(value, trained[name]) for name, value in statistics(net).items())
    with pytest.raises(KeyboardInterrupt), adapted(net, frames, prior=0, **HOW):
        raise KeyboardInterrupt
    assert all(torch.equal(value, trained[name]) for name, value in statistics(net).items())


def test_no_label_is_read_and_no_prior_is_scoring_as_ever(tmp_path):
    net, frames = network(), split_frames(FakeShardSet(tmp_path / "shards"), "test")
    plain = score(net, frames, **HOW)
    assert np.array_equal(adapt_and_score(net, frames, prior=None, **HOW).logits, plain.logits)
    first = adapt_and_score(net, frames, prior=4, **HOW)
    frames.labels = np.roll(frames.labels, 1)
    assert np.array_equal(adapt_and_score(net, frames, prior=4, **HOW).logits, first.logits)
    assert not np.array_equal(first.logits, plain.logits)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptation")
    shards = FakeShardSet(folder / "shards", binning="bins")
    for name, how in (("plain", {}), ("adapted", {"adapt_normalization": True, "adaptation_prior": 3.0})):
        train(shards, tiny_recipe(**SMALL, **how), folder / name, device="cpu")
    return folder, shards


def test_a_recipe_adapts_every_scoring_and_keeps_the_trained_statistics(runs):
    folder, shards = runs
    weights = [load_file(folder / name / "weights" / "last.safetensors") for name in ("plain", "adapted")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    plain, own = (evaluate(folder / name, shards, device="cpu") for name in ("plain", "adapted"))
    assert "adapted" not in plain
    assert own["adapted"] == {"prior": 3.0, "layers": 8}
    asked = evaluate(folder / "plain", shards, device="cpu", adapt_normalization=True, adaptation_prior=3.0)
    assert (asked["loss"], asked["adapted"]) == (own["loss"], own["adapted"])
    assert evaluate(folder / "adapted", shards, device="cpu", adapt_normalization=False)["loss"] == plain["loss"]
    assert plain["loss"] != own["loss"]


def test_corrupted_recordings_are_adapted_to_as_they_are(runs, monkeypatch):
    folder, shards = runs
    seen = []

    def watch(net, frames, **how):
        seen.append((type(frames).__name__, how["prior"]))
        return recalibrate(net, frames, **how)

    monkeypatch.setattr(adaptation, "recalibrate", watch)
    evaluate(folder / "plain", shards, device="cpu", adapt_normalization=True, corrupt=[("background", 30.0)])
    assert seen == [("Frames", 16.0), ("CorruptedFrames", 16.0)]


def test_a_prior_belongs_to_adaptation(runs):
    folder, shards = runs
    for how, problem in (
        ({"adaptation_prior": 3.0}, "nothing is adapted; expected --adapt-normalization"),
        ({"adaptation_prior": -1.0, "adapt_normalization": True}, "-1: expected 0 recordings or more"),
    ):
        with pytest.raises(RunError, match=problem):
            evaluate(folder / "plain", shards, device="cpu", **how)


def test_exported_files_hold_the_trained_statistics(runs, tmp_path):
    folder, shards = runs
    file = tmp_path / "plain.safetensors"
    export(folder / "plain", file, format="safetensors")
    found = evaluate(file, shards, device="cpu", adapt_normalization=True, adaptation_prior=3.0)
    assert found["loss"] == evaluate(folder / "adapted", shards, device="cpu")["loss"]
    assert found["recorded"] is None
    written = export(folder / "adapted", tmp_path / "adapted.safetensors", format="safetensors")
    assert written.description["test_accuracy"] is None
    assert "No scores" in written.card.read_text()
    pytest.importorskip("nir")
    export(folder / "plain", tmp_path / "plain.nir", format="nir")
    with pytest.raises(RunError, match="nir holds no statistics"):
        evaluate(tmp_path / "plain.nir", shards, device="cpu", adapt_normalization=True)


def test_a_network_without_batchnorm_has_nothing_to_adapt(tmp_path, caplog):
    shards = FakeShardSet(tmp_path / "shards")
    with caplog.at_level(logging.WARNING):
        result = train(shards, tiny_recipe(epochs=1, adapt_normalization=True), tmp_path / "run", device="cpu")
    assert "scnn has no BatchNorm, so there is nothing to adapt" in caplog.text
    assert evaluate(tmp_path / "run", shards, device="cpu")["adapted"]["layers"] == 0
    assert evaluate(tmp_path / "run", shards, device="cpu")["accuracy"] == result["test_accuracy"]
