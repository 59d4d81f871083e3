"""Recordings that kill or hold up whichever process reads them, by a module that every Python loads at its start.

It also keeps numba from compiling there, which costs each process a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

CODE = """
import os, pathlib, signal, time
os.environ["NUMBA_DISABLE_JIT"] = "1"
whole = pathlib.Path.read_bytes
def read_bytes(self):
    if self.name == os.environ.get("DEADLY"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if self.name == os.environ.get("SLOW") and not os.path.exists(os.environ["READER"]):
        pathlib.Path(os.environ["READER"] + ".new").write_text(str(os.getpid()))
        os.rename(os.environ["READER"] + ".new", os.environ["READER"])
        time.sleep(300)
        os._exit(1)
    return whole(self)
pathlib.Path.read_bytes = read_bytes
"""


def environment(folder: Path, *, deadly: str = "", slow: str = "") -> dict[str, str]:
    """The environment of processes that die of the file `deadly`, and of which the first falls asleep over `slow`.

    For tests that do not ask about compiled loops.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CODE)
    chosen = {"PYTHONPATH": str(folder), "DEADLY": deadly, "SLOW": slow, "READER": str(folder / "reader")}
    return {**os.environ, **chosen}


def sleeper(folder: Path, *, seconds: float = 240) -> int:
    """Wait until a process fell asleep over the slow file; its number."""
    deadline = time.monotonic() + seconds
    while not (folder / "reader").exists():
        assert time.monotonic() < deadline, "nobody reads the slow recording"
        time.sleep(0.01)
    return int((folder / "reader").read_text())
