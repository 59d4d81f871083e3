"""A process that has imported the program and forks for every command, because importing torch takes seconds.

stdin   one JSON object a line: argv, cwd, environment (changes), largest_file and most_memory (bytes
        or null), small_shm (whether /dev/shm holds 1 MB), stdout, stderr (paths); argv is one of this
        program, or begins with `dask scheduler` or `dask worker`;
        with `warm` the server runs argv itself and says nothing
stdout  one JSON object a line: {"started": pid} for a command, {"ended": pid, "status": exit code or -signal}
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def run(command: dict[str, Any]) -> None:
    """Run a command of the program in this process, which was forked for it; never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the program begins, which answers it
    os.setpgid(0, 0)  # whoever kills it kills what it started, too
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.chdir(command["cwd"])
    os.environ.update(command["environment"])
    if command["small_shm"]:
        shrink_shm()
    if command["largest_file"] is not None:
        sys.dont_write_bytecode = True  # half a .pyc would stay in the clone
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["largest_file"],) * 2)
    if command["most_memory"] is not None:
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + command["most_memory"],) * 2)
    if command["argv"][0] in ("train", "ablate"):
        sys.modules["matplotlib"] = None  # type: ignore[assignment]  # no report behind each: `report` is crossed itself
    code, begun, main = 1, False, main_of(command["argv"])
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        begun = True
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        if begun:
            import traceback

            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code)


def main_of(argv: list[str]) -> Callable[[], None]:
    """Return what runs a command line."""
    if argv[0] == "dask scheduler":
        from distributed.cli.dask_scheduler import main

        return partial(main, argv[1:])
    if argv[0] == "dask worker":
        from distributed.cli.dask_worker import main

        return partial(main, argv[1:])
    from spikebridge.cli import main

    return partial(main, argv, prog_name="spikebridge")


def shrink_shm() -> None:
    """Mount a /dev/shm of 1 MB for this process alone and what it starts; only root may.

    Raises:
        OSError: it is not allowed here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    calls = (
        lambda: libc.unshare(CLONE_NEWNS),
        lambda: libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None),
        lambda: libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(0), b"size=1m"),
    )
    for call in calls:
        if call():
            raise OSError(ctypes.get_errno(), "a small /dev/shm cannot be mounted")


def warm(command: dict[str, Any]) -> None:
    """Run a command in this process; not one with a backward pass, behind which torch forks no more."""
    from click.testing import CliRunner

    from spikebridge.cli import main

    os.chdir(command["cwd"])
    CliRunner().invoke(main, command["argv"])
    os.chdir("/")


def serve() -> None:
    """Fork for each line until stdin ends."""
    import matplotlib.pyplot  # noqa: F401
    import torch

    import spikebridge.cli
    import spikebridge.models.to_nir
    import spikebridge.pipeline.preprocess.run
    import spikebridge.pipeline.sharing.http
    import spikebridge.pipeline.sharing.sftp
    import spikebridge.train.report.write
    import spikebridge.train.studies.ablate
    import spikebridge.train.trainer.run

    torch.set_num_threads(1)
    spikebridge.pipeline.sharing.http.STALL_S = 2.0  # a server that stalls costs seconds here, not minutes
    spikebridge.pipeline.sharing.sftp.STALL_S = 2.0
    children, wake = os.pipe()
    os.set_blocking(children, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    pending = b""
    while True:
        readable, _, _ = select.select([0, children], [], [])
        if children in readable:
            os.read(children, 2**16)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                print(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}), flush=True)
        if 0 in readable:
            data = os.read(0, 2**16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if command.get("warm"):
                    warm(command)
                elif pid := os.fork():
                    print(json.dumps({"started": pid}), flush=True)
                else:
                    run(command)


if __name__ == "__main__":
    serve()
