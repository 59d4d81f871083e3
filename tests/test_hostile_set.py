"""A shard set whose names are made to harm: whatever a verb says of it, a terminal and a spreadsheet stay safe."""

import csv
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from shard_files import sign

from spikebridge import cli
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import Sample, write_shard
from spikebridge.train.report.records import _read_predictions
from spikebridge.train.runs.folder import RunFolder

SPOOF = "whole, no leaks: trust me"
HARMFUL = [
    "\x1b[2J\x1b]0;owned\x07",
    f"a\n{SPOOF}",
    "=HYPERLINK(0)",
    "@SUM(A1)",
    "\u202egnp.exe",
    "x" * 10_000,
    "\x9b31m\r\x08",
    "\udcff",
    "<script>alert(1)</script>",
    "+1|-1\t\x00\u2028",
]
GRID = """
recipe = "digits"
seeds = [0]
events_per_class = [2]
reference = {label}
baselines = [{label}]
finalist = {label}

[settings]
time_bins = 4
size = 16
epochs = 1
extent = "canvas"
width = 0.25

[[rows]]
label = {label}
method = "event_only"
note = {note}
"""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028\ud800-\udfff]")


@pytest.fixture(scope="module")
def hostile(shard_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "set"
    shutil.copytree(shard_set(samples_per_shard=4, size=16), folder)
    shards = ShardSet(folder)
    path, split = shards.event_shards("test")[0], shards.split("test")
    with tarfile.open(path) as archive:
        texts = [archive.extractfile(m).read().decode() for m in archive if m.name.endswith(".json")]
    first = texts[0].replace('"source": "', '"source": "\\u001b[2J' + "y" * 5000)
    assert first != texts[0]
    count = len(texts)
    samples = zip(split.keys[:count], split.labels[:count], split.read(range(count)), [first, *texts[1:]], strict=True)
    stored = [Sample(key, int(label), frames, text) for key, label, frames, text in samples]
    write_shard(path, stored, shape=shards.sample_shape, dtype=shards.dtype, key_bytes=split._keys.itemsize)
    assert len(shards.classes) == len(HARMFUL)
    static = {**manifests.read(folder)["static"], "classes_without_pool": HARMFUL[3:]}
    sign(folder, classes=HARMFUL, dataset=HARMFUL[0] + HARMFUL[1], notes=HARMFUL, static=static)
    return folder


def of_the_set(hostile, other, out):
    """Commands about the set itself, by name."""
    sample = ShardSet(hostile).split("test").keys[0]
    return {
        "verify": ["verify", hostile],
        "inspect": ["inspect", hostile, "--png", out / "a.png", "--html", out / "a.html", "--overwrite"],
        "inspect one": ["inspect", hostile, "--sample", sample, "--html", out / "b.html", "--overwrite"],
        "inspect none": ["inspect", hostile, "--sample", HARMFUL[1]],
        "inspect class": ["inspect", hostile, "--class", "none", "--png", out / "c.png"],
        "convert": ["convert", hostile, "--out", out / "hdf5", "--format", "hdf5"],
        "subset": ["subset", hostile, "--to", out / "part", "--split", "test"],
        "combine": ["combine", hostile, other, "--to", out / "both"],
        "diff": ["diff", hostile, other],
        "push": ["push", hostile, out / "place"],
        "pull": ["pull", out / "place", out / "pulled"],
        "refused": ["train", "--shards", hostile, "--recipe", "nmnist", "--run", out / "none"],
        "doctor": ["doctor", "--data", hostile.parent],
    }


def of_runs(hostile, _other, out):
    """Commands about runs on the set, by name."""
    changes = ["time_bins=4", "size=16", "epochs=1", "events_per_class=2", "extent='canvas'", "width=0.25"]
    train = ["--shards", hostile, "--recipe", "digits", *(word for change in changes for word in ("--set", change))]
    grid = out / "\x1b[31mgrid.toml"
    grid.parent.mkdir(exist_ok=True)
    texts = {"label": HARMFUL[2] + HARMFUL[0], "note": HARMFUL[1] + HARMFUL[6] + HARMFUL[8]}
    grid.write_text(GRID.format(**{name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}))
    return {
        "train": ["train", *train, "--run", out / "run"],
        "evaluate": ["evaluate", out / "run", "--shards", hostile],
        "report": ["report", out / "run", "--shards", hostile, "--out", out / "report.html"],
        "export": ["export", out / "run", "--format", "safetensors", "--out", out / "a.safetensors"],
        "compare": ["compare", *train, "--methods", "event_only", "--seeds", "0", "--out", out / "compare"],
        "landscape": ["landscape", out / "run", "--shards", hostile, "--out", out / "flat", "--points", "3", "--line"],
        "ablate": ["ablate", "--grid", grid, "--shards", hostile, "--out", out / "ablation", "--workers", "1"],
        "runs": ["runs", out],
        "runs diff": ["runs", "diff", out / "run", out / "compare" / "event_only-seed0"],
    }


@pytest.mark.parametrize("commands", [of_the_set, pytest.param(of_runs, marks=pytest.mark.long)])
def test_no_verb_passes_names_on_as_they_are(hostile, shard_set, tmp_path, commands):
    codes = {}
    for name, words in commands(hostile, shard_set(samples_per_shard=4, size=16), tmp_path).items():
        for more in ([], ["--json"]) if name in ("verify", "inspect", "diff", "evaluate") else ([],):
            done = CliRunner().invoke(cli.main, [*map(str, words), *more])
            assert done.exception is None or isinstance(done.exception, SystemExit), (name, done.exception)
            assert not RAW.search(done.output), (name, RAW.search(done.output), done.output[:2000])
            assert SPOOF not in [line.strip() for line in done.output.splitlines()], name
            assert more or max(map(len, done.output.splitlines()), default=0) < 3000, name
            codes[name] = done.exit_code
    refused = {"diff": 1, "inspect none": 1, "inspect class": 1, "refused": 1} if commands is of_the_set else {}
    assert {name: code for name, code in codes.items() if code} == refused
    for table in tmp_path.rglob("*.csv"):
        require_harmless(table)
    for page in tmp_path.rglob("*.html"):
        assert "<script>alert(1)" not in page.read_text(), page


def require_harmless(table):
    cells = [cell for row in csv.reader(table.read_text().splitlines()) for cell in row]
    assert cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))], table


def test_predictions_come_back_whatever_the_classes_are_called(tmp_path):
    run, n = RunFolder(tmp_path), len(HARMFUL)
    run.write_predictions([f"test-{k}-x" for k in range(n)], np.arange(n), np.eye(n)[::-1], HARMFUL)
    require_harmless(run.predictions)
    back = _read_predictions(run.predictions, HARMFUL)
    assert back.labels.tolist() == list(range(n))
    assert back.predicted.tolist() == list(range(n))[::-1]
