"""The machines of the documentation - a head, its workers, a batch queue - as processes on this one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from conftest import ROOT
from forked import Forked

SBATCH = r"""#!/bin/bash
# Slurm as far as the pages use it: an array's script, once for every number, last one first; or one command.
set -e
while [ $# -gt 0 ]; do
  case $1 in
    --parsable) ;;
    --dependency) shift; [ "$1" = afterok:7 ] ;;
    --wrap) bash -c "$2"; exit ;;
    *) script=$1 ;;
  esac
  shift
done
export SLURM_ARRAY_TASK_COUNT=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for SLURM_ARRAY_TASK_ID in $(seq "$SLURM_ARRAY_TASK_COUNT" -1 1); do
  export SLURM_ARRAY_TASK_ID
  bash "$script" >&2
done
echo 7
"""
NODES = re.compile(r"--nnodes (\d+)")


class Machines:
    """Runs commands of a shell in the current folder; `head` in them is this machine, at ports that are free.

    Args:
        folder: for the programs `spikebridge` (of this checkout) and `sbatch`, and for logs.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir()
        for name, text in (
            ("spikebridge", f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "cli.py"}" "$@"\n'),
            ("sbatch", SBATCH),
        ):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        paths = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join(paths),
            "PYTHONPATH": f"src{os.pathsep}{os.environ['PYTHONPATH']}",
        }
        self.ports: dict[str, int] = {}
        self.started: list[subprocess.Popen[bytes]] = []

    def translated(self, command: str) -> str:
        """The command with the address of `head` as it is here."""
        for port in re.findall(r"\bhead:(\d+)", command):
            command = command.replace(f"head:{port}", f"127.0.0.1:{self.port(port)}")
        return command

    def port(self, shown: str) -> int:
        """A free port, the same whenever the pages show this one."""
        if shown not in self.ports:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                self.ports[shown] = listener.getsockname()[1]
        return self.ports[shown]

    def run(self, command: list[str], *, times: int = 1) -> list[subprocess.CompletedProcess[str]]:
        """Run a program to its end, as often as said at once."""
        pipe = subprocess.PIPE
        start = partial(Forked, own_code=True) if command[0] == sys.executable else subprocess.Popen
        running = [start(command, env=self.environment, stdout=pipe, stderr=pipe, text=True) for _ in range(times)]
        said = [one.communicate(timeout=600) for one in running]
        return [
            subprocess.CompletedProcess(command, one.returncode, *both) for one, both in zip(running, said, strict=True)
        ]

    def shell(self, command: str) -> list[subprocess.CompletedProcess[str]]:
        """Run a line of the shell; what is meant for several machines, as often at once."""
        nodes = NODES.search(command)
        return self.run(["bash", "-c", self.translated(command)], times=int(nodes[1]) if nodes else 1)

    def serve(self, command: str) -> None:
        """Start a `dask scheduler`, or the two workers of a `dask worker`; they go on until `close`."""
        words = self.translated(command).split()
        if words[1] == "scheduler":
            self._start([*words, "--host", "127.0.0.1", "--port", str(self.port("8786")), "--no-dashboard"])
            self._wait_for_the_head()
        else:
            for i in range(2):
                space = ["--local-directory", str(self.folder / f"worker{i}")]
                self._start([*words, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard", *space])

    def _start(self, command: list[str]) -> None:
        with open(self.folder / f"log{len(self.started)}", "wb") as log:
            self.started.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def _wait_for_the_head(self) -> None:
        deadline = time.monotonic() + 300
        while True:
            with socket.socket() as caller:
                if caller.connect_ex(("127.0.0.1", self.port("8786"))) == 0:
                    return
            assert time.monotonic() < deadline, (self.folder / "log0").read_text()
            time.sleep(0.05)

    def close(self) -> None:
        """End what was started, workers before the scheduler."""
        end(self.started)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes, the last one first; kill those that do not listen."""
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
