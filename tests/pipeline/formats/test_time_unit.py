"""The unit of time: what cannot be is doubted aloud, with the unit that it likely is; what can be is not."""

import numpy as np
import pytest
from conftest import make_events

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.recording import decode, read
from spikebridge.pipeline.formats.tables.columns import TableOptions

USUAL = make_events(4, count=3000, size=(60, 40))


def saved(path, t, events=USUAL):
    np.savez(path, t=t, x=events.x, y=events.y, p=events.p)
    return path


@pytest.mark.parametrize(
    ("change", "likely"),
    [
        (lambda t: t, None),
        (lambda t: t * 20, None),  # 6 s
        (lambda t: t // 10, None),  # 30 ms
        (lambda t: t // 1000, "times in ms, or numbers of frames"),
        (lambda t: t // 300, "numbers of frames"),
        (lambda t: t * 1000, "times in ns"),
        (lambda t: t * 1000 + 1_600_000_000_000_000_000, "times in ns"),
        (lambda t: t * 1000 + 7, "times in ns"),
    ],
)
def test_whole_times(tmp_path, change, likely):
    found = decode(saved(tmp_path / "a.npz", change(USUAL.t)))
    assert len(found.facts.doubts) == (likely is not None)
    if likely:
        assert likely in found.facts.doubts[0]
        assert "--time-unit" in found.facts.doubts[0]
        assert read(tmp_path / "a.npz").doubts == found.facts.doubts


def test_busy_and_long_recordings_are_not_doubted(tmp_path):
    busy = make_events(1, count=500_000, size=(300, 200), duration_us=50_000)  # 10 million events a second
    assert decode(saved(tmp_path / "a.npz", busy.t, busy)).facts.doubts == ()
    drive = make_events(1, count=60_000, size=(30, 20), duration_us=60_000_000)
    assert decode(saved(tmp_path / "a.npz", drive.t, drive)).facts.doubts == ()
    few = make_events(1, count=20, duration_us=100)
    assert decode(saved(tmp_path / "a.npz", few.t, few)).facts.doubts == ()


def test_fractions_are_seconds_unless_that_cannot_be(tmp_path):
    found = decode(saved(tmp_path / "a.npz", USUAL.t / 1e6))
    np.testing.assert_array_equal(found.events.t, USUAL.t)
    assert found.facts.choices == ("times in s",)
    assert found.facts.doubts == ()
    for factor, unit in ((1e-3, "ms"), (1.0, "us")):
        with pytest.raises(RecordingError, match=rf"fractions, which would be seconds.*likely {unit}") as caught:
            read(saved(tmp_path / "a.npz", USUAL.t * factor + 0.25 * factor))
        assert caught.value.reason == "fractional"


def test_32_bit_seconds_lose_microseconds_aloud(tmp_path):
    assert decode(saved(tmp_path / "a.npz", (USUAL.t / 1e6).astype(np.float32))).facts.doubts == ()
    later = (USUAL.t / 1e6 + 500).astype(np.float32)
    assert "in steps of up to 30.5 us" in decode(saved(tmp_path / "a.npz", later)).facts.doubts[0]


def test_formats_that_state_their_unit_are_never_doubted(tmp_path):
    from event_files import EVT3_HEADER, evt3

    fast = Events(USUAL.t // 1000, USUAL.x, USUAL.y, USUAL.p)
    (tmp_path / "a.raw").write_bytes(EVT3_HEADER + evt3(fast))
    assert decode(tmp_path / "a.raw").facts.doubts == ()


def test_nanoseconds_beyond_63_bits(tmp_path):
    t = np.uint64(2**63) + USUAL.t.astype(np.uint64) * np.uint64(1000)
    found = read(saved(tmp_path / "a.npz", t), TableOptions(time_unit="ns"))
    np.testing.assert_array_equal(found.t - found.t[0], USUAL.t - USUAL.t[0])
