"""Profiles read back as they were written; every problem of a file is named at once."""

from __future__ import annotations

import tomllib

import pytest

from spikebridge.train.calibration.profile import CameraProfile, profile_from, read_profile
from spikebridge.train.data.simulation_ranges import PROFILES
from spikebridge.train.errors import RecipeError

BUILT_IN = CameraProfile(PROFILES["saccades"], (34, 34), 300_000, ("softness", "path"), {"source": {"seed": 0}})


@pytest.mark.parametrize("name", ["saccades", "smooth"])
def test_a_profile_reads_back(tmp_path, name):
    made = CameraProfile(PROFILES[name], (346, 260), 100, (), {"camera": {"noise": 0.1}})
    (tmp_path / "profile.toml").write_text(made.dump())
    assert read_profile(tmp_path / "profile.toml") == made


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
        "[0.0, 0.1] is not within 0.004 to 1.0", "leak: found 0.1, expected the lowest and the highest",
    ):  # fmt: skip
        assert words in text


def test_files_that_are_no_profiles(tmp_path):
    with pytest.raises(RecipeError, match="make one with `spikebridge calibrate`"):
        read_profile(tmp_path / "absent.toml")
    (tmp_path / "half.toml").write_text("schema = ")
    with pytest.raises(RecipeError, match="not valid TOML"):
        read_profile(tmp_path / "half.toml")
