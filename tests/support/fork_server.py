"""A process that has imported what the program needs, and forks for every command: importing torch takes seconds.

A client sends commands over a socket, one a message, with four files: stdin, stdout, stderr, and a pipe to which the
process writes its number as soon as it is one of its own, and the server, in the end, its status as `os.waitpid` has
it, a line each. The server ends when its last client does. See `forked`.

    python fork_server.py ADDRESS    prints a line as soon as clients may come, or nothing where another server is
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

LONGEST = 2**20
"""Bytes of a message."""


def listen(address: str) -> socket.socket:
    """Wait for clients at an abstract address; end this process where another one does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(f"\0{address}")
    except OSError as error:
        sys.exit(0 if error.errno == errno.EADDRINUSE else str(error))
    listener.listen()
    print("ready", flush=True)
    return listener


def preload() -> None:
    """Import what takes long, and load the compiled loops of a conversion."""
    import tempfile
    from pathlib import Path

    import conftest
    import torch

    import spikebridge.cli
    import spikebridge.pipeline.checks.verify
    import spikebridge.train.studies.ablate
    import spikebridge.train.trainer.run  # noqa: F401
    from spikebridge.pipeline.preprocess.prepare import prepare
    from spikebridge.pipeline.preprocess.run import convert
    from spikebridge.pipeline.shards.settings import ConversionSettings

    with contextlib.suppress(ModuleNotFoundError):
        import distributed  # noqa: F401
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        raw = conftest.write_digits_raw(Path(folder) / "raw", train=2, test=1, classes=2)
        settings = ConversionSettings(dataset="digits", time_bins=2, size=4)
        convert(prepare(settings, events_root=raw, static_root=raw), Path(folder) / "set")


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each command; returns in the forks only, each with its command."""
    children, wake = os.pipe()
    for end in (children, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C ends the clients, and they end this process
    signal.set_wakeup_fd(wake)
    clients: list[socket.socket] = []
    reports: dict[int, int] = {}
    while True:
        for source in select.select([listener, children, *clients], [], [])[0]:
            if source is listener:
                clients.append(listener.accept()[0])
            elif source is children:
                os.read(children, 2**16)
                report_ends(reports)
            else:
                message, files, _, _ = socket.recv_fds(source, LONGEST, 4)
                if message:
                    if not (pid := os.fork()):
                        take_over(files[:3], [children, wake, *reports.values()], [listener, *clients])
                        return {**json.loads(message), "report": files[3]}
                    *streams, reports[pid] = files
                    for file in streams:
                        os.close(file)
                else:
                    clients.remove(source)
                    source.close()
                    if not clients:
                        sys.exit()


def report_ends(reports: dict[int, int]) -> None:
    """Write the statuses of the processes that ended to their pipes."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with contextlib.suppress(BrokenPipeError):
                os.write(reports[pid], f"{status}\n".encode())
            os.close(reports.pop(pid))


def take_over(streams: list[int], foreign: list[int], sockets: list[socket.socket]) -> None:
    """Make this fork a process like any other: its streams and signals, and nothing of the server."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for one in sockets:
        one.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for file in (*streams, *foreign):
        os.close(file)


def become(command: dict[str, Any], before: list[str]) -> None:
    """Run `[python] -c CODE`, `-m MODULE` or `SCRIPT` as Python does from its start on.

    `before` is `sys.path` without the first, as it is without PYTHONPATH.
    """
    if command["start_new_session"]:
        os.setsid()
    if command["umask"] is not None:
        os.umask(command["umask"])
    if command["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["largest_file"],) * 2)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    time.tzset()
    os.write(command["report"], f"{os.getpid()}\n".encode())
    os.close(command["report"])
    first, *words = command["words"]
    head = {"-c": "", "-m": os.getcwd()}.get(first, os.path.dirname(os.path.abspath(first)))
    sys.path[:] = [head, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *before]
    if command["own_code"]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "spikebridge"]:
            del sys.modules[name]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ModuleNotFoundError):
        import sitecustomize  # noqa: F401  (of a test)
    if first == "-c":
        main = sys.modules["__main__"] = ModuleType("__main__")
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *words]
        runpy.run_path(first, run_name="__main__")


def leave_at_once(code: int | None) -> None:
    """End this process when all else that is to be done at its end is done.

    Python would take down every module first, half a second of work. Without a code it dies of SIGINT.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if code is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(code or 0)


def main(address: str) -> None:
    """Serve at an address; a fork goes on as the program that it is for."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    rest = json.loads(subprocess.run(shown, env=bare, stdout=subprocess.PIPE, check=True).stdout)
    listener = listen(address)
    codes: list[int | None] = [0]
    atexit.register(lambda: leave_at_once(codes[0]))  # the first to be registered is the last to be called
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    preload()
    gc.collect()
    gc.freeze()  # so that no fork copies what it only looks at
    command = serve(listener)
    try:
        become(command, rest)
    except SystemExit as end:
        codes[0] = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        raise
    except BaseException as error:
        codes[0] = None if isinstance(error, KeyboardInterrupt) else 1
        raise


if __name__ == "__main__":
    main(sys.argv[1])
