"""An ablation in real worker processes, killed and continued; what is chosen, what is shown, what a failure costs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from browser import chromium
from click.testing import CliRunner
from conftest import ROOT
from dask_cluster import dask_cluster
from forked import Forked, run_forked
from inline_workers import Inline
from run_folders import change_result
from servers import serving

from spikebridge import cli
from spikebridge.pipeline.sharing.publish import push
from spikebridge.train.errors import RunStoppedError, ShardMismatchError, TrainError
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.report.analysis import analyse
from spikebridge.train.runs.evaluation import keep_evaluation
from spikebridge.train.runs.folder import RunFolder, read_result
from spikebridge.train.signals import StopRequest
from spikebridge.train.studies import ablate as ablation
from spikebridge.train.studies import run_pool
from spikebridge.train.studies.ablate import ablate
from spikebridge.train.studies.cost_figures import cost_points
from spikebridge.train.studies.curves import curves, setting_curves
from spikebridge.train.studies.grids import load_grid
from spikebridge.train.studies.report import ablation_page, write_ablation_report
from spikebridge.train.studies.table import cells, markdown_text, terminal_text, time_column
from spikebridge.train.studies.workers import RunOutcome

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
        for name in ("training_seconds", "training_cpu_seconds", "samples_per_second"):
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
    process = Forked(command, cwd=ROOT, stdout=pipe, stderr=pipe, start_new_session=True)
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
    whole = ablate(loaded, [shards], tmp_path / "whole", workers=lambda: nullcontext(Inline()), device="cpu")
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
    table = ablate(loaded, [shards], out, workers=lambda: nullcontext(executor), device="cpu")
    assert len(executor.done) == 8 - len(kept)
    assert figures(table) == figures(whole)
    assert table == json.loads((out / "ablation.json").read_text())
    for path, content in kept.items():
        assert path.read_bytes() == content  # finished runs were left alone
    assert not (out / ".stop").exists()
    assert ablate(loaded, [shards], out, workers=lambda: nullcontext(executor), device="cpu") == table
    assert len(executor.done) == 8 - len(kept)


def test_a_sweep_scores_no_test_split_and_names_the_best(tmp_path, shards, grid):
    settings = GRID.partition("[settings]")[2].partition("[[rows]]")[0].replace("epochs = 3", "epochs = 1")
    loaded = grid(f'recipe = "digits"\nseeds = [0]\n[sweep]\nlr = [0.01, 0.001]\n[settings]{settings}')
    table = ablate(loaded, [shards], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")
    results = [read_result(path) for path in sorted((tmp_path / "out" / "runs").iterdir())]
    assert [(one["test_accuracy"], one["tested"]) for one in results] == [(None, False)] * 2
    assert sorted(one["recipe"]["train"]["lr"] for one in results) == [0.001, 0.01]
    assert [line["learning_rate"] for line in table["table"]] == [0.01, 0.001]
    assert "test %" not in cells(table, table["table"][0]["amount"])[0]
    best = max(table["table"], key=lambda line: line["validation_accuracy_mean"])
    assert f"--set lr={best['learning_rate']:g} " in terminal_text(table)
    assert "no run scored the test split" in markdown_text(table)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shards):
    """A finished ablation, to be copied."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "grid.toml").write_text(GRID)
    loaded = load_grid(str(folder / "grid.toml"))
    return ablate(loaded, [shards], folder / "out", workers=lambda: nullcontext(Inline()), device="cpu"), folder / "out"


def caught_in_a_run(crew, out):
    """A worker, stopped, and the folder of the run that it is in."""
    while True:
        for worker in crew:
            assert worker.poll() is None
            for handle in Path(f"/proc/{worker.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    run = handle.readlink().parent
                    if run.parent == out / "runs":
                        os.kill(worker.pid, signal.SIGSTOP)
                        if handle.exists() and handle.readlink().parent == run and (run / "metrics.jsonl").exists():
                            return worker, run
                        os.kill(worker.pid, signal.SIGCONT)
        time.sleep(0.05)


@pytest.mark.long  # each day a conversion on a cluster loses a worker: the loop is the same, in base/executors
@pytest.mark.parametrize("failures", [0, 3])  # 0: we try again; 3: Dask does
def test_a_dask_cluster_makes_the_same_table_though_a_worker_dies(finished, tmp_path, shards, failures):
    pytest.importorskip("distributed")
    (tmp_path / "grid.toml").write_text(GRID)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures)}
    command = [sys.executable, "cli.py", "ablate", "--grid", str(tmp_path / "grid.toml"), "--shards", str(shards)]
    command += ["--out", str(tmp_path / "out"), "--device", "cpu", "--checkpoint-every", "1", "--json"]
    pipe = subprocess.PIPE
    with dask_cluster(tmp_path, env, workers=2) as (address, crew):
        process = Forked([*command, "--scheduler", address], cwd=ROOT, stdout=pipe, stderr=pipe)
        try:
            worker, run = caught_in_a_run(crew, tmp_path / "out")
            assert not (run / "result.json").exists()
            worker.kill()
            said, errors = process.communicate(timeout=300)
        finally:
            process.kill()
        assert [one.poll() for one in crew if one is not worker] == [None]
    assert process.returncode == 0, errors
    assert (run / "result.json").exists()  # by the other worker
    assert figures(json.loads(said)) == figures(finished[0])
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.long  # the workers are those of the conversion, whose own test is in tests/pipeline/preprocess
def test_a_cluster_without_workers_is_given_up_and_a_lost_scheduler_is_said(tmp_path, shards, grid):
    pytest.importorskip("distributed")
    grid()
    code = (
        "import sys\nfrom spikebridge.pipeline.base import executors\n"
        "from spikebridge.train.studies.ablate import ablate\n"
        "from spikebridge.train.errors import TrainError\nfrom spikebridge.train.studies.grids import load_grid\n"
        "from spikebridge.pipeline.base.executors import open_workers\nexecutors.TIMEOUT_S = executors.POLL_S = 0.1\n"
        "grid, shards, out, address = sys.argv[1:]\n"
        "try:\n    ablate(load_grid(grid), [shards], out, workers=lambda: open_workers(scheduler=address),"
        " device='cpu')\n"
        "except TrainError as error:\n    print(error)"
    )

    def run(address):
        command = [sys.executable, "-c", code, str(tmp_path / "grid.toml"), str(shards), str(tmp_path / "out"), address]
        return run_forked(command, cwd=ROOT, capture_output=True, timeout=120).stdout

    with dask_cluster(tmp_path, dict(os.environ), workers=0) as (address, _):
        assert "has had no worker" in run(address)
    assert f"no Dask scheduler answers at {address}" in run(address)


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[1], tmp_path / "copied")
    return tmp_path / "copied"


def test_the_learning_rate_is_chosen_on_validation_alone(copied, shards, grid):
    loaded, executor = grid(), Inline()
    for run in copied.glob("runs/kt-2-lr*-seed5-*"):
        good = "-lr0.001-" in run.name
        change_result(run, validation_accuracy=0.9 if good else 0.1, test_accuracy=0.1 if good else 0.9)
    table = ablate(loaded, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    tuned = {one["row"]: one for one in table["tuning"]}
    assert tuned["kt"] == {"row": "kt", "chosen": 0.001, "validation": {"0.001": 0.9, "0.01": 0.1}}
    assert {line["row"]: line["learning_rate"] for line in table["table"]}["kt"] == 0.001
    for run in copied.glob("runs/kt-2-lr*-seed5-*"):
        change_result(run, validation_accuracy=0.5)
    table = ablate(loaded, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    assert table["tuning"][0]["chosen"] == 0.001  # of equals the smallest


def test_finished_runs_are_evaluated_as_the_grid_asks(copied, shards, grid):
    asked = 'corruptions = ["background:1", "flicker:0.01"]\nafter_ms = [1, 160]\nearly_exit = 95.0\n[settings]'
    loaded, executor = grid(GRID.replace("[settings]", asked)), Inline()
    table = ablate(loaded, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    assert not executor.done, "the runs are those of the grid without"
    assert table == json.loads((copied / "ablation.json").read_text())
    kt = table["table"][0]
    kept = {path: path.stat().st_mtime_ns for path in copied.glob("runs/*/evaluation.json")}
    assert {path.parent.name for path in kept} == {run["run"] for line in table["table"] for run in line["runs"]}
    for line in table["table"]:
        shares = [run["evaluated"]["corrupted"][1]["accuracy"] for run in line["runs"]]
        assert line["evaluated"]["flicker:0.01"]["mean"] == pytest.approx(sum(shares) / 2)
        assert line["evaluated"]["accuracy"]["mean"] == line["validation_accuracy_mean"]
        assert line["evaluated"]["after_1_ms"]["mean"] is None, "no step ends so early"
        assert 1 <= line["evaluated"]["exit_step"]["mean"] <= 4
    run = kt["runs"][0]["evaluated"]
    early = [at["accuracy"] for at in run["over_time"] if at["ms"] <= 160]
    assert early
    assert kt["evaluated"]["after_160_ms"]["mean"] == pytest.approx(
        sum(one["evaluated"]["over_time"][len(early) - 1]["accuracy"] for one in kt["runs"]) / 2
    )
    text = (copied / "ablation.md").read_text()
    for words in (
        "### Accuracy in %, flicker: ON",
        "| row | none | 0.01 |",
        "160 ms",
        "Early exit that loses at most 95 points",
    ):
        assert words in text
        assert words.strip("#| ").split(" |")[0] in terminal_text(table)
    assert "flicker:0.01_mean" in (copied / "ablation.csv").read_text().partition("\n")[0]
    page = ablation_page(table)
    assert page.count("Accuracy when only the first part counts") >= 1
    ablate(loaded, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing is evaluated twice"
    first = next(iter(kept))
    found = json.loads(first.read_text())
    del found["early_exit"]["confidence"]  # as before exits promised anything
    keep_evaluation(first.parent, found)
    ablate(loaded, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    assert json.loads(first.read_text())["early_exit"]["confidence"] == 0.9
    few = grid(GRID.replace("[settings]", asked.replace("95.0", "0.5")))
    table = ablate(few, [shards], copied, workers=lambda: nullcontext(executor), device="cpu")
    assert {line["evaluated"]["exit_lost"]["mean"] for line in table["table"]} == {None}, "too few for this promise"


def test_the_energy_estimate_is_that_of_the_report(finished, shards):
    table, out = finished
    run = table["table"][0]["runs"][0]
    folder = RunFolder(out / "runs" / run["run"])
    seen = analyse(folder, read_result(folder.path), open_shards(shards))
    assert run["energy_nj"] > 0
    assert run["energy_nj"] == pytest.approx(seen.cost.energy_nj)
    assert "µJ" in (out / "ablation.md").read_text()
    tex = (out / "ablation.tex").read_text()
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 1
    assert r"no transfer & 2 & " in tex
    assert r"validation \% &" in tex
    assert "recordings" in tex.partition(r"\footnotesize")[2]


def test_costs_are_columns_and_pictures(finished):
    table = json.loads(json.dumps(finished[0]))
    kt, other = table["table"]
    assert all(run["training_cpu_seconds"] > 0 for line in (kt, other) for run in line["runs"])
    times = [run["training_cpu_seconds"] for run in kt["runs"]]
    assert kt["training_cpu_seconds_mean"] == pytest.approx(sum(times) / 2)
    points = cost_points(table, 2, "training_cpu_seconds", 1.0)
    assert list(points) == ["kt", "no transfer"]
    assert points["kt"].cost == pytest.approx(sum(times) / 2)
    assert points["kt"].cost_std == pytest.approx(abs(times[0] - times[1]) / 2**0.5)
    assert points["kt"].accuracy == 100 * kt["validation_accuracy_mean"]
    energy = cost_points(table, 2, "energy_nj", 1e-3)["no transfer"].cost
    assert energy == pytest.approx(other["energy_nj_mean"] / 1000)
    page = ablation_page(table)
    for label in ("Accuracy against training time.", "Accuracy against energy."):
        assert page.count(label) == 2  # beneath the picture, and for screen readers
    head, *rows = cells(table, 2)
    assert "CPU s" in head
    assert "seconds" not in head

    def forget(*lines):
        for line in lines:
            line["training_cpu_seconds_mean"] = None
            for run in line["runs"]:
                run["training_cpu_seconds"] = None

    forget(kt)  # as runs made before it was counted
    assert [row[head.index("CPU s")] for row in cells(table, 2)[1:]] == ["–", rows[1][head.index("CPU s")]]
    assert "Accuracy against training time." not in ablation_page(table)  # nothing to compare with
    forget(other)
    assert "seconds" in cells(table, 2)[0]
    assert list(cost_points(table, 2, time_column(table)[0], 1.0)) == ["kt", "no transfer"]
    assert "CPU" not in markdown_text(table)


def test_a_simulator_judged_on_simulated_recordings_is_said(finished):
    table = json.loads(json.dumps(finished[0]))
    assert "proves nothing about cameras" not in markdown_text(table)
    table["rows"][1]["method"] = "simulate_pretrain"
    assert "proves nothing about cameras" in markdown_text(table)
    table["simulated"] = False
    assert "proves nothing about cameras" not in markdown_text(table)


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
    table = ablate(grid(), [shards], copied, workers=lambda: nullcontext(Inline()), device="cpu")
    assert [(one["run"], one["kind"]) for one in table["failures"]] == [(spoiled.name, "failed")]
    assert "thesis.txt" in table["failures"][0]["message"]
    assert [line["n"] for line in table["table"]] == [1, 2]
    assert table["table"][1]["validation_difference"]["n"] == 1
    assert f"{spoiled.name} failed" in markdown_text(table)
    assert f"{spoiled.name} failed" in ablation_page(table)


def test_a_rate_that_diverges_is_out(tmp_path, shards, grid):
    text = GRID.replace("[0.01, 0.001]", "[1e30, 0.001]").replace("seeds = [0, 1]", "seeds = [0]", 1)
    table = ablate(grid(text), [shards], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")
    assert {one["chosen"] for one in table["tuning"]} == {0.001}
    assert {failure["kind"] for failure in table["failures"]} == {"diverged"}


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_dead_worker_costs_another_attempt(copied, shards, grid, deaths):
    lost = next(copied.glob("runs/no-transfer-2-*-seed1-*"))
    (lost / "result.json").unlink()
    table = ablate(grid(), [shards], copied, workers=lambda: nullcontext(Inline(deaths)), device="cpu")
    assert [failure["run"] for failure in table["failures"]] == ([lost.name] if deaths == 3 else [])


def test_backend_and_least_steps_reach_every_run(tmp_path, shards, grid):
    """Finished runs, which have more epochs than the grid names, are known again."""
    text = GRID.replace("learning_rates = [0.01, 0.001]\ntuning_seeds = [5]\n", "").replace("[0, 1]", "[0]")
    text = text.replace("epochs = 3", "epochs = 3\nleast_steps = 4")
    options = {"workers": lambda: nullcontext(Inline()), "device": "cpu"}
    table = ablate(grid(text), [shards], tmp_path / "out", backend="torch", **options)
    assert not table["failures"]
    results = [read_result(run) for run in (tmp_path / "out" / "runs").iterdir()]
    assert [result["backend"] for result in results] == ["torch", "torch"]
    assert [result["epochs"] for result in results] == [4, 4], "of one step each"
    assert figures(ablate(grid(text), [shards], tmp_path / "out", backend="torch", **options)) == figures(table)


def test_workers_get_the_id_and_the_address_that_waits_for_files(tmp_path, shards, grid, monkeypatch):
    text = GRID.replace("learning_rates = [0.01, 0.001]\ntuning_seeds = [5]\n", "")
    given = []

    def refuse(spec):
        given.append(spec)
        return RunOutcome("failed", "enough")

    monkeypatch.setattr(run_pool, "train_run", refuse)
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    push(shards, str(tmp_path / "place"))
    with serving("http", tmp_path / "place", tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"
        for place in (address, shards):
            ablate(grid(text), [place], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")
    assert {spec.shards for spec in given} == {address, str(shards)}
    assert {spec.shard_set for spec in given} == {open_shards(shards).id}


def test_the_command_hands_its_options_on(tmp_path, shards, grid, monkeypatch):
    grid()
    seen = {}

    def enough(*_, **options):
        seen.update(options)
        raise TrainError("enough")

    monkeypatch.setattr(ablation, "ablate", enough)
    options = ["--device", "cpu", "--backend", "torch", "--checkpoint-every", "5"]
    places = ["--grid", str(tmp_path / "grid.toml"), "--shards", str(shards), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.main, ["ablate", *places, *options])
    assert "enough" in done.output
    assert (seen["device"], seen["backend"], seen["checkpoint_every"]) == ("cpu", "torch", "5")


def test_a_stop_keeps_what_is_done(copied, shards, grid):
    shutil.rmtree(next(copied.glob("runs/kt-2-*-seed1-*")))
    stop, executor = StopRequest(), Inline()
    stop.ask(signal.SIGUSR1)
    (copied / "ablation.json").unlink()
    with pytest.raises(RunStoppedError, match="Stopped by SIGUSR1; 3 of 4 runs are done") as caught:
        ablate(grid(), [shards], copied, workers=lambda: nullcontext(executor), device="cpu", stop=stop)
    assert caught.value.signal == signal.SIGUSR1
    assert not (copied / "ablation.json").exists()


def test_rows_find_their_shard_set(tmp_path, shards, shard_set, grid):
    text = GRID.replace('method = "event_only"', 'method = "kt"\nswitches = { protocol = "leaky", selection = "test" }')
    text = text.replace("learning_rates = [0.01, 0.001]\ntuning_seeds = [5]\n", "").replace("[0, 1]", "[0]")
    loaded = grid(text)
    with pytest.raises(ShardMismatchError, match="row 'no transfer' has no shard set"):
        ablate(loaded, [shards], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")
    leaky = shard_set(size=16, protocol="leaky")
    table = ablate(loaded, [shards, leaky], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")
    assert [one["protocol"] for one in table["shard_sets"]] == ["strict", "leaky"]
    assert "LEAKY" in markdown_text(table)
    assert "LEAKY" in ablation_page(table)
    result = json.loads(next((tmp_path / "out").glob("runs/no-transfer-*/result.json")).read_text())
    assert (result["protocol"], result["selection_split"]) == ("leaky", "test")
    assert result["static_images"] == 33
    other = shard_set(size=16, protocol="leaky", seed=1)
    with pytest.raises(ShardMismatchError, match="hold different"):
        ablate(loaded, [shards, other], tmp_path / "out", workers=lambda: nullcontext(Inline()), device="cpu")


def test_rows_that_differ_in_one_setting_are_a_curve(finished, tmp_path):
    table = json.loads(json.dumps(finished[0]))
    kt, other = table["table"]
    table["table"] = [
        {**line, "row": f"{line['row']} {steps}", "switches": {**line["switches"], "time_bins": steps}}
        for line in (kt, other)
        for steps in (10, 2, 4)
    ]
    table["table"].append({**kt, "row": "alone", "switches": {"width": 0.5}})
    table["rows"] = [{**table["rows"][0], "label": line["row"]} for line in table["table"]]
    found = setting_curves(table, 2)
    assert list(found) == ["time_bins"]
    assert list(found["time_bins"]) == ["kt", "event_only"]
    assert list(found["time_bins"]["kt"].amounts) == [2, 4, 10]
    for line in table["table"][:3]:
        line["switches"] = {"time_window_us": [1000, 1000 * line["switches"]["time_bins"]]}
    windows = setting_curves({**table, "table": table["table"][:3]}, 2)
    assert list(windows["time_window_us"]["kt"].amounts) == [1, 3, 9]
    names = [path.name for path in write_ablation_report(table, tmp_path)]
    drawn = [f"over-{key}.{kind}" for key in ("time_window_us", "time_bins") for kind in ("svg", "png")]
    assert names == ["report.html", *drawn]
    assert "Accuracy over time_bins." in (tmp_path / "report.html").read_text()


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
    assert done.stdout.count("<svg") == 8
    assert "CONSOLE" not in done.stderr
