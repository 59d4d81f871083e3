"""What labels, names and orders samples is compared with its hash when it is read, not only by `verify`."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from servers import serving

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import PARTIAL, ShardSet
from spikebridge.pipeline.shards.writer import index_path
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import pull, push

SPLITS = ["train", "validation"]


@pytest.fixture
def folder(shard_set, tmp_path):
    shutil.copytree(shard_set(), tmp_path / "set")
    return tmp_path / "set"


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("container", ["webdataset", "hdf5"])
def test_no_flipped_bit_of_an_index_is_silent_at_reading(shard_set, tmp_path, container):
    shutil.copytree(shard_set(format=container), tmp_path / "set")
    (shard,) = ShardSet(tmp_path / "set").event_shards("train")
    path, rng = index_path(shard), np.random.default_rng(0)
    good = path.read_bytes()
    for bit in rng.integers(8 * len(good), size=100).tolist():
        flip(path, bit)
        with pytest.raises(ShardSetError, match=r"events-train-00000\.idx\.npy"):
            ShardSet(tmp_path / "set").split("train")
        path.write_bytes(good)
    assert len(ShardSet(tmp_path / "set").split("train"))


@pytest.mark.parametrize("resident_bytes", [2**29, 0])
def test_no_flipped_bit_of_the_static_file_is_silent_at_reading(folder, monkeypatch, resident_bytes):
    monkeypatch.setattr("spikebridge.pipeline.shards.reader.RESIDENT_BYTES", resident_bytes)
    path, rng = folder / "static.h5", np.random.default_rng(0)
    shards, good = ShardSet(folder), path.read_bytes()
    for bit in rng.integers(8 * len(good), size=60).tolist():
        flip(path, bit)
        with pytest.raises(ShardSetError, match=r"static\.h5"):
            shards.static_pool()
        path.write_bytes(good)
    assert len(shards.static_pool())


def test_flipped_labels_in_the_cache_are_fetched_again_or_refused(shard_set, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    whole = ShardSet(shard_set())
    push(whole.path, str(tmp_path / "place"))
    cached = tmp_path / "cache" / whole.id
    index = index_path(cached / whole.event_shards("train")[0].name)
    with serving("http", tmp_path / "place", tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"

        def open_whole():
            shards = open_set(address)
            for future in shards._arriving.values():
                future.result()
            shards.close()
            return shards

        open_whole()
        for path in (index, cached / "static.h5"):
            flip(path, 8 * path.stat().st_size - 1)
            shards = open_whole()
            assert shards.split("train").labels.tolist() == whole.split("train").labels.tolist()
            assert shards.static_pool().keys == whole.static_pool().keys
    rows = np.load(index)
    rows["label"] = rows["label"][::-1].copy()
    np.save(index, rows)
    with pytest.raises(ShardSetError):
        open_set(address)


# --- partial.json


def name_splits(folder, **values):
    (folder / PARTIAL).write_text(json.dumps(values))


def test_a_pull_names_the_set_that_it_brought_a_part_of(folder, tmp_path):
    push(folder, str(tmp_path / "place"))
    pull(str(tmp_path / "place"), tmp_path / "part", splits=SPLITS)
    shards = ShardSet(tmp_path / "part")
    assert json.loads((tmp_path / "part" / PARTIAL).read_text()) == {"id": shards.id, "splits": SPLITS}
    assert shards.present == tuple(SPLITS)
    assert shards.partial
    found = verify(tmp_path / "part")
    assert (found.ok, found.state, found.verdict) == (True, "partial", "partial, no leaks")
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "part"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["state"] == "partial"
    assert "whole" not in CliRunner().invoke(main, ["verify", str(tmp_path / "part")]).stdout
    assert verify(folder).state == "whole"
    assert not ShardSet(folder).partial


def test_a_part_that_an_earlier_version_pulled_stays_readable(folder):
    for shard in folder.glob("events-test-*"):
        shard.unlink()
    name_splits(folder, splits=SPLITS)
    assert ShardSet(folder).present == tuple(SPLITS)
    assert verify(folder).state == "partial"


def test_a_set_beside_which_a_part_is_named_is_never_whole(folder, tmp_path):
    name_splits(folder, splits=[*SPLITS, "test"])
    assert verify(folder).state == "partial"
    with pytest.raises(ShardSetError, match="only a part"):
        push(folder, str(tmp_path / "place"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '"train"', "{}", '{"splits": "train"}', '{"splits": {"train": 1}}', '{"splits": []}',
     '{"splits": [1]}', '{"splits": [["train"]]}', '{"splits": ["dev"]}', '{"splits": ["train", "train"]}',
     '{"splits": ["train"], "id": null}', '{"splits": ["train"], "id": "0"}', '{"splits": ["train"], "more": 1}',
     "[" * 100_000, '{"splits": NaN}', "\0", '{"splits": ["train"]' + " " * 10**6 + "}"],
)  # fmt: skip
def test_what_names_no_part_of_this_set_is_refused(folder, text):
    (folder / PARTIAL).write_text(text)
    with pytest.raises(ShardSetError, match=r"partial\.json"):
        ShardSet(folder)


def test_a_part_of_another_set_is_refused(folder, shard_set):
    name_splits(folder, id=ShardSet(shard_set(seed=1)).id, splits=SPLITS)
    with pytest.raises(ShardSetError, match=r"partial\.json.*another set"):
        ShardSet(folder)


def test_naming_a_part_hides_no_damaged_shard(folder):
    (shard,) = ShardSet(folder).event_shards("test")
    flip(shard, 8 * 5000)
    name_splits(folder, id=ShardSet(folder).id, splits=SPLITS)
    found = verify(folder)
    assert (found.state, found.verdict) == ("failed", "FAILED")
    assert any(shard.name in problem for problem in found.problems)


# --- environment.json


def test_what_no_hash_covers_is_named(folder):
    found = verify(folder)
    assert found.unchecked == ["environment.json", "croissant.json"]
    assert "not checked: environment.json" in CliRunner().invoke(main, ["verify", str(folder)]).stdout
    for name in manifests.OUTSIDE:  # as in the cache
        (folder / name).unlink()
    assert verify(folder).unchecked == []


@pytest.mark.parametrize("text", ["", "[]", '{"python": 3}', "[" * 100_000, "\0", '{"a": "' + "1" * 10**6 + '"}'])
def test_what_names_no_versions_is_a_problem(folder, text):
    (folder / manifests.ENVIRONMENT).write_text(text)
    found = verify(folder)
    assert any(problem.startswith("environment.json:") for problem in found.problems)


def test_a_link_in_place_of_the_versions_is_a_problem(folder):
    (folder / manifests.ENVIRONMENT).unlink()
    (folder / manifests.ENVIRONMENT).symlink_to("/etc/hostname")
    assert any(problem.startswith("environment.json:") for problem in verify(folder).problems)


@pytest.mark.parametrize("text", ["", "[]", '{"identifier": "another"}'])
def test_what_describes_another_set_is_a_problem(folder, text):
    (folder / manifests.CROISSANT).write_text(text)
    assert any(problem.startswith("croissant.json:") for problem in verify(folder).problems)
    (folder / manifests.CROISSANT).unlink()
    (folder / manifests.CROISSANT).symlink_to("/etc/hostname")
    assert verify(folder).problems == ["croissant.json: no plain file"]
