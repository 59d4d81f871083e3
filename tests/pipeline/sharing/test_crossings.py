"""Where two faults or two processes meet: killed transfers, two at once, servers that fail, stall, lie or never end."""

import functools
import gzip
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, SUPPORT
from forked import run_forked
from servers import Files

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing import publish
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import CURRENT, pull, push


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.FIRST_PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def shards(shard_set):
    return Path(shard_set(samples_per_shard=4))


@pytest.fixture(scope="module")
def published(shards, tmp_path_factory):
    place = tmp_path_factory.mktemp("published")
    push(shards, str(place))
    return place


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name not in OUTSIDE}


@contextmanager
def answering(folder, handler, **attributes):
    """Serve a folder in this process; yields the address."""
    kind = type("Handler", (handler,), {"root": folder, "log": os.devnull, **attributes})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads, server.handle_error = True, lambda *_: None  # killed readers break their connections
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


# --- killed at any operation


@pytest.mark.parametrize(
    ("every", "readers", "seed"),
    [(131, 3, 0), pytest.param(1, 0, 0, marks=pytest.mark.long)]
    + [pytest.param(0, 8, seed, marks=pytest.mark.long) for seed in range(12)],
)
def test_killed_at_any_operation_the_next_process_goes_on_and_leaves_nothing(
    shards, published, tmp_path, every, readers, seed
):
    with answering(published, Files) as address:
        numbers = map(str, (every, readers, seed))
        command = [sys.executable, SUPPORT / "sudden_death.py", shards, address, tmp_path / "folder", *numbers]
        done = run_forked(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=1500)
    assert not any(json.loads(done.stdout).values()), done.stdout


# --- two at once


def test_several_pulls_into_one_folder(shards, published, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: pull(str(published), tmp_path / "set"), range(4)))
    assert len({each["id"] for each in done}) == 1
    assert contents(tmp_path / "set") == contents(shards)
    assert verify(tmp_path / "set").state == "whole"


def test_pulls_of_different_splits_into_one_folder_add_up(published, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        parts = [["train"], ["validation"], ["train"]]
        list(pool.map(lambda splits: pull(str(published), tmp_path / "set", splits=splits), parts))
    assert ShardSet(tmp_path / "set").present == ("train", "validation")
    assert verify(tmp_path / "set").state == "partial"


def test_another_set_waits_and_is_refused(shard_set, published, tmp_path):
    other = shard_set(samples_per_shard=4, seed=7)
    push(other, str(tmp_path / "other"))
    outcomes = Counter()

    def fetch(place):
        try:
            outcomes[pull(str(place), tmp_path / "set")["id"]] += 1
        except SettingsError:
            outcomes["refused"] += 1

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fetch, [published, tmp_path / "other"]))
    assert outcomes["refused"] == 1
    assert verify(tmp_path / "set").state == "whole"


def test_what_an_interrupted_pull_left_is_said_and_gone_with_the_next(shards, published, tmp_path):
    out = tmp_path / "set"
    pull(str(published), out, splits=["test"])
    for name in ("events-train-00000.tar.partial", ".manifest.json.partial", "SHA256SUMS.0123abcd.partial"):
        (out / name).write_bytes(b"half")
    (out / publish.PULL).touch()
    assert any("interrupted" in problem for problem in verify(out).problems)
    pull(str(published), out, splits=["test"])
    assert verify(out).state == "partial"
    assert not list(out.glob("*.partial"))
    assert not (out / publish.PULL).exists()


def test_a_damaged_claim_is_a_paragraph(published, tmp_path):
    (tmp_path / "set").mkdir()
    for text in ('{"id": 5}', "[" * 10**5, '{"id": "x"}', "\0"):
        (tmp_path / "set" / publish.PULL).write_text(text)
        with pytest.raises(SettingsError, match=r"\.pull\.json: .*Empty this folder, or choose another"):
            pull(str(published), tmp_path / "set")


# --- publishers


@pytest.mark.parametrize("flat", [False, True])
def test_a_published_file_of_the_right_size_and_wrong_content_is_sent_again(shards, tmp_path, flat):
    push(shards, str(tmp_path / "place"), flat=flat)
    (victim,) = (tmp_path / "place").rglob("events-train-00000.tar")
    data = bytearray(victim.read_bytes())
    data[5000] ^= 1
    victim.write_bytes(data)
    assert push(shards, str(tmp_path / "place"), flat=flat)["sent"] == 1
    assert push(shards, str(tmp_path / "place"), flat=flat)["sent"] == 0
    pull(str(tmp_path / "place"), tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shards)


def test_push_removes_what_killed_publishers_left_and_nothing_else(shards, tmp_path):
    place = tmp_path / "place"
    push(shards, str(place))
    (base,) = (path for path in place.iterdir() if path.is_dir())
    dead = [base / "events-train-00000.tar.0123abcd.partial", place / f"{CURRENT}.00000000.partial"]
    alive = base / "events-train-00000.tar.89abcdef.partial"
    others = [base / "thesis.0123abcd.partial", base / "events-train-00000.tar.partial"]
    for path in (*dead, alive, *others):
        path.write_bytes(b"half")
    with publish.FileLock(alive):
        push(shards, str(place))
    assert [path.exists() for path in (*dead, alive, *others)] == [False, False, True, True, True]


# --- servers


class Unreliable(Files):
    """Fails in another manner at the first three requests of every five for a path."""

    asked: Counter
    lock = threading.Lock()

    def _answer(self, *, body):
        with self.lock:
            self.asked[self.path] += 1
            turn = self.asked[self.path] % 5
        if turn == 1:
            self.send_error(503)
        elif turn == 2:
            self.close_connection = True
        elif turn == 3:
            data = (
                (self.root / self.path.lstrip("/")).read_bytes() if Path(self.root / self.path[1:]).is_file() else b""
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) + 10))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            super()._answer(body=body)


def test_a_server_that_fails_more_often_than_not(shards, published, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(tmp_path / "cache"))
    with answering(published, Unreliable, asked=Counter()) as address:
        pull(address, tmp_path / "set")
        opened = open_set(address)
        assert (opened.split("train").read_all() == ShardSet(shards).split("train").read_all()).all()
        for future in opened._arriving.values():
            future.result()
        opened.close()
    assert contents(tmp_path / "set") == contents(shards)


class Stalling(Files):
    """Sends half a body at the first request for a path, and then nothing for as long as the test takes."""

    asked: Counter
    over: threading.Event

    def _answer(self, *, body):
        self.asked[self.path] += 1
        if self.asked[self.path] > 1 or not (self.root / self.path[1:]).is_file():
            return super()._answer(body=body)
        data = (self.root / self.path[1:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.over.wait()
        self.close_connection = True


def test_a_server_that_stalls(shards, published, tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.sharing.http.STALL_S", 0.5)
    over = threading.Event()
    with answering(published, Stalling, asked=Counter(), over=over) as address:
        try:
            pull(address, tmp_path / "set", splits=["test"])
        finally:
            over.set()
    assert verify(tmp_path / "set").state == "partial"


@functools.cache
def bomb():
    return gzip.compress(bytes(2**27))


class Endless(Files):
    """Adds zeros to a body for ever; or says that it is packed, and sends a bomb."""

    victim: str
    packed: bool

    def _answer(self, *, body):
        if not self.path.endswith(self.victim):
            return super()._answer(body=body)
        self.send_response(200)
        part = bytes(2**20)
        if self.packed:
            self.send_header("Content-Encoding", "gzip")
            part = bomb()
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(part)
        except OSError:
            pass


LIMITED = """
import pathlib, resource, sys
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.sharing import cache, http
from spikebridge.pipeline.sharing.locations import open_folder
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import pull
status = pathlib.Path("/proc/self/status").read_text()
open_folder(sys.argv[2]).read_small("nothing")
taken = int(status.partition("VmSize:")[2].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + 500 * 2**20,) * 2)
for number, address in enumerate(sys.argv[2:]):
    try:
        pull(address, pathlib.Path(sys.argv[1]) / str(number))
    except ShardSetError as error:
        print(str(error).splitlines()[0])
    else:
        print("silent")
"""


def test_bodies_without_end_take_no_memory(published, tmp_path):
    victims = [CURRENT, "manifest.json", "static.h5", "events-test-00000.tar"]
    with ExitStack() as servers:
        addresses = [
            servers.enter_context(answering(published, Endless, victim=victim, packed=packed))
            for packed in (False, True)
            for victim in victims
        ]
        command = [sys.executable, "-c", LIMITED, str(tmp_path), *addresses]
        one_arena = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # else every thread reserves 128 MB
        done = subprocess.run(
            command, cwd=ROOT, env=one_arena, capture_output=True, text=True, timeout=500, check=False
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(victims)
    for line, victim in zip(lines, 2 * victims, strict=True):
        assert victim in line, lines
    assert all("larger than any manifest" in line for line in lines[:2])
    assert all("not the file that the manifest names" in line for line in lines[2:4])
    assert all("packed (gzip)" in line for line in lines[4:])
