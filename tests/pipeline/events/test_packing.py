"""Packed events hold what the columns held; the compiled ways say no where the checks do."""

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import LONGEST_US, pack
from spikebridge.pipeline.formats import bin40

SENSOR = (34, 34)


def equal(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in "txyp")


def columns(t, x, y, p):
    return Events(np.array(t, np.int64), np.array(x, np.int32), np.array(y, np.int32), np.array(p, np.uint8))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(-(10**6), 10**12))
def test_packing_loses_nothing(seed, count, start):
    events = make_events(seed, count=count, size=(4096, 2048))
    events.t[:] += start
    packed = pack(events, sensor_size=(4096, 2048), source="a")
    assert equal(packed.unpack(), events)
    assert packed.extent == (events.x.max() + 1, events.y.max() + 1)
    assert packed.duration_us == events.duration_us


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 300), st.booleans())
def test_the_compiled_decoder_equals_the_plain_one(seed, count, from_corner):
    events = make_events(seed, count=count)
    events.x[:] = np.maximum(events.x, 5)
    packed = bin40.decode_packed(bin40.encode(events), sensor_size=SENSOR, source="a", from_corner=from_corner)
    if from_corner:
        events = Events(events.t, events.x - events.x.min(), events.y - events.y.min(), events.p)
    assert equal(packed.unpack(), events)
    assert packed.sha256() == pack(events, sensor_size=SENSOR, source="a").sha256()


def test_overflow_markers_add_their_time():
    events = columns([10, 20, 30], [1, 2, 3], [4, 5, 6], [0, 1, 0])
    data = bin40.encode(events)
    marker = bytes([0, bin40.OVERFLOW_Y, 0, 0, 0])
    found = bin40.decode_packed(data[:5] + marker + data[5:], sensor_size=SENSOR, source="a").unpack()
    assert found.t.tolist() == [10, 20 + 8192, 30 + 8192]
    with pytest.raises(RecordingError, match="no events"):
        bin40.decode_packed(marker * 3, sensor_size=SENSOR, source="a")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e.t.__setitem__(2, 0), "unsorted"),
        (lambda e: e.x.__setitem__(2, 34), "out_of_range"),
        (lambda e: e.x.__setitem__(2, -1), "out_of_range"),
        (lambda e: e.y.__setitem__(2, 34), "out_of_range"),
        (lambda e: e.p.__setitem__(2, 2), "polarity"),
        (lambda e: e.t.__setitem__(4, LONGEST_US + 2), "too_long"),
        (lambda e: e.t.__setitem__([0, 4], [-(2**63), 2**63 - 1]), "too_long"),  # the difference wraps
        (lambda e: e.t.__setitem__([0, 1, 2, 3, 4], [2**63 - 1] + [-(2**63)] * 4), "unsorted"),
    ],
)
def test_every_check_refuses(change, reason):
    events = columns([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 0, 1, 0])
    pack(events, sensor_size=SENSOR, source="a.bin")
    change(events)
    with pytest.raises(RecordingError, match=r"a\.bin") as caught:
        pack(events, sensor_size=SENSOR, source="a.bin")
    assert caught.value.reason == reason


def test_the_compiled_decoder_refuses_with_the_same_words():
    events = columns([1, 9, 3], [0, 1, 2], [0, 1, 2], [0, 1, 0])
    for bad, match in (
        (bin40.encode(events), "6 us earlier"),
        (bin40.encode(columns([1], [40], [0], [0])), "x runs from 40 to 40"),
        (b"", "0 bytes"),
        (b"1234567", "no multiple of 5"),
    ):
        with pytest.raises(RecordingError, match=match):
            bin40.decode_packed(bad, sensor_size=SENSOR, source="a.bin")


def test_the_hash_is_of_the_events_not_of_their_clock():
    events = make_events(0)
    later = Events(events.t + 77, events.x, events.y, events.p)
    other = Events(events.t, events.x, events.y, 1 - events.p)
    one, same, different = (pack(e, sensor_size=SENSOR, source="a").sha256() for e in (events, later, other))
    assert one == same != different


def test_a_sensor_larger_than_a_word_is_cut_to_what_it_holds():
    with pytest.raises(RecordingError, match="allows 0 to 4095"):
        pack(columns([0], [5000], [0], [0]), sensor_size=(8000, 100), source="a")


def test_memory_is_used_again_when_nobody_holds_it():
    first = pack(make_events(0, count=500), sensor_size=(34, 34), source="a")
    held, words = first.words[3:7], first.words.copy()
    second = pack(make_events(1, count=400), sensor_size=(34, 34), source="b")
    assert not np.shares_memory(first.words, second.words)
    assert np.array_equal(first.words, words)
    place = second.words.ctypes.data
    del second
    assert pack(make_events(2, count=300), sensor_size=(34, 34), source="c").words.ctypes.data == place
    del first
    pack(make_events(3, count=500), sensor_size=(34, 34), source="d")
    assert np.array_equal(held, words[3:7])
