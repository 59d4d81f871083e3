"""The same bytes from this process, a pool, and a Dask cluster of separate processes, while workers die."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from dask_cluster import dask_cluster
from deadly import environment, sleeper
from forked import Forked, run_forked

from spikebridge.pipeline.base.errors import PipelineError, SettingsError
from spikebridge.pipeline.base.executors import open_workers
from spikebridge.pipeline.base.progress import no_progress
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess.isolation import ProcessDiedError, attempt, run_in_subprocess
from spikebridge.pipeline.preprocess.plan import plan_static
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert, make_job, run_tasks
from spikebridge.pipeline.preprocess.tasks import TaskResult
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.settings import ConversionSettings

SMALL = ConversionSettings(dataset="digits", time_bins=4, size=12, samples_per_shard=4)
DEADLY, SLOW = "00007.bin", "00001.bin"  # in different shards, the deadly one in that with the fewest others


def contents(folder):
    """Bytes of every file that is part of the set."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in OUTSIDE}


def preprocess(raw, out, *options, env):
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    command += ["--static", str(raw), "--out", str(out), "--time-bins", "4", "--size", "12", "--samples-per-shard", "4"]
    command += ["--max-bad", "1", *options]
    return Forked(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process, seconds=300):
    """Exit code of a process that may take so long and no longer; what it wrote is shown if that is not expected."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    print(errors)
    return process.returncode


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(["--dtype", "uint8", "--store", "both"], id="dtype given, events too"),
        pytest.param([], id="dtype chosen", marks=pytest.mark.long),  # which reads the deadly recording once more
    ],
)
def with_a_deadly_recording(request, tmp_path_factory):
    """Raw data, the set that comes of it when one recording is deadly (at the second go), and its options."""
    from conftest import write_digits_raw

    folder = tmp_path_factory.mktemp("deadly")
    raw = write_digits_raw(folder / "raw")
    env = environment(folder / "start", deadly=DEADLY)
    assert ended(preprocess(raw, folder / "set", "--workers", "1", *request.param, env=env)) == -signal.SIGSEGV
    assert not (folder / "set" / "manifest.json").exists()
    assert ended(preprocess(raw, folder / "set", "--workers", "1", *request.param, env=env)) == 3
    return raw, folder / "set", request.param


def test_a_recording_that_kills_its_process_is_a_reject(with_a_deadly_recording, tmp_path):
    raw, made, options = with_a_deadly_recording
    conversion = prepare(replace(SMALL, store="both" if "both" in options else ""), events_root=raw, static_root=raw)
    (line,) = [json.loads(text) for text in (made / "rejects.jsonl").read_text().splitlines()]
    assert (line["kind"], line["name"], line["reason"]) == ("recording", "Test/0/00007", "kills_worker")
    found = verify(made)
    assert found.ok
    assert found.samples == 20
    with pytest.raises(PipelineError, match="kills the process that reads it"):
        convert(conversion, made)
    whole = convert(conversion, tmp_path / "whole").manifest
    test = whole["splits"]["test"]["samples"]
    assert test == 6
    kept = {p.name for p in made.glob("events-*.tar") if p.read_bytes() == (tmp_path / "whole" / p.name).read_bytes()}
    assert {p.name for p in made.glob("events-*.tar")} - kept == {"events-test-00001.tar"}


def test_a_pool_survives_a_dead_worker_and_a_deadly_recording(with_a_deadly_recording, tmp_path):
    raw, made, options = with_a_deadly_recording
    env = environment(tmp_path / "start", deadly=DEADLY, slow=SLOW)
    process = preprocess(raw, tmp_path / "set", "--workers", "2", *options, env=env)
    os.kill(sleeper(tmp_path / "start"), signal.SIGKILL)
    assert ended(process) == 3
    assert contents(tmp_path / "set") == contents(made)


@pytest.mark.parametrize("failures", [3, pytest.param(0, marks=pytest.mark.long)])  # 3: Dask's own; 0: we try again
def test_a_dask_cluster_survives_a_dead_worker_and_a_deadly_recording(with_a_deadly_recording, tmp_path, failures):
    raw, made, options = with_a_deadly_recording
    env = environment(tmp_path / "start", deadly=DEADLY, slow=SLOW)
    env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = str(failures)
    with dask_cluster(tmp_path, env, workers=3) as (address, crew):
        process = preprocess(
            raw, tmp_path / "set", "--scheduler", address, *options, env={**os.environ, "TZ": "Asia/Tokyo"}
        )
        asleep = sleeper(tmp_path / "start")
        assert asleep in {worker.pid for worker in crew}
        os.kill(asleep, signal.SIGKILL)
        assert ended(process) == 3
        ends = [worker.poll() for worker in crew]
        if options:
            assert sorted(ends, key=str) == [-signal.SIGSEGV, -signal.SIGKILL, None]
        else:  # while the dtype is chosen both may be of one task, which is done again apart from the workers
            assert -signal.SIGKILL in ends
    assert contents(tmp_path / "set") == contents(made)


def test_a_cluster_without_workers_is_given_up_and_a_lost_scheduler_is_said(digits_raw, tmp_path):
    code = (
        "import sys, pathlib\nfrom spikebridge.pipeline.base import executors\n"
        "from spikebridge.pipeline.preprocess.run import convert\n"
        "from spikebridge.pipeline.preprocess.prepare import prepare\n"
        "from spikebridge.pipeline.shards.settings import ConversionSettings\n"
        "executors.TIMEOUT_S = executors.POLL_S = 0.1\nraw, out, address = sys.argv[1:]\n"
        "found = prepare(ConversionSettings(dataset='digits'), events_root=pathlib.Path(raw),"
        " static_root=pathlib.Path(raw))\nconvert(found, pathlib.Path(out), scheduler=address)"
    )

    def run(address):
        command = [sys.executable, "-c", code, str(digits_raw), str(tmp_path / "set"), address]
        return run_forked(command, cwd=ROOT, capture_output=True, timeout=120).stderr

    with dask_cluster(tmp_path, dict(os.environ), workers=0) as (address, _):
        assert "has had no worker" in run(address)
    assert f"no Dask scheduler answers at {address}" in run(address)


def test_without_the_package_one_is_told_what_to_install(digits_raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw)
    with pytest.raises(SettingsError, match=r'pip install "spikebridge\[distributed\]"'):
        convert(conversion, tmp_path / "set", scheduler="tcp://127.0.0.1:8786")


def test_a_deadly_image_is_found_among_others(digits_raw, tmp_path, monkeypatch):
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw)
    job = make_job(conversion, tmp_path / "set")
    chunk = plan_static(conversion.listing)[0].part(0, 3)
    for name, value in environment(tmp_path / "start", deadly=chunk.images[1].path.name).items():
        monkeypatch.setenv(name, value)
    (job.work / f"{chunk.name}.began").touch()  # as a process leaves it that died
    result = attempt(job, chunk)
    (line,) = result.rejects
    assert (line["kind"], line["name"], line["reason"]) == ("image", chunk.images[1].name, "kills_worker")
    assert not (job.work / f"{chunk.name}.began").exists()
    assert TaskResult.load(job, chunk) == result
    monkeypatch.setenv("DEADLY", "")  # as when memory was short, and is not any more
    with open_workers() as workers:
        (again,) = run_tasks(workers, job, [chunk], no_progress, "images")
    assert not again.rejects
    assert again.files


def test_errors_of_a_process_of_its_own_are_raised_here(digits_raw, tmp_path):
    with pytest.raises(ProcessDiedError, match="exit status 7"):
        run_in_subprocess(os._exit, 7)
    with pytest.raises(ProcessDiedError):
        run_in_subprocess(os._exit, 0)
    with pytest.raises(FileNotFoundError):
        run_in_subprocess(os.stat, str(tmp_path / "nothing"))
    assert run_in_subprocess(print, "whatever a library prints") is None


def test_a_task_whose_process_dies_for_no_recordings_sake_is_given_up(digits_raw, tmp_path, monkeypatch):
    conversion = prepare(replace(SMALL, limit=2), events_root=digits_raw, static_root=digits_raw)
    job = make_job(conversion, tmp_path / "set")
    (chunk,) = plan_static(conversion.listing)
    (job.work / f"{chunk.name}.began").touch()
    calls = []

    def dies(function, *arguments):
        calls.append(function.__name__)
        if function.__name__ == "convert_task":
            raise ProcessDiedError("exit status -9")

    monkeypatch.setattr("spikebridge.pipeline.preprocess.isolation.run_in_subprocess", dies)
    with pytest.raises(PipelineError, match="fewer --workers"):
        attempt(job, chunk)
    assert calls == ["convert_task", "rehearse_task", "rehearse_task", "convert_task"]


def test_workers_that_die_without_end(digits_raw, tmp_path, monkeypatch):
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw)
    chunks = plan_static(conversion.listing)
    monkeypatch.setattr("spikebridge.pipeline.preprocess.run.MOST_DEATHS", 1)
    monkeypatch.setattr("spikebridge.pipeline.preprocess.run.attempt", die)
    job = make_job(conversion, tmp_path / "set")
    with open_workers(processes=2) as workers, pytest.raises(PipelineError, match="2 workers died in a row"):
        run_tasks(workers, job, chunks, no_progress, "static images")


def die(job, task):
    os._exit(1)
