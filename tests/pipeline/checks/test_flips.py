"""No flipped bit is silent: `verify` finds it wherever it is, and reading gives what was stored or an error."""

import os
import shutil
import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from servers import Files

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import pull, push

STORED = [(format_, codec) for format_ in ("webdataset", "hdf5") for codec in ("raw", "gzip")]
FEW_OR_MANY = pytest.mark.parametrize("flips", [8, pytest.param(170, marks=pytest.mark.long)])
"""Of each of twelve kinds of sets (nine a day), of a part of one, and of a cache: 88 a day, 2,380 in the long run."""


def what_is_read(shards):
    """All that training takes from a set."""
    parts = [shards.id, shards.classes, shards.settings]
    for name in shards.present:
        split = shards.split(name)
        parts += [split.keys, split.labels.tobytes(), split.read_all().tobytes()]
        parts += [one.packed.sha256() for one in split.read_events(range(len(split)))] if split.framing else []
    pool = shards.static_pool()
    return [*parts, pool.keys, pool.labels.tobytes(), np.asarray(pool.images[np.arange(len(pool))]).tobytes()]


def is_silent(read, truth):
    try:
        return what_is_read(read()) != truth
    except ShardSetError:
        return False


def is_found(folder):
    try:
        return not verify(folder).ok
    except ShardSetError:
        return True


def flipped(folder, seed, flips, *, only="*"):
    """Flip a random bit of a random file at a time; yields the file and the bit, and puts the file right again."""
    rng = np.random.default_rng(seed)
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    names = [path for path in names if path.name not in manifests.OUTSIDE]  # which `verify` names as unchecked
    for number in range(flips):
        path = names[number % len(names)] if number < len(names) else names[rng.integers(len(names))]
        good = path.read_bytes()
        bad, bit = bytearray(good), int(rng.integers(8 * len(good)))
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        yield path, bit
        path.write_bytes(good)


def check_folder(folder, flips):
    truth = what_is_read(ShardSet(folder))
    assert not is_found(folder)
    silent = [
        (path.name, bit)
        for path, bit in flipped(folder, flips, flips)
        if not is_found(folder) or is_silent(lambda: ShardSet(folder), truth)
    ]
    assert not silent
    assert what_is_read(ShardSet(folder)) == truth


KINDS = [(store, *stored) for store in ("", "events") for stored in STORED]
KINDS += [("both", *STORED[0]), *(pytest.param("both", *stored, marks=pytest.mark.long) for stored in STORED[1:])]


@FEW_OR_MANY
@pytest.mark.parametrize(("store", "format_", "codec"), KINDS)
def test_of_a_shard_set(shard_set, tmp_path, store, format_, codec, flips):
    shutil.copytree(shard_set(store=store, format=format_, codec=codec), tmp_path / "set")
    check_folder(tmp_path / "set", flips)


@pytest.mark.long
@pytest.mark.parametrize(("format_", "codec"), STORED)
@pytest.mark.parametrize("store", ["events", "both"])
def test_of_event_shards(shard_set, tmp_path, store, format_, codec):
    """250 flips of event shards alone, in each of eight kinds."""
    shutil.copytree(shard_set(store=store, format=format_, codec=codec), tmp_path / "set")
    truth, missed = what_is_read(ShardSet(tmp_path / "set")), []
    for path, bit in flipped(tmp_path / "set", 3, 250, only="events-*[0-9].*"):
        if not is_found(tmp_path / "set") or is_silent(lambda: ShardSet(tmp_path / "set"), truth):
            missed.append((path.name, bit))
    assert not missed


@FEW_OR_MANY
def test_of_a_part_of_a_set(shard_set, tmp_path, flips):
    push(shard_set(), str(tmp_path / "place"))
    pull(str(tmp_path / "place"), tmp_path / "part", splits=["train", "test"])
    check_folder(tmp_path / "part", flips)


@contextmanager
def serving(folder):
    handler = type("Handler", (Files,), {"root": folder, "log": os.devnull})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@FEW_OR_MANY
def test_of_the_cache(shard_set, tmp_path, monkeypatch, flips):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.FIRST_PAUSE_S", 0.001)
    push(shard_set(), str(tmp_path / "place"))
    truth = what_is_read(ShardSet(shard_set()))

    def read():
        shards = open_set(address)
        for future in shards._arriving.values():
            future.result()
        shards.close()
        return shards

    with serving(tmp_path / "place") as address:
        assert what_is_read(read()) == truth
        online = [place for place in flipped(tmp_path / "cache", flips, flips) if is_silent(read, truth)]
    offline = [place for place in flipped(tmp_path / "cache", flips + 1, flips) if is_silent(read, truth)]
    assert not online + offline
    assert what_is_read(read()) == truth
