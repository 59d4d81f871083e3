"""Runs that begin with another run's weights."""

import json

import pytest
import torch
from click.testing import CliRunner
from fake_shards import FakeShardSet, tiny_recipe
from safetensors.torch import load_file

from spikebridge import cli
from spikebridge.models import build_model
from spikebridge.train.errors import NetworkError, RunError
from spikebridge.train.networks.initial_weights import read_start, start_from
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

SMALL = {"model": "vgg_snn", "width": 0.05, "epochs": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    train(FakeShardSet(folder / "shards"), tiny_recipe(**SMALL), folder / "run", device="cpu")
    return folder / "run"


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


def network(**how):
    torch.manual_seed(5)
    size = {"num_classes": 3, "time_steps": 4, "width": 0.05, "input_size": 16}
    return build_model("vgg_snn", **{**size, **how})


def test_a_run_begins_where_the_other_ended(source, shards, tmp_path, monkeypatch):
    seen = {}
    real = epochs.Trainer.restore

    def look(self):
        seen.update({name: value.clone() for name, value in self.network.state_dict().items()})
        real(self)

    monkeypatch.setattr(epochs.Trainer, "restore", look)
    result = train(shards, tiny_recipe(**SMALL, seed=7), tmp_path / "run", device="cpu", init=source)
    weights = load_file(source / "weights" / "best.safetensors")
    assert all(torch.equal(weights[name], seen[name]) for name in weights)
    began = result["init"]
    assert (began["run"], began["left_out"]) == ("run", [])
    assert began["sha256"] == read_start(source).record["sha256"]
    assert began == json.loads((tmp_path / "run" / "init.json").read_text())
    fresh = train(shards, tiny_recipe(**SMALL, seed=7), tmp_path / "fresh", device="cpu")
    assert fresh["init"] is None
    assert fresh["test_loss"] != result["test_loss"]
    assert not (tmp_path / "fresh" / "init.json").exists()


def test_what_does_not_fit_is_named_and_stays_fresh(source, caplog):
    start = read_start(source)
    net = network(num_classes=5, time_steps=6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    record = start_from(start, net, tuple("abcde"))
    left = {line.split(":")[0] for line in record["left_out"]}
    heads = {f"{head}_head.{kind}" for head in ("static", "event") for kind in ("weight", "bias")}
    assert left == {"coefficients", *heads}
    assert "coefficients: found [4], expected [6]" in caplog.text
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name] if name in left else start.tensors[name])


def test_heads_of_other_classes_are_left_out_even_where_they_fit(source):
    record = start_from(read_start(source), network(), tuple("abd"))
    assert len(record["left_out"]) == 4
    assert all(line.endswith("of other classes") for line in record["left_out"])


def test_running_statistics_between_shared_and_domain(source):
    start, net = read_start(source), network(statistics="domain")
    assert start_from(start, net, tuple("abc"))["left_out"] == []
    shared = start.tensors["feature.0.bn.running_mean"]
    assert torch.equal(net.state_dict()["feature.0.bn.running_mean"], torch.stack([shared, shared]))
    rows = torch.stack([shared, shared + 1])
    back = {**start.tensors, "feature.0.bn.running_mean": rows}
    net = network()
    start_from(type(start)(**{**vars(start), "tensors": back}), net, tuple("abc"))
    assert torch.equal(net.state_dict()["feature.0.bn.running_mean"], rows[1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "scnn"}, "name: vgg_snn there, scnn here"),
        ({"width": 0.1}, "width: 0.05 there, 0.1 here"),
        ({"neuron": "PLIF"}, "neuron: LIF there, PLIF here"),
    ],
)
def test_other_architectures_are_refused_and_leave_no_folder(source, shards, tmp_path, settings, words):
    with pytest.raises(NetworkError, match=words):
        train(shards, tiny_recipe(**{**SMALL, **settings}), tmp_path / "run", device="cpu", init=source)
    assert not (tmp_path / "run").exists()


def test_only_finished_runs_are_begun_from(shards, tmp_path):
    with pytest.raises(RunError, match="no such file or folder; expected a run"):
        train(shards, tiny_recipe(**SMALL), tmp_path / "run", device="cpu", init=tmp_path / "nowhere")


def test_a_run_continues_with_the_beginning_it_had(source, shards, tmp_path, monkeypatch):
    recipe = tiny_recipe(**{**SMALL, "epochs": 2})
    whole = train(shards, recipe, tmp_path / "whole", device="cpu", init=source)
    real, steps = epochs.Trainer._step, iter(range(99))

    def stop(self, *args):
        if next(steps) == 4:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(epochs.Trainer, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(shards, recipe, tmp_path / "parts", device="cpu", init=source, checkpoint_every="1")
    with pytest.raises(RunError, match="began from other weights"):
        train(shards, recipe, tmp_path / "parts", device="cpu", init=tmp_path / "whole")
    parts = train(shards, recipe, tmp_path / "parts", device="cpu")  # it knows where it began
    assert parts["init"] == whole["init"]
    assert parts["test_loss"] == whole["test_loss"]
    fresh = train(shards, recipe, tmp_path / "fresh", device="cpu")
    assert fresh["init"] is None
    with pytest.raises(RunError, match="began from fresh weights"):
        train(shards, recipe, tmp_path / "fresh", device="cpu", init=source)
    again = train(shards, recipe, tmp_path / "parts", device="cpu", overwrite=True)
    assert again["init"] is None
    assert again["test_loss"] == fresh["test_loss"]


def test_command_line(source):
    def digest(*arguments):
        options = ["train", "--recipe", "digits", "--settings-hash", *map(str, arguments)]
        return CliRunner().invoke(cli.main, options, catch_exceptions=False).stdout.strip()

    assert len(digest()) == len(digest("--init", source)) == 12
    assert digest() != digest("--init", source)
    assert "--init RUN" in CliRunner().invoke(cli.main, ["train", "--help"]).stdout
