"""Whatever a fit may find, training, match and `simulate --camera` take the profile that is written of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from spikebridge.pipeline.base.fitting import ASKED_SHOWN
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.pipeline.simulation.fitted import read_camera
from spikebridge.pipeline.simulation.settings import MAX_TIME_US
from spikebridge.train.calibration.fit import Fit
from spikebridge.train.calibration.outcome import profile_of
from spikebridge.train.calibration.parameters import Unknowns, longer_than_usual
from spikebridge.train.calibration.start import Start
from spikebridge.train.config.informing import CELLS
from spikebridge.train.config.profile import read_profile
from spikebridge.train.config.simulation_ranges import Leg
from spikebridge.train.data.simulation import Simulator

LEGS = (Leg(3.0, -2.0, 0.1, 0.3), Leg(-2.0, 4.0, 0.5, 0.3))


def drawn_fit(random, sensor, duration_us, *, free):
    """Draws a fit of which about each second value is at one of its limits, and as unsure as one can be or not."""
    start = Start(LEGS, 0.0 if free else 1.0, *random.uniform(-5, 5, 2), longer_than_usual(duration_us))
    unknowns = Unknowns.from_start(
        start, sensor=sensor, inverted=bool(random.integers(2)), floor=random.choice([0.0, 1e-7, 0.01, 0.5]), fills=True
    )
    unknowns = unknowns if free else unknowns.with_steps(20, sensor=sensor)
    low, high = unknowns.bounds()
    place = np.where(random.random(len(low)) < 0.5, random.choice([0, 1], len(low)), random.random(len(low)))
    names = [parameter.name for parameter in unknowns.parameters]
    spread = random.choice([1e-4, 0.1, 1.0], len(low))
    still = random.random() < 0.3
    for row, parameter in enumerate(unknowns.parameters):
        if still and names[row].endswith(("_x", "_y")):
            place[row] = (parameter.place(0.0) - low[row]) / (high[row] - low[row])
    others = {"inverted": float(10 ** random.uniform(-3, 9))}
    return Fit(unknowns, start, low + place * (high - low), spread, others, {})


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("sensor", [(34, 34), (346, 260), (1280, 720)])
def test_a_profile_that_is_written_is_taken(tmp_path, sensor, free):
    random = np.random.default_rng([sensor[0], free])
    for number in range(60):
        duration_us = int(np.exp(random.uniform(np.log(1_000), np.log(MAX_TIME_US))))
        duration_us = [duration_us, 1_000, MAX_TIME_US][random.integers(3)]
        shown = float(random.choice([*ASKED_SHOWN, 1.0, random.uniform(*ASKED_SHOWN)]))
        source = {"shown_fraction": shown, "recordings": 20, "held_out": 5}
        if max(sensor) > 100:
            source[CELLS] = [64, 48]
        made = profile_of(
            drawn_fit(random, sensor, duration_us, free=free), sensor=sensor, duration_us=duration_us, source=source,
            hot_pixels=[HotPixel(3, 4, 0.0, 12.0)], shortest_us=float(random.choice([1, duration_us])),
        )  # fmt: skip
        file = tmp_path / f"{number}.toml"
        file.write_text(made.dump())
        assert read_profile(file) == made
        camera = read_camera(file).settings
        assert camera.shown_fraction == pytest.approx(shown * made.informing["camera"]["scale"], rel=1e-3)
        if number % 20 == 0:
            manifest = {"sensor_size": list(sensor), "settings": {"reduction": "sum"}, "shown_fraction": 1.0}
            simulator = Simulator(manifest, (5, 2, 16, 16), profile=made.inline(), seed=1)
            frames = simulator.frames(torch.rand(2, 1, 16, 16), epoch=0, draws=torch.arange(2))
            assert frames.isfinite().all()


def test_what_a_fit_finds_of_no_movement_can_be_read(tmp_path):
    """Its legs are unsure by more than any number of times their length."""
    fit = drawn_fit(np.random.default_rng(0), (34, 34), 300_000, free=False)
    place = fit.place.copy()
    for row, parameter in enumerate(fit.unknowns.parameters):
        if parameter.name in ("leg_1_x", "leg_1_y", "leg_2_x", "leg_2_y"):
            place[row] = parameter.place(0.0)
    still = replace(fit, place=place, spread=np.ones(len(place)))
    made = profile_of(still, sensor=(34, 34), duration_us=300_000, source={"shown_fraction": 1.0})
    (tmp_path / "camera.toml").write_text(made.dump())
    assert read_profile(tmp_path / "camera.toml") == made
    assert "path" in made.undecided
