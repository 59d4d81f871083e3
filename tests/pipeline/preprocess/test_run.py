"""Conversion: same bytes whoever does it and wherever, resumption after a kill, refusal of what is not ours."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, write_digits_raw, write_nmnist_raw
from conversions import SMALL, contents, run
from deadly import environment, sleeper
from forked import Forked, run_forked

from spikebridge.pipeline.base.errors import LayoutError, PipelineError, SettingsError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.manifest import read
from spikebridge.pipeline.shards.reader import ShardSet


def preprocess(raw, out, *options, env=None, umask=0o022):
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    command += ["--static", str(raw), "--out", str(out), "--time-bins", "4", "--size", "12", "--samples-per-shard", "4"]
    return subprocess.run(
        [*command, *options],
        env={**os.environ, **(env or {})},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("format_", "workers"), [("webdataset", "2"), ("hdf5", "1")])  # 2: see test_faults_writer.py
def test_same_bytes_in_another_folder_zone_locale_and_number_of_workers(digits_raw, tmp_path, format_, workers):
    run(digits_raw, tmp_path / "here", replace(SMALL, format=format_))
    elsewhere = tmp_path / "else where" / "ünïcode"
    shutil.copytree(digits_raw, elsewhere / "raw")
    for path in elsewhere.rglob("*.bin"):
        os.utime(path, (1, 1))
    env = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "77", "HOME": str(tmp_path)}
    done = preprocess(
        elsewhere / "raw", elsewhere / "set", "--workers", workers, "--format", format_, env=env, umask=0o077
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "here") == contents(elsewhere / "set")
    assert verify(elsewhere / "set").ok


def test_no_file_is_decoded_twice(digits_raw, tmp_path, monkeypatch):
    """Recordings and images alike, also where a conversion goes on after an interruption or is repeated.

    With the dtype given: to choose it, a bounded number of recordings is looked at before.
    """
    from spikebridge.pipeline.readers.digits import Digits

    decoded, stop = [], [0]

    def counted(method):
        whole = getattr(Digits, method)

        def read(self, item, **options):
            stop[0] -= 1
            if stop[0] == 0:
                raise KeyboardInterrupt
            decoded.append(item.path)
            return whole(self, item, **options)

        monkeypatch.setattr(Digits, method, read)

    counted("read_packed")
    counted("read_image")
    stop[0] = 35  # 21 images, three shards of four, and one recording more
    settings = replace(SMALL, dtype="uint8", dtype_open=False)
    with pytest.raises(KeyboardInterrupt):
        run(digits_raw, tmp_path / "set", settings)
    del decoded[-1]  # of the shard that was not finished
    for _ in range(2):
        run(digits_raw, tmp_path / "set", settings)
    files = [path for path in digits_raw.rglob("*") if path.suffix in (".bin", ".png")]
    assert sorted(decoded) == sorted(files)


def test_again_does_nothing(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").iterdir()}
    assert run(digits_raw, tmp_path / "set").up_to_date
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").iterdir()}


def test_other_settings_are_refused_with_the_difference(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    with pytest.raises(SettingsError, match="time_bins: 4 there, 5 wanted"):
        run(digits_raw, tmp_path / "set", replace(SMALL, time_bins=5))
    assert (
        run(digits_raw, tmp_path / "set", replace(SMALL, time_bins=5), overwrite=True).manifest["sample"]["shape"][0]
        == 5
    )


def test_other_raw_data_is_noticed(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    next((digits_raw / "events").rglob("*.bin")).unlink()
    with pytest.raises(SettingsError, match="raw data"):
        run(digits_raw, tmp_path / "set")


def test_a_folder_of_something_else_is_never_touched(digits_raw, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=r"chapter1\.tex"):
            run(digits_raw, tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    with pytest.raises(SettingsError, match="is a file"):
        run(digits_raw, tmp_path / "thesis" / "chapter1.tex")


def test_killed_and_resumed_gives_the_same_bytes(digits_raw, tmp_path):
    """Killed over a recording, twice, a set of frames and events; `test_faults_writer` kills at any moment."""
    run(digits_raw, tmp_path / "whole", replace(SMALL, samples_per_shard=1, store="both"))
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(digits_raw)]
    command += ["--static", str(digits_raw), "--out", str(tmp_path / "set"), "--time-bins", "4", "--size", "12"]
    command += ["--samples-per-shard", "1", "--dtype", "uint8", "--store", "both", "--workers", "1"]
    for shards in (3, 9):
        slow = ShardSet(tmp_path / "whole").split("train").keys[shards].rpartition("-")[2] + ".bin"
        env = environment(tmp_path / f"start{shards}", slow=slow)
        process = Forked(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        assert sleeper(tmp_path / f"start{shards}") == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list(tmp_path.glob("set/events-*.idx.npy"))) >= shards
        assert not (tmp_path / "set" / "manifest.json").exists()
    done = run_forked(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "whole") == contents(tmp_path / "set")


def test_interrupt_keeps_finished_shards_and_says_so(tmp_path):
    raw = write_digits_raw(tmp_path / "raw", train=40, test=10)
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    command += ["--static", str(raw), "--out", str(tmp_path / "set"), "--samples-per-shard", "1", "--workers", "2"]
    process = Forked(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("set/events-*.idx.npy"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "set").glob("*.partial"))
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, workers):
    raw = write_digits_raw(tmp_path / "raw", train=20, test=10)
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    command += ["--static", str(raw), "--out", str(tmp_path / "set"), "--workers"]
    done = run_forked([*command, workers], largest_file=300 * 1024, capture_output=True)  # a shard is larger
    assert done.returncode == 1
    assert re.search(r"events-(train|test)-00000\.tar: File too large", done.stderr)  # whichever came first
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("set/events-t*"))
    assert not list(tmp_path.glob("set/*.partial"))
    run_forked([*command, "1"], capture_output=True, check=True)
    assert verify(tmp_path / "set").ok


def test_two_writers_on_one_output(digits_raw, tmp_path):
    import fcntl

    (tmp_path / "set" / ".work").mkdir(parents=True)
    with open(tmp_path / "set" / ".work" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="another process"):
            run(digits_raw, tmp_path / "set")
    assert run(digits_raw, tmp_path / "set").manifest


def break_recording(raw, kind):
    path = next((raw / "events" / "Train").rglob("*.bin"))
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[:-2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "out_of_range":
        path.write_bytes(bytes([200]) + data[1:])
    elif kind == "unsorted":
        path.write_bytes(data[5:] + data[:5])
    elif kind == "no_static_image":
        (raw / "static" / path.relative_to(raw / "events")).with_suffix(".png").unlink()
    elif kind == "unreadable_image":
        (raw / "static" / path.relative_to(raw / "events")).with_suffix(".png").write_bytes(b"no image")
    return path


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "out_of_range", "unsorted", "no_static_image", "unreadable_image"]
)
def test_bad_recordings_fail_or_are_rejected(digits_raw, tmp_path, kind):
    path = break_recording(digits_raw, kind)
    with pytest.raises(PipelineError, match=rf"(?s){path.stem}.*--max-bad"):
        run(digits_raw, tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
    bad = 2 if kind == "unreadable_image" else 1  # the image, and the recording that needs it
    outcome = run(digits_raw, tmp_path / "set", max_bad=bad)
    assert len(outcome.rejects) == bad
    assert {line["reason"] for line in outcome.rejects} >= {kind}
    assert outcome.manifest["rejected"] == bad
    samples = sum(split["samples"] for split in outcome.manifest["splits"].values())
    assert samples == 20
    assert verify(tmp_path / "set").ok
    again = run(digits_raw, tmp_path / "set", max_bad=bad)
    assert again.up_to_date
    assert again.rejects == tuple(sorted(outcome.rejects, key=lambda line: (line["kind"], line["name"])))
    with pytest.raises(PipelineError):
        run(digits_raw, tmp_path / "set")


def test_a_copy_of_a_test_recording_in_training_is_refused(digits_raw, tmp_path):
    source = next((digits_raw / "events" / "Test").rglob("*.bin"))
    victim = next((digits_raw / "events" / "Train" / source.parent.name).rglob("*.bin"))
    victim.write_bytes(source.read_bytes())
    with pytest.raises(PipelineError, match="two splits"):
        run(digits_raw, tmp_path / "set")


def test_a_renamed_or_reencoded_source_image_stays_out_of_the_pool(digits_raw, tmp_path):
    from PIL import Image

    source = next((digits_raw / "static" / "Test").rglob("*.png"))
    target = digits_raw / "static" / "Train" / source.parent.name
    shutil.copy(source, target / "90001.png")
    Image.open(source).convert("RGB").save(target / "90002.png", compress_level=0)
    outcome = run(digits_raw, tmp_path / "set")
    assert outcome.manifest["static"]["roles"]["duplicate"] == 2
    assert verify(tmp_path / "set").ok


@pytest.mark.parametrize("compressed", [False, True])
def test_nmnist_with_a_subset_of_the_recordings(tmp_path, compressed):
    raw = write_nmnist_raw(tmp_path / "raw", compressed=compressed)
    shutil.rmtree(raw / "events" / "Train" / "2")
    settings = replace(SMALL, dataset="nmnist")
    conversion = prepare(settings, events_root=raw / "events", static_root=raw / "static")
    assert any("found 8 of 60,000" in line for line in conversion.report())
    manifest = convert(conversion, tmp_path / "set").manifest
    assert [split["samples"] for split in manifest["splits"].values()] == [6, 2, 6]
    # Pool: 12 training images less the photographs of the 2 validation recordings.
    assert manifest["static"]["roles"] == {"pool": 10, "validation": 2, "test": 6, "duplicate": 0}


def test_limit_classes_and_csv(digits_raw, tmp_path):
    limited = run(digits_raw, tmp_path / "a", replace(SMALL, limit=6, classes=("1", "2"))).manifest
    assert limited["classes"] == ["1", "2"]
    assert sum(split["samples"] for split in limited["splits"].values()) == 6
    names = sorted(p.relative_to(digits_raw / "events").with_suffix("") for p in digits_raw.glob("events/*/*/*.bin"))
    csv = tmp_path / "splits.csv"
    rows = [f"{name},{('train', 'validation', 'test')[i % 3]}" for i, name in enumerate(names[:9])]
    csv.write_text("recording,split\n" + "\n".join(rows) + "\n")
    conversion = prepare(SMALL, events_root=digits_raw, static_root=digits_raw, splits=csv)
    manifest = convert(conversion, tmp_path / "b").manifest
    assert [split["samples"] for split in manifest["splits"].values()] == [3, 3, 3]
    assert verify(tmp_path / "b").ok


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda raw: [shutil.rmtree(raw / "events"), (raw / "events").mkdir()], "is empty"),
        (lambda raw: (raw / "events").rename(raw / "recordings"), r"expected {Train,Test}/<digit>"),
        (
            lambda raw: (raw / "events" / "Train" / "0").rename(raw / "events" / "Train" / "zero"),
            "not a digit's folder",
        ),
        (lambda raw: (raw / "events" / "Train" / "0" / "stray.dat").write_text("x"), "is no recording"),
        (lambda raw: (raw / "static").rename(raw / "images"), "static folder"),
        (lambda raw: (raw / "static" / "Train" / "0" / "x.jpg").write_bytes(b""), "does not belong here"),
    ],
)
def test_wrong_layouts(digits_raw, spoil, expected):
    spoil(digits_raw)
    with pytest.raises(LayoutError, match=expected):
        prepare(SMALL, events_root=digits_raw / "events", static_root=digits_raw / "static")


def test_frames_are_those_of_the_recording(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    split = ShardSet(tmp_path / "set").split("test")
    key = split.keys[0]
    _, label, stem = key.split("-")
    events, _ = bin40.decode((digits_raw / f"events/Test/{label}/{stem}.bin").read_bytes(), source="x")
    since = events.t - events.t[0]
    step = since[-1] // 4
    expected = np.zeros((4, 2, 12, 12), np.uint8)
    kept = since < 4 * step
    np.add.at(expected, (since[kept] // step, events.p[kept], events.y[kept] * 12 // 34, events.x[kept] * 12 // 34), 1)
    np.testing.assert_array_equal(split.read([0])[0], expected)


def test_nothing_of_the_machine_is_in_the_manifest(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    text = (tmp_path / "set" / "manifest.json").read_text() + (tmp_path / "set" / "README.md").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    assert read(tmp_path / "set")["simulated"] is True
    assert "simulated" in (tmp_path / "set" / "README.md").read_text()


def test_checksums_are_those_of_sha256sum(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "set")
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "set", capture_output=True, check=False)
    assert done.returncode == 0
