"""Profiles that `calibrate` made, taken by `simulate`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.simulation.camera import _draw_path, make_generator, simulate
from spikebridge.pipeline.simulation.fitted import NEEDED, read_camera, saccades_of
from spikebridge.pipeline.simulation.settings import Saccade, SimulatorSettings
from spikebridge.train.config.simulation_ranges import Leg, Profile, SimulationRanges
from spikebridge.train.data.simulation import path

PLAIN = SimulatorSettings(saccades=saccades_of([(2.0, 5.0, 0.05, 0.25), (-3.0, -5.0, 0.5, 0.3)], [], 310_000))
PROFILE = """schema = 1
sensor = [34, 34]
duration_us = 310000
inverted = true
free = false
undecided = ["light_gamma"]
[[legs]]
x = 2.0
y = 5.0
start = 0.05
duration = 0.25
[[legs]]
x = -3
y = -5
start = 0.5
duration = 0.3
[microseconds]
""" + "".join(f"{name} = {getattr(PLAIN, name)!r}\n" for name in NEEDED)


def written(folder, text=PROFILE):
    (folder / "camera.toml").write_text(text)
    return folder / "camera.toml"


def test_a_profile_becomes_the_settings_that_it_says(tmp_path):
    found = read_camera(written(tmp_path))
    assert found.settings == PLAIN
    assert found.undecided == ("light_gamma",)
    text = PROFILE.replace("310000", "62000").replace("start = 0.05", "start = -0.1").replace("[34, 34]", "[20, 10]")
    short = read_camera(written(tmp_path, text)).settings
    assert (short.sensor_width_px, short.sensor_height_px, short.duration_us) == (20, 10, 62_000)
    assert short.sample_us == 200, "as many samples of a shorter recording"
    assert short.timing_jitter_us == pytest.approx(PLAIN.timing_jitter_us / 5)
    assert short.saccades[0].x_start_us == -6_200
    assert short.saccades[1].y_duration_us == 18_600


def test_a_blur_is_that_of_the_profile_or_of_before(tmp_path):
    assert read_camera(written(tmp_path, PROFILE + "blur_px = 0.8\n")).settings == replace(PLAIN, blur_px=0.8)
    with pytest.raises(SettingsError, match=r"\[microseconds\] blur_px"):
        read_camera(written(tmp_path, PROFILE + "blur_px = -1.0\n"))


def test_pixels_begin_as_in_the_profile(tmp_path):
    found = read_camera(written(tmp_path, PROFILE.replace("free", "rest = 0.3\nappeared = true\nfree"))).settings
    assert found == replace(PLAIN, rest=0.3, appeared=True)
    assert (found.as_dict()["rest"], found.as_dict()["appeared"]) == (0.3, True)
    assert not {"rest", "appeared"} & set(PLAIN.as_dict()), "folders of before are as they were"
    square = np.zeros((28, 28), np.uint8)
    square[8:20, 8:20] = 255
    first = {}
    for settings in (PLAIN, found, replace(found, background=255)):
        still = replace(settings, shot_hz=0.0, leak_hz=0.0, timing_jitter_us=0.0)
        events = [simulate(square, settings=still, seed=0, key=str(key)) for key in range(8)]
        counts = sum(np.bincount(one.p[one.t < 35_000], minlength=2) for one in events)
        first[settings] = counts[0] / counts.sum()
    on_black, on_white = first[found], first[replace(found, background=255)]
    assert on_black > first[PLAIN] + 0.1, "dark strokes that appear on a light ground have OFF events first"
    assert on_white < on_black - 0.1


def test_a_large_sensor_has_long_ways(tmp_path):
    text = PROFILE.replace("[34, 34]", "[1280, 720]").replace("x = 2.0", "x = 400.0")
    found = read_camera(written(tmp_path, text.replace("x_offset_px = -2.7", "x_offset_px = -300.0"))).settings
    assert (found.saccades[0].x_px, found.x_offset_px) == (400.0, -300.0)


def test_its_hot_pixels_fire_beside_what_moves(tmp_path):
    rows = "hot_pixels = [[3, 30, 2.0, 6], [33, 0, 0.0, 31]]\n"
    found = read_camera(written(tmp_path, rows + PROFILE)).settings
    assert found.hot_pixels[1] == (33, 0, 0.0, pytest.approx(100 / (1 - 0.143)))
    assert replace(found, hot_pixels=()) == PLAIN
    blank = np.zeros((8, 8), np.uint8)
    silent = replace(found, shot_hz=0.0, leak_hz=0.0, duration_jitter_us=0.0)
    events = [simulate(blank, settings=silent, seed=0, key=str(i)) for i in range(200)]
    counts = np.zeros((2, 34, 34))
    for one in events:
        np.add.at(counts, (one.p, one.y, one.x), 1 / len(events))
    assert counts[:, 30, 3] == pytest.approx([2, 6], abs=0.6)
    assert counts[:, 0, 33] == pytest.approx([0, 31], abs=1.5)
    assert counts.sum() == pytest.approx(counts[:, 30, 3].sum() + counts[:, 0, 33].sum())
    assert found.as_dict()["hot_pixels"][1][:3] == [33, 0, 0.0]
    assert "hot_pixels" not in PLAIN.as_dict(), "folders of before are as they were"


def test_its_steps_lead_along_the_path_that_training_simulates(tmp_path):
    steps = [[0.5, -0.25], [0.0, 0.0], [-0.125, 0.75], [0.25, 0.5]]
    text = PROFILE.replace("free = false", f"free = false\nsteps = {steps}")
    settings = read_camera(written(tmp_path, text)).settings
    assert settings.saccades[:2] == PLAIN.saccades
    assert settings.saccades[2] == Saccade(0.5, -0.25, -38_750, 155_000, -38_750, 155_000)
    still = replace(settings, position_jitter_px=0.0, amplitude_jitter=0.0, timing_jitter_us=0.0)
    times = np.linspace(0, 1, 32)
    seen = np.stack(_draw_path(times * settings.duration_us, still, make_generator(0, "one")))
    legs = (Leg(2.0, 5.0, 0.05, 0.25), Leg(-3.0, -5.0, 0.5, 0.3))
    usual = {"amplitude": 1.0, "pace": 1.0, **dict.fromkeys(("amplitude_spread", "turn", "delay"), 0.0)}
    places = usual | {"x_start": PLAIN.x_offset_px + 16.5, "y_start": PLAIN.y_offset_px + 16.5}
    trained = path(
        torch.from_numpy(times).float(), {name: torch.tensor([value]) for name, value in places.items()},
        Profile(SimulationRanges(), legs, steps=tuple((x, y) for x, y in steps)), torch.full((1, 16), 0.5),
    )[:, 0]  # fmt: skip
    assert np.abs(seen - trained.numpy()).max() < 1e-3


def test_a_movement_that_began_before_goes_on():
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 2:6] = 255
    still = replace(PLAIN, leak_hz=0.0, shot_hz=0.0, saccades=saccades_of([(6.0, 0.0, -0.5, 0.5)], [], 310_000))
    begun = replace(still, saccades=saccades_of([(6.0, 0.0, -0.25, 0.5)], [], 310_000))
    counts = [len(simulate(image, settings=one, seed=0, key="x")) for one in (still, begun)]
    assert counts[1] > 10 * max(1, counts[0]), "the first movement is over when the recording begins"


def test_recordings_that_move_freely_turn_each_in_its_own_way(tmp_path):
    text = PROFILE.replace("free = false", "surround = 0.2\nfree = true") + "[camera]\namplitude = 1.5\n"
    settings = read_camera(written(tmp_path, text)).settings
    assert settings == replace(
        PLAIN,
        free=True,
        background=51,
        saccades=saccades_of([(3.0, 7.5, 0.05, 0.25), (-4.5, -7.5, 0.5, 0.3)], [], 310_000),
    )
    assert settings.as_dict()["free"]
    assert "free" not in PLAIN.as_dict(), "folders made before are as they were"
    still = replace(settings, position_jitter_px=0.0, amplitude_jitter=0.0, timing_jitter_us=0.0)
    times = np.arange(311) * 1000.0
    paths = [np.stack(_draw_path(times, still, make_generator(0, str(key)))) for key in range(200)]
    middles = np.array([path.mean(1) - (16.5, 16.5) for path in paths])
    assert np.allclose(middles, (PLAIN.x_offset_px, PLAIN.y_offset_px)), "on average each is at its own place"
    first = np.array([path[:, 120] - path[:, 0] for path in paths])
    assert np.allclose(np.hypot(*first.T), np.hypot(3.0, 7.5))
    assert np.abs(first.mean(0)).max() < 2, "in any direction"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("free = false", "free = false\nrest = 2.0"), "rest: 2.0 is too large"),
        (("free = false", "free = false\nappeared = 1"), "appeared: "),
        (("free = false", "free = true"), r"\[camera\] amplitude: expected a number above 0; calibrate again"),
        (("[microseconds]", "[source]\ncells = [32]\n[microseconds]"), r"\[source\] cells: expected columns and rows"),
        (("[microseconds]", "[source]\ncells = [32, 0]\n[microseconds]"), r"\[source\] cells: 0 is too small"),
        (("[microseconds]", "[source]\ncells = 'many'\n[microseconds]"), r"\[source\] cells: found the text"),
        (("sensor = [34, 34]\n", ""), "sensor: missing"),
        (("[34, 34]", "[34]"), "expected width and height"),
        (("threshold_on = 0.238\n", ""), "threshold_on: missing; calibrate again"),
        (("leak_hz = 0.35", "leak_hz = -1"), "leak_hz"),
        (("duration = 0.3\n", ""), "legs: expected"),
        (("x = 2.0", "x = 'a'"), "legs: expected"),
        (("duration = 0.3\n", "duration = 0.3\nskew = 0.7\n"), "legs: .* calibrate again"),
        (("free = false", "free = false\nsteps = [[0.1]]"), r"steps: expected pairs of numbers \[x, y\]"),
        (("free = false", "free = false\nhot_pixels = [[1, 2, 3]]"), r"hot_pixels: expected rows \[x, y, OFF events"),
        (
            ("free = false", "free = false\nhot_pixels = [[1, 34, 3, 0]]"),
            r"camera.toml: no camera (.|\n)*\(1, 34\) is outside the sensor of 34x34",
        ),
        (("free = false", "free = true\nsteps = [[0.1, 0]]"), "steps: found some beside free = true"),
        (("[microseconds]", "[microseconds"), "not valid TOML"),
        (("schema = 1", f"schema = {'1' * 5000}"), "not valid TOML"),
        (("duration_us = 310000", "duration_us = 12400000"), "duration_us: 12400000 is too large; expected at most"),
        (("duration_us = 310000", f"duration_us = {10**400}"), "duration_us: 10+ is too large"),
        (("start = 0.05", "start = 1e308"), "legs: expected"),
        (("x = -3", f"x = {10**400}"), "legs: expected"),
    ],
)
def test_what_is_no_camera_is_refused(tmp_path, change, words):
    with pytest.raises(SettingsError, match=words):
        read_camera(written(tmp_path, PROFILE.replace(*change)))


def test_simulate_takes_the_camera_of_a_profile(tmp_path):
    images = tmp_path / "photos" / "box"
    images.mkdir(parents=True)
    picture = np.zeros((8, 8), np.uint8)
    picture[2:6, 2:6] = 200
    Image.fromarray(picture).save(images / "1.png")

    def run(*words):
        return CliRunner().invoke(main, ["simulate", *map(str, words)])

    camera = written(tmp_path, PROFILE.replace("[34, 34]", "[20, 24]"))
    done = run("--images", tmp_path / "photos", "--camera", camera, "--out", tmp_path / "raw")
    assert done.exit_code == 0, done.output
    assert "does not decide light_gamma" in done.output
    header = json.loads((tmp_path / "raw" / "simulated.json").read_text())
    assert header["settings"]["sensor_height_px"] == 24
    assert header["settings"]["saccades"][0]["y_px"] == 5.0
    digits = run("digits", "--camera", camera, "--out", tmp_path / "digits")
    assert digits.exit_code == 2
    assert "34x34" in digits.output
    both = run("--images", tmp_path / "photos", "--camera", camera, "--sensor", "20x24", "--out", tmp_path / "b")
    assert "leave --sensor out" in both.output
    assert run("--camera", tmp_path / "none.toml", "--out", tmp_path / "c").exit_code == 1
