"""Users without a home, code that nobody may change: a private folder takes the caches, said once."""

import logging
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from spikebridge.pipeline.base import places


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """An unknown user without HOME; returns the folder for temporary files."""
    for name in ("HOME", "XDG_CACHE_HOME", "SPIKEBRIDGE_CACHE", places.NUMBA_FOLDER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places._fall_back.cache_clear()
    yield tmp_path
    places._fall_back.cache_clear()


def only_there(monkeypatch, folder):
    """Nothing can be written but below one folder."""
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(folder)))


def test_with_a_home_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPIKEBRIDGE_CACHE", raising=False)
    monkeypatch.delenv(places.NUMBA_FOLDER, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.cache_folder() == tmp_path / ".cache" / "spikebridge"
    places.place_compiled_code(tmp_path)
    only_there(monkeypatch, tmp_path)
    places.place_compiled_code(ROOT)  # numba takes the user's cache folder by itself
    assert places.NUMBA_FOLDER not in os.environ


def test_an_unknown_user_without_home_gets_a_private_folder_and_is_told_once(homeless, caplog):
    with caplog.at_level(logging.WARNING):
        folders = {places.cache_folder(), places.cache_folder()}
    assert folders == {homeless / f"spikebridge-{os.getuid()}" / "spikebridge"}
    assert (homeless / f"spikebridge-{os.getuid()}").stat().st_mode & 0o777 == 0o700
    assert len(caplog.records) == 1


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_that_somebody_else_could_write_is_not_taken(homeless, trap):
    path = homeless / f"spikebridge-{os.getuid()}"
    if trap == "open":
        path.mkdir()
        path.chmod(0o777)
    elif trap == "link":
        (homeless / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(homeless / "elsewhere")
    else:
        path.touch()
    assert places.temporary_folder() != path
    assert places.temporary_folder().stat().st_mode & 0o777 == 0o700


def test_numba_gets_a_folder_where_it_has_none(homeless, monkeypatch):
    only_there(monkeypatch, homeless)
    places.place_compiled_code(ROOT)
    assert os.environ[places.NUMBA_FOLDER] == str(homeless / f"spikebridge-{os.getuid()}" / "numba")


UNKNOWN = """
import os, pwd
real = os.access
def access(path, mode, **more):
    return not (mode & os.W_OK and str(path).startswith(os.environ["CODE"])) and real(path, mode, **more)
os.access = access
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
"""


@pytest.mark.long
def test_every_step_runs_for_an_unknown_user_with_code_that_cannot_be_written(digits_raw, tmp_path):
    (tmp_path / "preload").mkdir()
    (tmp_path / "preload" / "sitecustomize.py").write_text(UNKNOWN)
    (tmp_path / "tmp").mkdir()
    path = os.pathsep.join([str(tmp_path / "preload"), str(ROOT / "src")])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp"), "CODE": str(ROOT)}
    changes = ["time_bins=4", "size=16", "epochs=1", "extent='canvas'", "width=0.25"]
    shards, run = str(tmp_path / "shards"), str(tmp_path / "run")
    options = ["--events", str(digits_raw), "--static", str(digits_raw), "--out", shards]
    commands = [
        ["preprocess", "--dataset", "digits", *options, "--time-bins", "4", "--size", "16", "--workers", "2"],
        ["train", "--shards", shards, "--recipe", "digits", "--run", run, *(w for c in changes for w in ("--set", c))],
        ["evaluate", run, "--shards", shards],
        ["doctor"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "spikebridge", *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("no cache folder of this user can be written") == 1, done.stderr
    assert list((tmp_path / "tmp" / f"spikebridge-{os.getuid()}" / "numba").rglob("*.nbi"))
    assert not (tmp_path / "~").exists()
