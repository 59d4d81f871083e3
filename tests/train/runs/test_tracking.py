"""Runs in trackers: every epoch once, under one name, whatever happens to the run or to the tracker."""

import json
import shutil

import pytest
from click.testing import CliRunner
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import Stopper
from run_folders import whole_and_half

from spikebridge.cli import main
from spikebridge.train.errors import ReportError, RunError, RunStoppedError
from spikebridge.train.runs import tracking
from spikebridge.train.runs.folder import RunFolder, read_metrics
from spikebridge.train.runs.state import flatten_numbers
from spikebridge.train.runs.tracking import TRACKERS, track_run
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.run import train
from spikebridge.train.verbs import options

INSTALLED = "json"
"""A tracker must be a package that is installed."""


class Notebook:
    """A tracker that keeps what it is told in a file beside the run."""

    full = False

    def __init__(self, run, identity, settings, place):
        self.id, self.file = identity or f"{place}-{run.path.name}", run.path / "notebook.jsonl"
        self.write({"begins": self.id, "lr": settings["train"]["lr"]})

    @staticmethod
    def place():
        return "here"

    def write(self, row):
        if self.full:
            raise ValueError("no more pages")
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def log(self, numbers, step):
        self.write({**numbers, "step": step})

    def close(self, *, finished):
        self.write({"finished": finished})


@pytest.fixture
def notebook(monkeypatch):
    kind = type("Copy", (Notebook,), {})
    monkeypatch.setitem(TRACKERS, INSTALLED, kind)
    return kind


def pages(run):
    return [json.loads(line) for line in (run / "notebook.jsonl").read_text().splitlines()]


def test_trackers_are_those_of_the_command_line():
    assert tuple(TRACKERS) == options.TRACKERS


def test_a_stopped_run_goes_on_as_the_same_and_no_epoch_comes_twice(tmp_path, notebook):
    shards, stop, run = FakeShardSet(tmp_path / "s"), StopRequest(), tmp_path / "run"
    recipe = tiny_recipe(width=0.05)
    with pytest.raises(RunStoppedError):
        train(shards, recipe, run, device="cpu", track=[INSTALLED], stop=stop, progress=Stopper(stop, 4))
    (run / "tracking.json").write_text((run / "tracking.json").read_text().replace('"epochs": 1', '"epochs": 2'))
    train(shards, recipe, run, device="cpu", track=[INSTALLED])
    assert train(shards, recipe, run, device="cpu", track=[INSTALLED])["epochs"] == 3  # nothing is left to tell
    rows = pages(run)
    assert {row["begins"] for row in rows if "begins" in row} == {"here-run"}
    assert [row["step"] for row in rows if "loss_total" in row] == [3, 9]  # it knew of epoch 2, which was trained again
    results = [row for row in rows if "result/test_accuracy" in row]
    assert [row["step"] for row in results] == [9]
    assert results[0]["result/neurobench/dense"] > 0
    assert [row["finished"] for row in rows if "finished" in row] == [False, True]
    train(shards, tiny_recipe(width=0.05, epochs=1), run, device="cpu", overwrite=True)
    assert not (run / "tracking.json").exists()


def test_a_tracker_that_fails_ends_no_training_and_is_told_the_rest_later(made_once, tmp_path, notebook, caplog):
    half = shutil.copytree(whole_and_half(made_once) / "half", tmp_path / "run")
    recipe, shards = tiny_recipe(width=0.05), FakeShardSet(tmp_path / "s")
    stop = StopRequest()

    class Failing(Stopper):
        def update(self, n):
            super().update(n)
            notebook.full = True

    train(shards, recipe, half, device="cpu", track=[INSTALLED], progress=Failing(stop, 99))
    assert f"track {half} --to {INSTALLED}" in caplog.text
    assert json.loads((half / "tracking.json").read_text())[INSTALLED]["epochs"] == 2
    with pytest.raises(ReportError, match="no more pages"):
        track_run(half, INSTALLED)
    notebook.full = False
    assert track_run(half, INSTALLED) == {"id": "here-run", "place": "here", "epochs": 3, "finished": True}
    lines = [row for row in pages(half) if "loss_total" in row]
    expected = [flatten_numbers(line) for line in read_metrics(half)]
    assert lines == [{k: v for k, v in line.items() if k != "epoch"} for line in expected]
    notebook.place = staticmethod(lambda: "there")
    assert track_run(half, INSTALLED)["id"] == "there-run"
    assert "in there it begins anew" in caplog.text


def test_what_is_missing_is_said_before_anything_starts(tmp_path, monkeypatch, notebook):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ReportError, match=r"the tracker wandb needs the package wandb.*spikebridge\[wandb\]"):
        train(FakeShardSet(tmp_path / "s"), tiny_recipe(), tmp_path / "run", device="cpu", track=["wandb"])
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(main, ["track", str(tmp_path), "--to", "mlflow"])
    assert done.exit_code == 1
    assert "spikebridge[mlflow]" in done.stderr
    monkeypatch.undo()
    monkeypatch.setitem(TRACKERS, INSTALLED, notebook)
    with pytest.raises(RunError, match="no run here"):
        track_run(tmp_path, INSTALLED)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # mlflow 3.17 uses what its SQLAlchemy calls deprecated
@pytest.mark.parametrize("name", TRACKERS)
def test_the_trackers_themselves(made_once, tmp_path, monkeypatch, name):
    """The real packages with their local stores: an unfinished run, then its end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    pytest.importorskip(name)  # reads its environment
    run = shutil.copytree(whole_and_half(made_once) / "half", tmp_path / "run")
    first = track_run(run, name)
    train(FakeShardSet(tmp_path / "s"), tiny_recipe(width=0.05), run, device="cpu", track=[name])
    told = track_run(run, name)
    assert (first["epochs"], told["epochs"], told["finished"], told["id"]) == (2, 3, True, first["id"])
    losses = {line["step"]: line["loss_total"] for line in read_metrics(run)}
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient()
        history = client.get_metric_history(told["id"], "loss_total")
        assert {metric.step: metric.value for metric in history} == losses
        assert len(history) == 3
        kept = client.get_run(told["id"])
        assert kept.info.status == "FINISHED"
        assert kept.data.params["train.method"] == "kt"
        assert kept.data.metrics["result/parameters"] > 0
    elif name == "trackio":
        import trackio

        rows = trackio.Api().runs("spikebridge")
        assert [row.name for row in rows] == [told["id"]]
    else:
        assert len(list(RunFolder(run).wandb.glob(f"offline-run-*-{told['id']}"))) == 2
