"""How far simulated recordings are told from real ones: the camera calibrated on one half, the other half judged.

Command:   python tests/bench/fidelity_splits.py --recordings FOLDER --static FOLDER [--splits N ...]
Data:      --recordings: real N-MNIST recordings. --static: images of MNIST that no recording shows.
           docs/tutorials/calibrating.md has figures of 20 recordings.

A split is the seed of a calibration, which holds recordings out (`spikebridge calibrate --seed --held-out`). One draw
of simulated recordings judges roughly, so the figure of the report stands beside the mean of `DRAWS` draws. Controls
are what the classifier says where there is nothing to tell: simulated recordings on both sides, and real ones on both.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.measurement.recordings import read_recordings, read_static_images  # noqa: E402
from spikebridge.train.calibration.calibrate import FINE_BINS, calibrate_to, split_recordings  # noqa: E402
from spikebridge.train.calibration.fidelity import told_apart  # noqa: E402
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS, Profile  # noqa: E402
from spikebridge.train.data.simulation import (  # noqa: E402
    SensorGrid,
    hot_pixel_draws,
    simulate_frames,
    simulation_draws,
)

SENSOR, SHOWN = (34, 34), 0.8235
MADE, DRAWS, SEED = 200, 20, 77
"""Simulated recordings, how often some of them are drawn from these, and the seed of their images and draws."""


def judged(real: torch.Tensor, images: torch.Tensor, profile: Profile, split: int, held_out: int) -> dict[str, float]:
    """Return shares told apart: of the recordings held out from simulated ones, and of simulated ones from others."""
    grid, (learnt, unseen) = SensorGrid(SENSOR[0], SENSOR, "sum"), split_recordings(real.shape[1], split, held_out)
    rows = np.random.default_rng(SEED).integers(len(images), size=MADE)
    draws = simulation_draws(SEED, 0, torch.arange(MADE), grid, device=torch.device("cpu"))
    if profile.hot_pixels:
        draws = replace(draws, hot_pixels=hot_pixel_draws(SEED, 0, torch.arange(MADE), profile, FINE_BINS))
    made = simulate_frames(images[rows], draws, grid, time_bins=FINE_BINS, profile=profile, instants=FINE_INSTANTS)
    random, told, alike = np.random.default_rng(split), [], []
    for _ in range(DRAWS):
        drawn = random.choice(MADE, real.shape[1], replace=False)
        told.append(told_apart(real[:, learnt], real[:, unseen], made[:, drawn], whole_counts=True))
    for _ in range(DRAWS):
        both = made[:, random.choice(MADE, 2 * real.shape[1], replace=False)].split(real.shape[1], 1)
        first, second = both[0].split([len(learnt), len(unseen)], 1)
        alike.append(told_apart(first, second, both[1], whole_counts=True))
    events = float(made.sum() / MADE / (real.sum() / real.shape[1]))
    return {"told": float(np.mean(told)), "alike": float(np.mean(alike)), "events": events}


def dealt(real: torch.Tensor) -> float:
    """Return the share told apart where real recordings stand on both sides."""
    random, told, quarter = np.random.default_rng(0), [], real.shape[1] // 4
    for _ in range(10 * DRAWS):
        drawn = real[:, random.permutation(real.shape[1])[: 4 * quarter]]
        first, second, others = drawn.split([quarter, quarter, 2 * quarter], 1)
        told.append(told_apart(first, second, others, whole_counts=True))
    return float(np.mean(told))


def main() -> None:
    """Calibrate and judge, split by split, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--recordings", "--static"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=10)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    torch.set_num_threads(1)
    seen = read_recordings([given.recordings], most=200, seed=0, sensor=SENSOR)
    images = torch.from_numpy(
        read_static_images(given.static, most=1000, seed=0, size=SENSOR[0], sensor=SENSOR, shown_fraction=SHOWN).placed
    )
    real = torch.from_numpy(seen.frames(time_bins=FINE_BINS, size=SENSOR[0]))
    print(
        "| split | told apart | mean of draws | simulated from simulated | events | processor s |\n" + "|---" * 6 + "|"
    )
    for split in given.splits:
        begun = time.process_time()
        made = calibrate_to(seen, images, shown_fraction=SHOWN, seed=split, held_out=given.held_out)
        seconds, found = time.process_time() - begun, judged(real, images, made.profile.profile, split, given.held_out)
        assert made.fidelity is not None
        shares = (made.fidelity.accuracy, found["told"], found["alike"], found["events"])
        print(f"| {split} |", " | ".join(f"{100 * share:.0f} %" for share in shares), f"| {seconds:.0f} |", flush=True)
    print(f"\nReal recordings dealt to both sides: {100 * dealt(real):.0f} % told apart.")


if __name__ == "__main__":
    main()
