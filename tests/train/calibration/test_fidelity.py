"""The classifier tells other cameras apart, and not the same one."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest
import torch
from known_cameras import KnownCamera, digit_images

from spikebridge.pipeline.ui.html import POLICY
from spikebridge.train.calibration import parameters
from spikebridge.train.calibration.fidelity import compare, figures
from spikebridge.train.calibration.outcome import in_microseconds
from spikebridge.train.calibration.renderings import V2E, Rendering, renderings
from spikebridge.train.config.simulation_ranges import Leg, Profile, SimulationRanges
from spikebridge.train.data.simulation import SensorGrid, simulate_frames, simulation_draws
from spikebridge.train.report import calibration as calibration_report
from spikebridge.train.report.calibration import MEANINGS, calibration_page, value_rows

SIDE, CAMERA = 14, KnownCamera.drawn(6, legs=2, pixels=0.6)
GRID = SensorGrid(SIDE, (SIDE, SIDE), "sum")


@pytest.fixture(scope="module")
def seen():
    """Frames of the fit, held out ones, static images, and the camera's profile."""
    images = digit_images(400, SIDE)
    frames = CAMERA.frames(images[:160], time_bins=10)
    return frames[:, :120], frames[:, 120:], images[160:], CAMERA.profile()


def test_the_same_camera_is_not_told_apart_and_another_is(seen):
    learnt, held_out, images, profile = seen
    same, made = compare(learnt, held_out, images, GRID, profile, seed=0)
    assert made.shape == held_out.shape
    assert same.asked == 80
    assert 0.3 < same.accuracy < 0.7
    threshold = profile.ranges.threshold_on[0] * 1.6
    other = replace(profile, ranges=replace(profile.ranges, threshold_on=(threshold, threshold)))
    assert compare(learnt, held_out, images, GRID, other, seed=0)[0].accuracy > 0.75


def test_other_renderings_of_the_same_images_stand_beside(seen):
    learnt, held_out, images, profile = seen
    draws = simulation_draws(7, 0, torch.arange(160), GRID, device=torch.device("cpu"))
    own = Rendering(lambda rows, bins: simulate_frames(rows, draws, GRID, time_bins=bins, profile=profile))
    others = {**renderings(GRID, profile, duration_us=300_000, seed=0), "own": own}
    found, _ = compare(learnt, held_out, images, GRID, profile, seed=0, others=others)
    assert found.accuracy == compare(learnt, held_out, images, GRID, profile, seed=0)[0].accuracy
    assert found.others["i2e"] > 0.9
    assert found.others["v2e-like"] > 0.9
    assert found.others["own"] < 0.7
    low, high = found.interval
    assert low < found.accuracy < high
    assert set(found.as_dict()["others"]) == {"i2e", "v2e-like", "own"}


def test_a_rendering_has_the_images_and_the_movement():
    images = torch.zeros(3, 1, SIDE, SIDE)
    images[1, 0, 5:9, 5:9] = 1
    images[2] = images[1]
    along = Profile(SimulationRanges(x_start=(0.0, 0.0), y_start=(0.0, 0.0)), (Leg(4.0, 0.0, 0.1, 0.8),))
    for free in (False, True):
        made = renderings(GRID, replace(along, free=free), duration_us=100_000, seed=0)
        frames = made["v2e-like"].render(images, 10)
        assert frames.shape == (10, 3, 2, SIDE, SIDE)
        assert frames[:, 0].sum() == 0, "nothing to see"
        assert frames[:, 1].sum() > 20
        across = frames[:, 1].sum((0, 1, 2)) > 0
        assert free or across[9:13].any(), "to the right"
        assert bool((frames[:, 1] != frames[:, 2]).any()), "pixels and, if free, the path are drawn"
    i2e = made["i2e"]
    assert i2e.render(images, 10).shape == (5, 3, 2, SIDE, SIDE)
    assert torch.equal(i2e.view(frames).unique(), torch.tensor([0.0, 1.0]))


def test_the_fitted_camera_is_rendered_by_the_other_simulator():
    """As `simulate --camera` has it: its size, which the images lie in the frame with already, is not taken twice."""
    images = torch.zeros(2, 1, SIDE, SIDE)
    images[:, 0, 5:9, 5:9] = 1
    along = Profile(SimulationRanges(scale=(1.0, 1.0)), (Leg(4.0, 0.0, 0.1, 0.8),))
    shown = {}
    for share in (1.0, 0.25):
        camera = replace(V2E, sensor_width_px=SIDE, sensor_height_px=SIDE, shown_fraction=share, duration_us=100_000)
        made = renderings(GRID, along, duration_us=100_000, seed=0, fitted=camera)
        assert list(made) == ["microseconds", "i2e", "v2e-like"]
        shown[share] = made["microseconds"].render(images, 10)
    assert torch.equal(*shown.values())
    assert shown[1.0].sum() > 20


def test_a_rendering_fills_a_sensor_that_is_not_square():
    """An image is squashed into the frame as the sensor is."""
    images = torch.zeros(1, 1, SIDE, SIDE)
    images[0, 0, :, 1:3] = 1
    still = Profile(
        SimulationRanges(x_start=(0.0, 0.0), y_start=(0.0, 0.0), scale=(1.0, 1.0)), (Leg(2.0, 0.0, 0.1, 0.8),)
    )
    made = renderings(SensorGrid(SIDE, (20, 8), "sum"), still, duration_us=100_000, seed=0)["v2e-like"].render(
        images, 10
    )
    across = made.sum((0, 1, 2, 3))
    assert across[:6].sum() > 0.9 * across.sum() > 0


def test_what_the_microsecond_simulator_cannot_follow_stands_not_beside():
    """Recordings longer than its own, and shorter ones."""
    profile = Profile(SimulationRanges(), (Leg(4.0, 0.0, 0.1, 0.8),))
    found = {us: list(renderings(GRID, profile, duration_us=us, seed=0)) for us in (999, 1_000, 8_000_000, 12_400_000)}
    assert found == {999: ["i2e"], 1_000: ["i2e", "v2e-like"], 8_000_000: ["i2e", "v2e-like"], 12_400_000: ["i2e"]}


def test_figures_are_those_that_one_counts():
    frames = torch.zeros(4, 2, 2, 3, 3)
    frames[0, 0, 1, 1, 1] = 2  # ON, then OFF two bins later
    frames[2, 0, 0, 1, 1] = 1
    frames[3, 0, 0, 1, 1] = 1
    found = figures(frames)
    assert found["events"] == 2
    assert found["on_share"] == 0.5
    assert found["profile"] == [1, 0, 0.5, 0.5]
    assert found["gaps"] == [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert found["same_polarity"] == 0.5


def test_the_page_shows_both(seen):
    pytest.importorskip("matplotlib")
    learnt, held_out, images, profile = seen
    fidelity, made = compare(learnt, held_out, images, GRID, profile, seed=0)
    result = {
        "simulated": True, "recordings": 160, "unreadable": 2, "static_images": 240, "sensor": [14, 14],
        "sensor_known": "given",
        "undecided": ["noise"],
        "profile": {
            "duration_us": 300_000,
            "microseconds": {"shot_hz": 0.3333},
            "camera": {"noise": 0.1, "scale": 0.8}, "uncertainty": {
                "noise": 0.01, "scale": 0.1, "rest": 0.2, "leg_1_x": 0.25, "leg_1_y": 0.3, "leg_1_start": 0.004,
                "leg_1_duration": 0.03, "steps": [[0.03, 0.04], [0.01, 0.02]],
                "hot_pixels": [[0.3, 0.4], [0.0, 0.1]],
            },
            "alternatives": {"inverted": 1.234, "surround": 2.0, "appeared": 1.1},
            "inverted": True, "surround": 1.0, "rest": 0.7, "appeared": True, "either_sign": True,
            "either_begin": True,
            "free": False,
            "legs": [asdict(Leg(1.0, 2.0, 0.0123, 0.5))],
            "steps": [[0.3, -0.4], [0.0, 0.1]],
            "hot_pixels": [[3, 4, 2.0, 1.5], [9, 4, 0.0, 1.5]],
        },
    }  # fmt: skip
    html = calibration_page(result, fidelity, held_out, made)
    assert "SIMULATED" in html
    assert "Given beside simulated" in html
    assert not re.search("real", re.sub('base64,[^"]*', "", html), re.IGNORECASE), "simulated ones are not called real"
    for words in (
        "the negative, at 0.80 of the size that",
        "in the frame; the reverse is 1.23 times as far: undecided, training has both",
        "share of the pixels that fire once at random: 0.333 Hz",
        "white; the next is 2 times as far",
        "raised since by 0.70 ± 0.20 ON thresholds of leak; anywhere between their thresholds is 1.1 times as far: und",
        "0.0123 ± 0.004",
        "2 hot pixels, which the fit left out and training has; the busiest, x=3 y=4, fires 3.5 ± 0.5 times",
        "a step of up to 0.50 px in each of 2 equal parts of the recording, known to 0.05 px or better",
    ):
        assert words in html
    assert POLICY.split(";")[0].split(" ")[0] in html
    assert html.count("data:image/png") == 16
    for words in ("</i>ON</span>", "</i>OFF</span>", '<td class="words">share of the pixels that fire once at random'):
        assert words in html
    assert html.count("<svg") == 2
    assert "160, of which 40 held out; 2 others cannot be used" in html
    source = {"recordings_from": ["a/train"], "static_images_from": "photos"}
    named = calibration_page(result | {"profile": result["profile"] | {"source": source}}, fidelity, held_out, made)
    assert "160 of a/train, of which 40 held out" in named
    assert "240 of photos" in named
    assert "Real beside simulated" in calibration_page(result | {"simulated": False}, fidelity, held_out, made)


def test_the_page_shows_recordings_of_all_classes():
    """Those of one class are together, by their names."""
    assert calibration_report._few(torch.zeros(1, 50, 2, 4, 4)) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert calibration_report._few(torch.zeros(1, 5, 2, 4, 4)) == [0, 1, 2, 3, 4]


def test_every_value_of_a_camera_is_explained():
    known = {parameter.name for parameter in parameters.CAMERA} | {"x_start", "y_start", "amplitude"}
    assert set(MEANINGS) == known
    made = {"undecided": ["leak"], "profile": {"duration_us": 300_000,
        "camera": {"bandwidth": 2314.0, "dead_time": 0.004489, "leak": 0.2154}, "uncertainty": {
            "bandwidth": 2082.0, "dead_time": 0.0022, "leak": 0.075},
        "microseconds": in_microseconds(dict.fromkeys(known, 0.5), 300_000)}}  # fmt: skip
    rows = {row[0]: row[1:] for row in value_rows(made)}
    assert rows["bandwidth"][:3] == ("2,314", "2,082", "")
    assert rows["dead_time"] == ("0.00449", "0.0022", "", "blind after an event, share of the recording: 150,000 µs")
    assert rows["leak"][2] == "undecided"
    made["profile"] |= {
        "camera": {"softness": -1.0, "leak": 0.0, "scale": 1.0},
        "uncertainty": dict.fromkeys(known, 0.1),
    }
    rows = {row[0]: row[1:] for row in value_rows(made | {"undecided": []})}
    assert [rows[name][2] for name in ("softness", "leak", "scale")] == ["at its limit", "", ""]
    made["profile"]["camera"] = {"dead_time": 0.05, "bandwidth": 20.0, "leak": 3.0}
    for duration_us, limited in ((300_000, ["at its limit"] * 3), (20_000, [""] * 3), (3_000_000, [""] * 3)):
        rows = {
            row[0]: row[1:]
            for row in value_rows(
                made | {"undecided": []} | {"profile": made["profile"] | {"duration_us": duration_us}}
            )
        }
        assert [row[2] for row in rows.values()] == limited, "they are shares of a recording"
    made["profile"] |= {"camera": {"dead_time": 0.75, "bandwidth": 1.333, "leak": 0.2}, "duration_us": 20_000}
    assert {row[3] for row in value_rows(made | {"undecided": []})} == {"at its limit"}
