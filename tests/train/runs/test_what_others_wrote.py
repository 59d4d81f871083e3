"""What stands in a run folder may come from anybody: a paragraph that names the file, never a traceback."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from fake_shards import FakeShardSet, tiny_recipe
from run_folders import RECIPE, whole_and_half

from spikebridge.cli import main
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.doctor import run_folders
from spikebridge.train.errors import TrainError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.export.write import export
from spikebridge.train.networks.initial_weights import read_start
from spikebridge.train.report.records import load_run
from spikebridge.train.runs.checkpoints import encode_weights, read_weights
from spikebridge.train.runs.folder import RunFolder, read_result
from spikebridge.train.runs.sums import encode_json, seal
from spikebridge.train.trainer.run import train

RESULTS = {
    "a list": [],
    "a number": 3,
    "nothing": None,
    "epoch -5": {"best_epoch": -5},
    "epochs of a fraction": {"epochs": 2.5},
    "threads a text": {"threads": "two"},
    "threads true": {"threads": True},
    "a million threads": {"threads": 10**6},
    "accuracy of a text": {"test_accuracy": "high"},
    "accuracy of 2": {"test_accuracy": 2},
    "a ragged confusion matrix": {"confusion": [[1, 2], [3]]},
    "a confusion matrix of other classes": {"confusion": [[1]]},
    "a confusion matrix of texts": {"confusion": [["1"] * 3] * 3},
    "classes a text": {"classes": "abc"},
    "a class of numbers": {"classes": [1, 2, 3]},
    "recipe a text": {"recipe": "digits"},
    "a recipe of texts": {"recipe": {"shards": "x", "train": "y"}},
    "a recipe of unknown settings": {"recipe": {"shards": {}, "train": {"colour": 1}}},
    "shard set a number": {"shard_set": 7},
    "samples of texts": {"samples": {"train": "many"}},
    "files a list": {"files": []},
    "a sum of a word": {"files": {"config.toml": "abc"}},
    "schema 99": {"schema": 99},
    "schema a text": {"schema": "1"},
    "rates of texts": {"firing_rates": {"node1": "fast"}},
}
RAW = {
    "NaN": b'{"schema": 1, "test_loss": NaN}',
    "infinity": b'{"schema": 1, "test_loss": 1e999}',
    "deep": b'{"schema": 1, "recipe": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "no JSON": b"\xff\xfe",
    "empty": b"",
    "a name twice": b'{"schema": 1, "schema": 1}',
}
READERS = {
    "evaluate": lambda run, shards, out: evaluate(run, shards, device="cpu"),
    "export": lambda run, shards, out: export(run, out / "x.nir", format="nir"),
    "init": lambda run, shards, out: read_start(run),
    "report": lambda run, shards, out: load_run(run),
    "train": lambda run, shards, out: train(shards, RECIPE, run, device="cpu"),
}


@pytest.fixture
def folders(made_once):
    return whole_and_half(made_once)


@pytest.fixture
def run(folders, tmp_path):
    return shutil.copytree(folders / "whole", tmp_path / "whole")


@pytest.fixture
def half(folders, tmp_path):
    return shutil.copytree(folders / "half", tmp_path / "half")


def forged(value, changes):
    """A file as somebody writes it who knows how seals are made."""
    if not isinstance(changes, dict):
        return encode_json(changes)
    changed = {name: item for name, item in (value | changes).items() if name != "self_sha256"}
    return encode_json(seal(changed))


def refused(path, *calls):
    """Every call ends with an error of ours that names the file in a few lines."""
    for call in calls:
        with pytest.raises(TrainError) as caught:
            call()
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("what", [*RESULTS, *RAW])
def test_a_result_that_is_none(run, folders, tmp_path, what):
    path, shards = run / "result.json", FakeShardSet(folders / "shards")
    path.write_bytes(RAW[what] if what in RAW else forged(read_result(run), RESULTS[what]))
    for name in ("evaluate", "export") if what == "a recipe of unknown settings" else READERS:
        with pytest.raises(TrainError) as caught:
            READERS[name](run, shards, tmp_path)
        assert "Traceback" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert [row["name"] for row in run_folders(tmp_path)] == ["whole"]


def test_the_command_line_says_it_in_a_paragraph(run):
    (run / "result.json").write_bytes(forged(read_result(run), {"threads": "\x1b[2Jtwo"}))
    done = CliRunner().invoke(main, ["export", str(run), "--format", "nir", "--out", str(run.parent / "x.nir")])
    assert done.exit_code == 1
    assert 'result.json: threads is the text "\\x1b[2Jtwo"; expected a whole number' in done.output
    assert "\x1b" not in done.output


STATES = {
    "a list": [],
    "epoch -5": {"epoch": -5},
    "step a text": {"step": "8"},
    "tensors elsewhere": {"tensors": "../../../etc/passwd"},
    "tensors a number": {"tensors": 1},
    "best tensors elsewhere": {"best_tensors": "/dev/zero"},
    "a sum of a device": {"files": {"/dev/zero": "0" * 64}},
    "no shard set": {"shard_set": None},
    "threads a text": {"threads": "1"},
    "a best epoch of texts": {"best": {"epoch": "1", "accuracy": 0, "loss": 0}},
    "a negative log": {"metrics_bytes": -1},
    "a longer log": {"metrics_bytes": 10**12},
    "seconds a list": {"seconds": []},
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_that_is_none(half, folders, what):
    checkpoint = half / "checkpoint"
    (checkpoint / "before.json").unlink()
    path = checkpoint / "state.json"
    path.write_bytes(forged(json.loads(path.read_text()), STATES[what]))
    with pytest.raises(TrainError, match=str(half)):
        train(FakeShardSet(folders / "shards"), RECIPE, half, device="cpu")


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"epoch": "one"}', '{"loss_total": NaN}', '{"cka": ["a"]}', '{"firing_rates": 3, "x": "y"}']
)
def test_a_line_of_the_log_that_is_none(run, tmp_path, line):
    (run / "result.json").write_bytes(forged(read_result(run), {"files": {}}))
    (run / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n')
    refused(f"{run / 'metrics.jsonl'}, line 2", lambda: load_run(run))


@pytest.mark.parametrize("content", ["[]", "{}", '{"run": 1}', "nothing"])
def test_a_beginning_that_is_none(half, folders, content):
    path = half / "checkpoint" / "state.json"
    state = json.loads(path.read_text())
    path.write_bytes(forged(state, {"files": {}}))
    (half / "init.json").write_text(content)
    with pytest.raises(TrainError, match=str(half / "init.json")):
        train(FakeShardSet(folders / "shards"), RECIPE, half, device="cpu")


@pytest.mark.parametrize(
    "header",
    [
        {"network": "[]"},
        {"network": "{"},
        {"network": '{"name": "scnn"}'},
        {"network": None},
        {"epoch": "first"},
        {"shard_set": None},
    ],
)
def test_a_header_of_weights_that_is_none(run, folders, header):
    (run / "result.json").write_bytes(forged(read_result(run), {"files": {}}))
    path = run / "weights" / "best.safetensors"
    tensors, described = read_weights(path)
    described = {name: text for name, text in (described | header).items() if text is not None}
    path.write_bytes(encode_weights(tensors, described))
    refused(path, lambda: evaluate(run, FakeShardSet(folders / "shards"), device="cpu"), lambda: read_start(run))


@pytest.mark.parametrize("name", ["two\nlines = 3", "not\udcffutf8", "a\tb\x1b[31m"])
def test_a_recipe_of_any_file_name_is_kept_as_it_is(tmp_path, name):
    run, recipe = RunFolder(tmp_path / "run"), replace(tiny_recipe(), name=name)
    with run.lock():
        run.claim(recipe)
    assert load_recipe(run.config) == recipe
    first, *lines = run.config.read_text().splitlines()
    assert first.startswith("# recipe: ")
    patterns = (
        r"# begun with: spikebridge [\d.]+.*, Python [\d.]+, \d{4}-\d\d-\d\d$",
        r"# packages: torch [\d.]+.*, numpy [\d.]+, h5py [\d.]+",
        rf"# on: .*\b{torch.get_num_threads()} threads?, \S+",
    )
    for pattern, line in zip(patterns, lines, strict=False):
        assert re.match(pattern, line)
