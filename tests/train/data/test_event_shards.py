"""Training from stored events: the batches of stored frames, with any settings of the frames, in every verb."""

import json
import pickle

import numpy as np
import pytest
import torch
from raw_sets import ncaltech101
from safetensors.torch import load_file

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.config.recipes import dump_recipe, load_recipe, override, recipe_from
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.dataset import ShardDataset
from spikebridge.train.data.simulation import Simulator
from spikebridge.train.errors import ShardMismatchError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.export.write import export
from spikebridge.train.report.write import write_report
from spikebridge.train.runs.folder import contents_id, require_shards
from spikebridge.train.studies.ablate import ShardSets
from spikebridge.train.trainer.run import train

TRAIN = {"method": "kt", "model": "nmnist_snn", "width": 0.1, "epochs": 1, "batch_size": 12, "lr": 1e-3}
SHARDS = {
    "dataset": "digits", "time_bins": 4, "size": 12, "reduction": "sum", "extent": "canvas", "encoding": "v",
    "protocol": "strict",
}  # fmt: skip
CPU = torch.device("cpu")


def recipe(**settings):
    return override(recipe_from({"shards": SHARDS, "train": TRAIN}), **settings)


@pytest.fixture
def events(shard_set):
    return ShardSet(shard_set(store="events"))


@pytest.fixture
def frames(shard_set):
    return ShardSet(shard_set())


@pytest.mark.parametrize("residence", ["host", "disk"])
def test_batches_are_the_same(events, frames, residence):
    settings = recipe(augmentation="crop").train
    batches = [
        TrainingBatches(one, settings, device=CPU, needs_static=True, residence=residence) for one in (events, frames)
    ]
    for one, other in zip(*(each.batch(1, 0).tensors() for each in batches), strict=True):
        assert torch.equal(one, other)


def test_a_set_of_both_trains_like_either(shard_set, events, frames):
    both = ShardSet(shard_set(store="both"))
    assert contents_id(both) == contents_id(frames)
    assert require_shards(both, recipe().shards).as_stored
    for one in (require_shards(both, recipe(time_bins=2, size=16).shards), both):
        other = events.with_frames(time_bins=2, size=16) if one is not both else events
        for augmentation in ("none", "drop_events"):
            settings = recipe(event_augmentation=augmentation).train
            data = [TrainingBatches(each, settings, device=CPU, needs_static=True) for each in (one, other)]
            for mine, wanted in zip(*(each.batch(0, 0).tensors() for each in data), strict=True):
                assert torch.equal(mine, wanted)


def test_simulated_recordings_are_framed_like_the_others(events):
    framed = events.with_frames(reduction="bilinear", fit="crop")
    data = TrainingBatches(framed, recipe().train, device=CPU, needs_static=False)
    assert Simulator.for_run(data, recipe().train).grid.reduction == "bilinear"


def test_a_run_is_the_same(events, frames, tmp_path):
    """And one that was begun on frames continues on events, which hold the same samples."""
    assert contents_id(events) == contents_id(frames)
    for one in (events, frames):
        train(one, recipe(), tmp_path / one.store, device="cpu")
    weights = [load_file(tmp_path / store / "weights" / "last.safetensors") for store in ("events", "frames")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.fixture
def seen(events, made_once):
    """A run at half the time bins and another size, on the same set."""

    def write(folder):
        train(events, recipe(time_bins=2, size=16), folder / "run", device="cpu")

    return made_once("a run on other frames of a set of events", write) / "run"


def test_other_frames_without_another_conversion(events, seen, tmp_path):
    result = json.loads((seen / "result.json").read_text())
    assert result["recipe"]["shards"]["time_bins"] == 2
    assert result["shard_set"] == events.id
    found = evaluate(seen, events.path, device="cpu")
    assert found["accuracy"] == result["test_accuracy"]
    assert evaluate(seen, events, split="validation", device="cpu")["loss"] == result["validation_loss"]
    file = export(seen, tmp_path / "model.safetensors", format="safetensors").file
    assert evaluate(file, events, device="cpu")["accuracy"] == result["test_accuracy"]


def test_the_report_shows_the_frames_of_the_run(events, seen, tmp_path):
    write_report([str(seen)], tmp_path / "report.html", shards=events)
    assert "2×2×16×16" in (tmp_path / "report.html").read_text()


def test_a_recipe_asks_for_bins_that_a_set_of_frames_does_not_have(events, frames):
    asked = recipe(binning="window", window_us=30_000)
    assert require_shards(events, asked.shards).settings["window_us"] == 30_000
    with pytest.raises(ShardMismatchError, match=r"(?s)binning: bins there, window in the recipe.*--window-us 30000"):
        require_shards(frames, asked.shards)
    with pytest.raises(ShardMismatchError, match=r"no frames can be made as the recipe asks: tau_us: 0 found"):
        require_shards(events, recipe(reduction="surface").shards)
    with pytest.raises(ShardMismatchError, match="tau_us: absent there, 9 in the recipe"):
        require_shards(frames, recipe(reduction="surface", tau_us=9).shards)
    part = recipe(time_window_us=(0, 100_000))
    assert require_shards(events, part.shards).settings["time_window_us"] == [0, 100_000]
    with pytest.raises(ShardMismatchError, match="--time-window 0:100000"):
        require_shards(frames, part.shards)
    with pytest.raises(ShardMismatchError, match="encoding: v there, rgb in the recipe"):
        require_shards(events, recipe(encoding="rgb").shards)


def test_what_a_recipe_leaves_out_is_not_written(tmp_path):
    assert "binning" not in dump_recipe(recipe())
    asked = recipe(binning="window", window_us=30_000, store="events", time_window_us=(0, 9))
    (tmp_path / "config.toml").write_text(dump_recipe(asked))
    assert load_recipe(tmp_path / "config.toml") == asked
    assert 'store = "events"' in dump_recipe(asked)


def test_a_data_set_for_other_loops(events, frames):
    one, other = ShardDataset(events.path, "train"), ShardDataset(frames.path, "train")
    assert np.array_equal(one[3][0], other[3][0])
    fewer = ShardDataset(events.path, "train", frames={"time_bins": 2, "size": 8})
    assert fewer[0][0].shape == (2, 2, 8, 8)
    passed_on = pickle.loads(pickle.dumps(fewer))  # as spawned workers get it; test_dataset spawns some
    loaded = torch.utils.data.DataLoader(passed_on, batch_size=4)
    assert next(iter(loaded))[0].shape == (4, 2, 2, 8, 8)
    with pytest.raises(ShardSetError, match="stores frames"):
        ShardDataset(frames.path, "train", frames={"time_bins": 2})


def test_rows_of_an_ablation_that_differ_in_time_bins_share_a_set(events, frames):
    """Each is another content, which its runs are continued by; stored frames fit one of them."""
    sets = ShardSets([events])
    found = {bins: sets.fitting(recipe(time_bins=bins), label=str(bins)) for bins in (2, 4, 6, 10)}
    assert {bins: one.sample_shape[0] for bins, (one, _) in found.items()} == {2: 2, 4: 4, 6: 6, 10: 10}
    assert len({contents for _, contents in found.values()}) == 4
    assert {one.id for one, _ in found.values()} == {events.id}
    assert ShardSets([frames]).fitting(recipe(), label="4")[1] == found[4][1]
    with pytest.raises(ShardMismatchError, match=r"row '6' has no shard set"):
        ShardSets([frames]).fitting(recipe(time_bins=6), label="6")


def test_the_published_recipe_has_the_same_first_batch(tmp_path):
    """N-Caltech101 in its true layout, bilinear frames over each recording's own extent, static images and crops."""
    raw, batches = ncaltech101.write_raw(tmp_path / "raw"), []
    published = load_recipe("ncaltech101-legacy")
    for store in ("", "events", "both"):
        made = ConversionSettings(**{**published.shards.given(), "store": store})
        conversion = prepare(made, events_root=raw, static_root=raw)
        convert(conversion, tmp_path / f"set-{store}")
        shards = require_shards(ShardSet(tmp_path / f"set-{store}"), published.shards)
        assert shards.as_stored == (store != "events")
        batches.append(TrainingBatches(shards, published.train, device=CPU, needs_static=True).batch(0, 0).tensors())
    assert batches[0][0].shape[2:] == (2, 48, 48)
    assert batches[0][0].sum() > 1000
    for others in batches[1:]:
        assert all(torch.equal(one, other) for one, other in zip(batches[0], others, strict=True))
