"""Parts of a recording, cut in one pass, are what a mask over all of its events gives."""

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import LongEvents, pack, pack_chunks
from spikebridge.pipeline.events.parts import count_parts, find_runs, parts_of

MARKS = (("triggers", 3),)


def long(events, size):
    """The same recording, decoded anew in chunks whenever it is gone over."""

    def passes():
        for start in range(0, len(events), size):
            yield events.part(slice(start, start + size))
        yield Events(*Events.room(0).columns, passed_over=MARKS)

    found = pack_chunks(passes, sensor_size=(34, 34), source="x", most=0)
    assert isinstance(found, LongEvents)
    return found


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(1, 120),
    st.lists(st.tuples(st.integers(-50, 3_000), st.integers(1, 1_200)), min_size=1, max_size=6),
    st.booleans(),
)
def test_parts_are_what_a_mask_gives(seed, size, spans, of_time):
    events = make_events(seed, count=200, duration_us=3_000)
    events.t[:] += 777
    scale = 1 if of_time else 15
    intervals = [(start // scale, start // scale + length // scale + 1) for start, length in spans]
    position = events.t - events.t[0] if of_time else np.arange(len(events))
    marked = 0
    for recording in (pack(events, sensor_size=(34, 34), source="x"), long(events, size)):
        found = dict(parts_of(recording, intervals, of_time=of_time))
        assert set(found) == set(range(len(intervals)))
        for number, (start, stop) in enumerate(intervals):
            expected = events.part((position >= start) & (position < stop))
            if not len(expected):
                assert found[number] is None
                continue
            for ours, theirs in zip(found[number].unpack().columns, expected.columns, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            assert found[number].extent == (expected.x.max() + 1, expected.y.max() + 1)
            assert found[number].sha256() == pack(expected, sensor_size=(34, 34), source="x").sha256()
            marked += found[number].passed_over == MARKS
        if of_time:
            counted = count_parts(recording, intervals)
            assert counted.tolist() == [len(part) if (part := found[i]) else 0 for i in range(len(intervals))]
    assert marked == any(part is not None for part in found.values())  # told once


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_runs_between_pauses(size):
    t = np.array([5, 6, 8, 30, 31, 70, 71, 71, 80])
    zeros = np.zeros(len(t), np.int32)
    events = Events(t, zeros, zeros, zeros.astype(np.uint8))
    assert find_runs(long(events, size), 10) == [(0, 4), (25, 27), (65, 76)]
    assert find_runs(long(events, size), 100) == [(0, 76)]
    assert find_runs(long(events, size), 8) == [(0, 4), (25, 27), (65, 67), (75, 76)]
