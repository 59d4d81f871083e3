"""What a machine is short of is no fault of a file: nothing is rejected for it, and the same command goes on."""

import errno
import os

import pytest
from conversions import contents, run

from spikebridge.pipeline.base.errors import PipelineError, RecordingError, blame_machine
from spikebridge.pipeline.formats.tables import hdf5_files
from spikebridge.pipeline.readers.digits import Digits

LOADER = compile("raise OSError('cannot load a shared object')", "loader", "exec")


def cannot_load(*_, **__):
    """Fail as llvmlite does where there is no memory for a compiled loop: without a number."""
    exec(LOADER, {"__name__": "llvmlite.binding.executionengine"})


def short(number):
    def read(*_, **__):
        raise OSError(number, os.strerror(number))

    return read


SHORT = [cannot_load, short(errno.ENOMEM), short(errno.EMFILE), short(errno.ENFILE)]


@pytest.mark.parametrize("fail", SHORT)
def test_a_conversion_stops_and_goes_on(digits_raw, tmp_path, monkeypatch, fail):
    run(digits_raw, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Digits, "read_recording", fail)
        with pytest.raises(PipelineError, match=r"memory or open files are short.*the same command again"):
            run(digits_raw, tmp_path / "set", max_bad=99)
    run(digits_raw, tmp_path / "set")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.parametrize("fail", SHORT)
def test_a_sound_file_is_not_called_damaged(tmp_path, monkeypatch, fail):
    monkeypatch.setattr("h5py.File", fail)
    with pytest.raises(PipelineError, match="Nothing is said against the file") as caught:
        hdf5_files.sensor_size(tmp_path / "a.h5")
    assert not isinstance(caught.value, RecordingError)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT])
def test_what_is_wrong_with_a_file_is(digits_raw, tmp_path, monkeypatch, number):
    monkeypatch.setattr(Digits, "read_recording", short(number))
    with pytest.raises(PipelineError, match=r"can be used \(21 unreadable\)"):
        run(digits_raw, tmp_path / "set", max_bad=99)
    blame_machine(ValueError("no number"), "a")
