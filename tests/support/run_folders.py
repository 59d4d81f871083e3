"""Two run folders that must hold the same to the bit, but for their times."""

import json

import torch
from safetensors.torch import load_file

from spikebridge.train.runs.folder import read_metrics

WALL_TIMES = ("seconds", "samples_per_second", "training_seconds", "training_cpu_seconds", "files", "self_sha256")
"""Times, and the sums of the files that hold them."""


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
