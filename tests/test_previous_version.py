"""Shard sets, runs and tables that the last version wrote are verified, scored, continued and described today."""

import json
import shutil
import tarfile

import pytest
from click.testing import CliRunner
from conftest import ROOT
from conversions import contents
from interrupted import Stopper

from spikebridge import open_set
from spikebridge.cli import main
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.errors import RunStoppedError
from spikebridge.train.runs.folder import read_metrics, read_result
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.run import train

ARCHIVE = ROOT / "tests" / "previous" / "version-0.1.0.tar.gz"
IDS = {
    "shards": "1d69527ebaaf95c0f87c008755870e6c38747386c8601765b0e209ae0f175832",
    "shards-hdf5": "78e0327696a15b311bde0bdf7ff84fa919765d7d996b6d9c02f466e27a75ca43",
}
FORMATS = {"shards": ("webdataset", "raw"), "shards-hdf5": ("hdf5", "gzip")}


@pytest.fixture(scope="module")
def previous(tmp_path_factory):
    """The folders of the last version, for tests that only read."""
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def copied(previous, tmp_path):
    """A copy of some of the folders that a test may change."""

    def copy(*names):
        for name in names:
            source = previous / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, tmp_path / name)
        return tmp_path

    return copy


def answer(*arguments):
    """What a verb prints as JSON."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def trained_samples(run):
    """Steps that were taken in each run of a table: unchanged where nothing was trained."""
    return {path.parent.name: path.read_bytes() for path in run.glob("runs/*/metrics.jsonl")}


@pytest.mark.parametrize("name", IDS)
def test_a_set_verifies_under_its_id(previous, name):
    assert open_set(previous / name).id == IDS[name]
    checked = answer("verify", previous / name)
    assert checked["ok"]
    assert checked["problems"] == []


@pytest.mark.parametrize("name", IDS)
def test_raw_data_becomes_the_set_that_it_became(previous, tmp_path, name):
    container, codec = FORMATS[name]
    raw, out = previous / "raw", tmp_path / "set"
    options = ["--time-bins", "4", "--size", "16", "--format", container, "--codec", codec, "--workers", "1"]
    answer("preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", out, *options)
    assert open_set(out).id == IDS[name]
    assert contents(out) == contents(previous / name)


@pytest.mark.parametrize(("source", "target"), [("shards", "shards-hdf5"), ("shards-hdf5", "shards")])
def test_sets_convert_into_each_other(previous, tmp_path, source, target):
    container, codec = FORMATS[target]
    answer("convert", previous / source, "--format", container, "--codec", codec, "--out", tmp_path / "set")
    assert contents(tmp_path / "set") == contents(previous / target)


@pytest.mark.parametrize("name", ["run", "run.nir"])
def test_a_run_and_its_export_score_what_they_scored(previous, name):
    recorded = read_result(previous / "run")
    scored = answer("evaluate", previous / name, "--shards", previous / "shards", "--device", "cpu")
    assert scored["accuracy"] == recorded["test_accuracy"]
    assert scored["confusion"] == recorded["confusion"]
    assert scored["loss"] == pytest.approx(recorded["test_loss"], rel=1e-5)
    assert scored["shard_set"] == recorded["shard_set"] == IDS["shards"]


def test_a_report_describes_a_run(previous, tmp_path):
    out = tmp_path / "report.html"
    answer("report", previous / "run", "--shards", previous / "shards", "--out", out)
    page = out.read_text()
    assert "<b>33.3 %</b>" in page
    assert "recipe.toml" in page


def test_a_report_describes_the_runs_of_a_table(previous, tmp_path):
    runs = sorted(previous.glob("ablation/runs/kt-*-seed[01]-*"))
    answer("report", *runs, "--out", tmp_path / "report.html")
    assert all(run.name in (tmp_path / "report.html").read_text() for run in runs)


def test_a_landscape_is_complete_and_is_drawn_again(copied, previous, tmp_path):
    folder = copied("landscape", "run", "shards")
    made = ["landscape", folder / "run", "--shards", folder / "shards", "--line", "--points", "3", "--out"]
    before = json.loads((previous / "landscape" / "landscape.json").read_text())
    assert answer(*made, folder / "landscape")["line"] == before["line"]
    answer(*made, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "landscape.json").read_text())
    assert again["line"]["a"] == before["line"]["a"]
    assert again["line"]["loss"] == pytest.approx(before["line"]["loss"], rel=1e-4)


def test_a_grid_finds_its_runs_finished_and_gives_the_same_table(copied, previous, monkeypatch):
    folder = copied("ablation", "shards", "grid.toml", "recipe.toml")
    monkeypatch.chdir(folder)
    answer("grids", "validate", "grid.toml")
    before = trained_samples(folder / "ablation")
    assert len(before) == 8
    answer(
        "ablate", "--grid", "grid.toml", "--shards", "shards", "--out", "ablation", "--device", "cpu", "--workers", "1"
    )
    assert trained_samples(folder / "ablation") == before
    for name in ("ablation.csv", "ablation.md"):
        assert (folder / "ablation" / name).read_text() == (previous / "ablation" / name).read_text(), name


def test_an_unfinished_run_is_taken_up_where_it_stopped(copied):
    folder = copied("half", "shards", "recipe.toml")
    before = read_metrics(folder / "half")
    assert [line["epoch"] for line in before] == [1, 2, 3]
    request = StopRequest()
    recipe = load_recipe(folder / "recipe.toml", overrides=["epochs=400"])
    with pytest.raises(RunStoppedError):
        train(
            open_set(folder / "shards"),
            recipe,
            folder / "half",
            device="cpu",
            stop=request,
            progress=Stopper(request, 6),
        )
    after = read_metrics(folder / "half")
    assert after[:3] == before
    assert [line["epoch"] for line in after[3:]] == [*range(4, len(after) + 1)]
    assert len(after) > 3


@pytest.mark.long
def test_an_unfinished_run_ends(copied):
    folder = copied("half", "shards", "recipe.toml")
    before = read_metrics(folder / "half")
    run = ["--shards", folder / "shards", "--recipe", folder / "recipe.toml", "--run", folder / "half"]
    answer("train", *run, "--set", "epochs=400", "--device", "cpu")
    after = read_metrics(folder / "half")
    assert after[:3] == before
    assert [line["epoch"] for line in after] == [*range(1, 401)]
    assert read_result(folder / "half")["epochs"] == 400
