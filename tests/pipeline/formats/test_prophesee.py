"""Prophesee's formats: EVT 2.0, 2.1 and 3.0 with everything that is no event in them, and DAT in both layouts."""

import numpy as np
import pytest
from conftest import make_events
from event_files import EVT2_HEADER, EVT3_HEADER, EVT21_HEADER, dat, evt2, evt3, evt21, later
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import EVENTS, assert_equal, reason

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.prophesee import dat as dat_format
from spikebridge.pipeline.formats.prophesee import evt
from spikebridge.pipeline.formats.recording import decode, read, sensor_size

BARE_EVT21 = b"% evt 2.1\n% geometry 1280x720\n% end\n"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([100_000, 40_000_000]))
def test_evt21_round_trip(seed, duration):
    events = make_events(seed, count=200, size=(1280, 720), duration_us=duration)
    found = evt.decode(EVT21_HEADER + evt21(events), source="x")
    assert_equal(found.events, events)
    assert found.facts.sensor_size == (1280, 720)
    assert not any(found.facts.passed_over.values())


@pytest.mark.parametrize("legacy", [False, True])
def test_evt21_in_both_orders_of_bytes(tmp_path, legacy):
    path = tmp_path / "a.raw"
    header = EVT21_HEADER.replace(b"little", b"legacy" if legacy else b"little")
    path.write_bytes(header + evt21(EVENTS, legacy=legacy))
    assert_equal(read(path), EVENTS)
    path.write_bytes(BARE_EVT21 + evt21(EVENTS, legacy=legacy))
    assert_equal(read(path), EVENTS)
    assert decode(path).facts.choices == (
        f"order of bytes {'legacy' if legacy else 'little'}, by the words themselves",
    )
    path.write_bytes(BARE_EVT21 + bytes(8))  # one word of zeros: both
    assert reason(read, path) == "format"


def test_evt21_vectors():
    words = [(8 << 28 | 3) << 32, (1 << 28 | 5 << 22 | 64 << 11 | 9) << 32 | 0x80000005]
    found = evt.decode(EVT21_HEADER + np.array(words, "<u8").tobytes(), source="x").events
    assert found.t.tolist() == [3 * 64 + 5] * 3
    assert (found.x.tolist(), found.y.tolist(), found.p.tolist()) == ([64, 66, 95], [9] * 3, [1] * 3)


def between(data, width, words):
    """A stream of words with others at its front, in its middle, and at its end."""
    middle = len(data) // width // 2 * width
    extra = np.array(words, f"<u{width}").tobytes()
    return data[:middle] + extra + data[middle:] + extra


@pytest.mark.parametrize(
    ("header", "encode", "width", "words", "counts"),
    [
        (EVT2_HEADER, evt2, 4, [10 << 28, 14 << 28 | 7, 15 << 28, 5 << 28], (1, 2, 0, 1)),
        (EVT21_HEADER, evt21, 8, [10 << 60, 14 << 60, 15 << 60, 12 << 60], (1, 2, 0, 1)),
        (EVT3_HEADER, evt3, 2, [0xA001, 0xE000, 0x7123, 0xF000, 0x9999, 0x9999, 0x1000, 0xB000, 0x9998], (1, 3, 2, 3)),
    ],
)
def test_what_is_no_event_is_passed_over_and_counted(tmp_path, header, encode, width, words, counts):
    path = tmp_path / "a.raw"
    path.write_bytes(header + between(encode(EVENTS), width, words))
    found = decode(path)
    assert_equal(found.events, EVENTS)
    names = ("triggers", "other words", "padding words", "reserved words")
    assert tuple(found.facts.passed_over[name] for name in names) == tuple(2 * count for count in counts)
    assert f"{2 * counts[3]:,} of" in found.facts.doubts[0]
    assert read(path).doubts == found.facts.doubts


def test_padding_alone_is_no_doubt(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(EVT3_HEADER + evt3(EVENTS) + b"\x99\x99" * 500)
    found = decode(path)
    assert_equal(found.events, EVENTS)
    assert found.facts.passed_over["padding words"] == 500
    assert found.facts.doubts == ()


def test_events_before_the_first_time_are_counted():
    found = evt.decode(EVT3_HEADER + b"\x07\x00\x03\x20" + evt3(EVENTS), source="x")
    assert_equal(found.events, EVENTS)
    assert found.facts.passed_over["events before the first time stamp"] == 1


def test_headers_of_raw_files_are_bytes(tmp_path):
    path = tmp_path / "a.raw"
    for name in ("Élan Vidéo".encode(), "Fa\xdfbender".encode("latin-1")):
        path.write_bytes(
            b"% camera_integrator_name " + name + b"\n% evt 3.0\n% geometry 640x480\n% end\n" + evt3(EVENTS)
        )
        assert_equal(read(path), EVENTS)
        assert sensor_size(path) == (640, 480)


SMALL = make_events(7, count=300, size=(304, 240))


@pytest.mark.parametrize(
    ("layout", "version", "kind", "said"),
    [
        (2, 2, 0x0C, ()),
        (2, 2, 0x00, ()),
        (2, 1, 0x00, ("version 1 in the header: layout 2 by the events",)),
        (2, None, 0x0C, ("no version in the header: layout 2 by the events",)),
        (1, 1, 0x00, ()),
        (1, None, 0x00, ("no version in the header: layout 1 by the events",)),
        (1, 2, 0x00, ("version 2 in the header: layout 1 by the events",)),
    ],
)
@pytest.mark.parametrize("size", [(304, 240), None])
def test_dat_in_both_layouts(tmp_path, layout, version, kind, said, size):
    path = tmp_path / "a.dat"
    path.write_bytes(dat(SMALL, layout=layout, version=version, kind=kind, size=size))
    found = decode(path)
    assert_equal(found.events, SMALL)
    assert found.facts.choices == said
    assert sensor_size(path) == size


def test_dat_that_fits_both_layouts_or_none_is_refused(tmp_path):
    path = tmp_path / "a.dat"
    still = Events(np.arange(5), np.full(5, 3, np.int32), np.zeros(5, np.int32), np.zeros(5, np.uint8))
    for version in (None, 1):
        path.write_bytes(dat(still, version=version))
        with pytest.raises(RecordingError, match="both layouts of DAT fit its 5 events") as caught:
            read(path)
        assert caught.value.reason == "format"
    path.write_bytes(dat(still))
    assert_equal(read(path), still)
    path.write_bytes(dat(make_events(1, size=(640, 480)), size=(304, 240)))
    assert reason(read, path) == "damaged"


def test_dat_whose_clock_wraps_and_dat_that_is_cut(tmp_path):
    path = tmp_path / "a.dat"
    events = later(SMALL, 2**32 - 150_000)
    path.write_bytes(dat(events))
    assert_equal(read(path), events)
    data = dat(SMALL)
    for content, expected in (
        (data[:-3], "truncated"),
        (b"", "empty"),
        (b"% Version 2\n\x0c", "truncated"),
        (b"% Version 2\n\x0e\x08" + bytes(8), "format"),
        (b"anything else", "format"),
    ):
        path.write_bytes(content)
        assert reason(read, path) == expected
    assert dat_format.sensor_size(dat(SMALL, size=(304, 240)), "x") == (304, 240)
