"""A run keeps the profile of the camera that it simulates, byte for byte, and nothing depends on it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import Stopper

from spikebridge.train.config.profile import CameraProfile, read_profile
from spikebridge.train.config.recipes import dump_recipe, load_recipe, override
from spikebridge.train.config.simulation_ranges import PROFILES
from spikebridge.train.errors import RunError, RunStoppedError
from spikebridge.train.runs.folder import RunFolder, open_run
from spikebridge.train.signals import StopRequest
from spikebridge.train.studies.compare import compare
from spikebridge.train.studies.grids import load_grid
from spikebridge.train.trainer.run import train

PROFILE = CameraProfile(PROFILES["smooth"], (16, 16), 300_000, ("noise",), {"camera": {"noise": 0.1}})


@pytest.fixture
def camera(tmp_path):
    """A profile's file, with what only its bytes hold: a remark, and line ends of Windows."""
    path = tmp_path / "mine.toml"
    path.write_bytes(f"# für die DAVIS\n{PROFILE.dump()}".replace("\n", "\r\n").encode())
    return path


def recipe_with(camera, **more):
    return tiny_recipe(method="simulate", epochs=1, simulation=str(camera), width=0.05, **more)


def test_a_run_keeps_the_whole_profile(tmp_path, camera):
    shards, run = FakeShardSet(tmp_path / "shards"), tmp_path / "run"
    recipe = recipe_with(camera)
    result = train(shards, recipe, run, device="cpu")
    assert (run / "camera.toml").read_bytes() == camera.read_bytes()
    assert "camera.toml" in result["files"]
    assert dump_recipe(recipe) == dump_recipe(replace(recipe, camera="")), "it is in no settings hash"
    assert "camera" not in json.dumps(result["recipe"])
    again = train(shards, load_recipe(run / "config.toml"), tmp_path / "again", device="cpu")
    assert (tmp_path / "again" / "camera.toml").read_bytes() == camera.read_bytes()
    assert again["weights_sha256"] == result["weights_sha256"]
    (run / "camera.toml").unlink()
    assert open_run(run)[1] == result, "it decides nothing"
    (run / "camera.toml").write_text("other")
    with pytest.raises(RunError, match=r"camera\.toml"):
        open_run(run)
    train(shards, override(recipe, simulation="smooth"), run, device="cpu", overwrite=True)
    assert not (run / "camera.toml").exists(), "of the run that was there"


def test_an_interrupted_run_needs_the_file_no_more(tmp_path, camera):
    shards, run, recipe = FakeShardSet(tmp_path / "shards"), tmp_path / "run", recipe_with(camera)
    stop, text = StopRequest(), camera.read_bytes()
    with pytest.raises(RunStoppedError):
        train(shards, recipe, run, device="cpu", stop=stop, checkpoint_every="1", progress=Stopper(stop, 1))
    assert (run / "camera.toml").read_bytes() == text
    camera.unlink()
    train(shards, load_recipe(run / "config.toml"), run, device="cpu")
    assert (run / "camera.toml").read_bytes() == text


def test_a_run_that_began_without_one_goes_on_without(tmp_path, camera):
    shards, run, recipe = FakeShardSet(tmp_path / "shards"), tmp_path / "run", recipe_with(camera)
    stop = StopRequest()
    with pytest.raises(RunStoppedError):
        train(shards, recipe, run, device="cpu", stop=stop, checkpoint_every="1", progress=Stopper(stop, 1))
    (run / "camera.toml").unlink()
    assert "camera.toml" not in train(shards, recipe, run, device="cpu")["files"]


def test_a_kill_before_the_recipe_is_there_leaves_a_folder_that_may_be_used(tmp_path, camera):
    run, recipe = RunFolder(tmp_path / "run"), recipe_with(camera)
    run.path.mkdir()
    run.camera.write_bytes(camera.read_bytes())
    assert run.status(recipe, "0" * 64) == "new"
    run.claim(recipe)
    assert run.config.exists()
    run.config.unlink()
    for other in (recipe_with("smooth"), replace(recipe, camera="# another\n")):
        with pytest.raises(RunError, match=r"holds no run \(found camera\.toml\)"):
            run.status(other, "0" * 64)
    assert run.camera.read_bytes() == camera.read_bytes(), "somebody's own profile is not replaced"


def test_runs_of_compare_and_ablate_keep_it_where_they_simulate(tmp_path, camera):
    recipe = recipe_with(camera)
    compare(FakeShardSet(tmp_path / "shards"), recipe, ["event_only", "simulate"], [3], tmp_path / "out", device="cpu")
    kept = [path.parent.name for path in sorted((tmp_path / "out").rglob("camera.toml"))]
    assert kept == ["simulate-seed3"]
    assert (tmp_path / "out" / kept[0] / "camera.toml").read_bytes() == camera.read_bytes()
    assert pickle.loads(pickle.dumps(recipe)).camera == recipe.camera, "workers get it"
    grid = tmp_path / "grid.toml"
    grid.write_text(
        '# a try\nrecipe = "digits"\nseeds = [0]\nevents_per_class = [3]\nreference = "a"\n'
        f'[settings]\nsimulation = "{camera}"\n'
        '[[rows]]\nlabel = "a"\nmethod = "event_only"\n[[rows]]\nlabel = "b"\nmethod = "simulate"\n'
    )
    loaded = load_grid(str(grid))
    made = loaded.recipe_of(loaded.rows[1], loaded.rows[1].amounts[0], seed=5, lr=1e-3)
    assert made.camera.encode() == camera.read_bytes()
    assert override(made, simulation="smooth").camera == ""


def test_only_the_profile_of_the_recipe_beside_it_counts(tmp_path, camera):
    recipe, folder = recipe_with(camera), tmp_path / "folder"
    folder.mkdir()
    (folder / "config.toml").write_text(dump_recipe(recipe))
    assert load_recipe(folder / "config.toml").camera == ""
    other = replace(read_profile(camera), profile=PROFILES["saccades"])
    for text, found in ((other.dump(), ""), ("no TOML", ""), (PROFILE.dump(), PROFILE.dump())):
        (folder / "camera.toml").write_text(text)
        assert load_recipe(folder / "config.toml").camera == found
