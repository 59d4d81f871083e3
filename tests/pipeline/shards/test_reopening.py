"""A set that is opened again, in another process or later, is the set that was opened first, or an error."""

import pickle
import shutil

import numpy as np
import pytest
from servers import serving

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.interop.tonic_datasets import ShardFrames
from spikebridge.pipeline.shards.dataset import SplitFrames
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing.cache import CachedSet
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import push

HOLDERS = {
    "set": ShardSet,
    "set with open splits": lambda path: opened(ShardSet(path)),
    "split": lambda path: ShardSet(path).split("train"),
    "frames": SplitFrames,
    "tonic's frames": ShardFrames,
}
"""What a user may hand to another process."""


def opened(shards):
    shards.split("train").read([0])
    return shards


def train_frames(held):
    """All frames of the training split."""
    if isinstance(held, ShardSet):
        return held.split("train").read_all()
    return np.stack([held[i][0] for i in range(len(held))]) if isinstance(held, SplitFrames) else held.read_all()


@pytest.fixture
def folder(shard_set, tmp_path):
    """A set that may be replaced."""
    shutil.copytree(shard_set(), tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def replace(shard_set, folder):
    """Put another set, with the same number of recordings in another order, into the folder; return its ID."""

    def put():
        shutil.rmtree(folder)
        shutil.copytree(shard_set(seed=1), folder)
        return ShardSet(folder).id

    return put


@pytest.mark.parametrize("name", HOLDERS)
def test_what_another_process_gets_is_the_same_set(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    held = HOLDERS[name]("set")
    content = pickle.dumps(held)
    assert len(content) < 10_000  # no files, no frames
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(train_frames(pickle.loads(content)), ShardSet(folder).split("train").read_all())


@pytest.mark.parametrize("name", HOLDERS)
def test_what_another_process_gets_is_refused_when_the_folder_holds_another_set(folder, replace, name):
    first, content = ShardSet(folder).id, pickle.dumps(HOLDERS[name](folder))
    other = replace()
    with pytest.raises(ShardSetError, match=f"holds shard set {other}; expected {first}"):
        train_frames(pickle.loads(content))


def test_an_expected_id_is_compared(folder, shard_set):
    shards = ShardSet(folder)
    assert ShardSet(folder, expect=shards.id).id == open_set(folder, expect=shards.id).id == shards.id
    for opener in (ShardSet, open_set):
        with pytest.raises(ShardSetError, match=f"holds shard set {shards.id}; expected {'0' * 64}"):
            opener(folder, expect="0" * 64)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_set_from_an_address_is_opened_again_from_there(shard_set, cache, tmp_path):
    whole = ShardSet(shard_set(samples_per_shard=4))
    push(whole.path, str(tmp_path / "place"))
    with serving("http", tmp_path / "place", tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"
        shards = open_set(address)
        content = pickle.dumps([shards, shards.split("test")])
        for future in shards._arriving.values():
            future.result()
        shards.close()
        shutil.rmtree(cache)  # as on another machine
        again, split = pickle.loads(content)
        assert isinstance(again, CachedSet)
        assert again.address == address
        np.testing.assert_array_equal(again.split("train").read_all(), whole.split("train").read_all())
        np.testing.assert_array_equal(split.read_all(), whole.split("test").read_all())
        other = shard_set(samples_per_shard=4, seed=1)
        push(other, str(tmp_path / "place"))
        with pytest.raises(ShardSetError, match=f"holds shard set {ShardSet(other).id}; expected {whole.id}"):
            pickle.loads(content)
        with pytest.raises(ShardSetError, match="expected 0000"):
            open_set(address, expect="0" * 64)


def test_a_cached_folder_with_another_set_in_it_is_never_used(shard_set, cache, tmp_path):
    whole, other = ShardSet(shard_set(samples_per_shard=4)), shard_set(samples_per_shard=4, seed=1)
    push(whole.path, str(tmp_path / "place"))

    def spoil():
        while (cache / whole.id).exists():  # a reader that was closed may still put a last file there
            shutil.rmtree(cache / whole.id, ignore_errors=True)
        shutil.copytree(other, cache / whole.id, dirs_exist_ok=True)

    spoil()
    with serving("http", tmp_path / "place", tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"
        shards = open_set(address)
        assert shards.id == whole.id
        np.testing.assert_array_equal(shards.split("train").read_all(), whole.split("train").read_all())
        shards.close()
    spoil()
    with pytest.raises(ShardSetError, match="Check the address"):
        open_set(address)
