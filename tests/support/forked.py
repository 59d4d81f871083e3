"""Processes of the program that start at once: forks of one that has imported torch and the rest, see `fork_server`.

As `subprocess`, for commands `[sys.executable, ...]`. What Python and the libraries read once, when they
start, is that of the tests: a process whose hash seed or locale matters is a `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

SERVER = Path(__file__).with_name("fork_server.py")
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "NUMBA_", "CUDA_", "MPL")
"""How the names of environment variables begin that are read once. PYTHONPATH is obeyed all the same."""


@functools.cache
def server() -> socket.socket:
    """A connection to the server, which all processes of one run of the tests share."""
    address = f"spikebridge-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    process = subprocess.Popen([sys.executable, str(SERVER), address], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"\0{address}")

    def close() -> None:
        connection.close()
        process.wait()

    atexit.register(close)
    return connection


class Forked:
    """A process at work; as `subprocess.Popen`.

    Args:
        command: `sys.executable`, then a script, `-m` and a module or `-c` and code, then arguments.
        largest_file: bytes beyond which no file may grow that it writes, as on a full disk.
        own_code: import spikebridge anew, from where the command finds it: perhaps in a changed copy of the clone.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        umask: int | None = None,
        start_new_session: bool = False,
        largest_file: int | None = None,
        own_code: bool = False,
        stdin: int | None = None,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
        text: bool = True,
    ) -> None:
        assert text
        python, *words = map(str, command)
        assert python == sys.executable
        environment = dict(os.environ if env is None else env)
        for name in {*environment, *os.environ} - {"PYTHONPATH"}:
            if name.startswith(READ_AT_THE_START):
                assert environment.get(name) == os.environ.get(name), f"{name} is read when a process starts"
        self.args, self.returncode = [python, *words], None
        message = {"words": words, "cwd": str(cwd or Path.cwd()), "environment": environment, "umask": umask}
        message |= {"start_new_session": start_new_session, "largest_file": largest_file, "own_code": own_code}
        self._report, report = os.pipe()
        ours = [report]
        files = [os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin]
        ours += files if stdin is None else []
        self.stdout, files[1:] = self._stream(stdout, 1, ours)
        self.stderr, files[2:] = self._stream(stderr, 2, ours)
        socket.send_fds(server(), [json.dumps(message).encode()], [*files, report])
        for file in ours:
            os.close(file)
        self._said = b""
        self._read_report(1, None)
        self.pid = int(self._said.split()[0])

    @staticmethod
    def _stream(wanted: int | IO[str] | None, number: int, ours: list[int]) -> tuple[IO[str] | None, list[int]]:
        """What is read here of a stream, and the file that the process writes."""
        if wanted == subprocess.PIPE:
            read, write = os.pipe()
            ours.append(write)
            return open(read, errors="replace"), [write]
        if wanted == subprocess.DEVNULL:
            ours.append(os.open(os.devnull, os.O_WRONLY))
            return None, ours[-1:]
        return None, [number if wanted is None else wanted if isinstance(wanted, int) else wanted.fileno()]

    def _read_report(self, lines: int, deadline: float | None) -> bool:
        """Read what the server says about the process; return whether it has said so many lines."""
        while self._said.count(b"\n") < lines:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._report], [], [], left)[0]:
                return False
            more = os.read(self._report, 100)
            assert more, "the fork server is gone"
            self._said += more
        return True

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal, of a process that has ended."""
        if self.returncode is None and self._read_report(2, time.monotonic()):
            self.returncode = os.waitstatus_to_exitcode(int(self._said.split()[1]))
            os.close(self._report)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        if self.returncode is None and not self._read_report(2, timeout and time.monotonic() + timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read what it writes until it ends."""
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                texts[number] = stream.read()

        streams = [(i, one) for i, one in enumerate((self.stdout, self.stderr)) if one]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def run_forked(
    command: Sequence[object],
    *,
    check: bool = False,
    capture_output: bool = False,
    timeout: float | None = None,
    text: bool = True,
    **options: object,
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end; as `subprocess.run`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Forked(command, text=text, **options)  # type: ignore[arg-type]
    try:
        texts = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(process.args, process.wait(), *texts)
    if check:
        done.check_returncode()
    return done
