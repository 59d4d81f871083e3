import csv
import json
import logging
import math
import re
import time

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run

from spikebridge.train.config.recipes import override
from spikebridge.train.errors import (
    DeviceError,
    MethodError,
    NetworkError,
    NonFiniteError,
    RunError,
    ShardMismatchError,
)
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.report.records import load_run
from spikebridge.train.report.run import summary
from spikebridge.train.runs.folder import RunFolder, read_divergence, read_metrics
from spikebridge.train.runs.state import Best
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer import run as loop
from spikebridge.train.trainer.run import train
from spikebridge.train.verbs.train import result_text


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of four epochs, for tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    shards = FakeShardSet(folder / "shards")
    train(shards, tiny_recipe(epochs=4), folder / "run", device="cpu")
    return shards, folder / "run"


def test_run_folder_holds_what_is_promised(finished):
    _, run = finished
    assert sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()) == [
        "config.toml",
        "metrics.csv",
        "metrics.jsonl",
        "predictions.csv",
        "result.json",
        "weights/best.safetensors",
        "weights/last.safetensors",
    ]
    lines = read_metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    line = lines[1]
    assert len(line["cka"]) == len(line["coefficients"]) == 4
    assert line["replacement_probability"] == (5 / 12) ** 3
    assert line["lr"] == 1e-5 + 0.5 * (3e-3 - 1e-5) * (1 + math.cos(math.pi / 4))
    parts = line["loss_static"] + line["loss_event"] + 0.5 * line["loss_domain"]
    assert line["loss_total"] == pytest.approx(parts, rel=1e-5)
    assert line["firing_rates"]
    assert all(0 <= rate <= 1 for rate in line["firing_rates"].values())


def test_without_the_test_split_nothing_of_it_is_read(shards, tmp_path):
    result = train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu", test=False)
    assert shards.split("test").reads == 0
    assert result["tested"] is False
    assert {result[name] for name in ("test_accuracy", "last_test_loss", "confusion", "firing_rates")} == {None}
    assert result["validation_accuracy"] is not None
    assert not (tmp_path / "run" / "predictions.csv").exists()
    assert "not scored" in result_text(result, tmp_path)
    assert evaluate(tmp_path / "run", shards)["samples"] == 12
    assert "validation accuracy; test not scored" in summary(load_run(tmp_path / "run"))
    legacy = FakeShardSet(tmp_path / "legacy", protocol="legacy")
    recipe = override(tiny_recipe(), protocol="legacy")
    with pytest.raises(RunError, match="chooses the best epoch"):
        train(legacy, recipe, tmp_path / "other", device="cpu", test=False)


def test_result_and_predictions_agree(finished):
    shards, run = finished
    result = json.loads((run / "result.json").read_text())
    assert result["shard_set"] == shards.id
    assert result["simulated"] is True
    assert result["samples"] == {"train": 24, "validation": 9, "test": 12}
    assert result["static_images"] == 15
    assert result["selection_split"] == "validation"
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == list(shards.split("test").keys)
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert result["test_accuracy"] == right / 12
    assert sum(result["confusion"][k][k] for k in range(3)) == right
    for row in rows:
        assert max("abc", key=lambda name: float(row[f"score_{name}"])) == row["prediction"]
    lines = read_metrics(run)
    best = max(lines, key=lambda line: (line["validation_accuracy"], -line["validation_loss"], -line["epoch"]))
    assert result["best_epoch"] == best["epoch"]
    assert result["validation_accuracy"] == best["validation_accuracy"]
    assert result["last_validation_accuracy"] == lines[-1]["validation_accuracy"]


def test_evaluate_reproduces_the_result_and_writes_nothing(finished):
    shards, run = finished
    result = json.loads((run / "result.json").read_text())
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    scores = evaluate(run, shards, device="cpu")
    assert (scores["accuracy"], scores["loss"]) == (result["test_accuracy"], result["test_loss"])
    assert (scores["split"], scores["samples"], scores["confusion"]) == ("test", 12, result["confusion"])
    last = evaluate(run, shards, split="validation", weights="last", device="cpu")
    assert last["accuracy"] == result["last_validation_accuracy"]
    assert last["loss"] == result["last_validation_loss"]
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    with pytest.raises(ShardMismatchError, match="was trained on"):
        evaluate(run, FakeShardSet(shards.path, train=30))
    with pytest.raises(RunError, match="expected best or last"):
        evaluate(run, shards, weights="first")


def test_a_finished_run_is_returned_not_repeated(finished):
    shards, run = finished
    before = (run / "result.json").stat().st_mtime_ns
    result = train(shards, tiny_recipe(epochs=4), run, device="cpu")
    assert result == json.loads((run / "result.json").read_text())
    assert (run / "result.json").stat().st_mtime_ns == before


def test_another_recipe_or_shard_set_is_refused(finished):
    shards, run = finished
    with pytest.raises(RunError, match=r"epochs: 4 there, 5 asked for\n  - lr: 0.003 there, 0.1 asked for"):
        train(shards, tiny_recipe(epochs=5, lr=0.1), run, device="cpu")
    with pytest.raises(ShardMismatchError, match="another shard set"):
        train(FakeShardSet(shards.path, train=30), tiny_recipe(epochs=4), run, device="cpu")


def test_learns_what_can_be_learned(tmp_path, shards):
    result = train(shards, tiny_recipe(epochs=30, width=1.0), tmp_path / "run", device="cpu")
    assert result["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    "settings", [{}, {"method": "event_only", "weight_average": 0.8}, {"model": "nmnist_snn", "width": 0.05}]
)
def test_stopped_and_continued_runs_have_the_same_bits(tmp_path, shards, monkeypatch, settings):
    recipe = tiny_recipe(epochs=4, **settings)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    steps = 0
    real = epochs.Trainer._step

    def stop(self, *args):
        nonlocal steps
        steps += 1
        if steps in (5, 11):  # in the middle of epochs 2 and 3
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(epochs.Trainer, "_step", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(shards, recipe, tmp_path / "parts", device="cpu", checkpoint_every="1")
    assert steps == 11  # no step was taken twice
    train(shards, recipe, tmp_path / "parts", device="cpu")
    assert steps == 13 + 1
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_processor_time_adds_up_over_sittings(tmp_path, shards, monkeypatch):
    class Clock:
        perf_counter = monotonic = staticmethod(time.perf_counter)
        cpu = 0.0

        def process_time(self):
            return self.cpu

    clock, real, read = Clock(), epochs.Trainer._step, RunFolder.open_checkpoint

    def step(self, index):
        real(self, index)
        clock.cpu += 1

    monkeypatch.setattr(epochs, "time", clock)
    monkeypatch.setattr(epochs.Trainer, "_step", step)
    recipe = tiny_recipe(method="event_only", epochs=3)
    assert train(shards, recipe, tmp_path / "whole", device="cpu")["training_cpu_seconds"] == 9
    parts = train_in_two_sittings(shards, recipe, tmp_path / "parts", step=5)
    assert parts["training_cpu_seconds"] == 9

    def older(run):
        return (state := read(run)) and {name: value for name, value in state.items() if "cpu" not in name}

    monkeypatch.setattr(RunFolder, "open_checkpoint", older)  # a run that began before it was counted
    assert train_in_two_sittings(shards, recipe, tmp_path / "old", step=5)["training_cpu_seconds"] is None
    same_run(tmp_path / "whole", tmp_path / "old")


@pytest.mark.parametrize("moment", ["append_metrics", "_commit", "encode_weights", "finish_training", "finish"])
def test_death_at_every_writing_moment_changes_nothing(tmp_path, shards, monkeypatch, moment):
    """Raise in place of, or right after, each step of writing an epoch or the result."""
    recipe = tiny_recipe(epochs=3)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    owners = {"append_metrics": epochs.RunFolder, "finish": epochs.RunFolder, "finish_training": loop}
    owner = owners.get(moment, epochs.Trainer)
    real = getattr(owner, moment)
    for after in (False, True):
        calls = 0

        def die(first, *args, _after=after, **options):
            nonlocal calls
            calls += 1
            if calls == (1 if moment in ("finish_training", "finish") else 2):
                if _after and moment != "finish":
                    real(first, *args, **options)
                raise KeyboardInterrupt
            return real(first, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(owner, moment, die)
            with pytest.raises(KeyboardInterrupt):
                train(shards, recipe, tmp_path / f"parts{after}", device="cpu", checkpoint_every="2")
        train(shards, recipe, tmp_path / f"parts{after}", device="cpu")
        same_run(tmp_path / "whole", tmp_path / f"parts{after}")


def test_half_a_line_is_cut_off(tmp_path, shards, monkeypatch):
    recipe = tiny_recipe()
    real = epochs.Trainer.run_epoch

    def stop(self, display):
        if self.state.epoch == 2:
            raise KeyboardInterrupt
        real(self, display)

    with monkeypatch.context() as patched:
        patched.setattr(epochs.Trainer, "run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(shards, recipe, tmp_path / "run", device="cpu", checkpoint_every="3")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "st')
    assert len(read_metrics(tmp_path / "run")) == 2
    train(shards, recipe, tmp_path / "run", device="cpu")
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]


def test_residence_does_not_change_the_result(tmp_path, shards):
    for residence in ("host", "disk"):
        train(shards, tiny_recipe(), tmp_path / residence, device="cpu", residence=residence)
    same_run(tmp_path / "host", tmp_path / "disk")


def test_empty_validation_uses_the_last_epoch_and_says_so(tmp_path, caplog):
    shards = FakeShardSet(tmp_path / "shards", validation=0)
    result = train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    assert "the last epoch is used" in caplog.text
    assert result["selection_split"] is None
    assert result["selection"].startswith("last epoch")
    assert result["best_epoch"] == 3
    assert result["validation_accuracy"] is None
    assert result["test_accuracy"] == result["last_test_accuracy"]


def test_empty_test_split(tmp_path, caplog):
    result = train(FakeShardSet(tmp_path / "s", test=0), tiny_recipe(epochs=1), tmp_path / "run", device="cpu")
    assert result["test_accuracy"] is None
    assert "test split is empty" in caplog.text
    with pytest.raises(RunError, match="test split is empty"):
        evaluate(tmp_path / "run", FakeShardSet(tmp_path / "s", test=0))


def test_legacy_selects_on_test_and_says_so(tmp_path, caplog):
    from spikebridge.train.config.recipes import override

    shards = FakeShardSet(tmp_path / "shards", protocol="legacy", validation=0)
    recipe = override(tiny_recipe(), ["protocol=legacy"])
    with caplog.at_level(logging.WARNING):
        result = train(shards, recipe, tmp_path / "run", device="cpu")
    assert "chosen on the TEST split" in caplog.text
    assert "TEST" in result["selection"]
    lines = read_metrics(tmp_path / "run")
    assert lines[0]["validation_accuracy"] is None
    assert result["test_accuracy"] == max(line["test_accuracy"] for line in lines)


def test_best_epoch_rule():
    best = Best(3, 0.5, 1.0)
    assert best.is_beaten_by(0.6, 9.0)
    assert best.is_beaten_by(0.5, 0.9)
    assert not best.is_beaten_by(0.5, 1.0)
    assert not best.is_beaten_by(0.4, 0.1)


def test_rare_validation(tmp_path, shards):
    train(shards, tiny_recipe(validate_every=2), tmp_path / "run", device="cpu")
    accuracies = [line["validation_accuracy"] for line in read_metrics(tmp_path / "run")]
    assert [accuracy is not None for accuracy in accuracies] == [False, True, True]


def test_runs_of_few_recordings_have_the_steps_that_are_asked_for(tmp_path, shards):
    """Three recordings in batches of two are two steps an epoch: five epochs for nine steps, validated as often."""
    recipe = tiny_recipe(events_per_class=1, batch_size=2, epochs=3, validate_every=2, least_steps=9)
    result = train(shards, recipe, tmp_path / "run", device="cpu")
    lines = read_metrics(tmp_path / "run")
    assert (result["epochs"], lines[-1]["step"]) == (5, 10)
    assert [line["epoch"] for line in lines if line["validation_accuracy"] is not None] == [3, 5]
    assert train(shards, recipe, tmp_path / "run", device="cpu") == result, "the finished run is this recipe's"
    plenty = tiny_recipe(epochs=3, least_steps=9)
    assert loop.with_least_steps(plenty, shards) is plenty, "three steps an epoch are nine already"


def test_few_recordings_and_a_batch_of_one(tmp_path, shards):
    result = train(shards, tiny_recipe(events_per_class=1, batch_size=2), tmp_path / "run", device="cpu")
    assert result["samples"]["train"] == 3
    line = read_metrics(tmp_path / "run")[0]
    assert line["cka"] is None  # batches of two and one: nothing to align
    assert line["loss_domain"] == 0


def test_event_only_has_no_static_terms(tmp_path):
    shards = FakeShardSet(tmp_path / "shards", pool=[0, 0, 0])
    result = train(shards, tiny_recipe(method="event_only"), tmp_path / "run", device="cpu")
    line = read_metrics(tmp_path / "run")[-1]
    assert (line["loss_static"], line["loss_domain"], line["cka"], line["replacement_probability"]) == (
        0,
        0,
        None,
        None,
    )
    assert line["coefficients"] == [1.0] * 4
    assert result["static_images"] == 0


def test_a_method_that_cannot_work_leaves_no_folder(tmp_path):
    with pytest.raises(MethodError, match="no static images for the classes b"):
        train(FakeShardSet(tmp_path / "shards", pool=[5, 0, 5]), tiny_recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_fit_leaves_no_folder(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    shards.sample_shape = (4, 2, 8, 8)
    shards._pool.images = shards._pool.images[..., :8, :8]
    with pytest.raises(NetworkError, match="smallest input is 16x16"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_wrong_shard_set_prints_the_command(tmp_path):
    shards = FakeShardSet(tmp_path / "shards", time_bins=8, encoding="rgb")
    with pytest.raises(ShardMismatchError) as caught:
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    text = str(caught.value)
    assert "time_bins: 8 there, 4 in the recipe" in text
    assert "encoding: rgb there, v in the recipe" in text
    assert "spikebridge preprocess --dataset fake --time-bins 4 --size 16" in text


def test_expected_id(tmp_path, shards):
    for wrong in ("f" * 64, shards.id[:8]):
        with pytest.raises(ShardMismatchError, match="expected"):
            train(shards, tiny_recipe(), tmp_path / "run", device="cpu", expect=wrong)
    assert not (tmp_path / "run").exists()
    train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu", expect=shards.id)


def test_folders_that_are_no_runs_are_left_alone(tmp_path, shards):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"holds no run \(found thesis.tex\)"):
            train(shards, tiny_recipe(), tmp_path / "full", device="cpu", overwrite=overwrite)
    with pytest.raises(RunError, match="is a file"):
        train(shards, tiny_recipe(), tmp_path / "full" / "thesis.tex", device="cpu")
    with pytest.raises(RunError, match="lies inside the shard set"):
        train(shards, tiny_recipe(), shards.path / "run", device="cpu")
    assert not shards.path.exists()


def test_overwrite_starts_again_with_another_recipe(tmp_path, shards):
    train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    result = train(shards, tiny_recipe(epochs=2), tmp_path / "run", device="cpu", overwrite=True)
    assert result["epochs"] == 2
    assert (tmp_path / "run" / "notes.txt").exists()


@pytest.mark.parametrize(("layer", "words"), [("fc2", "step 4: .*the weights fc2.weight"), ("fc1", "not finite")])
def test_nan_names_step_and_layer(tmp_path, shards, monkeypatch, layer, words):
    real = epochs.Trainer._step

    def poison(self, index):
        if self.state.step == 4:
            with torch.no_grad():
                getattr(self.network, layer).weight[0, 0] = float("nan")
        real(self, index)

    monkeypatch.setattr(epochs.Trainer, "_step", poison)
    with pytest.raises(NonFiniteError, match=words):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    assert len(read_metrics(tmp_path / "run")) == 1
    mark = read_divergence(tmp_path / "run")
    assert mark["epoch"] == 1
    assert re.search(words, mark["message"])
    monkeypatch.setattr(epochs.Trainer, "_step", real)
    train(shards, tiny_recipe(), tmp_path / "run", device="cpu")
    assert read_divergence(tmp_path / "run") is None


def test_absent_cuda_is_a_clear_error(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="0 CUDA devices"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cuda")
    with pytest.raises(DeviceError, match="is not known"):
        train(shards, tiny_recipe(), tmp_path / "run", device="gpu")
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda"):
        train(shards, tiny_recipe(), tmp_path / "run", device="meta")
    assert not (tmp_path / "run").exists()


def test_the_backend_can_be_chosen_and_is_written_down(tmp_path, shards, finished):
    assert json.loads((finished[1] / "result.json").read_text())["backend"] == "numba"
    result = train(shards, tiny_recipe(), tmp_path / "run", device="cpu", backend="torch")
    assert result["backend"] == "torch"
    for chosen in ("torch", "numba"):
        assert evaluate(tmp_path / "run", shards, device="cpu", backend=chosen)["backend"] == chosen


def test_a_backend_that_cannot_run_leaves_no_folder(tmp_path, shards, monkeypatch, finished):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(NetworkError, match="The backend 'triton' cannot run"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu", backend="triton")
    assert not (tmp_path / "run").exists()
    with pytest.raises(NetworkError, match="do not spike"):
        train(shards, tiny_recipe(neuron="ReLU"), tmp_path / "run", device="cpu", backend="numba")
    with pytest.raises(NetworkError, match="cannot run"):
        evaluate(finished[1], finished[0], device="cpu", backend="triton")


def test_progress_counts_steps(tmp_path, shards):
    steps_shown = []

    class Bar:
        def __init__(self, **options):
            steps_shown.append(options)

        def update(self, n):
            steps_shown.append(n)

        def set_postfix(self, values):
            steps_shown.append(values)

        def close(self):
            steps_shown.append("closed")

    train(shards, tiny_recipe(epochs=1), tmp_path / "run", device="cpu", progress=Bar)
    assert steps_shown[0]["total"] == 3
    assert steps_shown.count(1) == 3
    assert steps_shown[-1] == "closed"


def test_global_random_state_is_left_alone(tmp_path, shards):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(shards, tiny_recipe(epochs=1, model="nmnist_snn", width=0.05), tmp_path / "run", device="cpu")
    assert torch.equal(before, torch.get_rng_state())
