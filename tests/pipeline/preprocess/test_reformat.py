"""`convert`: another container or codec, the very bytes that preprocessing would have made, no trust in the source."""

import shutil
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from conftest import ROOT
from forked import Forked

from spikebridge import cli
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess import reformat as rewriting
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet

STORED = [(format_, codec) for format_ in ("webdataset", "hdf5") for codec in ("raw", "gzip")]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(shard_set, stored, **more):
    return shard_set(format=stored[0], codec=stored[1], samples_per_shard=7, **more)


@pytest.mark.parametrize("there", STORED)
@pytest.mark.parametrize("here", STORED)
def test_the_result_is_what_preprocess_makes(shard_set, tmp_path, here, there):
    if here == there:
        return
    outcome = reformat(made(shard_set, here), tmp_path / "new", format_=there[0], codec=there[1])
    assert contents(tmp_path / "new") == contents(made(shard_set, there))
    assert outcome.manifest["self_sha256"] == ShardSet(made(shard_set, there)).id
    assert verify(tmp_path / "new").ok


def test_float_frames_travel_too(shard_set, tmp_path):
    reformat(shard_set(reduction="bilinear"), tmp_path / "new", format_="hdf5", codec="gzip")
    assert contents(tmp_path / "new") == contents(shard_set(reduction="bilinear", format="hdf5", codec="gzip"))


def test_the_verb(shard_set, tmp_path):
    source = made(shard_set, ("webdataset", "raw"))
    arguments = ["convert", str(source), "--out", str(tmp_path / "new"), "--format", "hdf5"]
    first = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    assert ShardSet(made(shard_set, ("hdf5", "raw"))).id in first.stdout
    again = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert "up to date" in again.stdout
    other = CliRunner().invoke(cli.main, [*arguments, "--codec", "gzip"])
    assert other.exit_code == 1
    assert "codec: raw there, gzip wanted" in other.output
    replaced = CliRunner().invoke(cli.main, [*arguments, "--codec", "gzip", "--overwrite"], catch_exceptions=False)
    assert replaced.exit_code == 0
    assert contents(tmp_path / "new") == contents(made(shard_set, ("hdf5", "gzip")))
    assert CliRunner().invoke(cli.main, ["convert", str(source), "--out", str(source), "--overwrite"]).exit_code == 1
    assert verify(source).ok


def test_an_interrupted_run_continues(shard_set, tmp_path, monkeypatch):
    source, out = made(shard_set, ("webdataset", "raw")), tmp_path / "new"
    written, whole = [], rewriting.write_shard

    def stop_at_the_second(path, *rest, **more):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        return whole(path, *rest, **more)

    monkeypatch.setattr(rewriting, "write_shard", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        reformat(source, out, format_="hdf5")
    assert not (out / manifests.MANIFEST).exists()
    with pytest.raises(ShardSetError, match="not finished"):
        ShardSet(out)
    seen = []
    monkeypatch.setattr(rewriting, "write_shard", lambda path, *a, **m: seen.append(path) or whole(path, *a, **m))
    reformat(source, out, format_="hdf5")
    assert written[0] not in seen
    assert seen
    assert contents(out) == contents(made(shard_set, ("hdf5", "raw")))


def test_a_killed_run_continues(shard_set, tmp_path):
    source, out = shard_set(samples_per_shard=1), tmp_path / "new"
    command = [sys.executable, str(ROOT / "cli.py"), "convert", str(source), "--out", str(out), "--codec", "gzip"]
    process = Forked(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while len(list(out.glob("events-*.idx.npy"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    reformat(source, out, codec="gzip")
    assert contents(out) == contents(shard_set(samples_per_shard=1, codec="gzip"))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", ["events-test-00000", "events-train-00001.idx.npy", "static.h5", "rejects.jsonl"])
def test_a_damaged_source_is_refused(shard_set, tmp_path, stored, name):
    source = tmp_path / "source"
    shutil.copytree(made(shard_set, stored), source)
    (path,) = source.glob(f"{name}*" if "." in name else f"{name}.[th]*")
    data = bytearray(path.read_bytes() or b"\n")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    other = {"webdataset": "hdf5", "hdf5": "webdataset"}[stored[0]]
    with pytest.raises(ShardSetError, match=path.name):
        reformat(source, tmp_path / "new", format_=other)
    assert not (tmp_path / "new" / manifests.MANIFEST).exists()
    assert not list((tmp_path / "new").glob("*.partial"))


def test_settings_of_another_version_are_refused(shard_set, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(shard_set(), source)
    manifest = manifests.read(source)
    manifests.write(source, manifests.seal({**manifest, "settings": {**manifest["settings"], "novelty": 1}}))
    with pytest.raises(ShardSetError, match="not those that this version writes"):
        reformat(source, tmp_path / "new", codec="gzip")


def test_the_source_is_not_the_target(shard_set):
    with pytest.raises(SettingsError, match="is the source itself"):
        reformat(shard_set(), shard_set(), codec="gzip", overwrite=True)
