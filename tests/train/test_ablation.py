"""An ablation in real worker processes, killed and continued; what is chosen, what is shown, what a failure costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager

import pytest
import torch
from conftest import ROOT
from test_report import chromium

from train.ablation import ablate
from train.ablation_table import markdown_text
from train.errors import RunStoppedError, ShardMismatchError
from train.evaluation import open_shards
from train.examination import examine
from train.grids import load_grid
from train.report_ablation import ablation_page, curves, write_ablation_report
from train.runs import RunFolder, read_result
from train.stopping import StopRequest

GRID = """# Two methods on random recordings
recipe = "digits"
seeds = [0, 1]
events_per_class = [2]
learning_rates = [0.01, 0.001]
tuning_seeds = [5]
reference = "kt"
baselines = ["kt"]
[settings]
time_bins = 4
size = 16
width = 0.3
epochs = 3
[[rows]]
label = "kt"
method = "kt"
[[rows]]
label = "no transfer"
method = "event_only"
note = "Sees <no> photographs."
"""


class Inline(Executor):
    """Works in this process, at once."""

    def __init__(self, deaths=0):
        self.deaths, self.done = deaths, []

    def submit(self, work, task):
        future = Future()
        if self.deaths:
            self.deaths -= 1
            future.set_exception(BrokenExecutor("a worker died"))
        else:
            self.done.append(task.run)
            future.set_result(work(task))
        return future


def engine(executor):
    @contextmanager
    def start():
        yield executor

    return start


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def grid(tmp_path):
    def write(text=GRID, **options):
        (tmp_path / "grid.toml").write_text(text)
        return load_grid(str(tmp_path / "grid.toml"), **options)

    return write


@pytest.fixture(scope="module")
def shards(shard_set):
    return shard_set(size=16)


def figures(table):
    """The table without times."""
    kept = json.loads(json.dumps(table))
    for line in kept["table"]:
        for name in ("training_seconds", "samples_per_second"):
            del line[f"{name}_mean"]
            for run in line["runs"]:
                del run[name]
    return kept


@contextmanager
def started(tmp_path, shards):
    """The command in a session of its own, once the first run is finished."""
    out = tmp_path / "out"
    command = [sys.executable, "cli.py", "ablate", "--grid", str(tmp_path / "grid.toml"), "--shards", str(shards)]
    command += ["--out", str(out), "--workers", "2", "--device", "cpu", "--checkpoint-every", "1"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 900
        while not list(out.glob("runs/*/result.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "group"),
    [
        ("SIGKILL", False),
        pytest.param("SIGTERM", False, marks=pytest.mark.long),
        pytest.param("SIGTERM", True, marks=pytest.mark.long),  # as batch queues do: the workers get it, too
    ],
)
def test_killed_or_stopped_and_continued_to_the_same_table(tmp_path, shards, grid, number, group):
    loaded, out = grid(), tmp_path / "out"
    whole = ablate(loaded, [shards], tmp_path / "whole", engine=engine(Inline()), device="cpu")
    assert [line["n"] for line in whole["table"]] == [2, 2]

    with started(tmp_path, shards) as process:
        (os.killpg if group else os.kill)(process.pid, signal.Signals[number])
        said = process.communicate(timeout=300)[1]  # ends when the workers have closed its pipes: they go along
    assert process.returncode == {"SIGKILL": -9, "SIGTERM": 143}[number], said
    assert ("The same command continues" in said) is (number == "SIGTERM")
    assert "Traceback" not in said
    kept = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    assert kept
    assert not (out / "ablation.json").exists()

    executor = Inline()
    table = ablate(loaded, [shards], out, engine=engine(executor), device="cpu")
    assert len(executor.done) == 8 - len(kept)
    assert figures(table) == figures(whole)
    assert table == json.loads((out / "ablation.json").read_text())
    for path, content in kept.items():
        assert path.read_bytes() == content  # finished runs were left alone
    assert not (out / ".stop").exists()
    assert ablate(loaded, [shards], out, engine=engine(executor), device="cpu") == table
    assert len(executor.done) == 8 - len(kept)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shards):
    """A finished ablation, to be copied."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "grid.toml").write_text(GRID)
    loaded = load_grid(str(folder / "grid.toml"))
    return ablate(loaded, [shards], folder / "out", engine=engine(Inline()), device="cpu"), folder / "out"


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[1], tmp_path / "copied")
    return tmp_path / "copied"


def change(run, **values):
    path = run / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_learning_rate_is_chosen_on_validation_alone(copied, shards, grid):
    loaded, executor = grid(), Inline()
    for run in copied.glob("runs/kt-2-lr*-seed5-*"):
        good = "-lr0.001-" in run.name
        change(run, validation_accuracy=0.9 if good else 0.1, test_accuracy=0.1 if good else 0.9)
    table = ablate(loaded, [shards], copied, engine=engine(executor), device="cpu")
    tuned = {one["row"]: one for one in table["tuning"]}
    assert tuned["kt"] == {"row": "kt", "chosen": 0.001, "validation": {"0.001": 0.9, "0.01": 0.1}}
    assert {line["row"]: line["learning_rate"] for line in table["table"]}["kt"] == 0.001
    for run in copied.glob("runs/kt-2-lr*-seed5-*"):
        change(run, validation_accuracy=0.5)
    table = ablate(loaded, [shards], copied, engine=engine(executor), device="cpu")
    assert table["tuning"][0]["chosen"] == 0.001  # of equals the smallest


def test_the_energy_estimate_is_that_of_the_report(finished, shards):
    table, out = finished
    run = table["table"][0]["runs"][0]
    folder = RunFolder(out / "runs" / run["run"])
    seen = examine(folder, read_result(folder.path), open_shards(shards))
    assert run["energy_nj"] > 0
    assert run["energy_nj"] == pytest.approx(seen.cost.energy_nj)
    assert "µJ" in (out / "ablation.md").read_text()


def test_test_accuracies_of_other_rows_are_nowhere(finished):
    table, out = finished
    kt, other = table["table"]
    assert (kt["role"], other["role"]) == ("baseline", "")
    assert kt["test_accuracy_mean"] is not None
    assert not any("test" in key for key in other)
    assert not any("test" in key for run in other["runs"] for key in run)
    assert other["validation_difference"]["n"] == 2
    marked = json.loads(json.dumps(table))
    for line in marked["table"]:  # a figure that would be found wherever it is shown
        for run in line["runs"]:
            run["test_accuracy"] = 0.98765 if "test_accuracy" in run else None
    assert markdown_text(table) == (out / "ablation.md").read_text()
    head, values = (
        (out / "ablation.csv").read_text().splitlines()[0],
        (out / "ablation.csv").read_text().splitlines()[2],
    )
    assert dict(zip(head.split(","), values.split(","), strict=True))["test_accuracy_mean"] == ""
    row = next(line for line in markdown_text(table).splitlines() if line.startswith("| no transfer |"))
    assert "±" in row
    assert row.count("±") == 1


def test_a_failed_run_is_named_and_costs_the_others_nothing(copied, shards, grid):
    spoiled = next(copied.glob("runs/kt-2-*-seed1-*"))
    shutil.rmtree(spoiled)
    spoiled.mkdir()
    (spoiled / "thesis.txt").write_text("mine")
    table = ablate(grid(), [shards], copied, engine=engine(Inline()), device="cpu")
    assert [(one["run"], one["kind"]) for one in table["failures"]] == [(spoiled.name, "failed")]
    assert "thesis.txt" in table["failures"][0]["message"]
    assert [line["n"] for line in table["table"]] == [1, 2]
    assert table["table"][1]["validation_difference"]["n"] == 1
    assert f"{spoiled.name} failed" in markdown_text(table)
    assert f"{spoiled.name} failed" in ablation_page(table)


def test_a_rate_that_diverges_is_out(tmp_path, shards, grid):
    text = GRID.replace("[0.01, 0.001]", "[1e30, 0.001]").replace("seeds = [0, 1]", "seeds = [0]", 1)
    table = ablate(grid(text), [shards], tmp_path / "out", engine=engine(Inline()), device="cpu")
    assert {one["chosen"] for one in table["tuning"]} == {0.001}
    assert {failure["kind"] for failure in table["failures"]} == {"diverged"}


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_dead_worker_costs_another_attempt(copied, shards, grid, deaths):
    lost = next(copied.glob("runs/no-transfer-2-*-seed1-*"))
    (lost / "result.json").unlink()
    table = ablate(grid(), [shards], copied, engine=engine(Inline(deaths)), device="cpu")
    assert [failure["run"] for failure in table["failures"]] == ([lost.name] if deaths == 3 else [])


def test_a_stop_keeps_what_is_done(copied, shards, grid):
    shutil.rmtree(next(copied.glob("runs/kt-2-*-seed1-*")))
    stop, executor = StopRequest(), Inline()
    stop.ask(signal.SIGUSR1)
    (copied / "ablation.json").unlink()
    with pytest.raises(RunStoppedError, match="Stopped by SIGUSR1; 3 of 4 runs are done") as caught:
        ablate(grid(), [shards], copied, engine=engine(executor), device="cpu", stop=stop)
    assert caught.value.signal == signal.SIGUSR1
    assert not (copied / "ablation.json").exists()


def test_rows_find_their_shard_set(tmp_path, shards, shard_set, grid):
    text = GRID.replace('method = "event_only"', 'method = "kt"\nswitches = { protocol = "leaky", selection = "test" }')
    text = text.replace("learning_rates = [0.01, 0.001]\ntuning_seeds = [5]\n", "").replace("[0, 1]", "[0]")
    loaded = grid(text)
    with pytest.raises(ShardMismatchError, match="row 'no transfer' has no shard set"):
        ablate(loaded, [shards], tmp_path / "out", engine=engine(Inline()), device="cpu")
    leaky = shard_set(size=16, protocol="leaky")
    table = ablate(loaded, [shards, leaky], tmp_path / "out", engine=engine(Inline()), device="cpu")
    assert [one["protocol"] for one in table["shard_sets"]] == ["strict", "leaky"]
    assert "LEAKY" in markdown_text(table)
    assert "LEAKY" in ablation_page(table)
    result = json.loads(next((tmp_path / "out").glob("runs/no-transfer-*/result.json")).read_text())
    assert (result["protocol"], result["selection_split"]) == ("leaky", "test")
    assert result["static_images"] == 33
    other = shard_set(size=16, protocol="leaky", seed=1)
    with pytest.raises(ShardMismatchError, match="hold different"):
        ablate(loaded, [shards, other], tmp_path / "out", engine=engine(Inline()), device="cpu")


def test_the_page_opens_and_shows_the_curve(finished, tmp_path):
    table = json.loads(json.dumps(finished[0]))
    few = [{**line, "amount": 1, "validation_accuracy_mean": 0.2} for line in table["table"]]
    table["table"] = few + table["table"]
    assert list(curves(table, "validation")) == ["kt", "no transfer"]
    assert list(curves(table, "test")) == ["kt"]
    assert list(curves(table, "validation")["kt"].amounts) == [1, 2]
    written = write_ablation_report(table, tmp_path)
    assert [path.name for path in written] == ["report.html", "few-data.svg", "few-data.png"]
    html = written[0].read_text()
    assert "Sees &lt;no&gt; photographs." in html
    assert "SIMULATED" in html
    assert "<script" not in html
    if chromium() is None:
        return
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--enable-logging=stderr", "--dump-dom", written[0].as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("<svg") == 4
    assert "CONSOLE" not in done.stderr
