"""Profiles read back as they were written; every problem of a file is named at once."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import replace

import pytest
import torch
from json_schema import fits

from spikebridge.pipeline.events import packing
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.train.config.profile import LONGEST_US, CameraProfile, profile_from, profile_named, read_profile
from spikebridge.train.config.recipes import dump_recipe, load_recipe, recipe_from
from spikebridge.train.config.schema import recipe_schema
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.config.simulation_ranges import LANES, PROFILES
from spikebridge.train.data.simulation import Simulator
from spikebridge.train.errors import MethodError, RecipeError

BUILT_IN = CameraProfile(PROFILES["saccades"], (34, 34), 300_000, ("softness", "path"), {"source": {"seed": 0}})


@pytest.mark.parametrize(("name", "surround"), [("saccades", None), ("smooth", 0.0), ("saccades", 0.5)])
def test_a_profile_reads_back(tmp_path, name, surround):
    own = {
        "surround": surround,
        "rest": 0.4,
        "rest_spread": 0.2,
        "appeared": True,
        "blind_after": True,
        "blurs_light": True,
        "lateness": 0.0,
        "either_sign": True,
        "either_begin": True,
    }
    own = {} if surround is None else own
    if surround == 0.5:
        own |= {
            "steps": ((0.1, -0.25), (0.0, 3e-5)),
            "hot_pixels": (HotPixel(345, 259, 0.0, 12.5), HotPixel(0, 3, 1, 2)),
        }
    made = CameraProfile(
        replace(PROFILES[name], **own),
        (346, 260),
        100,
        (),
        {"camera": {"noise": 0.1}, "source": {"shown_fraction": 0.8}},
    )
    (tmp_path / "profile.toml").write_text(made.dump())
    assert read_profile(tmp_path / "profile.toml") == made
    profile, whole = profile_named(made.inline())
    assert profile == made.profile
    assert whole is not None
    assert (whole.sensor, whole.shown_fraction) == ((346, 260), 0.8)
    for key in (
        "surround",
        "rest",
        "rest_spread",
        "appeared",
        "blind_after",
        "blurs_light",
        "steps",
        "lateness",
        "either_sign",
        "either_begin",
        "hot_pixels",
    ):
        assert (f"\n{key} = " in made.dump()) == (key in own), "profiles and runs of before are as they were"


def test_whole_numbers_written_by_hand_are_as_others():
    tables = tomllib.loads(BUILT_IN.dump())
    one, other = (profile_from(tables | {"rest": 1, "surround": value}, name="x") for value in (0, 0.0))
    assert one.inline() == other.inline()


def test_all_problems_of_a_file_are_named_at_once():
    tables = tomllib.loads(BUILT_IN.dump())
    tables["sensors"] = [1]
    tables["duration_us"] = "long"
    tables["sensor"] = [34]
    del tables["free"]
    tables["undecided"] = ["softnes"]
    tables["legs"][0]["z"] = 1.0
    tables["legs"][1]["duration"] = 0
    tables["ranges"]["bandwith"] = tables["ranges"].pop("bandwidth")
    tables["ranges"]["noise"] = [0.2, 0.1]
    tables["ranges"]["dark_level"] = [0.0, 0.1]
    tables["ranges"]["leak"] = 0.1
    tables["source"] = "here"
    with pytest.raises(RecipeError, match="profile broken: 13 problems") as caught:
        profile_from(tables, name="broken")
    text = str(caught.value)
    for words in (
        "sensors: unknown key; did you mean sensor?", "duration_us: found the text", "sensor: found 1 numbers",
        "free: missing", 'undecided: "softnes" is not known', "number 1, z: unknown key", "number 2, duration",
        "bandwith: unknown key; did you mean bandwidth?", "bandwidth: missing", "above the highest, 0.1",
        "[0.0, 0.1] is not within 0.004 to 1", "leak: found 0.1, expected the lowest and the highest",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": [[1.0]]}, r"steps: expected up to 20 pairs of numbers \[x, y\]"),
        ({"steps": [[0.0, 0.0]] * 21}, "steps: expected up to 20"),
        ({"steps": 1.0}, "steps: expected up to 20"),
        ({"steps": [[0.0, float("inf")]]}, "steps: expected up to 20"),
        ({"steps": [[0.0, 0.1]], "free": True}, "steps: found some beside free = true"),
        ({"lateness": -0.1}, "lateness: "),
        ({"either_sign": 1}, "either_sign: "),
        ({"either_begin": "yes"}, "either_begin: "),
        ({"hot_pixels": [[1, 2, 3.0]]}, r"hot_pixels: expected rows \[x, y, OFF events, ON events\]"),
        ({"hot_pixels": [[1.5, 2, 3.0, 4.0]]}, "hot_pixels: expected rows"),
        ({"hot_pixels": [[1, 2, -3.0, 4.0]]}, "hot_pixels: expected rows"),
        ({"hot_pixels": {"x": 1}}, "hot_pixels: expected rows"),
        ({"hot_pixels": [[1, 2, 3.0, 4.0], [34, 2, 3.0, 4.0]]}, r"\[34, 2\] is outside the sensor of 34x34"),
        ({"rest_spread": -0.1}, "rest_spread: "),
        ({"schema": 2}, 'schema: "2" is not known; expected one of 1'),
        ({"steps": [[0.0, 10**400]]}, "steps: expected up to 20"),
        ({"sensor": [10**400, 34], "hot_pixels": [[1, 2, 3.0, 4.0]]}, "sensor: 10+ is too large"),
        ({"legs": [{"x": 1.0, "y": 1.0, "start": 0.1, "duration": 0.2, "skew": 0.7, "late": 0.1}]},
         "number 1, skew: legs have none any more, .*; calibrate again\n.*number 1, late: .*; calibrate again"),
    ],
)  # fmt: skip
def test_paths_that_no_calibration_makes(change, words):
    with pytest.raises(RecipeError, match=words):
        profile_from(tomllib.loads(BUILT_IN.dump()) | change, name="broken")


def test_files_that_are_no_profiles(tmp_path):
    with pytest.raises(RecipeError, match="make one with `spikebridge calibrate`"):
        read_profile(tmp_path / "absent.toml")
    for text in ("schema = ", f"schema = {'1' * 5000}"):
        (tmp_path / "half.toml").write_text(text)
        with pytest.raises(RecipeError, match="not valid TOML"):
            read_profile(tmp_path / "half.toml")


def test_a_recipe_takes_a_profile_over(tmp_path, monkeypatch):
    made = CameraProfile(PROFILES["smooth"], (34, 34), 300_000, (), {"camera": {"noise": 0.1}})
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "camera.toml").write_text(made.dump())
    plain = RECIPES.show("best")
    (folder / "recipe.toml").write_text(plain.replace('simulation = "auto"', 'simulation = "camera.toml"'))
    recipe = load_recipe(folder / "recipe.toml")
    profile, whole = profile_named(recipe.train.simulation)
    assert profile == PROFILES["smooth"]
    assert whole is not None
    assert (whole.sensor, whole.shown_fraction) == ((34, 34), None)
    assert recipe_from(tomllib.loads(dump_recipe(recipe))) == recipe, "a run's recipe needs no other file"
    assert recipe != load_recipe("best")
    assert fits(tomllib.loads((folder / "recipe.toml").read_text()), recipe_schema())
    assert fits(recipe.tables(), recipe_schema())
    monkeypatch.chdir(folder)
    for words in ('simulation="camera.toml"', "simulation=camera.toml", f"simulation={folder}/camera.toml"):
        assert load_recipe("best", overrides=[words]).train == recipe.train
    (folder / "camera.toml").write_text(made.dump().replace("noise = [", "noises = ["))
    with pytest.raises(RecipeError, match=r"camera\.toml: \[ranges\] noises: unknown key; did you mean noise"):
        load_recipe(folder / "recipe.toml")
    with pytest.raises(RecipeError, match=r"absent\.toml: cannot be read"):
        load_recipe("best", overrides=['simulation="absent.toml"'])
    with pytest.raises(RecipeError, match="simulation: legs: expected one to 4"):
        load_recipe("best", overrides=["simulation='profile {}'"])
    with pytest.raises(RecipeError, match="simulation: not valid JSON"):
        load_recipe("best", overrides=["simulation='profile {'"])
    with pytest.raises(RecipeError, match="not valid JSON: maximum recursion"):
        profile_named("profile " + "[" * 100_000)


@pytest.mark.parametrize(
    ("table", "key", "value", "expected"),
    [
        ("camera", "leak", math.nan, "a number within 0 to 3000"),
        ("camera", "threshold_on", 2.0, "a number within 0.04 to 1.2"),
        ("camera", "of_tomorrow", math.inf, "a number within"),
        ("camera", "scale", "large", "a number within 0.5 to 2"),
        ("uncertainty", "leak", -0.1, "a number within 0 to "),
        ("uncertainty", "leak", [0.1, 0.1], "a number within 0 to "),
        ("uncertainty", "steps", 0.1, "pairs of standard deviations"),
        ("uncertainty", "hot_pixels", [[0.1, math.inf]], "pairs of standard deviations"),
        ("alternatives", "inverted", True, "a number within 0 to "),
        ("microseconds", "leak_hz", math.inf, "a number within "),
        ("source", "recordings", 1.5, "a whole number"),
        ("source", "simulated", "no", "true or false"),
        ("source", "recordings_from", "events/Train", "a list of texts"),
        ("source", "static_images_from", 3, "text in quotation marks"),
        ("source", "shard_set", [1], "text in quotation marks"),
        ("source", "version", math.nan, "a whole number"),
        ("source", "cells", [32, 0], "columns and rows"),
        ("source", "cells", [32.0, 24], "columns and rows"),
        ("fidelity", "told_apart", 1.5, "a number within 0 to 1"),
        ("fidelity", "low", math.nan, "a number within 0 to 1"),
        ("fidelity", "v2e-like", "all", "a number within 0 to 1"),
        ("fidelity", "asked", 0.5, "a whole number of recordings"),
    ],
)
def test_what_reports_show_of_a_camera_is_checked(tmp_path, table, key, value, expected):
    """By hand anything can be written there."""
    made = replace(BUILT_IN, informing={table: {key: value}})
    (tmp_path / "camera.toml").write_text(made.dump())
    with pytest.raises(RecipeError) as caught:
        read_profile(tmp_path / "camera.toml")
    (problem,) = caught.value.problems
    assert problem.startswith(f"[{table}] {key}: found the ")
    assert expected in problem
    assert problem.endswith("leave the key out, or calibrate again")


def test_no_recording_is_longer_than_one_that_can_be_read():
    assert LONGEST_US == packing.LONGEST_US
    tables = tomllib.loads(BUILT_IN.dump())
    assert profile_from(tables | {"duration_us": LONGEST_US}, name="x").duration_us == LONGEST_US
    with pytest.raises(RecipeError, match=f"duration_us: {LONGEST_US + 1} is too large; expected at most {LONGEST_US}"):
        profile_from(tables | {"duration_us": LONGEST_US + 1}, name="x")


@pytest.mark.parametrize("shown", ['"most"', "0", "1001", "true"])
def test_how_much_of_the_sensor_images_fill_is_checked(tmp_path, shown):
    made = CameraProfile(PROFILES["smooth"], (34, 34), 300_000, (), {"source": {"seed": 0}})
    (tmp_path / "camera.toml").write_text(made.dump() + f"shown_fraction = {shown}\n")
    with pytest.raises(RecipeError, match=r"\[source\] shown_fraction: found .*, expected the share of the sensor"):
        read_profile(tmp_path / "camera.toml")


@pytest.mark.parametrize("aspect", ["1.5", "[1.0, 1.5]", "[1.5, 1.0, 1.0]", "[0, 1, 1]", '["a", 1, 1]'])
def test_the_shape_of_images_is_checked(tmp_path, aspect):
    made = CameraProfile(PROFILES["smooth"], (34, 34), 300_000, (), {"source": {"seed": 0}})
    (tmp_path / "camera.toml").write_text(made.dump() + f"image_aspect = {aspect}\n")
    with pytest.raises(RecipeError, match=r"\[source\] image_aspect: found .*, expected three numbers"):
        read_profile(tmp_path / "camera.toml")


def test_images_may_be_larger_than_the_sensor(tmp_path):
    made = CameraProfile(PROFILES["smooth"], (34, 34), 300_000, (), {"source": {"shown_fraction": 1.5}})
    (tmp_path / "camera.toml").write_text(made.dump())
    assert read_profile(tmp_path / "camera.toml").shown_fraction == 1.5


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "camera.toml")
    for path in (tmp_path / "camera.toml", tmp_path):
        with pytest.raises(RecipeError, match="no plain file"):
            read_profile(path)
    with pytest.raises(RecipeError, match=r"simulation: .*camera\.toml: no plain file"):
        load_recipe("best", overrides=[f'simulation="{tmp_path}/camera.toml"'])


def test_the_simulator_of_a_run_is_that_of_the_profile():
    own = CameraProfile(PROFILES["smooth"], (34, 34), 300_000, (), {}).inline()
    manifest = {"sensor_size": [34, 34], "settings": {"reduction": "sum"}}
    images, draws = torch.rand(3, 1, 28, 28), torch.arange(3)
    made = [
        Simulator(manifest, (5, 2, 28, 28), profile=name, seed=1).frames(images, epoch=0, draws=draws)
        for name in (own, "smooth", "saccades")
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    with pytest.raises(MethodError, match="of a sensor of 34x34 pixels, the shard set's has 64x48"):
        Simulator({**manifest, "sensor_size": [64, 48]}, (5, 2, 28, 28), profile=own, seed=1)


@pytest.mark.parametrize("name", LANES)
def test_a_range_far_from_any_camera_is_refused(name):
    """Numbers of 32 bits would be infinite or none, and recordings simulated from them without events."""
    tables = tomllib.loads(BUILT_IN.dump())
    for pair in ([0.5, 1e300], [-1e300, 0.5], [10**30, 10**30]):
        tables["ranges"][name] = pair
        with pytest.raises(RecipeError, match=rf"\[ranges\] {name}: \[.*\] is not within "):
            profile_from(tables, name="camera.toml")
