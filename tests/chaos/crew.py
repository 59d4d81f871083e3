"""A Dask scheduler and workers, forked like commands; workers are killed and replaced."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from program import Forked, Running, wait_until

WORKERS = 2


class Crew:
    """A cluster that lasts for all crossings."""

    def __init__(self, program: Forked, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._program, self._folder, self._file, self._hired = program, folder, folder / "scheduler.json", 0
        options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file), "--no-dashboard"]
        self._scheduler = program.start(["dask scheduler", *options], folder)
        wait_until(lambda: self._file.exists() and self._file.stat().st_size)
        self.address: str = json.loads(self._file.read_text())["address"]
        self._workers = [self._hire() for _ in range(WORKERS)]

    def _hire(self) -> Running:
        self._hired += 1
        place = ["--local-directory", str(self._folder / f"worker{self._hired}")]
        options = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--no-dashboard", *place]
        return self._program.start(["dask worker", "--scheduler-file", str(self._file), *options], self._folder)

    def kill_workers(self) -> None:
        """Kill all workers, and hire as many."""
        for worker in self._workers:
            worker.signal(signal.SIGKILL)
            worker.wait()
        self._workers = [self._hire() for _ in self._workers]

    def close(self) -> None:
        """End workers and scheduler."""
        for process in (*self._workers, self._scheduler):
            process.signal(signal.SIGKILL)
            process.wait()
