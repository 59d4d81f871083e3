"""The checks that every recording passes before it is binned."""

import numpy as np
import pytest

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events, check_events


def events(t=(0, 1, 2), x=(0, 1, 2), y=(0, 1, 2), p=(0, 1, 0)):
    return Events(np.array(t, np.int64), np.array(x, np.int32), np.array(y, np.int32), np.array(p, np.uint8))


def test_good_events_pass():
    check_events(events(t=(5, 5, 7)), sensor_size=(3, 3), source="a.bin")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (events(t=(), x=(), y=(), p=()), "empty"),
        (events(t=(5, 4, 6)), "unsorted"),
        (events(x=(0, 1, 3)), "out_of_range"),
        (events(y=(0, -1, 2)), "out_of_range"),
        (events(p=(0, 2, 1)), "polarity"),
    ],
)
def test_bad_events_are_named(bad, reason):
    with pytest.raises(RecordingError, match=r"a\.bin") as caught:
        check_events(bad, sensor_size=(3, 3), source="a.bin")
    assert caught.value.reason == reason


def test_duration_of_degenerate_recordings():
    assert events(t=(), x=(), y=(), p=()).duration_us == 0
    assert events(t=(9,), x=(0,), y=(0,), p=(0,)).duration_us == 0
