"""Event Stream of a DVS and an ATIS, packed files, and containers that are named with their converters."""

import gzip

import numpy as np
import pytest
from conftest import make_events
from event_files import event_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import assert_equal, reason, write

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats import event_stream as es
from spikebridge.pipeline.formats.recording import decode, ending, read, sensor_size, stem


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([2_000, 300_000]))
def test_round_trip(seed, atis, duration):
    events = make_events(seed, count=80, size=(346, 260), duration_us=duration)
    found = es.decode(event_stream(events, atis=atis, exposures=3 if atis else 0), source="x")
    assert_equal(found.events, events)
    assert found.facts.sensor_size == (346, 260)
    assert found.facts.passed_over == {"exposure measurements": 3 if atis else 0}


def test_event_streams_of_something_else(tmp_path):
    path = tmp_path / "a.es"
    data = event_stream(make_events(1, count=10))
    for content, expected in (
        (data[:-2], "truncated"),
        (data[:18], "truncated"),
        (data[:15] + b"\0" + data[16:], "format"),
        (data[:12] + b"\1" + data[13:], "format"),
        (b"Event Str", "format"),
    ):
        path.write_bytes(content)
        assert reason(read, path) == expected
    path.write_bytes(data[:15] + b"\0" + data[16:])
    with pytest.raises(RecordingError, match="generic events, which are no events of pixels"):
        read(path)
    assert sensor_size(write_named(tmp_path / "b.es")) == (346, 260)


def write_named(path):
    write(path)
    return path


@pytest.mark.parametrize("name", ["a.bin.gz", "a.csv.gz", "a.dat.gz", "A.BS2.GZ"])
def test_packed_files(tmp_path, name, monkeypatch):
    path = tmp_path / name
    events = make_events(3)
    plain = tmp_path / f"plain{ending(path).removesuffix('.gz')}"
    write(plain, events)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert_equal(read(path), events)
    assert stem(path).lower() == "a"
    content = plain.read_bytes()
    for kept, block in ((2**26, 64), (100, 64), (100, 2**19)):  # in memory, or unpacked in every pass
        monkeypatch.setattr("spikebridge.pipeline.formats.recording.KEPT_BYTES", kept)
        for module in ("recording", "source"):
            monkeypatch.setattr(f"spikebridge.pipeline.formats.{module}.BLOCK_BYTES", block)
        path.write_bytes(gzip.compress(content[:333]) + gzip.compress(content[333:]))
        assert_equal(read(path), events)
    path.write_bytes(path.read_bytes()[:-9])
    assert reason(read, path) == "truncated"
    path.write_bytes(b"\x1f\x8b\x08" + bytes(30))
    assert reason(read, path) in {"damaged", "truncated"}


def test_a_packed_file_of_much_less_than_it_says_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.bin.gz"
    path.write_bytes(gzip.compress(bytes(2**22)))
    monkeypatch.setattr("spikebridge.pipeline.formats.recording.allowed", lambda size: 2**20)
    assert reason(read, path) == "too_large"


def test_the_content_counts_before_the_ending(tmp_path):
    events = make_events(4)
    for name in ("a.es", "a.h5", "a.npz", "a.npy", "a.mat"):
        write(tmp_path / name, events)
        wrong = (tmp_path / name).rename(tmp_path / f"{name}.dat")
        assert_equal(read(wrong), events)
    first = bin40.encode(events)
    for magic in (b"\x1f\x8b\x08\0\0", b"PK\3\4\0", b"% evt", b"#!AE\0"):  # a first event may look like one
        (tmp_path / "b.bin").write_bytes(magic + first)
        assert len(read(tmp_path / "b.bin")) == len(events) + 1


@pytest.mark.parametrize("magic", [b"#ROSBAG V2.0\n", b"\x89MCAP0\r\n", b"SQLite format 3\0"])
def test_bags_are_named_with_the_converter(tmp_path, magic):
    (tmp_path / "a.bag").write_bytes(magic + bytes(100))
    with pytest.raises(RecordingError, match=r"a ROS [12] bag.*rosbag_to_h5.*bag_to_raw") as caught:
        read(tmp_path / "a.bag")
    assert caught.value.reason == "format"


def test_facts_of_a_plain_recording_say_nothing_more(tmp_path):
    write(tmp_path / "a.bin", make_events(5))
    found = decode(tmp_path / "a.bin")
    assert (found.facts.doubts, found.annotated().passed_over) == ((), ())
    assert found.events.x.dtype == np.int32
