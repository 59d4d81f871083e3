"""A changed bit anywhere in a run folder is met by an error, or leaves weights, figures and log as they were."""

import hashlib
import json
import random
import shutil

import pytest
import torch
from fake_shards import FakeShardSet
from run_folders import RECIPE, STEPS, same_run, whole_and_half
from safetensors.torch import load_file

from spikebridge.train.errors import RunError, TrainError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.export.write import export
from spikebridge.train.networks.initial_weights import read_start
from spikebridge.train.report.records import load_run
from spikebridge.train.runs.checkpoints import write_json
from spikebridge.train.runs.folder import open_run, read_result
from spikebridge.train.trainer.run import train


@pytest.fixture
def folders(made_once):
    return whole_and_half(made_once)


@pytest.fixture
def copied(folders, tmp_path):
    def copy(name):
        return shutil.copytree(folders / name, tmp_path / name)

    return copy


def flip(path, place):
    """Change a bit."""
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def go_on(folders, run):
    return train(FakeShardSet(folders / "shards"), RECIPE, run, device="cpu")


def test_sums_name_every_file_of_a_run(folders):
    run, result = open_run(folders / "whole")
    assert {folders / "whole" / name for name in result["files"]} | {run.result} == set(files_of(folders / "whole"))
    state = json.loads((folders / "half" / "checkpoint" / "state.json").read_text())
    committed = {*state["files"], "metrics.csv", "checkpoint/state.json", "checkpoint/before.json"}
    before = json.loads((folders / "half" / "checkpoint" / "before.json").read_text())
    assert {str(p.relative_to(folders / "half")) for p in files_of(folders / "half")} == committed | {*before["files"]}
    assert (before["step"], state["step"]) == (STEPS - 2, STEPS - 1)


@pytest.mark.parametrize("flips", [20, pytest.param(500, marks=pytest.mark.long)])
def test_no_changed_bit_of_a_finished_run_is_silent(folders, copied, flips):
    run, rng = copied("whole"), random.Random(1)
    shards, files = FakeShardSet(folders / "shards"), files_of(run)
    for number in range(flips):
        path = files[number % len(files)]
        place = rng.randrange(8 * path.stat().st_size)
        flip(path, place)
        with pytest.raises(TrainError, match=str(path)):
            evaluate(run, shards, device="cpu")
        flip(path, place)
    assert evaluate(run, shards, device="cpu") == evaluate(folders / "whole", shards, device="cpu")


@pytest.mark.parametrize("flips", [20, pytest.param(500, marks=pytest.mark.long)])
def test_no_changed_bit_of_an_unfinished_run_is_silent(folders, tmp_path, caplog, flips):
    """Met by an error, by the checkpoint before with a warning, or written anew (metrics.csv)."""
    rng, outcomes = random.Random(2), {"refused": 0, "before": 0, "anew": 0}
    names = [path.relative_to(folders / "half") for path in files_of(folders / "half")]
    for number in range(flips):
        run = shutil.copytree(folders / "half", tmp_path / "run")
        name = names[number % len(names)]
        flip(run / name, rng.randrange(8 * (run / name).stat().st_size))
        caplog.clear()
        try:
            go_on(folders, run)
        except TrainError as error:
            outcomes["refused" if str(run) in str(error) else f"{name}: {error}"] = 1
        else:
            same_run(folders / "whole", run)
            outcomes["before" if "checkpoint before" in caplog.text else "anew"] += 1
            spare = not any(word in str(name) for word in ("state.json", f"step-{STEPS - 1:09d}"))
            assert ("checkpoint before" in caplog.text) != spare, name
        shutil.rmtree(run)
    assert all(outcomes.values()), outcomes
    assert len(outcomes) == 3, outcomes


def test_a_damaged_checkpoint_gives_way_to_the_one_before(folders, copied, caplog):
    run = copied("half")
    newest = run / "checkpoint" / json.loads((run / "checkpoint" / "state.json").read_text())["tensors"]
    flip(newest, 8 * newest.stat().st_size - 1)
    go_on(folders, run)
    assert f"{newest}: changed since it was written" in caplog.text
    assert f"continues from the checkpoint before, at step {STEPS - 2}" in caplog.text
    same_run(folders / "whole", run)


def test_two_damaged_checkpoints_are_refused(folders, copied):
    run = copied("half")
    for path in (run / "checkpoint").glob("epoch-*"):
        flip(path, 8 * path.stat().st_size - 1)
    with pytest.raises(RunError, match=r"changed since .* No whole checkpoint is left; start again with --overwrite"):
        go_on(folders, run)
    train(FakeShardSet(folders / "shards"), RECIPE, run, device="cpu", overwrite=True)
    same_run(folders / "whole", run)


READERS = {
    "evaluate": lambda run, shards, out: evaluate(run, shards, device="cpu"),
    "export": lambda run, shards, out: export(run, out / "x.safetensors", format="safetensors"),
    "init": lambda run, shards, out: read_start(run),
    "report": lambda run, shards, out: load_run(run),
    "train": lambda run, shards, out: train(shards, RECIPE, run, device="cpu"),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_a_run_compares_its_files(folders, copied, tmp_path, reader):
    run = copied("whole")
    best = run / "weights" / "best.safetensors"
    flip(best, 8 * best.stat().st_size - 1)
    with pytest.raises(RunError, match=r"best\.safetensors: changed since .*Put the file back from a copy"):
        READERS[reader](run, FakeShardSet(folders / "shards"), tmp_path)


def test_another_number_of_threads_continues_with_a_warning(folders, copied, caplog):
    """The last bits may differ; what the result says can be computed again."""
    run, shards, before = copied("half"), FakeShardSet(folders / "shards"), torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        result = go_on(folders, run)
    finally:
        torch.set_num_threads(before)
    assert f"began with {before} CPU threads and continues with {before + 1}: the last bits may differ" in caplog.text
    assert result["threads"] == before
    scored = evaluate(run, shards, device="cpu")
    assert (scored["accuracy"], scored["loss"]) == (result["test_accuracy"], result["test_loss"])
    weights = [load_file(path / "weights" / "last.safetensors") for path in (run, folders / "whole")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-4) for name in weights[0])


def test_runs_without_sums_are_taken_as_they_are(folders, copied):
    run, shards = copied("whole"), FakeShardSet(folders / "shards")
    result = {name: value for name, value in read_result(run).items() if name not in ("files", "self_sha256")}
    write_json(run / "result.json", {**result, "schema": 1})
    assert evaluate(run, shards, device="cpu")["accuracy"] == result["test_accuracy"]
    write_json(run / "result.json", result)  # of today, and its sums are gone
    with pytest.raises(RunError, match="damaged"):
        evaluate(run, shards, device="cpu")


def test_a_checkpoint_without_sums_is_continued(folders, copied):
    run = copied("half")
    state = json.loads((run / "checkpoint" / "state.json").read_text())
    older = {name: value for name, value in state.items() if name not in ("files", "self_sha256")}
    write_json(run / "checkpoint" / "state.json", {**older, "schema": 2})
    (run / "checkpoint" / "before.json").unlink()
    go_on(folders, run)
    same_run(folders / "whole", run)
    assert "files" in read_result(run)


def test_sums_are_those_of_common_tools(folders):
    run, result = open_run(folders / "whole")
    for name, digest in result["files"].items():
        assert hashlib.sha256((run.path / name).read_bytes()).hexdigest() == digest
    content = run.result.read_bytes()
    blank = content.replace(result["self_sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == result["self_sha256"] == json.loads(content)["self_sha256"]
