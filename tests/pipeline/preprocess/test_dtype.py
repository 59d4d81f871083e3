"""uint16 where uint8 would clip more than 1 % of a set's events: once per set, whoever converts; a setting insists."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_events
from conversions import SMALL, contents, run
from own_folders import converted, planned, put_recording, write_own

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.framing import narrow
from spikebridge.pipeline.preprocess import survey
from spikebridge.pipeline.preprocess.array_jobs import Sources, convert_share, finish_shares
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """Two classes of five recordings of 400 events; one cell of one recording gets 600 more: 8 % of all are clipped."""
    raw = write_own(tmp_path_factory.mktemp("busy"), size=(30, 20))
    quiet = make_events(0, count=400, size=(30, 20))
    more = np.linspace(0, 90_000, 600).astype(np.int64)
    t = np.concatenate([quiet.t, more])
    order = np.argsort(t, kind="stable")
    fill = lambda column, value: np.concatenate([column, np.full(600, value)])[order]  # noqa: E731
    busy = Events(t[order], fill(quiet.x, 3), fill(quiet.y, 3), fill(quiet.p, 1).astype(np.uint8))
    put_recording(raw / "events" / "cat" / "r0.npz", busy)
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    return raw


def test_the_set_is_uint16_whoever_converts_it(busy, tmp_path):
    manifest = converted(busy, tmp_path / "set")
    assert manifest["settings"]["dtype"] == "uint16"
    assert manifest["sample"]["dtype"] == "<u2"
    assert manifest["events"]["saturated_cells"] == 0
    done = convert(planned(busy), tmp_path / "again")
    assert ", stored as uint16 (uint8 would clip 7." in done.lines["events"]
    assert done.manifest["self_sha256"] == manifest["self_sha256"]
    assert max(split.read_all().max() for split in ShardSet(tmp_path / "set").splits.values() if len(split)) >= 600
    sources = Sources(busy, busy)
    for number in (2, 1):
        convert_share(planned(busy), tmp_path / "shares", sources, share=(number, 2))
    finish_shares(tmp_path / "shares")
    assert contents(tmp_path / "shares") == contents(tmp_path / "set")


def test_a_setting_insists_and_little_clipping_is_no_reason(busy, tmp_path):
    insisted = converted(busy, tmp_path / "set", dtype="uint8")
    assert insisted["settings"]["dtype"] == "uint8"
    assert insisted["events"]["saturated_cells"] > 0
    (note,) = insisted["notes"]
    assert note.startswith("warning: ")
    assert note.endswith(" % of the events are clipped by uint8: --dtype uint16")
    calm = write_own(tmp_path / "calm")
    assert converted(calm, tmp_path / "calm-set")["settings"]["dtype"] == "uint8"
    assert converted(busy, tmp_path / "rates", reduction="bilinear")["settings"]["dtype"] == "float16"


def test_it_is_decided_once_and_the_decision_is_kept(busy, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    converted(busy, whole)
    assert convert(planned(busy), whole).up_to_date
    out = tmp_path / "set"
    monkeypatch.setattr("spikebridge.pipeline.preprocess.run.record_plan", stop := StopAfterPlan())
    with pytest.raises(KeyboardInterrupt):
        converted(busy, out)
    monkeypatch.undo()
    assert stop.dtype == "uint16"
    plan = json.loads((out / ".work" / "plan.json").read_text())
    assert plan["settings"]["dtype"] == "uint16"
    monkeypatch.setattr(survey, "_draw", None)  # nothing is looked at again
    converted(busy, out)
    assert contents(out) == contents(whole)


class StopAfterPlan:
    """Writes the plan down as a conversion does, and interrupts it there."""

    dtype = ""

    def __call__(self, conversion, out):
        from spikebridge.pipeline.preprocess.output import record_plan

        record_plan(conversion, out)
        self.dtype = conversion.settings.dtype
        raise KeyboardInterrupt


def test_of_a_large_set_a_sample_is_drawn_by_hash(busy, monkeypatch):
    from spikebridge.pipeline.preprocess.plan import PlannedSample

    conversion = planned(busy)
    samples = [PlannedSample(r.name, r, None) for r in conversion.used]
    draw = lambda samples: [s.key for s in survey._draw(samples, conversion.settings)]  # noqa: E731
    assert set(draw(samples)) == {s.key for s in samples}
    monkeypatch.setattr(survey, "MOST_LOOKED_AT", 6)
    assert len(six := draw(samples)) == 6
    assert draw(samples[::-1]) == six
    monkeypatch.setattr(survey, "BYTES_LOOKED_AT", 1)
    assert draw(samples) == six[: survey.FEWEST_LOOKED_AT]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_narrow_counts_what_is_lost(dtype):
    counts = np.array([0, 255, 256, 1000], np.uint16)
    frames, cells, events = narrow(counts, dtype)
    assert frames.dtype == dtype
    assert (cells, events) == ((2, 746) if dtype == "uint8" else (0, 0))
    assert frames.tolist() == ([0, 255, 255, 255] if dtype == "uint8" else counts.tolist())


def test_an_unfinished_set_of_a_given_type_goes_on_in_it(digits_raw, tmp_path):
    run(digits_raw, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "set")
    assert run(digits_raw, tmp_path / "set", replace(SMALL, dtype="uint8", dtype_open=False)).up_to_date
