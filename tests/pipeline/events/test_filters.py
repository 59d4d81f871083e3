"""Event filters: equal to a plain loop over the events, to tonic's where those are right, and counted."""

import json
import warnings

import numpy as np
import pytest
from conftest import make_events, write_digits_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import PipelineError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.filters import Filters
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


def structured(events):
    out = np.empty(len(events), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    for name in "xytp":
        out[name] = getattr(events, name)
    return out


def rows(events):
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


def apply(filters, events):
    """Filter a recording of a small sensor."""
    left, taken = filters.apply(pack(events, sensor_size=(64, 64), source="a"), source="a")
    return left.unpack(), taken


def plain_refractory(events, period):
    last, kept = {}, []
    for row in rows(events):
        if row[1:3] not in last or row[0] - last[row[1:3]] > period:
            kept.append(row)
        last[row[1:3]] = row[0]
    return kept


def plain_background(events, within):
    last, kept = {}, []
    for t, x, y, p in rows(events):
        beside = [last.get((x + dx, y + dy)) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        if any(time is not None and t - time < within for time in beside):
            kept.append((t, x, y, p))
        last[x, y] = t
    return kept


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(50, 400), st.integers(1, 60_000))
def test_refractory_and_background_equal_plain_loops(seed, count, us):
    events = make_events(seed, count=count, size=(6, 5))
    for filters, plain in (
        (Filters(refractory_us=us), plain_refractory(events, us)),
        (Filters(background_us=us), plain_background(events, us)),
    ):
        if not plain:
            with pytest.raises(RecordingError, match="no event"):
                apply(filters, events)
            continue
        left, taken = apply(filters, events)
        assert rows(left) == plain
        assert sum(taken.values()) == count - len(plain)


def test_equal_to_tonic_where_tonic_is_right():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.functional import denoise_numpy, refractory_period_numpy
    events = make_events(1, count=2000, size=(12, 9))
    events.t[:] += 50_000  # tonic's are wrong near t = 0
    for filters, theirs in (
        (Filters(refractory_us=20_000), refractory_period_numpy(structured(events), 20_000)),
        (Filters(background_us=3_000), denoise_numpy(structured(events), 3_000)),
    ):
        left, _ = apply(filters, events)
        np.testing.assert_array_equal(structured(left), theirs)
        assert 0 < len(left) < len(events)


def test_tonic_is_wrong_near_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tonic.functional import denoise_numpy, refractory_period_numpy
    one = Events(np.array([0]), np.array([3]), np.array([3]), np.array([1], np.uint8))
    assert len(refractory_period_numpy(structured(one), 10)) == 0  # its first event came after nothing
    assert len(apply(Filters(refractory_us=10), one)[0]) == 1
    two = Events(np.array([0, 5]), np.array([0, 3]), np.array([0, 3]), np.array([1, 1], np.uint8))
    assert len(denoise_numpy(structured(two), 10)) > 0  # nobody supports either
    with pytest.raises(RecordingError, match=r"no event of 2 is left .*background 2"):
        apply(Filters(background_us=10), two)


def test_a_hot_pixel_is_taken_out_and_a_time_window_cut():
    events = make_events(2, count=1000)
    hot = np.arange(0, 1000, 5)
    events.x[hot], events.y[hot] = 7, 9
    at = (events.x == 7) & (events.y == 9)
    left, taken = apply(Filters(hot_pixels=20), events)
    assert rows(left) == [row for row, out in zip(rows(events), at, strict=True) if not out]
    assert taken == {"hot_pixels": int(at.sum())}
    left, taken = apply(Filters((100_000, 200_000)), events)
    since = events.t - events.t[0]
    assert taken["time_window"] == int(((since < 100_000) | (since >= 200_000)).sum())
    assert len(left) + taken["time_window"] == 1000


def test_filters_work_one_after_the_other():
    events = make_events(4, count=600, size=(8, 8))
    both = Filters(time_window_us=(0, 150_000), refractory_us=2_000)
    left, taken = apply(both, events)
    first, _ = apply(Filters((0, 150_000)), events)
    second, _ = apply(Filters(refractory_us=2_000), first)
    assert rows(left) == rows(second)
    assert list(taken) == ["time_window", "refractory"]


def test_a_conversion_counts_what_was_filtered(tmp_path):
    raw = write_digits_raw(tmp_path / "raw")
    wanted = ConversionSettings(dataset="digits", time_bins=4, size=12, hot_pixels=3.0, refractory_us=1_000)
    made = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set", workers=1)
    totals = made.manifest["events"]
    assert totals["filtered_hot_pixels"] > 0
    assert totals["events"] == 300 * 21
    assert verify(tmp_path / "set").ok
    shards = ShardSet(tmp_path / "set")
    frames = sum(int(split.read_all().sum()) for split in shards.splits.values())
    filtered = sum(value for name, value in totals.items() if name.startswith("filtered_"))
    assert frames + totals["dropped_events"] + filtered == totals["events"]
    assert made.manifest["settings"]["hot_pixels"] == 3.0


def test_a_recording_that_is_all_noise_is_a_reject(tmp_path):
    raw = write_digits_raw(tmp_path / "raw")
    wanted = ConversionSettings(dataset="digits", time_bins=4, size=12, background_us=1)
    with pytest.raises(PipelineError, match=r"none of the 21 recordings can be used \(21 filtered\)"):
        convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set", max_bad=21)
    rejects = (tmp_path / "set" / ".work" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == ["filtered"] * 21
