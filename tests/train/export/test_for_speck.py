"""`export --target speck`: the file scores as its export says, the card has the cores, nothing is left of a refusal."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.cli import main
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.errors import ExportError
from spikebridge.train.evaluation.chip import score_on_speck
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.export.read import open_export
from spikebridge.train.export.write import _scored, export
from spikebridge.train.trainer.run import train

PYTHON = os.environ.get("SINABS", "")
CHIP = {"model": "speck_snn", "width": 0.2, "neuron": "IF", "reset": "soft", "tet": False, "augmentation": "none"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return FakeShardSet(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(shards, tiny_recipe(epochs=3, **CHIP), folder, device="cpu")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_file_scores_as_the_export_says(run, shards, tmp_path):
    scored = score_on_speck(run, shards)
    exported = export(run, tmp_path / "net.nir", format="nir", target="speck", scored=scored)
    result = json.loads((run / "result.json").read_text())
    for split in ("test", "validation"):
        found = evaluate(exported.file, shards, split=split, device="cpu")
        assert found["accuracy"] == found["recorded"] == scored[split]["accuracy"]
        assert found["loss"] == pytest.approx(exported.description[f"{split}_loss"])
        assert exported.description[f"trained_{split}_accuracy"] == result[f"{split}_accuracy"]
    card = " ".join(exported.card.read_text().split())
    test = (result["test_accuracy"], scored["test"]["float"], scored["test"]["accuracy"])
    assert "test: {:.1%} as trained, {:.1%} with the chip's neurons, {:.1%} with 8 bits too.".format(*test) in card
    assert "library_name: sinabs" in card
    assert 'nir", "speck"' in card
    assert "| conv1 | " in card
    assert "| event_head | " in card
    assert "num_timesteps=4" in card
    assert "{" not in exported.card.read_text().split("---\n", 2)[2]


def test_vectors_count_the_spikes_of_each_neuron(run, tmp_path):
    nir = pytest.importorskip("nir")
    exported = export(run, tmp_path / "net.nir", format="nir", target="speck")
    data = nir.read_data(exported.vectors).nodes
    values = {name: next(iter(node.observables.values())).data for name, node in data.items()}
    assert {name for name, value in values.items() if value.dtype == "int32"} == {
        *("node1", "node2", "node3", "event_node")
    }
    frames = torch.from_numpy(values["input"]).float().unflatten(2, (2, 16, 16)).transpose(0, 1)  # [T,n,P,H,W]
    network, _, _ = open_export(exported.file, device=torch.device("cpu"))
    answer = network(None, frames).event_logits.transpose(0, 1)
    assert torch.equal(torch.from_numpy(values["output"]), answer.double())
    assert values["node1"].max() > 1


def test_the_verb_says_cores_and_costs(run, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.train.evaluation.chip.open_shards_of", lambda *_: shards)
    said = invoke("export", run, "--target", "speck", "--shards", "SET", "--out", tmp_path / "a.nir")
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert any(line.split()[:4] == ["fc", "2", "192", "16,384"] for line in lines), said.stdout
    assert any("test accuracy" in line and "with 8 bits too" in line for line in lines)
    with pytest.MonkeyPatch.context() as patch:  # refused before anything is scored
        patch.setattr("spikebridge.train.evaluation.chip.score_on_speck", None)
        again = invoke("export", run, "--target", "speck", "--shards", "SET", "--out", tmp_path / "a.nir")
    assert "exists; choose another file, or pass --overwrite" in " ".join(again.output.split())
    said = invoke("export", run, "--format", "nir", "--target", "speck", "--out", tmp_path / "b.nir")
    assert "not scored; pass --shards" in said.stdout
    assert "Not scored with 8 bits" in (tmp_path / "b.nir.md").read_text()
    assert "test accuracy" not in (tmp_path / "b.nir.md").read_text()  # the network's is not the file's
    for options, expected in (
        (("--target", "speck", "--format", "torch"), "--target speck is written in nir"),
        (("--format", "nir", "--shards", "SET"), "--shards scores what --target costs"),
        ((), "Missing option '--format'"),
    ):
        refused = invoke("export", run, *options, "--out", tmp_path / "c.nir")
        assert refused.exit_code == 2
        assert expected in refused.stderr


def test_what_does_not_fit_leaves_no_file(shards, tmp_path):
    run = tmp_path / "run"
    train(shards, tiny_recipe(epochs=1), run, device="cpu")
    with pytest.raises(ExportError, match=r"run: feature\.1: LIF neurons; a core of Speck"):
        export(run, tmp_path / "net.nir", format="nir", target="speck")
    with pytest.raises(ExportError, match="target 'loihi' in format nir; expected one of"):
        export(run, tmp_path / "net.nir", format="nir", target="loihi")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_frames_that_do_not_count_events_are_refused():
    with pytest.raises(ExportError, match="reduction 'event', and a chip counts events"):
        _scored({"preprocessing": {"reduction": "event"}}, {})


@pytest.fixture
def recorded(shard_set, tmp_path, without_matplotlib):
    """A file for the chip and the shard set that it was trained on."""
    del without_matplotlib
    path = shard_set(size=16)
    settings = ShardSet(path).settings
    names = ("dataset", "time_bins", "size", "reduction", "extent", "encoding", "protocol")
    tables = {"shards": {name: settings[name] for name in names}, "train": {"method": "event_only", **CHIP}}
    recipe = recipe_from({**tables, "train": {**tables["train"], "epochs": 20, "batch_size": 8, "lr": 5e-3}})
    train(path, recipe, tmp_path / "run", device="cpu")
    return export(tmp_path / "run", tmp_path / "net.nir", format="nir", target="speck").file, path


def bench(script, file, shards, *options):
    command = [sys.executable, ROOT / "tests" / "bench" / script, file, "--shards", shards, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_events_come_one_by_one(recorded):
    found = bench("speck_events.py", *recorded)
    assert "event by event" in found
    assert "of 9 recordings" in found


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="SINABS names a Python with sinabs 3.1.3 and nir 1.0.4")
def test_sinabs_itself_gives_the_same_spikes_and_cores(recorded):
    lines = bench("sinabs_speck.py", *recorded, "--sinabs", PYTHON).splitlines()
    assert "equal steps 36 of 36; equal decisions 9 of 9" in lines
    assert sum("weights and threshold as in the file" in line and "of no layer" not in line for line in lines) == 4
