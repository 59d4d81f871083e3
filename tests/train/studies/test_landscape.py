"""Loss landscapes of tiny, real runs: what a point is, what survives an interruption, what is refused."""

import csv
import signal

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from PIL import Image

from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.frames import Frames
from spikebridge.train.errors import ReportError, RunError, RunStoppedError, ShardMismatchError
from spikebridge.train.evaluation.score import score, split_frames
from spikebridge.train.networks.build import load_network
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.signals import StopRequest
from spikebridge.train.studies import landscape as module
from spikebridge.train.studies.landscape import LossPoints, filter_normalised, landscape
from spikebridge.train.trainer.run import train

SMALL = LossPoints(points=3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return FakeShardSet(tmp_path_factory.mktemp("set") / "shards")


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(shards, tiny_recipe(events_per_class=4), folder, device="cpu")


@pytest.fixture(scope="module")
def whole(shards, run, tmp_path_factory):
    """A landscape that nothing interrupted."""
    out = tmp_path_factory.mktemp("landscape") / "whole"
    return out, landscape(run[0], shards, out, points=SMALL, split="validation")


def network_of(run):
    return load_network(RunFolder(run[0]).best, device=torch.device("cpu"))[0]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_directions_have_the_lengths_of_the_filters(run):
    network = network_of(run)
    found = filter_normalised(network, seed=3, number=0)
    weights = dict(network.named_parameters())
    assert set(found) == {name for name, weight in weights.items() if weight.ndim >= 2}
    assert {"feature.0.weight", "fc1.weight"} <= set(found)
    for name, direction in found.items():
        lengths, wanted = direction.flatten(1).norm(dim=1), weights[name].detach().flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, wanted)
    again = filter_normalised(network, seed=3, number=0)
    assert all(torch.equal(found[name], again[name]) for name in found)
    for other in (filter_normalised(network, seed=3, number=1), filter_normalised(network, seed=4, number=0)):
        assert not any(torch.equal(found[name], other[name]) for name in found)


def test_the_points():
    assert LossPoints(points=3, plane=False).offsets == [(-2, 0), (-1, 0), (0, 0), (1, 0), (2, 0)]
    assert SMALL.offsets[5:] == [(-2, -2), (0, -2), (2, -2), (-2, 2), (0, 2), (2, 2)]
    assert [LossPoints(points=5, radius=0.5).coordinate(offset) for offset in (-4, 1)] == [-0.5, 0.125]
    for wrong in ({"points": 4}, {"points": 1}, {"radius": 0.0}):
        with pytest.raises(RunError, match="expected"):
            LossPoints(**wrong)


def test_points_are_what_they_say(shards, run, whole):
    _, content = whole
    assert content["trained"] == {"loss": run[1]["validation_loss"], "accuracy": run[1]["validation_accuracy"]}
    assert content["line"]["a"] == [-1, -0.5, 0, 0.5, 1]
    assert content["plane"]["a"] == content["plane"]["b"] == [-1, 0, 1]
    network = network_of(run)
    first, second = (filter_normalised(network, seed=0, number=number) for number in range(2))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in first:
                weight.add_(first[name] - second[name])
    batch = evaluation_batch(tiny_recipe().train)
    found = score(network, split_frames(shards, "validation"), batch_size=batch, device=torch.device("cpu"))
    assert content["plane"]["loss"][0][2] == pytest.approx(found.loss, rel=1e-5)  # row b = -1, column a = 1
    assert content["plane"]["loss"][1][1:] == [content["trained"]["loss"], content["line"]["loss"][4]]


def test_of_many_recordings_some_are_taken_from_all_over_the_split(shards, run, tmp_path):
    points = LossPoints(points=3, plane=False)
    found = landscape(run[0], shards, tmp_path / "few", points=points, split="validation", limit=5)
    rows = Frames(shards.split("validation"), np.array([0, 2, 4, 6, 8]), sample_shape=shards.sample_shape)
    batch = evaluation_batch(tiny_recipe().train)
    wanted = score(network_of(run), rows, batch_size=batch, device=torch.device("cpu"))
    assert found["recordings"] == 5
    assert found["trained"]["loss"] == pytest.approx(wanted.loss, rel=1e-6)


def test_table_and_pictures(whole):
    out, content = whole
    with (out / "landscape.csv").open() as file:
        rows = {(float(row["a"]), float(row["b"])): row for row in csv.DictReader(file)}
    assert len(rows) == 11
    assert float(rows[0.5, 0]["loss"]) == content["line"]["loss"][3]
    assert float(rows[-1, 1]["accuracy"]) == content["plane"]["accuracy"][2][0]
    for name in ("line.png", "contour.png", "surface.png"):
        picture = Image.open(out / name).convert("L")
        assert min(picture.size) >= 600
        assert len(set(picture.tobytes())) > 20


@pytest.mark.parametrize("done", [0, 4, 10])
def test_interrupted_it_ends_with_the_same_bytes(shards, run, whole, tmp_path, monkeypatch, done):
    stop, out, scored = StopRequest(), tmp_path / "out", []
    make = module._make_scorer

    def stopping(*arguments, **options):
        score_at = make(*arguments, **options)

        def once(offset):
            scored.append(offset)
            if len(scored) == done + 1:
                stop.ask(signal.SIGTERM)
            return score_at(offset)

        return once

    monkeypatch.setattr(module, "_make_scorer", stopping)
    with pytest.raises(RunStoppedError):
        landscape(run[0], shards, out, points=SMALL, split="validation", stop=stop)
    assert len((out / "points.jsonl").read_bytes().splitlines()) == done + 1
    assert not (out / "landscape.json").exists()
    with (out / "points.jsonl").open("a") as file:
        file.write('{"place": [0,')  # a kill leaves half a line
    content = landscape(run[0], shards, out, points=SMALL, split="validation")
    assert len(scored) == 11
    assert content == whole[1]
    assert files(out) == files(whole[0])
    assert landscape(run[0], shards, out, points=SMALL, split="validation") == content
    assert len(scored) == 11


def test_training_recordings_are_those_of_the_run(shards, run, tmp_path):
    content = landscape(run[0], shards, tmp_path / "out", points=LossPoints(points=3, plane=False))
    assert content["recordings"] == run[1]["samples"]["train"] == 12
    assert content["plane"] is None
    assert not (tmp_path / "out" / "contour.png").exists()


def test_what_is_there_is_not_overwritten(shards, run, tmp_path):
    line, out = LossPoints(points=3, plane=False), tmp_path / "out"
    landscape(run[0], shards, out, points=line)
    before = files(out)
    with pytest.raises(RunError, match=r"other settings:\n  - seed: 0 there, 1 now\n.*--overwrite"):
        landscape(run[0], shards, out, points=line, seed=1)
    assert files(out) == before
    assert landscape(run[0], shards, out, points=line, seed=1, overwrite=True)["seed"] == 1
    assert files(out)["line.png"] != before["line.png"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"holds no landscape \(found thesis.txt\)"):
            landscape(run[0], shards, tmp_path / "other", points=line, overwrite=overwrite)


def test_damage_and_absence(shards, run, tmp_path, monkeypatch):
    line, out = LossPoints(points=3, plane=False), tmp_path / "out"
    landscape(run[0], shards, out, points=line)
    (out / "landscape.json").unlink()
    (out / "points.jsonl").write_text('{"place": [7, 7], "loss": 1, "accuracy": 1}\n')
    with pytest.raises(RunError, match=r"line 1: a point of another landscape\. It is damaged"):
        landscape(run[0], shards, out, points=line)
    for damaged in (
        '{"place": [0, 0], "loss": 1, "accuracy": "1"}',
        '{"place": [0, 0], "loss": NaN, "accuracy": 1}',
        "[",
    ):
        (out / "points.jsonl").write_text(damaged + "\n")
        with pytest.raises(RunError, match=r"line 1.* It is damaged; start again with --overwrite"):
            landscape(run[0], shards, out, points=line)
    with pytest.raises(RunError, match="expected train, validation or test"):
        landscape(run[0], shards, tmp_path / "a", split="holdout")
    with pytest.raises(RunError, match="split is empty"):
        landscape(*_with_empty_test(tmp_path), tmp_path / "b", split="test")
    other = FakeShardSet(tmp_path / "s2", reduction="event")  # other samples, not the same in another container
    other.id = "f" * 64
    with pytest.raises(ShardMismatchError):
        landscape(run[0], other, tmp_path / "c")
    monkeypatch.setattr("spikebridge.train.report.write.find_spec", lambda name: None)
    with pytest.raises(ReportError, match="pip install"):
        landscape(run[0], shards, tmp_path / "d")


def _with_empty_test(tmp_path):
    shards = FakeShardSet(tmp_path / "s", test=0)
    train(shards, tiny_recipe(), tmp_path / "r", device="cpu")
    return tmp_path / "r", shards


def test_statistics_stay_or_are_taken_anew(tmp_path):
    shards, line = FakeShardSet(tmp_path / "s"), LossPoints(points=3, plane=False)
    train(shards, tiny_recipe(model="vgg_snn", width=0.05), tmp_path / "r", device="cpu")
    kept = landscape(tmp_path / "r", shards, tmp_path / "kept", points=line)
    anew = landscape(tmp_path / "r", shards, tmp_path / "anew", points=line, recalibrated=True)
    assert kept["statistics"] == "those of the trained network"
    assert kept["line"]["loss"] != anew["line"]["loss"]
    with pytest.raises(RunError, match="statistics"):
        landscape(tmp_path / "r", shards, tmp_path / "kept", points=line, recalibrated=True)


def test_the_recordings_are_those_that_the_run_was_trained_on(shards):
    """Of a run with a share of the events, too: its landscape must not see recordings that it never saw."""
    recipe = tiny_recipe(events_share=0.5)
    data = TrainingBatches(shards, recipe.train, device=torch.device("cpu"), needs_static=True)
    frames = module._frames(shards, {"recipe": recipe.tables()}, "train", 500)
    assert len(frames) == len(data) == 12
    assert frames.labels.tolist() == data.frames.labels.tolist()
    assert torch.equal(frames.take(torch.arange(12)), data.frames.take(torch.arange(12)))
