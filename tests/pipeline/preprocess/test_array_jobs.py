"""Tasks of a batch queue on one output: any order, twice, at once, killed; then finish, to the bytes of one process."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from conftest import ROOT, write_digits_raw
from deadly import environment, sleeper
from forked import Forked

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess.array_jobs import Sources, convert_share, finish_shares
from spikebridge.pipeline.preprocess.output import lock
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.settings import ConversionSettings

SMALL = ConversionSettings(dataset="digits", time_bins=4, size=12, samples_per_shard=4)
OPTIONS = ["--time-bins", "4", "--size", "12", "--samples-per-shard", "4", "--workers", "1"]


def contents(folder):
    """Bytes of every file that is part of the set."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in OUTSIDE}


def command(raw, out, *options):
    return ["preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", out, *OPTIONS, *options]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def share(raw, out, number, tasks, **changes):
    sources = Sources(raw, raw)
    return convert_share(sources.prepare(replace(SMALL, **changes)), out, sources, share=(number, tasks))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_digits_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "set"
    convert(prepare(SMALL, events_root=raw, static_root=raw), out)
    return out


@pytest.fixture
def chunks_of_four(monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.preprocess.plan.IMAGES_PER_CHUNK", 4)


def test_tasks_in_any_order_then_finish(raw, whole, tmp_path, chunks_of_four):
    out = tmp_path / "set"
    assert "no tasks were begun here" in invoke("finish", out, code=1).stderr
    first = json.loads(invoke(*command(raw, out, "--task", "3/3", "--json")).stdout)
    assert first["missing_tasks"] == [1, 2]
    assert first["parts"] == 6 + 6
    text = invoke(*command(raw, out, "--task", "1/3")).stdout
    assert "4 of 12 parts are missing (static-00001, static-00004, events-train-00001, ...): run --task 2/3" in text
    assert "run --task 2/3 (again), then finish" in invoke("finish", out, code=1).stderr
    invoke(*command(raw, out, "--task", "1/3"))  # twice does no harm
    text = invoke(*command(raw, out, "--task", "2/3")).stdout
    assert f"so are the others: spikebridge finish {out}" in text
    assert not (out / "manifest.json").exists()
    found = json.loads(invoke("finish", out, "--json").stdout)
    assert found["id"] == json.loads((whole / "manifest.json").read_text())["self_sha256"]
    assert contents(out) == contents(whole)
    assert "up to date" in invoke("finish", out).stdout
    assert "is done" in invoke(*command(raw, out, "--task", "2/3")).stdout
    assert contents(out) == contents(whole)


def test_preprocess_without_task_does_what_is_missing_and_finishes(raw, whole, tmp_path):
    share(raw, tmp_path / "set", 2, 2)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").glob("events-*")}
    assert len(before) == 6
    convert(prepare(SMALL, events_root=raw, static_root=raw), tmp_path / "set")
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").iterdir()}.items()
    assert contents(tmp_path / "set") == contents(whole)


def test_two_processes_with_the_same_task_one_of_them_killed(raw, whole, tmp_path):
    out, start = tmp_path / "set", tmp_path / "start"
    env = environment(start, slow="00001.bin")
    line = [sys.executable, str(ROOT / "cli.py"), *map(str, command(raw, out, "--task", "1/1"))]
    one, other = (Forked(line, env=env, stdout=subprocess.DEVNULL) for _ in range(2))
    try:
        assert sleeper(start) in (one.pid, other.pid)
        asleep, awake = (one, other) if sleeper(start) == one.pid else (other, one)
        assert awake.wait(timeout=300) == 0  # goes past the shard that the other one has in hand
        with pytest.raises(SettingsError, match="another process"):
            finish_shares(out)
        with pytest.raises(SettingsError, match="another process"):
            convert(prepare(SMALL, events_root=raw, static_root=raw), out)
        os.kill(asleep.pid, signal.SIGKILL)
        asleep.wait(timeout=300)
    finally:
        for process in (one, other):
            process.kill()
            process.wait()
    finish_shares(out)
    assert contents(out) == contents(whole)
    assert verify(out).ok


def test_two_processes_at_once_on_their_own_tasks(raw, whole, tmp_path):
    out = tmp_path / "set"
    lines = [[sys.executable, str(ROOT / "cli.py"), *map(str, command(raw, out, "--task", f"{i}/2"))] for i in (1, 2)]
    processes = [Forked(line, stdout=subprocess.DEVNULL) for line in lines]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finish_shares(out)
    assert contents(out) == contents(whole)


def test_tasks_wait_for_nobody_but_a_whole_conversion(raw, tmp_path):
    (tmp_path / "set" / ".work").mkdir(parents=True)
    with lock(tmp_path / "set" / ".work"), pytest.raises(SettingsError, match="another process"):
        share(raw, tmp_path / "set", 1, 2)
    with lock(tmp_path / "set" / ".work", shared=True):
        share(raw, tmp_path / "set", 1, 2)
        other = prepare(replace(SMALL, seed=1), events_root=raw, static_root=raw)
        with pytest.raises(SettingsError, match="another process"):
            convert(other, tmp_path / "set", overwrite=True)


def test_other_settings_or_other_raw_data_are_refused(tmp_path, monkeypatch):
    raw = write_digits_raw(tmp_path / "raw")
    share(raw, tmp_path / "set", 1, 2)
    with pytest.raises(SettingsError, match="time_bins: 4 there, 5 wanted"):
        share(raw, tmp_path / "set", 2, 2, time_bins=5)
    monkeypatch.setattr(
        "spikebridge.pipeline.preprocess.array_jobs.find_existing", lambda *_, **__: None
    )  # as if both began at the same moment
    with pytest.raises(SettingsError, match=r"another process began another conversion(?s:.)*time_bins: 4 there"):
        share(raw, tmp_path / "set", 2, 2, time_bins=5)
    share(raw, tmp_path / "set", 2, 2)
    raw.rename(tmp_path / "moved")
    with pytest.raises(Exception, match="does not exist"):
        finish_shares(tmp_path / "set")
    moved = {"events": tmp_path / "moved", "static": tmp_path / "moved"}
    next((tmp_path / "moved" / "events" / "Train").rglob("*.bin")).write_bytes(b"")
    with pytest.raises(SettingsError, match="not what the tasks found"):
        finish_shares(tmp_path / "set", where=moved)


def test_raw_data_that_lies_elsewhere_for_finish(whole, tmp_path):
    raw = write_digits_raw(tmp_path / "raw")
    share(raw, tmp_path / "set", 1, 1)
    raw.rename(tmp_path / "moved")
    invoke("finish", tmp_path / "set", "--events", tmp_path / "moved", "--static", tmp_path / "moved")
    assert contents(tmp_path / "set") == contents(whole)


def test_an_image_that_turns_out_to_be_undecodable(tmp_path, chunks_of_four):
    """Task 1 has gone past a recording when task 2 finds out that its image is bad: one shard is made again."""
    raw, out = write_digits_raw(tmp_path / "raw"), tmp_path / "set"
    (raw / "static" / "Train" / "2" / "00019.png").write_bytes(b"no image")  # shard 2 (task 1), chunk 5 (task 2)
    share(raw, out, 1, 2)
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("events-*")}
    standing = share(raw, out, 2, 2)
    assert standing.missing == {1: ["events-train-00002"]}
    assert standing.rejects == 2
    assert "run --task 1/2 (again)" in invoke("finish", out, "--max-bad", 2, code=1).stderr
    assert share(raw, out, 1, 2).missing == {}
    changed = {name for name, time in before.items() if (out / name).stat().st_mtime_ns != time}
    assert changed == {"events-train-00002.tar", "events-train-00002.idx.npy"}
    assert "--max-bad 2" in invoke("finish", out, code=1).stderr
    invoke("finish", out, "--max-bad", 2, code=3)
    convert(prepare(SMALL, events_root=raw, static_root=raw), tmp_path / "whole", max_bad=2)
    assert contents(out) == contents(tmp_path / "whole")


def test_wrong_usage(raw, tmp_path):
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        assert "expected I/N" in invoke(*command(raw, tmp_path / "set", "--task", text), code=2).stderr
    for option in (["--overwrite"], ["--scheduler", "tcp://127.0.0.1:1"]):
        assert "does not go with" in invoke(*command(raw, tmp_path / "set", "--task", "1/2", *option), code=2).stderr
    assert not (tmp_path / "set").exists()
