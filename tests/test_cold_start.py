"""Eight trainings start at once with one cold cache; killed at random, they end with the weights of one undisturbed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from forked import Forked
from servers import Files

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing.publish import push
from spikebridge.train.runs.checkpoints import tensors_sum

CHANGES = ["time_bins=4", "size=16", "epochs=3", "events_per_class=2", "extent='canvas'", "width=0.25"]


@contextmanager
def serving(folder):
    handler = type("Handler", (Files,), {"root": folder, "log": os.devnull})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.handle_error = True, lambda *_: None  # killed readers break their connections
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def start(where, run):
    options = [word for change in CHANGES for word in ("--set", change)]
    command = [sys.executable, "-m", "spikebridge", "train", "--shards", where, "--recipe", "digits", "--run", run]
    with open(f"{run}.stderr", "a") as errors:
        return Forked(
            [*map(str, command), *options, "--checkpoint-every", "1"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip


def weights(run):
    return tensors_sum(run / "weights" / "best.safetensors")


@pytest.mark.long
@pytest.mark.usefixtures("without_matplotlib")
def test_eight_trainings_with_one_cold_cache_killed_at_random(shard_set, tmp_path, monkeypatch):
    cache, rng = tmp_path / "cache", random.Random(0)
    monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(cache))
    shards = ShardSet(shard_set(samples_per_shard=4, size=16))
    push(shards.path, str(tmp_path / "place"))
    undisturbed = start(shards.path, tmp_path / "undisturbed")
    assert undisturbed.wait(500) == 0, Path(f"{tmp_path / 'undisturbed'}.stderr").read_text()

    def signs(run: Path) -> int:
        """How far a training and the cache are: files there, lines logged."""
        log = run / "metrics.jsonl"
        return len(list(cache.rglob("*"))) + (len(log.read_bytes().splitlines()) if log.exists() else 0)

    runs = [tmp_path / f"run{number}" for number in range(8)]
    killed = 0
    with serving(tmp_path / "place") as address:
        at_work = {run: (start(address, run), rng.choice([1, 5, 10, 20, 31, 33])) for run in runs}
        deadline = time.monotonic() + 1500
        while at_work:
            assert time.monotonic() < deadline
            for run, (process, limit) in list(at_work.items()):
                code = process.poll()
                if code is None and limit and signs(run) >= limit:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed += 1
                    at_work[run] = start(address, run), rng.choice([0, 0, 33, 34])
                elif code is not None:
                    assert code == 0, Path(f"{run}.stderr").read_text()
                    del at_work[run]
            time.sleep(0.02)
    assert killed >= 8
    assert {weights(run) for run in runs} == {weights(tmp_path / "undisturbed")}
    assert not [path for path in (cache / shards.id).iterdir() if path.suffix == ".partial"]
