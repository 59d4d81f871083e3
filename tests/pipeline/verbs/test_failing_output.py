"""Where verbs write to may be full, or closed: a paragraph names file and place, and never a traceback."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

from spikebridge import cli
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.sharing.publish import pull, push


@contextmanager
def largest_file(size):
    """Files end at a size, as on a disk that is full."""
    before, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module that is imported meanwhile would leave half a .pyc in the clone
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes


def failed(*words):
    with largest_file(2000):
        done = CliRunner().invoke(cli.main, list(map(str, words)))
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    return done.output


def test_pull_names_the_file_keeps_what_arrived_and_goes_on(shard_set, tmp_path):
    push(shard_set(samples_per_shard=4), str(tmp_path / "place"))
    out = tmp_path / "set"
    said = failed("pull", tmp_path / "place", out)
    assert str(out) in said
    assert "File too large. What arrived is kept; once that is mended, the same command continues." in said
    assert "half-written" not in said
    assert max(path.stat().st_size for path in out.glob("*.partial")) == 2000
    pull(str(tmp_path / "place"), out)
    assert verify(out).state == "whole"


def test_push_names_the_file_there_and_leaves_nothing_half_written(shard_set, tmp_path):
    said = failed("push", shard_set(samples_per_shard=4), tmp_path / "place")
    assert f"{tmp_path / 'place'}/" in said
    assert ": File too large. What was sent before is whole and stays" in said
    assert "Check the address" not in said
    assert not list((tmp_path / "place").rglob("*.partial"))
    push(shard_set(samples_per_shard=4), str(tmp_path / "place"))


def test_simulate_names_the_file(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.effect_noise((34, 34), 90).save(tmp_path / "images" / "a" / "one.png")
    with largest_file(300):
        done = CliRunner().invoke(
            cli.main, ["simulate", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "raw")]
        )
    assert done.exit_code == 1
    assert f"{tmp_path / 'raw'}/" in done.output
    assert "File too large. Nothing half-written was kept. Once that is mended" in done.output
    assert not [path for path in (tmp_path / "raw").rglob("*.partial")]


def test_what_is_no_matter_of_writing_does_not_speak_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.checks.verify.verify", lambda *_, **__: os.stat(tmp_path / "none"))
    done = CliRunner().invoke(cli.main, ["verify", str(tmp_path)])
    assert (
        done.output
        == f"Error: {tmp_path / 'none'}: No such file or directory. Once that is mended, the same command continues.\n"
    )


def test_too_little_memory_is_a_paragraph(tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.checks.verify.verify", lambda *_, **__: bytearray(2**62))
    done = CliRunner().invoke(cli.main, ["verify", str(tmp_path)])
    assert (done.exit_code, done.output) == (1, "Error: there is not enough memory for this. What is finished stays.\n")


VERBS = [
    ["datasets"], ["datasets", "nmnist"], ["verify", "SET"], ["inspect", "SET"], ["diff", "SET", "SET"], ["doctor"],
    ["push", "SET", "OUT/place"], ["pull", "SET", "OUT/pulled"], ["convert", "SET", "--out", "OUT/hdf5"],
    ["recipes", "list"], ["recipes", "show", "digits"], ["grids", "list"], ["completion", "bash"], ["--help"],
]  # fmt: skip


@pytest.mark.parametrize("words", VERBS, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("closed", ["by its reader", "before the start"])
def test_a_closed_stdout_is_no_traceback(shard_set, tmp_path, monkeypatch, capfd, words, closed):
    words = [word.replace("SET", str(shard_set())).replace("OUT", str(tmp_path)) for word in words]
    reader, writer = os.pipe()
    os.close(reader)
    out = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", out if closed == "by its reader" else None)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code in (0, 1)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(BrokenPipeError) if closed == "by its reader" else nothing():
        out.close()


@contextmanager
def nothing():
    yield


def test_head_ends_a_verb_without_a_word(tmp_path):
    code = f"{sys.executable} -m spikebridge datasets | head -1"
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.replace("Next: spikebridge datasets NAME\n", "") == ""
