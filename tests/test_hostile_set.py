"""A shard set whose names are made to harm: whatever a verb says of it, a terminal and a spreadsheet stay safe."""

import csv
import re
import shutil
import tarfile

import pytest
from click.testing import CliRunner
from shard_files import sign

from spikebridge import cli
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import Sample, write_shard

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


@pytest.fixture(scope="module")
def said(hostile, shard_set, tmp_path_factory):
    """What every verb says of the set, by name: exit code, output, and the exception if one came through."""
    out = tmp_path_factory.mktemp("out")
    changes = ["time_bins=4", "size=16", "epochs=1", "events_per_class=2", "extent='canvas'", "width=0.25"]
    train = ["--shards", hostile, "--recipe", "digits", *(word for change in changes for word in ("--set", change))]
    sample = ShardSet(hostile).split("test").keys[0]
    commands = {
        "verify": ["verify", hostile],
        "inspect": ["inspect", hostile, "--png", out / "a.png", "--html", out / "a.html"],
        "inspect one": ["inspect", hostile, "--sample", sample, "--html", out / "b.html"],
        "inspect none": ["inspect", hostile, "--sample", HARMFUL[1]],
        "inspect class": ["inspect", hostile, "--class", "none", "--png", out / "c.png"],
        "convert": ["convert", hostile, "--out", out / "hdf5", "--format", "hdf5"],
        "diff": ["diff", hostile, shard_set(samples_per_shard=4, size=16)],
        "push": ["push", hostile, out / "place"],
        "pull": ["pull", out / "place", out / "pulled"],
        "refused": ["train", "--shards", hostile, "--recipe", "nmnist", "--run", out / "none"],
        "train": ["train", *train, "--run", out / "run"],
        "evaluate": ["evaluate", out / "run", "--shards", hostile],
        "report": ["report", out / "run", "--shards", hostile, "--out", out / "report.html", "--overwrite"],
        "export": [
            "export",
            out / "run",
            "--format",
            "safetensors",
            "--out",
            out / "exported.safetensors",
            "--overwrite",
        ],
        "compare": ["compare", *train, "--methods", "event_only", "--seeds", "0", "--out", out / "compare"],
        "doctor": ["doctor", "--data", hostile.parent],
    }
    outcomes = {}
    for name, words in commands.items():
        for more in ([], ["--json"]) if name in ("verify", "inspect", "diff", "evaluate") else ([],):
            done = CliRunner().invoke(cli.main, [*map(str, words), *more])
            outcomes[" ".join([name, *more])] = done
    return outcomes, out


def test_no_verb_passes_names_on_as_they_are(said):
    outcomes, _ = said
    for name, done in outcomes.items():
        assert done.exception is None or isinstance(done.exception, SystemExit), (name, done.exception)
        assert not RAW.search(done.output), (name, RAW.search(done.output), done.output[:2000])
        assert SPOOF not in [line.strip() for line in done.output.splitlines()], name
        if "--json" not in name:
            assert max(map(len, done.output.splitlines()), default=0) < 3000, name
    assert {name: done.exit_code for name, done in outcomes.items() if done.exit_code} == {
        "diff": 1,
        "diff --json": 1,
        "inspect none": 1,
        "inspect class": 1,
        "refused": 1,
    }


def test_no_cell_of_a_csv_file_begins_a_formula(said):
    _, out = said
    tables = list(out.rglob("*.csv"))
    assert tables
    for table in tables:
        cells = [cell for row in csv.reader(table.read_text("utf-8", "surrogateescape").splitlines()) for cell in row]
        harmful = [cell for cell in cells if cell.startswith(("=", "+", "@"))]
        assert not harmful, table


def test_pages_hold_no_script_of_others(said):
    _, out = said
    for page in out.rglob("*.html"):
        assert "<script>alert(1)" not in page.read_text("utf-8", "surrogateescape"), page
