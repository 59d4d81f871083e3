"""Several real processes train one network, on the CPU with gloo."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from several_processes import RECORDED, SHARED, largest_difference, train_in_double, train_processes, trained_by_two

from spikebridge.train.runs.folder import read_metrics, read_result
from spikebridge.train.trainer.distributed import Distributed, local_device
from spikebridge.train.trainer.peers import PeerWatch

FIGURES = ("loss_total", "loss_static", "loss_event", "loss_domain", "train_accuracy", "cka")


@pytest.mark.parametrize("name", ["vgg", "scnn, one killed", "tsm"])
def test_two_synchronized_processes_equal_one(made_once, tmp_path, monkeypatch, name):
    recipe, sizes = SHARED[name]
    two = trained_by_two(made_once) / name
    train_in_double(monkeypatch, tmp_path, "one", {**recipe, "synchronize": False}, sizes)
    assert largest_difference(tmp_path / "one", two) < 1e-9
    for mine, theirs in zip(read_metrics(tmp_path / "one"), read_metrics(two), strict=True):
        assert mine["loss_domain"] > 0
        for figure in FIGURES:
            assert mine[figure] == pytest.approx(theirs[figure], rel=1e-9), figure
    assert read_result(two)["processes"] == 2


def test_two_processes_take_the_steps_that_a_graph_would_hold(made_once):
    """All-reduce, gathered features and shared statistics included; the host is asked for nothing."""
    runs = trained_by_two(made_once)
    assert largest_difference(runs / "vgg", runs / RECORDED) == 0
    lines = [[{n: line[n] for n in FIGURES} for line in read_metrics(runs / name)] for name in ("vgg", RECORDED)]
    assert lines[0] == lines[1]


@pytest.mark.long
def test_processes_on_their_own_equal_parts_one_after_the_other(tmp_path, monkeypatch):
    """Without `synchronize` a slice is on its own, as a part of an accumulated batch is."""
    codes, stderr = train_processes(2, tmp_path, "two", double=True, sizes={"train": 21}, recipe={"epochs": 2})
    assert codes == [0, 0], stderr
    train_in_double(monkeypatch, tmp_path, "parts", {"epochs": 2, "accumulate": 2}, {"train": 21})
    assert largest_difference(tmp_path / "parts", tmp_path / "two") < 1e-9  # the SCNN has no running statistics


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_continues(tmp_path, rank):
    plan = {"recipe": {"epochs": 4, "synchronize": True}, "options": {"checkpoint_every": "2"}}
    codes, said = train_processes(2, tmp_path, "parts", die_at=5, die_rank=rank, **plan)
    assert codes[rank] == -9
    assert codes[1 - rank] not in (0, -9)
    assert f"rank {rank} of 2 ended without notice: killed" in said[1 - rank]
    assert not (tmp_path / "parts" / "result.json").exists()
    for run in ("parts", "whole"):
        codes, stderr = train_processes(2, tmp_path, run, **plan)
        assert codes == [0, 0], stderr
    assert largest_difference(tmp_path / "parts", tmp_path / "whole") == 0
    lines = [[{n: line[n] for n in FIGURES} for line in read_metrics(tmp_path / run)] for run in ("parts", "whole")]
    assert lines[0] == lines[1]


def test_a_run_whose_process_was_killed_ends_with_the_same_bits(made_once):
    folder = trained_by_two(made_once)
    parts, whole = folder / "scnn, one killed", folder / "scnn, undisturbed"
    assert largest_difference(parts, whole) == 0
    lines = [[{n: line[n] for n in FIGURES} for line in read_metrics(run)] for run in (parts, whole)]
    assert lines[0] == lines[1]


@pytest.mark.long
def test_a_process_in_the_middle_of_something_ends_when_another_is_killed(tmp_path):
    """It is in a step that never ends, so no collective operation tells it."""
    plan = {"recipe": {"epochs": 4}, "hold_at": 4, "hold_rank": 0, "die_at": 5, "die_rank": 1}
    codes, said = train_processes(2, tmp_path, "run", **plan)
    assert codes == [1, -9], said
    assert "rank 1 of 2 ended without notice: killed, or its machine is gone; this process ends too" in said[0]
    assert "the same command continues from the last checkpoint" in said[0]


def test_an_error_of_one_process_is_no_riddle_to_the_others():
    """The watch alone, over real connections: a goodbye, an error, and a connection that the kernel closed."""
    for how, sentence in (("bye", ""), ("error", "ended with an error"), ("killed", "ended without notice")):
        place = []
        main = PeerWatch(0, 2, lambda data, place=place: place.append(data) or data)
        other = PeerWatch(1, 2, lambda _, place=place: place[0])
        with main:
            if how == "killed":
                next(iter(other._peers)).close()
                other._peers.clear()
            elif how == "error":
                with pytest.raises(ValueError, match="mine"), other:
                    raise ValueError("mine")
            else:
                with other:
                    pass
            main._lost.wait(60 if sentence else 0.2)
            assert main.loss.partition(":")[0] == (f"rank 1 of 2 {sentence}" if sentence else "")


@pytest.mark.long
@pytest.mark.usefixtures("without_matplotlib")
def test_a_killed_torchrun_ends_its_processes_with_a_checkpoint(shard_set, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--", "cli.py"]
    command += ["train", "--shards", str(shard_set(size=16)), "--recipe", "digits", "--run", str(tmp_path / "run")]
    for setting in ("time_bins=4", "size=16", "epochs=5000", "events_per_class=3"):
        command += ["--set", setting]
    state = tmp_path / "run" / "checkpoint" / "state.json"
    with open(tmp_path / "said", "w+") as said:
        torchrun = subprocess.Popen(
            [*command, "--checkpoint-every", "1"], cwd=ROOT, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while not state.exists():
            assert torchrun.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.05)
        workers = [int(pid) for pid in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()]
        torchrun.kill()
        torchrun.wait()
        while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
            time.sleep(0.05)
        text = (tmp_path / "said").read_text()
    assert re.search("rank [01] of 2: torchrun has ended", text)  # who notices it first tells the other to stop
    assert "Stopped by SIGTERM with a checkpoint" in text
    assert "Traceback" not in text
    assert json.loads(state.read_text())["step"] > 0


@pytest.mark.long  # every day the page on several machines does so, see test_docs.py
@pytest.mark.usefixtures("without_matplotlib")
def test_torchrun_from_the_command_line(shard_set, tmp_path):
    # Without the two dashes torchrun takes --run for an abbreviation of its own --run-path.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--", "cli.py"]
    command += ["train", "--shards", str(shard_set(size=16)), "--recipe", "digits", "--run", str(tmp_path / "run")]
    for setting in ("time_bins=4", "size=16", "epochs=2", "events_per_class=3", "synchronize=true"):
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == 2  # one process answers
    assert done.stderr.count("2 process(es)") == 1
    assert len(read_metrics(tmp_path / "run")) == 2


def test_one_process_alone():
    alone = Distributed()
    assert alone.is_main
    assert alone.all_reduce_max(3, 1) == (3, 1)
    assert alone.broadcast_bytes(b"x") == b"x"
    assert alone.on_main(lambda: {"a": 1}) == {"a": 1}
    assert local_device("cpu") == "cpu"
