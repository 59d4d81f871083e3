"""A new user preprocesses on one machine, pushes, pulls on another and trains there, beginning with the same batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, write_digits_raw
from servers import serving

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.runs.checkpoints import tensors_sum


def run(home, *arguments):
    """The command line as on a machine of its own: another home, working folder and cache; the answer as values."""
    home.mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(home), "SPIKEBRIDGE_CACHE": str(home / "cache"), "TZ": home.name}
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def first_batch(shards):
    settings = TrainSettings(method="kt", model="scnn", batch_size=8, epochs=1, lr=1e-3)
    return TrainingBatches(ShardSet(shards), settings, device=torch.device("cpu"), needs_static=True).batch(0, 0)


@pytest.mark.long  # each day the pages on machines and sharing are run, with every step of this one
@pytest.mark.usefixtures("without_matplotlib")
def test_from_raw_data_on_one_machine_to_a_trained_network_on_another(tmp_path):
    here, there = tmp_path / "Iceland", tmp_path / "Japan"
    raw = write_digits_raw(here / "raw", train=8, test=3)
    small = ["--time-bins", 4, "--size", 16, "--samples-per-shard", 4, "--workers", 1]
    made = run(here, "preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", "shards", *small)
    pushed = run(here, "push", "shards", tmp_path / "published")
    changes = ["time_bins=4", "size=16", "epochs=1", "events_per_class=2", "width=0.25"]
    training = ["--recipe", "digits", "--run", "run", *(word for change in changes for word in ("--set", change))]
    mine = run(here, "train", "--shards", "shards", *training)
    with serving("http", tmp_path / "published", tmp_path / "log") as (port, _):
        pulled = run(there, "pull", f"http://127.0.0.1:{port}", "fetched", "--expect", made["id"])
    theirs = run(there, "train", "--shards", "fetched", "--expect", made["id"], *training)

    assert made["id"] == pushed["id"] == pulled["id"]
    one, other = first_batch(here / "shards"), first_batch(there / "fetched")
    assert torch.equal(one.events, other.events)
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    weights = [tensors_sum(home / "run" / "weights" / "last.safetensors") for home in (here, there)]
    assert weights[0] == weights[1]
    assert mine["test_accuracy"] == theirs["test_accuracy"]
    scored = run(there, "evaluate", "run", "--shards", "fetched")
    assert scored["accuracy"] == mine["test_accuracy"]
