"""A finished run says what made it; equal runs are equal without."""

import datetime
import json
import subprocess

import numpy as np
import pytest
import torch
from run_folders import whole_and_half

from spikebridge.pipeline.base import installation
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
    (folder / "cli.py").write_text("pass  # changed\n")
    made = describe_environment(torch.device("cpu"))
    assert (made["commit"], made["modified"]) == (commit, True)


def test_an_installed_package_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    made = describe_environment(torch.device("cpu"))
    assert (made["commit"], made["modified"]) == (None, None)
