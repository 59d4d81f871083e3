"""Inputs as people have them, from a folder beside the project: the same events, or a refusal that says what to do.

The folder is no part of the project; copies of every kind are written by the other tests.
"""

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats.recording import decode
from spikebridge.pipeline.formats.tables.columns import TableOptions

FOLDER = ROOT.parent / "shared" / "realworld"
REAL = ROOT.parent / "shared" / "realdata" / "files"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the inputs are not here")


def columns(path, **options):
    events = decode(path, TableOptions(**options)).events
    return [column.tolist() for column in (events.t - events.t[0], events.x, events.y, events.p)]


@pytest.fixture(scope="module")
def plain():
    """The events that all inputs of 64x48 pixels hold."""
    return columns(FOLDER / "npz-ns" / "esim.npz", time_unit="ns")


@pytest.mark.parametrize(
    "name",
    [
        "aedat31/gesture.aedat",
        "bs2/1.bs2",
        "bs2/1.bin.gz",
        "dat/cd.dat",
        "dat/event2d.dat",
        "evt21/evt21.raw",
        "h5-mvsec/mvsec.hdf5",
        "h5-seconds/e2vid.h5",
        "h5-v2e-table/v2e.h5",
        "mat-td-struct/td.mat",
        "npz-polarity-1-2/one_two.npz",
    ],
)
def test_the_same_events(plain, name):
    assert columns(FOLDER / name) == plain
    assert decode(FOLDER / name).facts.doubts == ()


@pytest.mark.parametrize("name", ["accent.aedat", "accent_whole.aedat"])
def test_headers_with_accents(name):
    folder = FOLDER / "aedat2-header-accent"
    assert columns(folder / name) == columns(folder / "plain.aedat")


@pytest.mark.parametrize(
    ("name", "size"),
    [("aedat2-davis-chip/davis240.aedat", (240, 180)), ("aedat2-davis-no-chip/davis346.aedat", (346, 260))],
)
def test_davis(plain, name, size):
    """The bar of the other inputs, drawn larger: same times and polarities, x and y grow with theirs."""
    t, x, y, p = columns(FOLDER / name)
    assert (t, p) == (plain[0], plain[3])
    assert decode(FOLDER / name).facts.sensor_size == size
    for found, expected in ((x, plain[1]), (y, plain[2])):
        assert np.corrcoef(found, expected)[0, 1] > 0.98


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("npy-pickle/dict.npy", r"Python objects \(a pickle\).*numpy\.savez"),
        ("npz-polarity-1-2/evimo.npz", r"polarities \[0, 1, 2, 3\]"),
    ],
)
def test_refused_with_what_to_do(name, said):
    with pytest.raises(RecordingError, match=said) as caught:
        decode(FOLDER / name)
    assert caught.value.reason != "damaged"


@pytest.mark.parametrize(
    ("name", "likely"), [("npz-ns/esim.npz", "in ns"), ("npz-frame-index/frames.npz", "in ms, or numbers")]
)
def test_doubted_aloud(name, likely):
    assert likely in decode(FOLDER / name).facts.doubts[0]


def test_real_files():
    def extent(name):
        events = decode(REAL / name).events
        return len(events), *(int(f(c)) for c in (events.x, events.y) for f in (np.min, np.max))

    assert extent("sample_ncars.dat") == (2009, 0, 77, 0, 41)
    assert extent("RotatingBar.aedat") == (45000, 70, 170, 39, 139)
    assert extent("sample.aedat4")[0] == 111_954
    assert extent("event.txt")[0] == 17
    assert decode(REAL / "evt3_sample.raw").events.duration_us == 8801
    with pytest.raises(RecordingError, match="generic events"):
        decode(REAL / "generic.es")
    assert Path(REAL / "README.md").exists()
