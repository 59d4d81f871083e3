"""Two run folders that must hold the same to the bit, but for their times."""

import json

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import Stopper
from safetensors.torch import load_file

from spikebridge.train.errors import RunStoppedError
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.run import train

RECIPE, STEPS = tiny_recipe(width=0.05), 9
"""Of `whole_and_half`."""

WALL_TIMES = (
    "seconds", "samples_per_second", "training_seconds", "training_cpu_seconds", "environment", "files", "self_sha256",
)  # fmt: skip
"""Times, and the sums of the files that hold them."""


def whole_and_half(made_once):
    """A folder with a finished run `whole`, and the same stopped before its last step, `half`; read only."""

    def write(folder):
        shards, stop = FakeShardSet(folder / "shards"), StopRequest()
        train(shards, RECIPE, folder / "whole", device="cpu")
        options = {"checkpoint_every": "1", "progress": Stopper(stop, STEPS - 1)}
        with pytest.raises(RunStoppedError):
            train(shards, RECIPE, folder / "half", device="cpu", stop=stop, **options)

    return made_once("whole and half", write)


def timeless(value):
    return {key: item for key, item in value.items() if key not in WALL_TIMES}


def change_result(run, **values):
    """Change figures of a run, and drop its sums: what it is now no version has written with sums."""
    path = run / "result.json"
    result = json.loads(path.read_text()) | values | {"schema": 1}
    path.write_text(json.dumps({name: v for name, v in result.items() if name not in ("files", "self_sha256")}))


def same_run(first, second):
    for name in ("best", "last"):
        a, b = (load_file(run / "weights" / f"{name}.safetensors") for run in (first, second))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    lines = [[timeless(line) for line in read_metrics(run)] for run in (first, second)]
    assert lines[0] == lines[1]
    results = [timeless(json.loads((run / "result.json").read_text())) for run in (first, second)]
    assert results[0] == results[1]
