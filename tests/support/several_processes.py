"""One training in several real processes, and its weights beside those of one process."""

import json
import os
import socket
import subprocess
import sys

from conftest import SUPPORT
from fake_shards import FakeShardSet, tiny_recipe
from safetensors.torch import load_file

from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

WORKER = str(SUPPORT / "worker.py")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_processes(size, folder, run, **plan):
    """Run `worker.py` in as many processes, as torchrun would; their exit codes and what they said."""
    plan = {"shards": str(folder / "shards"), "run": str(folder / run), **plan}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, json.dumps(plan)],
            env={**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], said


def train_in_double(monkeypatch, folder, run, recipe, sizes):
    make = epochs.make_network
    monkeypatch.setattr(epochs, "make_network", lambda arguments, *, seed: make(arguments, seed=seed).double())
    train(FakeShardSet(folder / "shards", **sizes), tiny_recipe(**recipe), folder / run, device="cpu")


def largest_difference(first, second):
    a, b = (load_file(run / "weights" / "last.safetensors") for run in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
