import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_shards import FakeShardSet, tiny_recipe
from inline_workers import Inline

from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.errors import MethodError, RecipeError
from spikebridge.train.report.records import load_run
from spikebridge.train.report.several import _kept_evaluations
from spikebridge.train.runs.folder import RunFolder, read_result
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies import compare as comparison
from spikebridge.train.studies.compare import compare, format_table
from spikebridge.train.studies.grids import Evaluated


def test_compare_resumes_and_reports(tmp_path, monkeypatch):
    shards = FakeShardSet(tmp_path / "shards")
    recipe, out = tiny_recipe(), tmp_path / "compare"
    real = RunFolder.finish
    calls = []

    def stop(self, result):
        calls.append(self.path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, result)

    monkeypatch.setattr(RunFolder, "finish", stop)
    arguments = (shards, recipe, ["event_only", "kt"], [0, 1], out)
    with pytest.raises(KeyboardInterrupt):
        compare(*arguments, overrides=["epochs=2"], device="cpu")
    table = compare(*arguments, overrides=["epochs=2"], device="cpu")
    assert calls == ["event_only-seed0", "kt-seed0", "event_only-seed1", "event_only-seed1", "kt-seed1"]
    assert table == json.loads((out / "compare.json").read_text())
    kt = table["methods"]["kt"]
    assert kt["n"] == 2
    assert [run["seed"] for run in kt["runs"]] == [0, 1]
    accuracies = [run["test_accuracy"] for run in kt["runs"]]
    assert kt["test_accuracy_mean"] == pytest.approx(sum(accuracies) / 2)
    assert kt["test_accuracy_std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    gain = table["differences"][0]
    assert (gain["method"], gain["minus"]) == ("kt", "event_only")
    event_only = [run["test_accuracy"] for run in table["methods"]["event_only"]["runs"]]
    assert gain["values"] == [a - b for a, b in zip(accuracies, event_only, strict=True)]
    assert table["recipe"]["train"]["epochs"] == 2
    text = format_table(table)
    assert "kt minus event_only" in text
    assert "simulated" in text
    assert "24 training, 9 validation, 12 test" in text
    assert "12 test recordings: each is 8.3 points" in text
    assert "interval" not in text  # of 12 recordings it would mean nothing


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two, as far as `compare` asks; their workers are this process, on its CPU."""
    workers = Inline()
    monkeypatch.setattr(comparison, "usable_gpus", lambda _: 2)

    def open_workers(*, processes, initializer):
        assert (processes, initializer) == (2, comparison.begin_worker)
        return contextlib.nullcontext(workers)

    monkeypatch.setattr(comparison, "open_workers", open_workers)
    return workers


def test_with_several_gpus_each_run_is_a_workers(shard_set, tmp_path, two_gpus):
    recipe = load_recipe("digits", overrides=["time_bins=4", "size=16", "extent='canvas'", "epochs=1", "width=0.1"])
    out = tmp_path / "out"
    arguments = (shard_set(size=16), recipe, ["event_only"], [0, 1], out)
    table = compare(*arguments, device="cpu")
    assert [Path(run).name for run in two_gpus.done] == ["event_only-seed0", "event_only-seed1"]
    assert [run["run"] for run in table["methods"]["event_only"]["runs"]] == ["event_only-seed0", "event_only-seed1"]
    assert compare(*arguments, device="cpu") == table  # nothing is trained again
    assert len(two_gpus.done) == 2
    compare(*arguments, device="cpu", overwrite=True)
    assert len(two_gpus.done) == 4
    (out / "event_only-seed1" / "result.json").unlink()
    (out / "event_only-seed1" / "config.toml").write_text("no recipe")
    with pytest.raises(RecipeError, match="event_only-seed1"):  # in the words of a run alone
        compare(*arguments, device="cpu")
    assert len(two_gpus.done) == 4


def test_one_seed_has_no_deviation(tmp_path):
    shards = FakeShardSet(tmp_path / "shards", binning="bins")
    options = {"device": "cpu", "backend": "torch"}
    table = compare(shards, tiny_recipe(epochs=1), ["event_only"], [7], tmp_path / "out", **options)
    assert read_result(tmp_path / "out" / "event_only-seed7")["backend"] == "torch"
    entry = table["methods"]["event_only"]
    assert entry["test_accuracy_std"] is None
    assert entry["n"] == 1
    assert table["differences"] == []
    assert "±  " not in format_table(table)
    asked = Evaluated((("background", 1.0),), (1.0, 150.0), 95.0, "test")
    again = compare(shards, tiny_recipe(epochs=1), ["event_only"], [7], tmp_path / "out", evaluated=asked, **options)
    found = again["methods"]["event_only"].pop("evaluated")
    kept = json.loads((tmp_path / "out" / "event_only-seed7" / "evaluation.json").read_text())
    assert found["background:1"] == {"mean": kept["corrupted"][0]["accuracy"], "std": None}
    assert found["accuracy"]["mean"] == entry["test_accuracy_mean"]
    assert found["after_1_ms"]["mean"] is None
    assert again["evaluated"] == asked.described()
    assert {name: again[name] for name in table} == table, "all else is as it was"
    again["methods"]["event_only"]["evaluated"] = found
    text = format_table(again)
    for words in (
        "Accuracy in %, background: ",
        "row         none",
        "150 ms",
        "Early exit that loses at most 95 points",
    ):
        assert words in text
    record = load_run(tmp_path / "out" / "event_only-seed7")
    other = replace(record, evaluation={**record.evaluation, "split": "validation"})
    page = "".join(_kept_evaluations({"event_only": [record, other], "kt": []}))
    assert page.count("<svg") == 2, "over time, and over the levels of the background"
    assert "split test, best weights, failures with seed 0; runs: 1 of event_only. 1 more are of another" in page
    assert _kept_evaluations({"kt": [replace(record, evaluation=None)]}) == []


def test_mean_and_std():
    assert mean_and_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_std([0.5, None]) == (0.5, None)
    assert mean_and_std([None]) == (None, None)


def test_bad_requests(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    with pytest.raises(RecipeError, match=r"kt is given twice(.|\n)*1 is given twice"):
        compare(shards, tiny_recipe(), ["kt", "kt"], [1, 1], tmp_path / "out")
    with pytest.raises(RecipeError, match="methods: none given"):
        compare(shards, tiny_recipe(), [], [1], tmp_path / "out")
    with pytest.raises(MethodError, match="did you mean event_only"):
        compare(shards, tiny_recipe(), ["event-only"], [1], tmp_path / "out")
