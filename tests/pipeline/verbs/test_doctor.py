"""The facts of `doctor` about this machine, as JSON and on one screen."""

import json
import re
import shutil
import tomllib

import pytest
from click.testing import CliRunner
from conftest import ROOT

from spikebridge.cli import main
from spikebridge.pipeline.inspection import machine as doctor
from spikebridge.train.doctor import run_folders


def run_doctor(*arguments):
    result = CliRunner().invoke(main, ["doctor", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_its_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}

    assert set(doctor.REQUIRED) == names(project["dependencies"])
    extras = {extra: names(found) for extra, found in project["optional-dependencies"].items() if extra != "dev"}
    assert {extra: set(packages) for extra, (packages, _) in doctor.EXTRAS.items()} == extras


def test_one_screen_and_json_say_the_same(tmp_path):
    text, found = run_doctor("--data", tmp_path), json.loads(run_doctor("--data", tmp_path, "--json"))
    assert len(text.splitlines()) <= 40
    assert found["torch"] in text
    assert found["python"]["version"] in text
    assert found["packages"]["torch"] is not None
    assert found["disk"]["free_bytes"] > 0
    assert found["processor"]["usable"] >= 1
    assert [path["path"] for path in found["fast_paths"] if path["path"] == "neurons on numba" and path["active"]]
    assert all(path["path"] in text and path["why"] in text for path in found["fast_paths"])
    assert found["data"] == {"raw": [], "shards": [], "runs": []}


def test_it_names_what_is_missing_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "export", (("no-such-package",), "export --format nir"))
    monkeypatch.setitem(doctor.REQUIRED, "nor-this-one", "nothing")
    text = run_doctor("--data", tmp_path)
    assert 'missing no-such-package: pip install "spikebridge[export]"' in text
    assert "missing: nor-this-one (nothing)" in text


@pytest.mark.parametrize(("value", "active"), [("1", False), ("0", True), ("", True)])
def test_switched_off_compilation_is_seen(monkeypatch, value, active):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    frames = doctor.list_fast_paths()[0]
    assert frames["active"] is active
    assert ("NUMBA_DISABLE_JIT" in frames["why"]) is not active


def test_data_folders_are_found(tmp_path, shard_set):
    (tmp_path / "shards").mkdir()
    shutil.copytree(shard_set(), tmp_path / "shards" / "good")
    shutil.copytree(shard_set(), tmp_path / "shards" / "torn")
    (tmp_path / "shards" / "torn" / "manifest.json").unlink()
    (tmp_path / "raw" / "digits").mkdir(parents=True)
    for name, result in (("done", '{"test_accuracy": 0.5}'), ("open", None)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.toml").touch()
        if result:
            (run / "result.json").write_text(result)
    shutil.copytree(tmp_path / "runs" / "open", tmp_path / "runs" / "nan")
    (tmp_path / "runs" / "nan" / "diverged.json").touch()
    (tmp_path / "runs" / "no-run").mkdir()
    assert run_folders(tmp_path / "runs") == [
        {"name": "done", "state": "test 50.0%"},
        {"name": "nan", "state": "diverged"},
        {"name": "open", "state": "unfinished"},
    ]
    text = run_doctor("--data", tmp_path)
    identity = json.loads((tmp_path / "shards" / "good" / "manifest.json").read_text())["self_sha256"]
    assert re.search(rf"good \(33 samples, ID {identity[:12]}\)", text)
    assert "torn (FAILED" in text
    assert "done (test 50.0%), nan (diverged), open (unfinished)" in text
    assert re.search(r"^raw +digits$", text, re.MULTILINE)
