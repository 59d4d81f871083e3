"""A finished run says what made it; equal runs are equal without."""

import datetime
import json
import subprocess

import numpy as np
import pytest
import torch
from run_folders import whole_and_half

from spikebridge.pipeline.base import installation
from spikebridge.train.runs.checkpoints import read_weights, tensors_sum, write_weights
from spikebridge.train.runs.environment import describe_environment
from spikebridge.train.runs.folder import read_result


def test_a_result_says_what_made_it(made_once):
    made = read_result(whole_and_half(made_once) / "whole")["environment"]
    assert made["packages"]["torch"] == torch.__version__
    assert made["packages"]["numpy"] == np.__version__
    assert made["gpu"] is None
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(made["finished"])
    assert datetime.timedelta(0) <= age + datetime.timedelta(seconds=1) < datetime.timedelta(days=1)
    json.dumps(made)


def test_weights_say_what_made_them_and_are_equal_without(made_once):
    folder = whole_and_half(made_once) / "whole"
    result = read_result(folder)
    for name in ("best", "last"):
        path = folder / "weights" / f"{name}.safetensors"
        tensors, described = read_weights(path)
        made = json.loads(described["environment"])
        when = datetime.datetime.fromisoformat(made.pop("finished"))
        assert when <= datetime.datetime.fromisoformat(result["environment"]["finished"])
        assert made == {k: v for k, v in result["environment"].items() if k != "finished"}
        assert made["threads"] == result["threads"]
        assert tensors_sum(path) == result["weights_sha256"][name]
        again = folder.parent / f"again-{name}.safetensors"
        write_weights(again, tensors, {**described, "environment": "of another day"})
        assert again.read_bytes() != path.read_bytes()
        assert tensors_sum(again) == tensors_sum(path)
        first = sorted(tensors)[0]
        write_weights(again, {**tensors, first: tensors[first] + 1e-7}, described)
        assert tensors_sum(again) != tensors_sum(path)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    def git(*words):
        person = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", "-C", tmp_path, *person, *words], check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    (tmp_path / "cli.py").write_text("pass\n")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    return tmp_path, git("rev-parse", "HEAD").strip()


def test_the_commit_of_a_clone_and_whether_it_was_changed(clone):
    folder, commit = clone
    (folder / "of-the-user.toml").write_text("")
    assert installation.find_commit() == (commit, False)
    (folder / "cli.py").write_text("pass  # changed\n")  # before this process is asked what it runs
    made = describe_environment(torch.device("cpu"))
    assert (made["commit"], made["modified"]) == (commit, True)


def test_an_installed_package_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    made = describe_environment(torch.device("cpu"))
    assert (made["commit"], made["modified"]) == (None, None)
