"""`simulation = "auto"`: calibrated once per set to training recordings, kept beside runs, part of their recipes."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.calibration import auto, fit
from spikebridge.train.calibration.calibrate import compared_side
from spikebridge.train.calibration.fit import Effort
from spikebridge.train.config.profile import INLINE, read_profile
from spikebridge.train.config.recipes import load_recipe, recipe_from
from spikebridge.train.data.simulation import Simulator, grid_of
from spikebridge.train.errors import MethodError, RecipeError, RunError
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.trainer.run import train

SHARDS = ("dataset", "time_bins", "size", "reduction", "extent", "encoding", "protocol")
TINY = {
    "lr": 1e-3,
    "model": "scnn",
    "width": 0.3,
    "epochs": 1,
    "batch_size": 10,
    "augmentation": "none",
    "simulation": "auto",
}


def recipe_for(shards, **more):
    wanted = {name: shards.settings[name] for name in SHARDS}
    return recipe_from({"shards": wanted, "train": {**TINY, "method": "simulate", **more}}, name="tiny")


@pytest.fixture
def fits(monkeypatch):
    """The splits that a fit read, a list that grows with each; a fit is short."""
    for name, value in {"EFFORT": Effort(batch=2, sets=20), "FINE_BINS": 5, "LARGEST_SIDE": 12}.items():
        monkeypatch.setattr(auto, name, value)
    for name in ("STEPS", "SIGN_STEPS", "LAST_STEPS"):
        monkeypatch.setattr(fit, name, 1)
    found = []
    whole = auto._calibrate

    def counted(shards, path, progress):
        split = shards.split
        read = set()
        monkeypatch.setattr(shards, "split", lambda name: read.add(name) or split(name))
        whole(shards, path, progress)
        found.append(read)

    monkeypatch.setattr(auto, "_calibrate", counted)
    return found


def test_a_set_of_long_recordings_is_fitted_anew(shard_set, tmp_path, fits, monkeypatch):
    """What is expected of a camera depends on their length; profiles that were kept before did not know."""
    shards = ShardSet(shard_set(store="events", size=16))
    train(shards, recipe_for(shards), tmp_path / "one", device="cpu", test=False)
    monkeypatch.setattr(auto, "longer_than_usual", lambda duration_us: 4.0 if duration_us > 200_000 else 1.0)
    train(shards, recipe_for(shards, seed=1), tmp_path / "two", device="cpu", test=False)
    assert (len(fits), len(list(tmp_path.glob("camera-*.toml")))) == (2, 2)


def test_images_that_were_squashed_otherwise_than_the_sensor_are_doubted(caplog):
    manifest = {"sensor_size": [346, 260], "settings": {}}
    auto._doubt_shapes(manifest)
    assert "sensor of 346x260 pixels were squashed into the frames, each on its own" in caplog.text
    caplog.clear()
    for known in ({"shown_fraction": 0.8}, {"settings": {"fit": "pad"}}, {"sensor_size": [34, 34]}):
        auto._doubt_shapes(manifest | known)
    assert not caplog.text


@pytest.mark.usefixtures("without_matplotlib")
def test_a_run_trains_on_the_camera_that_was_calibrated_to_its_set(shard_set, tmp_path, fits):
    shards = ShardSet(shard_set(store="events", size=16))
    recipe = recipe_for(shards)
    train(shards, recipe, tmp_path / "one", device="cpu", test=False)
    (camera,) = tmp_path.glob("camera-*.toml")
    assert camera.name.startswith(f"camera-{shards.id[:12]}-")
    assert fits == [{"train"}]
    profile = read_profile(camera)
    assert profile.informing["source"]["simulated"] == shards.simulated
    assert profile.informing["source"]["shard_set"] == shards.id
    assert profile.sensor == (34, 34)
    kept = load_recipe(tmp_path / "one" / "config.toml")
    assert kept.train.simulation == profile.inline()
    train(shards, recipe_for(shards, seed=1), tmp_path / "two", device="cpu", test=False)
    for name in ("one", "two"):
        assert (tmp_path / name / "camera.toml").read_bytes() == camera.read_bytes()
    assert len(fits) == 1, "another run of the set takes the profile that is there"
    camera.unlink()
    assert train(shards, recipe, tmp_path / "one", device="cpu", test=False), "a finished run needs it no more"
    assert len(fits) == 1
    assert RunFolder(tmp_path / "one").status(recipe, shards.id) == "finished"
    with pytest.raises(Exception, match="another recipe"):
        RunFolder(tmp_path / "one").status(replace(recipe, train=replace(recipe.train, seed=2)), shards.id)
    assert not list(tmp_path.glob(".camera*")), "neither lock nor state is left"


def test_frames_of_a_large_sensor_are_fitted_in_fewer_cells():
    """As `calibrate` fits them, in a like time."""
    grid = grid_of({"sensor_size": (128, 100), "settings": {"reduction": "sum"}}, (48, 40))
    coarse = auto._coarser(grid)
    assert (coarse.frame, coarse.width, coarse.height, coarse.sensor) == ((24, 20), 48, 40, (128, 100))
    frames = torch.rand(3, 2, 2, 40, 48)
    summed = auto._by_twos(frames)
    assert summed.shape == (3, 2, 2, 20, 24)
    assert torch.allclose(summed[..., 7, 3], frames[..., 14:16, 6:8].sum((-2, -1)))
    for reduction, size in (("bilinear", (48, 40)), ("sum", (45, 40))):
        other = grid_of({"sensor_size": (128, 100), "settings": {"reduction": reduction}}, size)
        assert auto._coarser(other) is None
    assert [compared_side((side, 20)) for side in (34, 48, 49, 640)] == [34, 48, 32, 32]


@pytest.mark.parametrize(
    ("sensor", "fit", "cell", "pixel"),
    [((34, 34), "squash", (3, 7), (7, 15)), ((46, 34), "crop", (0, 16), (7, 33)), ((30, 34), "pad", (0, 0), (0, 1))],
)
def test_hot_pixels_of_frames_are_pixels_of_the_sensor(sensor, fit, cell, pixel):
    grid = grid_of({"sensor_size": sensor, "settings": {"reduction": "sum", "fit": fit}}, (17, 17))
    quiet = torch.from_numpy(np.random.default_rng(0).poisson(0.3, (5, 16, 2, 17, 17))).float()
    hot = quiet.clone()
    hot[:, :, 1, cell[1], cell[0]] += 3
    learnt = np.arange(12)
    assert auto._without_hot_pixels(quiet, learnt, grid, sensor) == (quiet, ())
    left, (found,) = auto._without_hot_pixels(hot, learnt, grid, sensor)
    assert (found.x, found.y) == pixel
    assert found.on == pytest.approx(15, abs=1.5)
    assert found.off < 1
    assert not left[..., cell[1], cell[0]].any()
    quiet[..., cell[1], cell[0]] = 0
    assert torch.equal(left, quiet)
    hot[:, learnt, 1, cell[1], cell[0]] = 0
    assert auto._without_hot_pixels(hot, learnt, grid, sensor)[1] == (), "those held out find none"


@pytest.mark.usefixtures("fits")
def test_frames_that_are_not_square_are_calibrated(shard_set, tmp_path):
    shards = ShardSet(shard_set(time_bins=5, size=12, width=16))
    profile, text = auto.calibrated_profile(shards, tmp_path)
    assert text == next(tmp_path.glob("camera-*.toml")).read_text()
    simulator = Simulator(shards.manifest, shards.sample_shape, profile=profile, seed=0)
    assert simulator.grid.frame == (16, 12)
    assert simulator.frames(torch.rand(2, 1, 12, 16), epoch=0, draws=torch.arange(2)).shape == (5, 2, 2, 12, 16)


@pytest.mark.usefixtures("without_matplotlib")
def test_methods_that_do_not_simulate_calibrate_nothing(shard_set, tmp_path, fits):
    shards = ShardSet(shard_set(size=16))
    train(shards, recipe_for(shards, method="event_only"), tmp_path / "one", device="cpu", test=False)
    assert not fits
    assert not list(tmp_path.glob("camera-*"))


def test_what_fails_while_a_camera_is_fitted_is_said_as_it_is(shard_set, tmp_path, monkeypatch):
    """A disk that cannot be read, for one, says nothing of the folder in which the profile is to be kept."""

    def unreadable(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "set/train-00000.tar")

    monkeypatch.setattr(auto, "_calibrate", unreadable)
    with pytest.raises(OSError, match="train-00000") as caught:
        auto.calibrated_profile(ShardSet(shard_set(store="events", size=16)), tmp_path)
    assert caught.value.errno == errno.EIO


def test_what_cannot_be_calibrated_is_said(shard_set, tmp_path, monkeypatch):
    shards = ShardSet(shard_set(size=16))  # 4 time bins
    with pytest.raises(MethodError, match=r"fit no camera \(time bins 4, expected 5 or more\).*--store events"):
        train(shards, recipe_for(shards), tmp_path / "one", device="cpu")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(auto, "FEWEST", 1000)
    with pytest.raises(MethodError, match="training recordings; a camera is calibrated on 1000 or more"):
        train(ShardSet(shard_set(store="events", size=16)), recipe_for(shards), tmp_path / "one", device="cpu")
    with pytest.raises(MethodError, match=r"static images of 3 channels \(encoding rgb\).*--encoding v or luma"):
        auto.calibrated_profile(ShardSet(shard_set(store="events", size=16, encoding="rgb")), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="the camera's profile cannot be kept there"):
        auto.calibrated_profile(ShardSet(shard_set(store="events", size=16)), tmp_path / "file" / "beside")
    recipe = recipe_for(shards).train
    with pytest.raises(RecipeError, match="auto stands for a profile that a run fits"):
        Simulator(shards.manifest, shards.sample_shape, profile=recipe.simulation, seed=0)
    assert not recipe.simulation.startswith(INLINE)
