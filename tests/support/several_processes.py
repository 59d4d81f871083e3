"""One training in several real processes, and its weights beside those of one process."""

import json
import os
import socket
import subprocess
import sys

from conftest import SUPPORT
from fake_shards import FakeShardSet, tiny_recipe
from forked import Forked
from safetensors.torch import load_file

from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

WORKER = str(SUPPORT / "worker.py")
TSM = {"method": "tsm", "sliding": "linear", "modality_weight": 1.0, "ratio_weight": 1.0, "lr": 1e-2}
VGG = {"model": "vgg_snn", "width": 0.0625, "epochs": 2, "batch_size": 11}
SHARED = {
    # Two batches of 11 (slices of 6 and 5), and a last one of 1, where the second process has no sample.
    "vgg": ({**VGG, "synchronize": True}, {"train": 23}),
    "scnn, one killed": ({"epochs": 3, "cka": "debiased", "synchronize": True}, {"train": 21}),
    "scnn, undisturbed": ({"epochs": 3, "cka": "debiased", "synchronize": True}, {"train": 21}),
    # The heads of `tsm` see the slices and sum their gradients.
    "tsm": ({**TSM, "epochs": 2, "synchronize": True}, {"train": 21}),
    "eventmix": ({"method": "event_only", "augmentation": "crop+eventmix", "epochs": 1}, {"train": 21}),
}
"""Recipe and sizes of the runs that two processes make once for all tests; see `trained_by_two`."""


RECORDED = "vgg, as a graph would hold its steps"


def trained_by_two(made_once):
    """A folder with the runs of SHARED, made by two processes, after two others began with one and were killed."""

    def write(folder):
        plans = {name: {"double": True, "sizes": sizes, "recipe": recipe} for name, (recipe, sizes) in SHARED.items()}
        # the last, because the processes then go on that way
        plans[RECORDED] = {**plans["vgg"], "on_device": True, "options": {"residence": "device"}}
        kill = {"die_at": 5, "die_rank": 1, "options": {"checkpoint_every": "2"}}
        codes, said = train_processes(2, folder, "scnn, one killed", **plans["scnn, one killed"], **kill)
        assert codes[1] == -9
        assert codes[0] not in (0, -9), said
        assert "DistributedError: rank 1 of 2 ended without notice" in said[0]
        assert not (folder / "scnn, one killed" / "result.json").exists()
        codes, said = train_one_after_the_other(2, folder, plans)
        assert codes == [0, 0], said

    return made_once("trained by two", write)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_processes(size, folder, run, **plan):
    """Run `worker.py` in as many processes, as torchrun would; their exit codes and what they said."""
    return train_one_after_the_other(size, folder, {run: plan})


def train_one_after_the_other(size, folder, plans):
    """Several runs by the same processes, each in a group of its own: most of a small run's time is their start."""
    places = {"shards": str(folder / "shards")}
    steps = [{**places, "run": str(folder / run), "port": str(free_port()), **plan} for run, plan in plans.items()]
    place = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(size)}
    processes = [
        Forked(
            [sys.executable, WORKER, json.dumps(steps)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
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
