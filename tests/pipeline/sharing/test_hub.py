"""Repositories of the hub: addresses, and with huggingface_hub in an environment of its own a stand-in for the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy
import pytest
from conftest import ROOT, SUPPORT

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing import hub
from spikebridge.pipeline.sharing.locations import open_folder
from spikebridge.pipeline.sharing.networks import push_network
from spikebridge.pipeline.sharing.publish import push

PACKAGES = ("huggingface_hub==2.4.0", "datasets==5.2.0")
TOKEN = "hf_of_the_tests"
STREAM = """
import json, sys
import datasets, numpy
for where in (dict(path="webdataset", data_files=sys.argv[1] + "/events-train-*.tar"), dict(path=sys.argv[2])):
    rows = list(datasets.load_dataset(**where, split="train", streaming=True))
    print(json.dumps(sorted([row["__key__"], int(row["cls"]), int(numpy.sum(row["frames.npy"]))] for row in rows)))
"""


def test_addresses():
    assert hub.parse_address("hf://datasets/lab/digits") == hub.Repository("dataset", "lab/digits")
    assert hub.parse_address("hf://lab/net@0a1b/") == hub.Repository("model", "lab/net", "0a1b")
    assert hub.parse_address("hf://datasets/lab/digits@v1.0").at("0a1b") == "hf://datasets/lab/digits@0a1b"
    assert not hub.is_hub("s3://bucket/hf")


@pytest.mark.parametrize(
    "address",
    [
        "hf://lab",
        "hf://hf_secret@datasets/lab/digits",
        "hf://datasets/lab/digits/more",
        "hf://datasets/../x",
        "hf://a/b?x",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(address):
    with pytest.raises(SettingsError, match="expected hf://datasets/OWNER/NAME") as refused:
        open_folder(address)
    assert address not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_the_package_the_extra_is_named(shard_set, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"huggingface_hub.*\[hub\]"):
        open_folder("hf://datasets/lab/digits")
    with pytest.raises(SettingsError, match=r"huggingface_hub"):
        push(shard_set(), "hf://datasets/lab/digits")
    with pytest.raises(SettingsError, match="a push adds to it"):
        push(shard_set(), "hf://datasets/lab/digits@0a1b")
    with pytest.raises(SettingsError, match="expected hf://datasets"):
        push(shard_set(), "hf://lab/digits")
    monkeypatch.setattr(hub, "find_spec", lambda name: True)
    with pytest.raises(SettingsError, match="expected a folder with"):
        push_network(tmp_path, "hf://lab/net")


class Elsewhere:
    """Programs in an environment with huggingface_hub, whose hub is the stand-in."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        install = [self.python, "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True)
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        (site / "project.pth").write_text(str(Path(numpy.__file__).parents[1]))
        self.log = folder / "log"
        command = [sys.executable, str(SUPPORT / "hub_server.py"), str(self.log)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        self.hub = f"http://127.0.0.1:{self.server.stdout.readline().strip()}"
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS")}
        more = {"HF_ENDPOINT": self.hub, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
        self.environment = {**kept, **more, "SPIKEBRIDGE_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}

    def run(self, *words: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **({"HF_TOKEN": token} if token else {})}
        return subprocess.run(
            [self.python, *map(str, words)], env=environment, capture_output=True, text=True, check=False
        )

    def verb(self, *words: object, code: int = 0, token: str = TOKEN) -> str:
        done = self.run(ROOT / "cli.py", *words, token=token)
        assert done.returncode == code, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return click.unstyle(done.stdout if code == 0 else done.stderr)

    def answer(self, *words: object) -> dict:
        values: dict = json.loads(self.verb(*words, "--json"))
        return values

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    made = Elsewhere(tmp_path_factory.mktemp("hub"))
    yield made
    made.close()


@pytest.mark.long
def test_a_set_goes_to_the_hub_and_comes_back(elsewhere, shard_set, tmp_path):
    first, second = shard_set(size=16), shard_set(size=16, samples_per_shard=4)
    pushed = elsewhere.answer("push", first, "hf://datasets/lab/digits")
    again = elsewhere.answer("push", first, "hf://datasets/lab/digits")
    assert (again["address"], again["sent"]) == (pushed["address"], 0)
    replaced = elsewhere.answer("push", second, "hf://datasets/lab/digits")
    assert replaced["address"] != pushed["address"]
    got = elsewhere.answer("pull", "hf://datasets/lab/digits", tmp_path / "new")
    assert (got["id"], got["address"]) == (ShardSet(second).id, replaced["address"])
    elsewhere.answer("push", first, "hf://datasets/lab/digits")  # fewer files: those of the other set are gone
    assert elsewhere.answer("pull", replaced["address"], tmp_path / "pinned")["id"] == ShardSet(second).id
    got = elsewhere.answer("pull", "hf://datasets/lab/digits", tmp_path / "last", "--expect", ShardSet(first).id)
    assert elsewhere.answer("verify", tmp_path / "last")["ok"]
    settings = ["time_bins=4", "size=16", "epochs=1", "events_per_class=2", "width=0.25", "extent='canvas'"]
    changes = [word for change in settings for word in ("--set", change)]
    train = ["train", "--shards", got["address"], "--recipe", "digits", *changes, "--run", tmp_path / "run"]
    assert elsewhere.answer(*train)["shard_set"] == ShardSet(first).id
    assert "RepositoryNotFound" in elsewhere.verb("pull", got["address"], tmp_path / "no", code=1, token="")
    assert "RepositoryNotFound" in elsewhere.verb("pull", "hf://datasets/lab/none", tmp_path / "no", code=1)
    assert "RevisionNotFound" in elsewhere.verb("pull", "hf://datasets/lab/digits@0123abc", tmp_path / "no", code=1)


@pytest.mark.long
def test_datasets_streams_it(elsewhere, shard_set):
    shards = ShardSet(shard_set())
    address = elsewhere.answer("push", shards.path, "hf://datasets/lab/streamed")["address"]
    done = elsewhere.run("-c", STREAM, address, "lab/streamed")
    assert done.returncode == 0, done.stderr
    split = shards.split("train")
    rows = zip(split.keys, split.labels.tolist(), split.read_all(), strict=True)
    expected = sorted([key, label, int(frames.sum())] for key, label, frames in rows)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]


@pytest.mark.long
def test_an_exported_network_goes_to_the_hub_and_comes_back(elsewhere, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: other\n---\n# A network\n")
    (folder / "network.safetensors").write_bytes(bytes(range(256)))
    (folder / "notes.txt").write_text("mine")
    pushed = elsewhere.answer("push", folder, "hf://lab/net")
    assert pushed["left_out"] == ["notes.txt"]
    got = elsewhere.answer("pull", "hf://lab/net", tmp_path / "got")
    assert got["address"] == pushed["address"]
    for name in ("README.md", "network.safetensors"):
        assert (tmp_path / "got" / name).read_bytes() == (folder / name).read_bytes()
    subprocess.run(
        ["curl", "-s", "-X", "POST", f"{elsewhere.hub}/spoil/network.safetensors"], check=True, capture_output=True
    )
    refused = elsewhere.verb("pull", "hf://lab/net", tmp_path / "spoiled", code=1)
    assert "network.safetensors" in refused
    assert "SHA-256 differs" in refused
    assert not (tmp_path / "spoiled" / "network.safetensors").exists()
