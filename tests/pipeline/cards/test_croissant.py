"""croissant.json says what the manifest says, and mlcroissant reads it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from spikebridge.pipeline.cards.card import dataset_facts
from spikebridge.pipeline.cards.croissant import describe_set
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet

MLCROISSANT = ("mlcroissant==1.1.1", "numpy==2.4.6")
READ = """
import io, json, sys
import mlcroissant, numpy
data = mlcroissant.Dataset(sys.argv[1])
records = list(data.records("samples"))
frames = [numpy.load(io.BytesIO(record["samples/frames"])) for record in records]
print(json.dumps({
    "errors": list(data.metadata.ctx.issues.errors),
    "warnings": list(data.metadata.ctx.issues.warnings),
    "version": str(data.metadata.ctx.conforms_to.value),
    "classes": [row["classes/name"] for row in data.records("classes")],
    "splits": [row["splits/name"] for row in data.records("splits")],
    "samples": [[record["samples/key"].decode(), record["samples/split"].decode(), record["samples/label"],
                 int(one.sum())] for record, one in zip(records, frames)],
}))
"""


def test_it_is_a_rendering_of_the_manifest(shard_set):
    shards = ShardSet(shard_set())
    manifest = shards.manifest
    data = (shards.path / "croissant.json").read_bytes()
    assert data == manifests.dump(describe_set(manifest, dataset_facts("digits")))
    found = json.loads(data)
    assert found["identifier"] == shards.id
    assert found["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    files = {one["name"]: one for one in found["distribution"] if one["@type"] == "cr:FileObject"}
    assert {name: one["sha256"] for name, one in files.items()} == {f["name"]: f["sha256"] for f in manifest["files"]}
    assert found["rai:dataCollectionType"] == ["Software Collection"]
    assert "simulated" in found["rai:dataLimitations"][0]
    assert found["license"] == dataset_facts("digits").licence
    assert found["citeAs"] == dataset_facts("digits").citation
    assert "Tars: 1 train, 1 validation, 1 test" in found["description"]
    assert [one["@id"] for one in found["recordSet"]] == ["splits", "classes", "samples"]
    assert "/" not in files["static.h5"]["contentUrl"]


def test_frames_and_events_are_files_and_fields_of_their_own(shard_set):
    found = json.loads((shard_set(samples_per_shard=7, store="both") / "croissant.json").read_text())
    sets = {one["@id"]: one["includes"] for one in found["distribution"] if one["@type"] == "cr:FileSet"}
    assert sets == {"frames": "*.frames.npy", "events": "*.events.npy"}
    sources = {one["@id"]: one["source"]["fileSet"]["@id"] for one in found["recordSet"][2]["field"]}
    assert sources["samples/events"] == "events"
    assert set(sources.values()) == set(sets)


def test_previews_are_files_of_their_own(shard_set):
    found = json.loads((shard_set(preview=True) / "croissant.json").read_text())
    sets = {one["@id"]: one["includes"] for one in found["distribution"] if one["@type"] == "cr:FileSet"}
    assert sets == {"frames": "*.frames.npy", "previews": "*.preview.png"}


def test_limits_are_said(shard_set):
    leaky = json.loads((shard_set(protocol="leaky") / "croissant.json").read_text())
    assert any("LEAKY" in line for line in leaky["rai:dataLimitations"])
    hdf5 = json.loads((shard_set(format="hdf5", codec="gzip", samples_per_shard=7) / "croissant.json").read_text())
    assert [one["@id"] for one in hdf5["recordSet"]] == ["splits", "classes"]


@pytest.mark.long
def test_mlcroissant_reads_every_sample(shard_set, tmp_path):
    """In an environment of its own, with the version stated above."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *MLCROISSANT], check=True, capture_output=True)
    shards = ShardSet(shard_set())
    more = {"CROISSANT_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    command = [python, "-c", READ, shards.path / "croissant.json"]
    done = subprocess.run(command, env=more, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["errors"] == []
    assert [line for line in found["warnings"] if "datePublished" not in line] == []
    assert found["version"] == "http://mlcommons.org/croissant/1.1"
    assert found["classes"] == list(shards.classes)
    assert found["splits"] == ["train", "validation", "test"]
    expected = [
        [key, name, int(label), int(np.sum(frames))]
        for name, split in shards.splits.items()
        for key, label, frames in zip(split.keys, split.labels, split.read_all(), strict=True)
    ]
    assert sorted(found["samples"]) == sorted(expected)
