"""Runs that are killed, stopped, crowded or out of room, in real processes with real signals."""

import json
import logging
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, SUPPORT
from fake_shards import FakeShardSet, tiny_recipe
from forked import Forked
from run_folders import same_run
from safetensors.torch import load_file

from spikebridge import cli
from spikebridge.train.errors import DeviceMemoryError, RunError, RunStoppedError
from spikebridge.train.runs.folder import RunFolder, read_metrics
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

WORKER = str(SUPPORT / "worker.py")


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def largest_file(size):
    """As a full disk: no file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def worker(tmp_path, run="run", **plan):
    plan = {"shards": str(tmp_path / "shards"), "run": str(tmp_path / run), **plan}
    return Forked([sys.executable, WORKER, json.dumps([plan])], stderr=subprocess.PIPE)


def wait_for_file(process, path):
    """Until the process has made the file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def wait_for_step(process, run, step):
    """Until a checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if json.loads((run / "checkpoint" / "state.json").read_bytes())["step"] >= step:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.long)])
def test_kills_at_random_steps_change_nothing(tmp_path, shards, kills):
    """Continued after each kill on the other residence; nothing is logged twice."""
    recipe = {"epochs": 12}
    train(shards, tiny_recipe(**recipe), tmp_path / "whole", device="cpu")
    for number, step in enumerate(sorted(random.Random(5).sample(range(2, 35), kills))):
        options = {"checkpoint_every": "3", "residence": ("host", "disk")[number % 2]}
        process = worker(tmp_path, recipe=recipe, die_at=step, options=options)
        stderr = process.communicate(timeout=300)[1]
        assert process.returncode == -signal.SIGKILL, stderr
        state = tmp_path / "run" / "checkpoint" / "state.json"
        kept = json.loads(state.read_bytes())["step"] if state.exists() else 0
        assert 0 <= step - kept <= 3
    train(shards, tiny_recipe(**recipe), tmp_path / "run", device="cpu", residence="disk")
    same_run(tmp_path / "whole", tmp_path / "run")
    raw = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in raw] == list(range(1, 13))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("SIGUSR1", 138),
        pytest.param("SIGTERM", 143, marks=pytest.mark.long),  # see the command line below
        pytest.param("SIGINT", 130, marks=pytest.mark.long),
    ],
)
def test_signals_write_a_checkpoint_and_have_their_own_codes(tmp_path, shards, number, code):
    recipe = {"epochs": 20}
    process = worker(tmp_path, recipe=recipe, hold_at=25, options={"checkpoint_every": "20"})
    wait_for_file(process, tmp_path / "run.held")
    process.send_signal(signal.Signals[number])
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == code, stderr
    assert f"Stopped by {number} with a checkpoint" in stderr
    assert "Traceback" not in stderr
    assert json.loads((tmp_path / "run" / "checkpoint" / "state.json").read_bytes())["step"] == 26
    if number == "SIGUSR1":
        train(shards, tiny_recipe(**recipe), tmp_path / "run", device="cpu")
        train(shards, tiny_recipe(**recipe), tmp_path / "whole", device="cpu")
        same_run(tmp_path / "whole", tmp_path / "run")


def test_a_second_interrupt_ends_at_once(tmp_path, shards):
    process = worker(tmp_path, hold_at=0, hold_on=True, recipe={"epochs": 3})  # in a step that never ends
    wait_for_file(process, tmp_path / "run.held")
    process.send_signal(signal.SIGINT)
    wait_for_file(process, tmp_path / "run.heard")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode in (130, -signal.SIGINT), stderr
    assert "KeyboardInterrupt" in stderr


def test_the_command_line_turns_sigterm_into_its_code(shard_set, tmp_path):
    command = [sys.executable, "cli.py", "train", "--shards", str(shard_set(size=16)), "--recipe", "digits"]
    command += ["--run", str(tmp_path / "run"), "--checkpoint-every", "1"]
    for setting in ("time_bins=4", "size=16", "epochs=5000", "events_per_class=3"):
        command += ["--set", setting]
    process = Forked(command, cwd=ROOT, stderr=subprocess.PIPE)
    wait_for_step(process, tmp_path / "run", 2)
    second = CliRunner().invoke(cli.main, command[2:])
    assert second.exit_code == 1
    assert "another process is working on this run" in second.stderr
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 143, stderr
    assert "the same command continues" in stderr
    assert not (tmp_path / "run" / ".lock").exists()


def test_nothing_is_written_beside_the_shards(shard_set, tmp_path, monkeypatch):
    """Training, its report, scoring and a refused folder inside leave the set and what is around it as they were."""
    source = shutil.copytree(shard_set(size=16), tmp_path / "sets" / "digits")

    def state():
        entries = [path.parent for path in source.iterdir()][:1] + sorted(source.parent.rglob("*"))
        return [(path, path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in entries]

    before = state()
    recipe = ["--recipe", "digits", "--set", "time_bins=4", "--set", "size=16", "--set", "epochs=1"]
    for residence in ("disk", "host"):
        run = str(tmp_path / residence)
        done = CliRunner().invoke(
            cli.main, ["train", "--shards", str(source), *recipe, "--run", run, "--residence", residence]
        )
        assert done.exit_code == 0, done.output
        assert (tmp_path / residence / "report.html").is_file() is (residence == "disk")
        monkeypatch.setitem(sys.modules, "matplotlib", None)  # one report is enough
        assert CliRunner().invoke(cli.main, ["evaluate", run, "--shards", str(source)]).exit_code == 0
    refused = CliRunner().invoke(cli.main, ["train", "--shards", str(source), *recipe, "--run", str(source / "run")])
    assert refused.exit_code == 1
    assert "inside the shard set" in refused.output
    assert state() == before


def test_stopping_during_validation_skips_no_step_and_repeats_none(tmp_path, shards, monkeypatch):
    train(shards, tiny_recipe(), tmp_path / "whole", device="cpu")
    stop, real, steps = StopRequest(), epochs.Trainer._validate, []

    def ask(self, epoch, rows):
        if epoch == 2:
            stop.ask(signal.SIGTERM)
        return real(self, epoch, rows)

    step = epochs.Trainer._step

    def count(self, index):
        steps.append(self.state.step)
        step(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(epochs.Trainer, "_validate", ask)
        patched.setattr(
            epochs.Trainer, "_step", lambda self, index: (steps.append(self.state.step), step(self, index))[1]
        )
        with pytest.raises(RunStoppedError, match="SIGTERM"):
            train(shards, tiny_recipe(), tmp_path / "run", device="cpu", stop=stop)
    assert steps == list(range(6))
    assert len(read_metrics(tmp_path / "run")) == 1
    train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    same_run(tmp_path / "whole", tmp_path / "run")


def test_two_processes_on_one_folder(tmp_path, shards):
    with RunFolder(tmp_path / "run").lock():
        with pytest.raises(RunError, match="another process is working"):
            train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    (tmp_path / "run" / ".lock").touch()  # a killed process leaves it behind, and holds nothing
    train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_full_disk_names_the_file_and_spoils_nothing(tmp_path, shards):
    recipe = tiny_recipe(epochs=40, width=0.02)  # so narrow that the log outgrows the checkpoint
    log_file = tmp_path / "run" / "metrics.jsonl"
    with (
        largest_file(12_000),
        pytest.raises(RunError, match="File too large; the last checkpoint is unharmed") as caught,
    ):
        train(shards, recipe, tmp_path / "run", device="cpu", checkpoint_every="3")
    assert f"cannot write {log_file}" in str(caught.value)
    assert log_file.read_bytes().endswith(b"}\n")
    train(shards, recipe, tmp_path / "run", device="cpu")
    train(shards, recipe, tmp_path / "whole", device="cpu")
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_disk_too_small_for_the_checkpoint(tmp_path, shards):
    name = "checkpoint/epoch-000000-step-000000001.safetensors"
    with largest_file(5000), pytest.raises(RunError, match=f"{name}: File too large; make room"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu", checkpoint_every="1")
    assert not list((tmp_path / "run").rglob("*.partial"))
    train(shards, tiny_recipe(), tmp_path / "run", device="cpu")


def test_the_same_samples_in_another_container_continue_a_run(tmp_path, shards):
    train(shards, tiny_recipe(), tmp_path / "whole", device="cpu")
    stop = StopRequest()
    stop.ask(signal.SIGUSR1)
    with pytest.raises(RunStoppedError):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu", stop=stop)
    other = FakeShardSet(tmp_path / "other", format="hdf5")
    assert other.id != shards.id
    train(other, tiny_recipe(), tmp_path / "run", device="cpu")
    a, b = (load_file(tmp_path / run / "weights" / "best.safetensors") for run in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_out_of_memory_says_what_fits(tmp_path, shards, monkeypatch):
    tried = []
    forward = epochs.TrainStep._compute

    def small(self, part, *more):
        tried.append(len(part.batch.labels))
        if tried[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, part, *more)

    monkeypatch.setattr(epochs.TrainStep, "_compute", small)
    with pytest.raises(
        DeviceMemoryError, match=r"step 0: .* 10 samples at once; 3 fit \(tried\).*accumulate=4"
    ) as caught:
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    assert tried == [10, 5, 3]
    assert caught.value.__context__ is None  # nothing keeps the tensors of the failed step alive
    train(shards, tiny_recipe(accumulate=4), tmp_path / "parts", device="cpu")
    monkeypatch.setattr(epochs.TrainStep, "_compute", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(DeviceMemoryError, match="a single one does not fit either"):
        train(shards, tiny_recipe(), tmp_path / "none", device="cpu")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_of_the_processor_runs_out_likewise(tmp_path, shards, monkeypatch, error):
    forward = epochs.TrainStep._compute

    def small(self, part, *more):
        if len(part.batch.labels) > 3:
            raise error
        return forward(self, part, *more)

    monkeypatch.setattr(epochs.TrainStep, "_compute", small)
    with pytest.raises(DeviceMemoryError, match="3 fit"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")


def test_other_errors_are_not_taken_for_memory(tmp_path, shards, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(epochs.TrainStep, "_compute", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")


def test_parts_explain_themselves_and_leave_the_classification_alone(tmp_path, shards, caplog):
    with caplog.at_level(logging.INFO):
        train(shards, tiny_recipe(epochs=1, accumulate=5), tmp_path / "run", device="cpu")
    assert "accumulate = 5; BatchNorm statistics and alignment are those of 2 samples" in caplog.text
    assert "alignment is skipped" in caplog.text
    line = read_metrics(tmp_path / "run")[0]
    assert line["cka"] is None
    assert line["step"] == 3  # updates, not parts

    # Without anything that looks at several samples, parts make the same update.
    make = epochs.make_network
    monkey = pytest.MonkeyPatch()
    monkey.setattr(epochs, "make_network", lambda arguments, *, seed: make(arguments, seed=seed).double())
    with monkey.context():
        for parts in (1, 4):
            recipe = tiny_recipe(epochs=2, accumulate=parts, method="event_only")
            train(shards, recipe, tmp_path / f"parts{parts}", device="cpu")
    monkey.undo()
    a, b = (load_file(tmp_path / f"parts{parts}" / "weights" / "last.safetensors") for parts in (1, 4))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-9


def test_tiny_epochs_are_not_all_committed(tmp_path, shards, monkeypatch):
    commits = []
    real = epochs.checkpoints.save_checkpoint
    monkeypatch.setattr(
        epochs.checkpoints, "save_checkpoint", lambda *a, **k: (commits.append(a[2]["step"]), real(*a, **k))[1]
    )
    train(shards, tiny_recipe(epochs=8), tmp_path / "run", device="cpu", checkpoint_every="1h")
    assert commits == [24]
