"""Failures of a camera: what they do to events and counts, that a seed replays them, and what evaluate says."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_events
from run_folders import change_result

from spikebridge.cli import main
from spikebridge.pipeline.events.packing import TIME_SHIFT, pack
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.evaluation.corruption import CorruptedFrames, change_counts, change_events
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.evaluation.failures import CORRUPTIONS, FLICKER_HZ, HOT_HZ, parse_corruptions
from spikebridge.train.report.records import load_run
from spikebridge.train.report.run import kept_evaluation
from spikebridge.train.report.write import _reported
from spikebridge.train.trainer.run import train

SENSOR = (34, 34)
PIXELS = 34 * 34


@pytest.fixture(scope="module")
def events():
    return pack(make_events(0, count=20_000, duration_us=1_000_000), sensor_size=SENSOR, source="x")


def changed(events, name, level, seed=0):
    found = change_events(events, SENSOR, name=name, level=level, random=np.random.default_rng(seed))
    return np.empty(0, np.int64) if found is None else found.words


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_level_0_changes_nothing_and_a_seed_replays(events, name):
    assert np.array_equal(changed(events, name, 0.0), np.sort(events.words))
    level = CORRUPTIONS[name].levels[-1]
    first, again, other = (changed(events, name, level, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.all(np.diff(first >> TIME_SHIFT) >= 0)
    assert first.max() >> TIME_SHIFT <= events.duration_us


def test_events_are_added_and_lost_as_the_level_says(events):
    seconds = events.duration_us * 1e-6
    on = np.count_nonzero(events.words & 1)
    expected = {
        ("hot_pixels", 0.01): len(events) + round(0.01 * PIXELS) * HOT_HZ * seconds,
        ("background", 3.0): len(events) + 3 * PIXELS * seconds,
        ("flicker", 0.01): len(events) + 2 * 0.01 * FLICKER_HZ * PIXELS * seconds,
        ("polarity_imbalance", 0.6): len(events) - 0.6 * on,
        ("clock_jitter", 1e4): len(events),
    }
    for (name, level), count in expected.items():
        assert len(changed(events, name, level)) == pytest.approx(count, rel=0.03), name
    assert np.mean([len(changed(events, "dropped_bursts", 0.4, s)) for s in range(40)]) == pytest.approx(
        0.6 * len(events), rel=0.1
    )
    assert len(changed(events, "dropped_bursts", 1.0)) == 0
    assert np.count_nonzero(changed(events, "polarity_imbalance", 1.0) & 1) == 0


def test_counts_change_as_events_do():
    random = np.random.default_rng(0)
    counts = random.poisson(5, (10, 2, 17, 17))

    def change(name, level):
        return change_counts(counts, name, level, np.random.default_rng(1), seconds=1.0, pixels=PIXELS)

    added = {
        ("hot_pixels", 0.01): round(0.01 * PIXELS) * HOT_HZ,
        ("background", 3.0): 3 * PIXELS,
        ("flicker", 0.01): 2 * 0.01 * FLICKER_HZ * PIXELS,
    }
    for (name, level), count in added.items():
        assert np.all(change(name, 0.0) == counts)
        assert (change(name, level) - counts).sum() == pytest.approx(count, rel=0.1), name
    thinned = change("polarity_imbalance", 0.6)
    assert np.array_equal(thinned[:, 0], counts[:, 0])
    assert thinned[:, 1].sum() == pytest.approx(0.4 * counts[:, 1].sum(), rel=0.05)
    kept = change("dropped_bursts", 0.5)
    assert {bool(np.all(bin_ == 0)) for bin_ in kept} == {True, False}, "whole bins are lost"


def test_names_and_levels_are_checked():
    assert parse_corruptions(("background:2", "flicker")) == [
        ("background", 2.0),
        *(("flicker", level) for level in CORRUPTIONS["flicker"].levels),
    ]
    for text, words in (
        ("hotpixels:1", "did you mean hot_pixels"),
        ("flicker:x", "from 0 to 1"),
        ("hot_pixels:2", "2"),
    ):
        with pytest.raises(RunError, match=words):
            parse_corruptions((text,))


def batches(shards, name, level, size=4, seed=0):
    frames = CorruptedFrames(shards, "test", name=name, level=level, seed=seed)
    return torch.cat([batch for batch, _ in frames.batches(size, torch.device("cpu"))], 1)


def test_sets_of_events_and_of_frames_are_corrupted_whatever_the_batch(shard_set):
    stored, counted = ShardSet(shard_set(store="events", size=16)), ShardSet(shard_set(size=16))
    for shards in (stored, counted):
        found = partial(batches, shards, "background", 3.0)
        assert torch.equal(found(size=4), found(size=3))
        assert not torch.equal(found(), found(seed=1))
        assert found().sum() > batches(shards, "background", 0.0).sum()
    assert torch.equal(batches(stored, "clock_jitter", 0.0), batches(counted, "background", 0.0))
    both = ShardSet(shard_set(store="both", size=16))
    assert torch.equal(batches(both, "clock_jitter", 1e4), batches(stored, "clock_jitter", 1e4))
    with pytest.raises(RunError, match="single events can show it"):
        batches(counted, "clock_jitter", 10.0)
    with pytest.raises(RunError, match="reduction event"):
        batches(ShardSet(shard_set(reduction="event", size=16)), "background", 1.0)


def test_evaluate_scores_a_curve_and_draws_it(shard_set, tmp_path):
    shards = ShardSet(shard_set(store="events", size=16))
    names = ("dataset", "time_bins", "size", "reduction", "extent", "encoding", "protocol")
    settings = {"method": "event_only", "model": "scnn", "width": 0.3, "epochs": 1, "batch_size": 10, "lr": 1e-3}
    recipe = recipe_from({"shards": {name: shards.settings[name] for name in names}, "train": settings}, name="tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikebridge.train.report.write.find_spec", lambda name: None)  # no report behind it
        train(shards, recipe, tmp_path / "run", device="cpu")

    def run(*words, code=0):
        done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--shards", str(shards.path), *words])
        assert done.exit_code == code, done.output
        return done

    found = json.loads(run("--corrupt", "background", "--corrupt", "clock_jitter:0", "--json").stdout)
    assert [(row["name"], row["level"]) for row in found["corrupted"]] == [
        *(("background", level) for level in CORRUPTIONS["background"].levels),
        ("clock_jitter", 0.0),
    ]
    assert found["corrupted"][-1]["loss"] == pytest.approx(found["loss"]), "level 0 is the set as it is"
    assert found["corrupt_seed"] == 0
    assert "corrupted" not in (plain := json.loads(run("--json").stdout))
    assert "early_exit" not in plain
    assert plain["over_time"][-1]["accuracy"] == plain["accuracy"]
    assert plain["over_time"][-1]["ms"] == pytest.approx(4 * plain["over_time"][0]["ms"])
    text = run("--corrupt", "flicker:0.01", "--early-exit", "95", "--html", str(tmp_path / "page.html")).output
    assert "flicker" in text
    assert "of answers" in text
    assert "early exit, made to lose at most 95 points of accuracy, with 90% confidence" in text
    assert "are too few to promise" in run("--early-exit", "0.5").output
    halves = json.loads(run("--early-exit", "1", "--split", "validation", "--json").stdout)["early_exit"]
    assert halves["thresholds"] == [None, None]
    assert halves["chosen_on"] < halves["needed"] == 230
    assert halves["mean_ms"] > 0
    page = (tmp_path / "page.html").read_text()
    assert "Accuracy of a failing camera" in page
    assert "<svg" in page
    assert "early exit, made to lose at most 95 points" in page
    run("--html", str(tmp_path / "b.html"))
    assert "Accuracy over time" in (tmp_path / "b.html").read_text()
    assert "did you mean" in run("--corrupt", "flickr", code=1).output

    frames = evaluate(tmp_path / "run", shard_set(size=16))
    assert frames["shard_set"] != plain["shard_set"]
    assert not frames["foreign"], "the same samples, stored another way"
    assert (frames["accuracy"], frames["loss"]) == (plain["accuracy"], plain["loss"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikebridge.train.report.analysis.analyse", lambda run, result, shards: shards)  # takes seconds
        shown = _reported(load_run(tmp_path / "run"), ShardSet(shard_set(size=16)), prefix="", in_depth=False)
    assert shown.analysis is shown.shards is not None, "a report is of these samples, too"
    with pytest.raises(ShardMismatchError, match="with other samples"):
        evaluate(tmp_path / "run", shard_set(reduction="event", size=16))
    assert load_run(tmp_path / "run").evaluation is None
    assert "for a run's own shard set" in run("--keep", "--foreign", code=2).output
    run("--corrupt", "flicker", "--split", "validation", "--keep")
    kept = tmp_path / "run" / "evaluation.json"
    first = kept.read_bytes()
    assert "leave --keep out, or pass --overwrite" in " ".join(run("--keep", code=1).stderr.split())
    assert kept.read_bytes() == first
    run("--corrupt", "flicker", "--split", "validation", "--keep", "--overwrite")
    assert kept.read_bytes() == first
    record = load_run(tmp_path / "run")
    shown = kept_evaluation(record, prefix="run")
    assert "split validation, best weights" in shown
    assert shown.count("<svg") == 2, "over time, over the levels of flicker"
    change_result(tmp_path / "run", seed=7)
    assert load_run(tmp_path / "run").evaluation is None, "of a run that this is not"
    kept.write_bytes(kept.read_bytes().replace(b'"samples"', b'"Samples"'))
    with pytest.raises(RunError, match=r"evaluation.json.*Make it again with evaluate --keep"):
        load_run(tmp_path / "run")
