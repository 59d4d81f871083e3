"""Commands of the program: each in a process forked from one that has imported it, or in this process."""

from __future__ import annotations

import itertools
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
HUNG_S = 180.0
"""No undisturbed command takes a tenth of this."""


@dataclass
class Ended:
    """A command that ended, or was ended because it hung."""

    code: int
    stdout: str
    stderr: str
    hung: bool = False


class Running(Protocol):
    """A command at work."""

    def signal(self, number: int) -> None:
        """Send a signal to the command and to what it started."""

    def limit_workers(self, most_memory: int) -> None:
        """Let no process that the command started map more than so many bytes, until the command has ended."""

    def wait(self, seconds: float = HUNG_S) -> Ended:
        """Wait for its end; a command that hangs is killed."""


class Program(Protocol):
    """Starts commands."""

    def start(
        self,
        argv: list[str],
        cwd: Path,
        *,
        largest_file: int | None = None,
        most_memory: int | None = None,
        small_shm: bool = False,
        **environment: str,
    ) -> Running:
        """Start a command in a folder.

        No file that it writes may grow beyond `largest_file` bytes, and it may map `most_memory` more than it has. With
        `small_shm` its /dev/shm holds 1 MB.
        """


class Forked:
    """Commands in processes of their own."""

    def __init__(self, **more: str) -> None:
        server = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        environment |= {"NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "MAKELEVEL": "1", **more}
        self._server = subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
        )
        self._started: queue.Queue[int] = queue.Queue()
        self.ended: dict[int, int] = {}
        self.changed = threading.Condition()
        self._numbers, self._starting = itertools.count(), threading.Lock()
        assert self._server.stdout is not None
        json.loads(self._server.stdout.readline())
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            message = json.loads(line)
            if "started" in message:
                self._started.put(message["started"])
            else:
                with self.changed:
                    self.ended[message["ended"]] = message["status"]
                    self.changed.notify_all()

    def start(
        self,
        argv: list[str],
        cwd: Path,
        *,
        largest_file: int | None = None,
        most_memory: int | None = None,
        small_shm: bool = False,
        **environment: str,
    ) -> Running:
        """Start a command in a folder, see `Program`."""
        names = {end: f"{cwd.parent / f'said-{next(self._numbers)}'}.{end}" for end in ("stdout", "stderr")}
        for name in names.values():
            Path(name).touch()  # a command that is killed at once makes none
        limits = {"largest_file": largest_file, "most_memory": most_memory, "small_shm": small_shm}
        with self._starting:
            self._send({"argv": argv, "cwd": str(cwd), "environment": environment, **limits, **names})
            return _Process(self, self._started.get(), names)

    def warm(self, argv: list[str], cwd: Path) -> None:
        """Let the server itself run a command, so that what it imports and compiles is there in every fork."""
        self._send({"warm": True, "argv": argv, "cwd": str(cwd)})

    def _send(self, command: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(command) + "\n")

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


@dataclass
class _Process:
    program: Forked
    pid: int
    names: dict[str, str]
    over: threading.Event = field(default_factory=threading.Event)

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def limit_workers(self, most_memory: int) -> None:
        def limit() -> None:
            limited = {self.pid}
            while not self.over.wait(0.02):
                for pid in set(members(self.pid)) - limited:
                    limited.add(pid)
                    with suppress(ProcessLookupError):
                        resource.prlimit(pid, resource.RLIMIT_AS, (most_memory, most_memory))

        threading.Thread(target=limit, daemon=True).start()

    def wait(self, seconds: float = HUNG_S) -> Ended:
        with self.program.changed:
            hung = not self.program.changed.wait_for(lambda: self.pid in self.program.ended, seconds)
        if hung:
            self.signal(signal.SIGKILL)
            with self.program.changed:
                self.program.changed.wait_for(lambda: self.pid in self.program.ended)
        self.over.set()
        self.signal(signal.SIGKILL)  # what it left running
        texts = [Path(self.names[name]).read_text(errors="replace") for name in ("stdout", "stderr")]
        return Ended(self.program.ended.pop(self.pid), *texts, hung=hung)


class Inline:
    """Commands in this process, one after the other, for faults that need no second one."""

    def start(
        self,
        argv: list[str],
        cwd: Path,
        *,
        largest_file: int | None = None,
        most_memory: int | None = None,
        small_shm: bool = False,
        **environment: str,
    ) -> Running:
        """Run a command in a folder to its end."""
        assert most_memory is None, "a limit for this process would be one for all tests"
        assert not small_shm
        import traceback

        from click.testing import CliRunner

        from spikebridge.cli import main

        before, limits = Path.cwd(), resource.getrlimit(resource.RLIMIT_FSIZE)
        os.chdir(cwd)
        try:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, limits[1]))
            result = CliRunner().invoke(main, argv, env=environment)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            os.chdir(before)
        stderr = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            stderr += "".join(traceback.format_exception(result.exception))
        return _Done(Ended(result.exit_code, result.stdout, stderr))


@dataclass
class _Done:
    ended: Ended

    def signal(self, number: int) -> None:
        raise AssertionError("it has ended")

    def limit_workers(self, most_memory: int) -> None:
        raise AssertionError("it has ended")

    def wait(self, seconds: float = HUNG_S) -> Ended:
        return self.ended


def members(group: int) -> Iterator[int]:
    """Yield the processes of a group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):  # it ended meanwhile
                if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                    yield int(entry.name)


def wait_until(true: Any) -> None:
    """Wait for a state."""
    while not true():
        time.sleep(0.01)
