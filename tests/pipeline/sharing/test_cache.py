"""Training straight from an address: the same batches as from the folder, from a cache that keeps its size."""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from servers import serving

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing.cache import cache_bytes, open_published
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import push


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """What cannot be reached is given up at once."""
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.FIRST_PAUSE_S", 0.001)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKEBRIDGE_CACHE_GB", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def published(shard_set, tmp_path):
    push(shard_set(samples_per_shard=4), str(tmp_path / "place"))
    return tmp_path / "place"


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.glob("*"))


def test_an_open_address_is_the_set(shard_set, cache, published, tmp_path):
    whole = ShardSet(shard_set(samples_per_shard=4))
    with serving("http", published, tmp_path / "log") as (port, _):
        shards = open_set(f"http://127.0.0.1:{port}")
        assert shards.id == whole.id
        for name in ("train", "validation", "test"):
            assert (shards.split(name).read_all() == whole.split(name).read_all()).all()
        assert (shards.static_pool().images == whole.static_pool().images).all()
    assert {p.name for p in (cache / whole.id).iterdir()} >= {p.name for p in whole.path.iterdir()} - {*OUTSIDE}


def test_offline_the_cache_serves_what_the_address_held(cache, published, tmp_path, caplog):
    with serving("http", published, tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"
        online = open_set(address)
        frames = {name: online.split(name).read_all() for name in ("train", "validation", "test")}
        online.static_pool()
        for future in online._arriving.values():
            future.result()
    with caplog.at_level(logging.WARNING):
        offline = open_set(address)
    assert "continuing with set" in caplog.text
    assert (offline.split("train").read_all() == frames["train"]).all()
    with pytest.raises(ShardSetError, match="Check the address"):
        open_set(address + "/elsewhere")


def test_nothing_is_fetched_twice(cache, published, tmp_path):
    with serving("http", published, tmp_path / "log") as (port, _):
        address = f"http://127.0.0.1:{port}"
        shards = open_set(address)
        for future in shards._arriving.values():
            future.result()
        before = (tmp_path / "log").read_text()
        open_set(address).split("train").read_all()
        later = (tmp_path / "log").read_text()[len(before) :]
    assert ".tar" not in later
    assert "static.h5" not in later


def test_several_readers_of_a_cold_cache_share_what_comes(cache, published, shard_set, tmp_path):
    whole = ShardSet(shard_set(samples_per_shard=4))
    with serving("http", published, tmp_path / "log") as (port, _), ThreadPoolExecutor(4) as pool:
        readers = list(pool.map(open_set, [f"http://127.0.0.1:{port}"] * 4))
        for frames in pool.map(lambda shards: shards.split("train").read_all(), readers):
            assert (frames == whole.split("train").read_all()).all()
        for reader in readers:
            for future in reader._arriving.values():
                future.result()
    received = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines() if ".tar" in line]
    assert len(received) == len(set(received))
    assert not list((cache / whole.id).glob("*.partial"))


def test_a_damaged_remote_shard_is_refused_when_it_is_needed(cache, published, tmp_path):
    (victim,) = published.glob("*/events-train-00000.tar")
    data = bytearray(victim.read_bytes())
    data[5000] ^= 1
    victim.write_bytes(data)
    with serving("http", published, tmp_path / "log") as (port, _):
        shards = open_set(f"http://127.0.0.1:{port}")
        shards.split("validation").read_all()
        with pytest.raises(ShardSetError, match=r"events-train-00000\.tar: not the file"):
            shards.split("train").read_all()


def test_the_set_used_longest_ago_goes_first(shard_set, cache, tmp_path, monkeypatch):
    sets = [shard_set(samples_per_shard=4, seed=seed) for seed in (1, 2, 3)]
    for shards in sets:
        push(shards, str(tmp_path / shards.parent.name))
    ids = [ShardSet(shards).id for shards in sets]
    room = sum(bytes_of(shards) for shards in sets[:2]) + 2000
    monkeypatch.setenv("SPIKEBRIDGE_CACHE_GB", str(room / 1e9))
    with serving("http", tmp_path, tmp_path / "log") as (port, _):

        def use(number):
            shards = open_published(f"http://127.0.0.1:{port}/{sets[number].parent.name}")
            for future in shards._arriving.values():
                future.result()
            return shards

        use(0).close()
        use(1).close()
        use(0).close()  # now 1 was used longest ago
        kept = use(2)
        assert (cache / ids[0]).is_dir()
        assert not (cache / ids[1]).exists()
        other = use(0)
        with pytest.raises(ShardSetError, match="sets in use take"):
            use(1)
        assert (cache / ids[0]).is_dir()
        assert (cache / ids[2]).is_dir()
        kept.close()
        other.close()
        use(1).close()
        monkeypatch.setenv("SPIKEBRIDGE_CACHE_GB", "0.0001")
        with pytest.raises(ShardSetError, match="Raise SPIKEBRIDGE_CACHE_GB, or fetch the set"):
            use(0)


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_no_number(monkeypatch, text):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE_GB", text)
    with pytest.raises(SettingsError, match="SPIKEBRIDGE_CACHE_GB"):
        cache_bytes()


@pytest.mark.usefixtures("without_matplotlib")
def test_training_from_an_address_gives_the_weights_of_the_folder(shard_set, cache, tmp_path):
    shards = shard_set(samples_per_shard=4, size=16)
    push(shards, str(tmp_path / "place"))
    changes = ["time_bins=4", "size=16", "epochs=1", "events_per_class=2", "extent='canvas'", "width=0.25"]
    options = [word for change in changes for word in ("--set", change)]

    def train(where, run):
        command = ["train", "--shards", where, "--recipe", "digits", "--run", str(run), *options, "--json"]
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    near = train(str(shards), tmp_path / "near")
    with serving("http", tmp_path / "place", tmp_path / "log") as (port, _):
        far = train(f"http://127.0.0.1:{port}", tmp_path / "far")
    assert near["test_accuracy"] == far["test_accuracy"]
    sums = [json.loads((tmp_path / run / "result.json").read_text())["weights_sha256"] for run in ("near", "far")]
    assert sums[0] == sums[1]
    shutil.rmtree(cache)
