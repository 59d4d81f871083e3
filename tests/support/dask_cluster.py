"""A Dask cluster of real processes."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager

from conftest import ROOT
from forked import Forked


@contextmanager
def dask_cluster(folder, env, *, workers, python=sys.executable, cwd=ROOT):
    """Scheduler and workers, each a process; yields the address and the workers."""
    command = [str(python), "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    where = folder / "scheduler.json"
    started = []

    def start(command):
        log = open(folder / f"log{len(started)}", "w")  # noqa: SIM115  (open as long as the process)
        begin = Forked if python == sys.executable else subprocess.Popen
        started.append((begin(command, cwd=cwd, env=env, stdout=log, stderr=log), log))
        return started[-1][0]

    try:
        start([*command, "--scheduler-file", str(where), "--no-dashboard"])
        worker = [str(python), "-m", "distributed.cli.dask_worker", "--scheduler-file", str(where)]
        worker += ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--no-dashboard", "--local-directory"]
        wait_for(lambda: where.exists() and where.stat().st_size)  # it is made first, and filled then
        crew = [start([*worker, str(folder / f"worker{i}")]) for i in range(workers)]
        yield json.loads(where.read_text())["address"], crew
    finally:
        for process, log in reversed(started):  # workers before the scheduler
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
