"""`recipes new` writes a recipe that fits a shard set and trains on it."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from spikebridge.cli import main
from spikebridge.train.config.new_recipe import new_recipe
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.errors import RecipeError


def manifest(*, size=28, empty=(), channels=1, train=24, **settings):
    known = {
        "dataset": "folders",
        "time_bins": 5,
        "size": size,
        "reduction": "sum",
        "extent": "canvas",
        "encoding": "v",
    }
    return {
        "settings": {**known, "encoding": "v", "protocol": "strict", **settings},
        "sample": {"shape": [5, 2, size, size]},
        "static": {"classes_without_pool": list(empty), "images": 9, "shape": [channels, size, size]},
        "splits": {"train": {"samples": train, "per_class": [train, 0]}, "test": {"samples": 6, "per_class": [3, 3]}},
        "classes": ["cat", "dog"],
        "self_sha256": "0" * 64,
        "simulated": False,
    }


@pytest.mark.parametrize(
    ("found", "method", "model"),
    [
        (manifest(), "kt", "scnn"),
        (manifest(size=48, empty=["dog"]), "kt", "vgg_snn"),  # no recording of a dog trains
        (manifest(size=12, empty=["cat"]), "event_only", "nmnist_snn"),
        (manifest(channels=3, encoding="rgb"), "event_only", "scnn"),
    ],
)
def test_it_fits_the_set(tmp_path, found, method, model):
    path = tmp_path / "mine.toml"
    path.write_text(new_recipe(found, name="SET"))
    recipe = load_recipe(path)
    shards = recipe.tables()["shards"]
    assert shards == {name: found["settings"][name] for name in shards}
    assert (recipe.train.method, recipe.train.model, recipe.train.batch_size) == (method, model, 8)
    assert "24 train, 6 test" in path.read_text()


@pytest.mark.parametrize(
    ("recordings", "epochs", "batch"),
    [(20, 500, 10), (180, 56, 10), (7, 1000, 7), (4000, 20, 10)],  # 1,000 steps at least, and 20 epochs
)
def test_it_trains_as_another_recipe_on_every_recording(tmp_path, recordings, epochs, batch):
    path = tmp_path / "mine.toml"
    path.write_text(new_recipe(manifest(train=recordings), name="SET", like="best"))
    made, best = load_recipe(path), load_recipe("best")
    assert made.shards.dataset == "folders"
    mine, theirs = made.tables()["train"], best.tables()["train"]
    assert {key for key in mine if mine[key] != theirs[key]} <= {"epochs", "batch_size", "events_per_class"}
    assert (made.train.simulation, made.train.events_per_class) == ("auto", 0)
    assert (made.train.epochs, made.train.batch_size) == (epochs, batch)
    with pytest.raises(RecipeError, match="did you mean best"):
        new_recipe(manifest(), name="SET", like="bets")


def test_the_verb(tmp_path, monkeypatch):
    opened = SimpleNamespace(manifest=manifest())
    monkeypatch.setattr("spikebridge.pipeline.sharing.open.open_set", lambda _: opened)
    path = tmp_path / "recipes" / "mine.toml"

    def run(*options, code=0):
        done = CliRunner().invoke(main, ["recipes", "new", "--shards", "SET", str(path), *options])
        assert done.exit_code == code, done.output
        return done

    assert f"train --shards SET --recipe {path} --run RUN" in run().stderr
    assert "exists; choose another file, or pass --overwrite" in run(code=1).stderr
    assert json.loads(run("--overwrite", "--json").stdout) == {"recipe": str(path)}
    assert load_recipe(path).shards.dataset == "folders"
    run("--overwrite", "--like", "best")
    assert load_recipe(path).train.method == "simulate"
