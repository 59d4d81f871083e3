"""The section about the simulated camera: what a run keeps of its profile, and what it says where it keeps none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.calibration.calibrate import profile_tables
from spikebridge.train.config.profile import CameraProfile
from spikebridge.train.config.simulation_ranges import PROFILES
from spikebridge.train.report.calibration import FREE, camera_tables, seen_words, steps_words
from spikebridge.train.report.records import RunRecord
from spikebridge.train.report.sections.camera import NO_FIT, camera
from spikebridge.train.report.write import write_report
from spikebridge.train.trainer.run import train

FITTED = CameraProfile(
    replace(PROFILES["smooth"], surround=0.0, either_sign=True, hot_pixels=()),
    (16, 16),
    300_000,
    ("leak", "inverted"),
    {
        "camera": {"threshold_on": 0.2345, "leak": 0.2154, "scale": 0.8},
        "uncertainty": {"threshold_on": 0.0123, "leak": 0.5, "scale": 0.1, "rest": 0.2},
        "alternatives": {"inverted": 1.234},
        "microseconds": {"leak_hz": 0.718},
        "source": {
            "recordings": 60,
            "held_out": 15,
            "simulated": True,
            "static_images": 1000,
            "pairs": 45,
            "recordings_from": ["events/Train"],
            "static_images_from": "static/Train",
        },
        "fidelity": {
            "told_apart": 0.7,
            "low": 0.519,
            "high": 0.833,
            "microseconds": 0.65,
            "I2E": 1.0,
            "v2e-like": 0.96,
            "asked": 30,
        },
    },
)
RECIPE_TEXT = FITTED.inline()


@pytest.fixture
def record(tmp_path):
    """Returns a run in `tmp_path` that simulates a camera, all that the section looks at."""

    def make(simulation=RECIPE_TEXT, method="simulate"):
        result = {"method": method, "recipe": {"train": {"simulation": simulation}}}
        return RunRecord("run", result, [], "", None, Path(tmp_path))

    return make


def keep(folder, profile):
    (folder / "camera.toml").write_text(profile.dump())


def test_what_it_was_fitted_to_and_how_far_to_be_trusted(record, tmp_path):
    keep(tmp_path, FITTED)
    html = camera(record())
    for words in (
        "camera fitted to SIMULATED recordings",
        "16x16 pixels, recordings of 300 ms",
        "60 SIMULATED recordings of events/Train, of which 15 held out, and 1,000 static images of static/Train, 45 ",
        "70 % of 30 (95 % interval 52 to 83 %), 50 % = alike; simulate --camera 65 %; I2E 100 %; v2e-like 96 %",
        "as they are, at 0.80 of the size that they have in the frame; the reverse is 1.23 times as far: undecided",
        "<dd>leak, inverted</dd>",
        '<tr><td>threshold_on</td><td>0.234</td><td>0.012</td><td class="words"></td>',
        '<tr><td>leak</td><td>0.215</td><td>0.5</td><td class="words">undecided</td>',
        ": 0.718 Hz",
    ):
        assert words in html, words
    assert camera_tables({"undecided": FITTED.undecided, "profile": profile_tables(FITTED)}) in html
    assert str(tmp_path) not in html
    real = replace(FITTED, informing={**FITTED.informing, "source": {**FITTED.informing["source"], "simulated": False}})
    keep(tmp_path, real)
    assert "SIMULATED" not in camera(record())
    source = {"recordings": 60, "held_out": 15, "simulated": False, "static_images": 1000, "shard_set": "f" * 64}
    keep(tmp_path, replace(FITTED, informing={**FITTED.informing, "source": source}))
    assert f"and 1,000 static images; training split and pool of shard set {'f' * 64}<" in camera(record())


def test_runs_that_keep_none_or_simulate_none(record, tmp_path):
    assert "Simulation saccades: shipped with the program" in camera(record("saccades"))
    assert "keeps no camera.toml" in camera(record())
    assert camera(record(method="event_only")) == ""
    assert camera(record(method="of_a_plugin")) == ""
    assert camera(RunRecord("run", {}, [], "", None, tmp_path)) == "", "an early version"
    keep(tmp_path, replace(FITTED, sensor=(34, 34)))
    assert "of another camera" in camera(record(replace(FITTED, profile=PROFILES["saccades"]).inline()))
    (tmp_path / "camera.toml").write_text("schema = 2\n")
    html = camera(record())
    assert "cannot be read by this version: " in html
    assert str(tmp_path) not in html


@pytest.mark.parametrize(
    "informing",
    [
        {},
        {name: {} for name in FITTED.informing},
        {"fidelity": {"asked": 30}, "source": {"recordings": 60}},
        {**FITTED.informing, "uncertainty": {"of_tomorrow": 1.0}, "camera": {"of_tomorrow": 1.0}},
        {name: table for name, table in FITTED.informing.items() if name != "uncertainty"},
    ],
)
def test_tables_that_only_inform_may_lack_anything(record, tmp_path, informing):
    keep(tmp_path, replace(FITTED, informing=informing))
    html = camera(record())
    assert NO_FIT in html
    assert "<dd>leak, inverted</dd>" in html
    assert ("70 % of 30" in html) == (informing.get("fidelity") == FITTED.informing["fidelity"])


def test_values_that_are_none_are_named_and_not_shown(record, tmp_path):
    keep(tmp_path, replace(FITTED, informing={"camera": {"leak": "fast"}, "fidelity": {"told_apart": float("nan")}}))
    html = camera(record())
    assert "cannot be read by this version: [camera] leak: found the text &quot;fast&quot;, expected a number" in html
    assert "[fidelity] told_apart: found the number nan, expected a number within 0 to 1" in html


def test_a_report_has_the_section_and_of_several_runs_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FITTED.dump())
    shards, runs = FakeShardSet(tmp_path / "shards"), [tmp_path / f"run-{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        recipe = tiny_recipe(method="simulate", epochs=1, simulation=str(path), width=0.05, seed=seed)
        train(shards, recipe, run, device="cpu")
    one = write_report(runs[:1], tmp_path / "one.html").read_text()
    assert one.count("<h2>The simulated camera</h2>") == one.count("70 % of 30") == 1
    several = write_report(runs, tmp_path / "several.html").read_text()
    assert several.count("<h2>The simulated camera</h2>") == 2
    assert several.count("70 % of 30") == 1
    (runs[0] / "result.json").unlink()
    assert "70 % of 30" in write_report(runs[:1], tmp_path / "unfinished.html").read_text()


def test_of_recordings_that_move_each_in_its_own_way_no_movement_is_shown():
    """The path that training turns for each was not fitted, but for its length, which stands among the values."""
    shown = {
        free: camera_tables({"undecided": (), "profile": profile_tables(FITTED) | {"free": free}})
        for free in (False, True)
    }
    assert ("<th>movement" in shown[False], FREE in shown[False]) == (True, False)
    assert ("<th>movement" in shown[True], FREE in shown[True]) == (False, True)


def test_what_is_drawn_and_what_is_taken_is_said_of_what_is_undecided():
    """Of what lies around the images training has one thing alone; a path that does nothing beside its legs says so."""
    tables = profile_tables(FITTED)
    tables |= {"alternatives": {"inverted": 1.234, "surround": 1.326}, "steps": [[0.0, 0.0]] * 20}
    tables["uncertainty"] = {**tables["uncertainty"], "steps": [[0.3, 0.4]] * 20}
    seen = [dict(seen_words({"undecided": undecided, "profile": tables})) for undecided in ((), ("surround",))]
    farther = "black; the next is 1.33 times as far"
    assert [each["around them"] for each in seen] == [farther, f"{farther}: undecided, training has the nearest"]
    still = "Beside these, no step in each of 20 equal parts of the recording, known to 0.50 px or better."
    assert steps_words({"profile": tables}) == still
    moved = steps_words({"profile": {**tables, "steps": [[0.0, 0.0]] * 19 + [[0.3, 0.4]]}})
    assert moved == still.replace("no step", "a step of up to 0.50 px")
