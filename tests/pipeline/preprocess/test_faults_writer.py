"""What may happen to a conversion while it writes: kills at any moment, full disks, folders that cannot be written."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_digits_raw
from conversions import SMALL, contents, run
from forked import Forked, run_forked

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.files import replacing
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.static_pool import StaticImages, read_static, write_static
from spikebridge.pipeline.shards.writer import Sample, write_shard

NOBODY = 65534


def command(raw, out, *options):
    words = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    return [*words, "--static", str(raw), "--out", str(out), "--time-bins", "4", "--size", "12", *options]


@pytest.mark.parametrize(
    ("kills", "format_"),
    [
        (2, "hdf5"),
        pytest.param(20, "webdataset", marks=pytest.mark.long),
        pytest.param(20, "hdf5", marks=pytest.mark.long),
    ],
)
def test_killed_at_random_moments_and_continued_to_the_same_bytes(tmp_path, kills, format_):
    """Each kill takes the workers, too; every other moment is counted in shards, the others from the start."""
    raw = write_digits_raw(tmp_path / "raw", train=40, test=10)
    settings = replace(SMALL, samples_per_shard=1, format=format_)
    run(raw, tmp_path / "whole", settings)
    total = len(list((tmp_path / "whole").glob("*.idx.npy")))
    rng = np.random.default_rng(kills)
    goals = np.sort(rng.integers(1, int(0.9 * total), kills))
    interrupted = 0
    for number, goal in enumerate(goals):
        options = ["--samples-per-shard", "1", "--format", format_, "--workers", str(1 + number % 2)]
        words = command(raw, tmp_path / "set", *options)
        process = Forked(words, stderr=subprocess.DEVNULL, start_new_session=True)
        if number % 4 == 3:  # anywhere, also before anything is written
            time.sleep(rng.uniform(0, 2))
        else:
            deadline = time.monotonic() + 300
            while len(list(tmp_path.glob("set/*.idx.npy"))) < goal and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
        os.killpg(process.pid, signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
    assert interrupted >= kills // 2
    options = ["--samples-per-shard", "1", "--format", format_, "--workers", "1"]
    done = run_forked(command(raw, tmp_path / "set", *options), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "whole") == contents(tmp_path / "set")
    assert not (tmp_path / "set" / ".work").exists()


def test_a_full_disk_in_an_hdf5_shard(tmp_path):
    """The library behind HDF5 files has its own words and its own way to close; neither shows."""
    raw = write_digits_raw(tmp_path / "raw", train=60, test=10)
    options = ["--format", "hdf5", "--size", "48", "--time-bins", "10", "--samples-per-shard", "200", "--workers", "1"]
    words = command(raw, tmp_path / "set", *options)
    done = run_forked(words, largest_file=1000 * 1024, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert re.search(r"Error: .*events-(train|test)-00000\.h5.*the same command continues", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "HDF5" not in done.stderr
    assert not list(tmp_path.glob("set/*.partial"))
    assert not list(tmp_path.glob("set/events*"))


@contextmanager
def files_of_at_most(size):
    before, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module that is imported meanwhile would leave half a .pyc in the clone
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes


@pytest.mark.parametrize("size", [0, 2000, 100_000, 300_000])
def test_a_full_disk_in_the_static_file(shard_set, tmp_path, size):
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 48, 48), dtype=np.uint8)
    static = StaticImages.sort(
        images,
        labels=[0] * 300,
        keys=[f"static-0-{i:05d}" for i in range(300)],
        roles=["pool"] * 300,
        pixels_sha256=np.zeros((300, 32), np.uint8),
        num_classes=1,
    )
    with (
        files_of_at_most(size),
        pytest.raises(OSError, match=r"static\.h5"),
        replacing(tmp_path / "static.h5") as aside,
    ):
        write_static(aside, static)
    assert not list(tmp_path.iterdir())
    with replacing(tmp_path / "static.h5") as aside:
        write_static(aside, static)
    np.testing.assert_array_equal(read_static(tmp_path / "static.h5").images, images)


@pytest.mark.parametrize("codec", ["raw", "gzip"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_room_is_claimed_for_more_than_an_hdf5_file_takes(tmp_path, monkeypatch, count, codec):
    """A bound, and not by much: a disk with that room cannot be full when the library writes."""
    claimed = []
    for place in ("writer", "static_pool"):
        monkeypatch.setattr(f"spikebridge.pipeline.shards.{place}.reserve", lambda path, size: claimed.append(size))
    rng = np.random.default_rng(0)
    samples = [
        Sample(f"train-0-{i:05d}", 0, rng.integers(0, 256, (4, 2, 6, 6), dtype=np.uint8), "{}" * rng.integers(1, 200))
        for i in range(count)
    ]
    write_shard(tmp_path / "a.h5", samples, shape=(4, 2, 6, 6), dtype=np.dtype("u1"), key_bytes=13, codec=codec)
    taken = [(tmp_path / "a.h5").stat().st_size]
    if count:
        static = StaticImages.sort(
            rng.integers(0, 256, (count, 3, 9, 9), dtype=np.uint8),
            labels=[i % 7 for i in range(count)],
            keys=[f"static-{i % 7}-{i:05d}" for i in range(count)],
            roles=["pool"] * count,
            pixels_sha256=np.zeros((count, 32), np.uint8),
            num_classes=7,
        )
        write_static(tmp_path / "static.h5", static)
        taken.append((tmp_path / "static.h5").stat().st_size)
    for most, size in zip(claimed, taken, strict=True):
        assert size <= most < size + 2**17


@contextmanager
def without_rights():
    """As a user whom the file system can forbid something."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed():
    """A folder that everybody may read and nobody may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        for path in (folder / "empty", folder):
            path.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_output_that_cannot_be_written(digits_raw, closed):
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw)
    for out in (closed / "new", closed / "empty"):
        with without_rights(), pytest.raises(SettingsError, match=r"cannot be made \(Permission denied\).*--out"):
            convert(conversion, out)
    assert sorted(path.name for path in closed.rglob("*")) == ["empty"]


def test_a_finished_set_that_cannot_be_written_is_up_to_date_and_whole(closed):
    closed.chmod(0o755)
    digits_raw = write_digits_raw(closed / "raw")
    run(digits_raw, closed / "set")
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw)
    for path in [closed / "set", *(closed / "set").iterdir()]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) | stat.S_IROTH)
    (closed / "set").chmod(0o555)
    with without_rights():
        assert convert(conversion, closed / "set").up_to_date
        assert verify(closed / "set").ok
    (closed / "set").chmod(0o755)


@pytest.mark.parametrize(
    "trick",
    [
        "pipe:touch {mark}",
        "pipe: touch {mark} | cat",
        "$(touch {mark})",
        "`touch {mark}`",
        "; touch {mark}",
        "| touch {mark}",
        "file:pipe:touch {mark}",
        "set{{0..9}}.tar",
        "set::pipe:touch {mark}",
        "http://127.0.0.1:9/$(touch {mark})",
        "gopen:touch {mark}",
        "-",
        "--",
        "",
        "\n",
        "a" * 5000,
    ],
)
@pytest.mark.parametrize(
    "verb", ["verify", "preprocess", "inspect", "pull", "push", "convert", "diff", "finish", "simulate", "train"]
)
def test_tricks_in_arguments(tmp_path, monkeypatch, verb, trick):
    """Never a shell, never more than one path: the tricks of addresses that the stock reader would run or expand."""
    from click.testing import CliRunner

    from spikebridge.cli import main

    monkeypatch.chdir(tmp_path)
    for number in range(10):
        (tmp_path / f"set{number}.tar").write_bytes(b"")
    before = sorted(os.listdir(tmp_path))
    text = trick.format(mark=tmp_path / "MARK")
    words = {
        "verify": ["verify", text],
        "inspect": ["inspect", text],
        "pull": ["pull", text, "fetched"],
        "push": ["push", text, "there"],
        "convert": ["convert", text, "--format", "hdf5", "--out", "made"],
        "diff": ["diff", text, text],
        "finish": ["finish", text],
        "simulate": ["simulate", "--images", text, "--out", "made"],
        "train": ["train", "--shards", text, "--recipe", "digits", "--run", "run"],
        "preprocess": ["preprocess", "--dataset", "digits", "--events", text, "--static", text, "--out", "made"],
    }[verb]
    done = CliRunner().invoke(main, words)
    assert done.exit_code in (1, 2, 4), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert sorted(os.listdir(tmp_path)) == before
