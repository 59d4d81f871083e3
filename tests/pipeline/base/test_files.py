"""Files that are seen whole or not at all, and locks between processes."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from spikebridge.pipeline.base import files
from spikebridge.pipeline.base.files import FileLock, real_path, replacing, sha256_file, write_bytes


@pytest.mark.parametrize("sole_writer", [False, True])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, sole_writer):
    path = tmp_path / "a.json"
    write_bytes(path, b"old", sole_writer=sole_writer)
    with pytest.raises(IsADirectoryError), replacing(path, sole_writer=sole_writer) as partial:
        tmp_path.read_bytes() if partial.write_bytes(b"ne") else None
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", b"old")]


def test_several_writers_have_partial_files_of_their_own_and_a_sole_writer_always_the_same(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_bytes(b"1"), other.write_bytes(b"2")
    (tmp_path / ".a.json.partial").write_bytes(b"left by a killed process")
    write_bytes(path, b"new", sole_writer=True)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", b"new")]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*a\.json"):
        write_bytes(tmp_path / "a.json", b"x")
    assert not list(tmp_path.iterdir())


def test_a_file_is_safe_where_a_folder_cannot_be_flushed(tmp_path, monkeypatch):
    flush, calls = os.fsync, []

    def no_folders(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_bytes(tmp_path / "a.json", b"x")
    assert len(calls) == 2
    assert (tmp_path / "a.json").read_bytes() == b"x"
    write_bytes(tmp_path / "b.json", b"x", flush=False)
    assert len(calls) == 2


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(BlockingIOError):
        FileLock(path, wait=False)
    with FileLock(path, shared=True), FileLock(path, shared=True, wait=False), pytest.raises(BlockingIOError):
        FileLock(path, wait=False)
    FileLock(path, wait=False).release()


def test_a_killed_process_lets_its_lock_go(tmp_path):
    path = tmp_path / "lock"
    code = "import sys, time, pathlib\nfrom spikebridge.pipeline.base.files import FileLock\n"
    code += "lock = FileLock(pathlib.Path(sys.argv[1]))\nprint(flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(BlockingIOError):
            FileLock(path, wait=False)
        owner.kill()
    FileLock(path, wait=False).release()


def test_who_waited_for_a_file_that_its_owner_removed_locks_the_new_one(tmp_path, monkeypatch):
    path, wait = tmp_path / "lock", fcntl.flock

    def removed_meanwhile(descriptor, mode):
        monkeypatch.setattr(fcntl, "flock", wait)
        path.unlink()
        wait(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with FileLock(path), pytest.raises(BlockingIOError):
        FileLock(path, wait=False)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(_descriptor, _mode):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with FileLock(tmp_path / "lock", wait=False) as lock:
        assert not lock.held
    assert "no locks (No locks available)" in caplog.text


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SETTLED_NS", -1)
    hashed = []

    def count(path):
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(files, "sha256_file", count)
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = files.sha256_once(path)
    assert files.sha256_once(path) == first == sha256_file(path)
    assert len(hashed) == 1
    path.unlink()
    path.write_bytes(b"three")
    assert files.sha256_once(path) == sha256_file(path) != first
    assert len(hashed) == 2


def test_a_file_that_was_just_written_is_hashed_every_time(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"two", b"six"):  # faster than the clock of a file system ticks
        path.write_bytes(content)
        assert files.sha256_once(path) == sha256_file(path)


def test_a_link_in_a_circle_has_a_real_path(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert real_path(tmp_path / "loop") == tmp_path / "loop"
    assert real_path(tmp_path / "link" / "file") == tmp_path / "folder" / "file"


def test_only_paths_of_our_own_files_are_resolved_by_pathlib():
    lines = [
        f"{path}: {line.strip()}"
        for path in (ROOT / room for room in ("pipeline", "train", "models"))
        for path in path.rglob("*.py")
        for line in path.read_text().splitlines()
        if ".resolve(" in line and "__file__" not in line
    ]
    assert lines == []
