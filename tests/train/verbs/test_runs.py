"""Runs listed, chosen, compared and handed to a report; a broken one is a row."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_folders import change_result, whole_and_half

from spikebridge.cli import main
from spikebridge.train.errors import RunError
from spikebridge.train.report.listing import age_text, difference_text, read_list
from spikebridge.train.runs.folder import RunFolder, read_result
from spikebridge.train.runs.listing import best_earlier, read_run, sort_runs


def invoke(*arguments, code=0, **more):
    result = CliRunner().invoke(main, ["runs", *map(str, arguments)], catch_exceptions=False, **more)
    assert result.exit_code == code, result.output
    return result


def change_setting(run, before, after):
    text = run.joinpath("config.toml").read_text()
    assert before in text
    run.joinpath("config.toml").write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def folder(made_once, tmp_path_factory):
    """A finished run, one with another rate that is better, one unfinished, one damaged, and what is no run."""
    made, root = whole_and_half(made_once), tmp_path_factory.mktemp("runs")
    for name, source in {"first": "whole", "group/better": "whole", "half": "half", "damaged": "whole"}.items():
        shutil.copytree(made / source, root / name)
    change_result(root / "first", validation_accuracy=0.5)
    change_result(root / "group" / "better", validation_accuracy=0.75)
    change_setting(root / "group" / "better", "lr = 0.003", "lr = 0.002")
    result = root / "damaged" / "result.json"
    result.write_text(result.read_text().replace('"epochs": 3', '"epochs": 4'))
    (root / "group" / "link").symlink_to(root / "first")
    (root / "group" / "circle").symlink_to(root)
    (root / "other").mkdir()
    (root / "other" / "config.toml").write_text("[server]\nport = 1\n")
    return root


def test_every_run_below_a_folder_is_a_row(folder):
    rows = json.loads(invoke(folder, "--json").stdout)["runs"]
    found = {(Path(row["run"]).resolve().relative_to(folder.resolve()).as_posix(), row["state"]) for row in rows}
    assert len(rows) == 4
    assert sorted(found) == [
        *(("damaged", "damaged"), ("first", "finished"), ("group/better", "finished"), ("half", "unfinished")),
    ]
    by_state = {row["state"]: row for row in rows}
    assert "result.json" in by_state["damaged"]["problem"]
    assert by_state["unfinished"]["epoch"] == 2
    assert by_state["unfinished"]["shard_set"] == by_state["finished"]["shard_set"]
    accuracies = [row["validation_accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row["recipe"]["train"]["method"] for row in rows} == {"kt"}
    lines = invoke("list", folder, "--sort", "run").stdout.splitlines()
    assert [line.split()[0].removeprefix(f"{folder}/") for line in lines[:5]] == [
        *("run", "damaged", "first", "group/better", "half"),
    ]
    assert "50.0 %" in lines[2]
    assert "unfinished (2 of 3 epochs)" in lines[4]
    assert lines[5].startswith(f"{folder}/damaged: ")


def test_a_diverged_run_says_so_and_where(folder, tmp_path):
    run = RunFolder(shutil.copytree(folder / "half", tmp_path / "run"))
    run.mark_diverged(epoch=2, step=7, message="step 7: the loss is not finite. Lower lr")
    assert read_run(run.path).state == "diverged"
    with pytest.raises(RunError, match=r"this run diverged and has no result: step 7: .* Lower lr"):
        read_result(run.path)
    _, row, problem = invoke(tmp_path, "--where", "state=diverged").stdout.splitlines()
    assert "diverged (2 of 3 epochs)" in row
    assert problem == f"{run.path}: step 7: the loss is not finite. Lower lr"
    with run.lock():
        assert read_run(run.path).state == "running"
    run.diverged.write_text(run.diverged.read_text().replace("step 7", "step 8"))
    assert "another SHA-256" in read_run(run.path).problem
    assert read_run(run.path).state == "damaged"


def test_a_run_at_work_is_running_and_undisturbed(folder):
    with RunFolder(folder / "half").lock():
        assert read_run(folder / "half").state == "running"
    assert read_run(folder / "half").state == "unfinished"


def test_runs_are_chosen_by_settings_set_recipe_and_state(folder):
    def found(*conditions):
        words = [word for condition in conditions for word in ("--where", condition)]
        rows = json.loads(invoke(folder, *words, "--sort", "run", "--json").stdout)["runs"]
        return [row["run"].removeprefix(f"{folder}/") for row in rows]

    assert found("lr=2e-3") == ["group/better"]
    assert found("recipe=tiny", "state=unfinished") == ["half"]
    assert found("preview=true") == []
    assert found("set=0000", "method=kt", "lr=3e-3", "state=finished") == ["first"]
    assert found("set=1234") == []
    assert "no run with lr=7" in invoke(folder, "--where", "lr=7").stdout
    assert "did you mean epochs" in invoke(folder, "--where", "epoch=3", code=1).stderr
    assert "did you mean finished" in invoke(folder, "--where", "state=finish", code=1).stderr
    assert "no such folder" in invoke(folder / "absent", code=1).stderr


def test_a_finished_run_with_a_recipe_of_a_plugin_is_finished(folder, tmp_path):
    run = shutil.copytree(folder / "first", tmp_path / "run")
    change_setting(run, 'method = "kt"', 'method = "plugged"')
    listed = read_run(run)
    assert (listed.state, listed.method, listed.recipe) == ("finished", "kt", None)
    assert "plugged" in listed.problem
    shutil.copytree(folder / "half", tmp_path / "half")
    change_setting(tmp_path / "half", 'method = "kt"', 'method = "plugged"')
    assert read_run(tmp_path / "half").state == "damaged"


def test_sorting_puts_what_is_unknown_last(folder):
    runs = [read_run(folder / name) for name in ("damaged", "half", "first", "group/better")]
    assert [run.path.name for run in sort_runs(runs, "test")][-2:] == ["damaged", "half"]
    ages = [run.changed for run in sort_runs(runs, "age")]
    assert ages == sorted(ages, reverse=True)
    assert [age_text(seconds) for seconds in (-1, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_two_runs_differ_in_settings_data_and_results(folder):
    words = ("diff", folder / "first", folder / "half")
    difference = json.loads(invoke(*words, "--json").stdout)
    assert difference["settings"] == {}
    assert difference["decisions"] is None
    change_result(folder / "first", shard_set="f" * 64)
    better = ("diff", folder / "first", folder / "group" / "better")
    difference = json.loads(invoke(*better, "--json").stdout)
    assert difference["settings"] == {"lr": [0.003, 0.002]}
    assert difference["data"] == {"shard_set": ["f" * 64, read_run(folder / "half").shard_set]}
    assert difference["results"]["validation_accuracy"] == [0.5, 0.75]
    assert sum(difference["decisions"].values()) == difference["decisions"]["both"] + difference["decisions"]["none"]
    text = invoke(*better).stdout
    assert "+25.0 points" in text
    assert "proves nothing" in text
    assert "no run here" in invoke("diff", folder / "first", folder / "other", code=1).stderr


def test_figures_of_a_difference_are_as_long_as_anybody_reads():
    results = {
        "steps": [1200, 5],
        "training_seconds": [21646.131637500002, 0.1234567891],
        "effective_macs": [2782820.625, 1.5e7],
        "energy_nj": [None, 3.0],
        "test_accuracy": [0.5, 0.75],
    }
    parts = {"runs": ["a", "b"], "states": ["finished"] * 2, "data": {}, "origin": {}, "decisions": None}
    parts |= {"settings": {"lr": [0.00123456789, 1e-5]}, "same_weights": None}
    text = difference_text({**parts, "results": results})
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert rows["steps"] == ["1,200", "5", "-1,195"]
    assert rows["training_seconds"] == ["21,646.1", "0.123457", "-21,646"]
    assert rows["effective_macs"] == ["2,782,821", "15,000,000", "+12,217,179"]
    assert rows["energy_nj"] == ["-", "3"]
    assert rows["lr"] == ["0.00123456789", "1e-05"], "settings are told apart by all their digits"


def test_the_best_earlier_run_is_of_the_same_recipe_and_contents(folder, tmp_path):
    for name in ("old", "worse", "elsewhere", "later", "new"):
        shutil.copytree(folder / "first", tmp_path / name)
    environment = read_run(tmp_path / "new").result["environment"]
    (tmp_path / "loop").symlink_to("loop")
    assert best_earlier(tmp_path / "new") is not None
    change_result(tmp_path / "old", validation_accuracy=0.9)
    change_result(tmp_path / "elsewhere", validation_accuracy=1.0, contents="0" * 64)
    change_result(tmp_path / "later", validation_accuracy=1.0, environment=environment | {"finished": "2999-01-01"})
    this, best = best_earlier(tmp_path / "new")
    assert (this.path.name, best.path.name) == ("new", "old")
    for name in ("old", "worse"):
        change_result(tmp_path / name, recipe_name="another")
    assert best_earlier(tmp_path / "new") is None


def test_a_list_names_its_runs_and_what_is_left_out(folder):
    listed = invoke(folder, "--where", "lr=3e-3", "--sort", "run", "--json").stdout
    paths, left_out = read_list(listed, "runs.json")
    assert paths == [folder / "first", folder / "half"]
    assert left_out == [f"left out: {folder}/damaged, damaged"]
    with pytest.raises(RunError, match="runs --json"):
        read_list("[]", "runs.json")


@pytest.mark.long
def test_a_report_takes_a_list(folder, tmp_path):
    listed = invoke(folder, "--where", "lr=3e-3", "--json").stdout
    done = CliRunner().invoke(main, ["report", "-", "--out", str(tmp_path / "a.html")], input=listed)
    assert done.exit_code == 0, done.output
    assert "left out: " in done.stderr
    html = (tmp_path / "a.html").read_text()
    assert "<html" in html[:200]
    assert "1 of 2 runs without a result" in html
    (tmp_path / "runs.json").write_text("[]")
    done = CliRunner().invoke(main, ["report", str(tmp_path / "runs.json"), "--out", str(tmp_path / "none.html")])
    assert "runs --json" in done.stderr
