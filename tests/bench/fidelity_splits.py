"""How far simulated recordings are told from real ones: the camera calibrated on one half, the other half judged.

Command:   python tests/bench/fidelity_splits.py --recordings FOLDER --static FOLDER [--splits N ...]
           python tests/bench/fidelity_splits.py --camera N --count N --static FOLDER --held-out N [--splits N ...]
Data:      --recordings: real N-MNIST recordings. --static: images of MNIST that no recording shows.
           docs/tutorials/calibrating.md has figures of 20 recordings.
           --camera: in their place so many recordings SIMULATED in microseconds from some of the images, which are
           then left out, by a camera of `nmnist_stand_in.py`.

A split is the seed of a calibration, which holds recordings out (`spikebridge calibrate --seed --held-out`). One draw
of simulated recordings judges roughly, so the figure of the report stands beside the mean of `DRAWS` draws, and of as
many of recordings of `simulate --camera`, in microseconds. Controls are what the classifier says where there is nothing
to tell: simulated recordings on both sides, and real ones on both.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nmnist_stand_in import draw_camera
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.formats.bin40 import encode  # noqa: E402
from spikebridge.pipeline.measurement.placing import Placing  # noqa: E402
from spikebridge.pipeline.measurement.recordings import read_recordings, read_static_images  # noqa: E402
from spikebridge.pipeline.simulation.camera import simulate  # noqa: E402
from spikebridge.train.calibration.calibrate import (  # noqa: E402
    FINE_BINS,
    calibrate_to,
    camera_in_microseconds,
    split_recordings,
)
from spikebridge.train.calibration.fidelity import told_apart  # noqa: E402
from spikebridge.train.calibration.renderings import renderings  # noqa: E402
from spikebridge.train.config.profile import CameraProfile  # noqa: E402
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS  # noqa: E402
from spikebridge.train.data.simulation import (  # noqa: E402
    SensorGrid,
    hot_pixel_draws,
    simulate_frames,
    simulation_draws,
)

SENSOR, SHOWN = (34, 34), 0.8235
MADE, DRAWS, SEED = 200, 20, 77
"""Simulated recordings (or three times as many as there are recordings), how often some of them are drawn from these,
and the seed of their images and draws."""


def judged(
    real: torch.Tensor, images: torch.Tensor, fitted: CameraProfile, split: int, held_out: int
) -> dict[str, float]:
    """Return shares told apart: of the recordings held out from simulated ones, and of simulated ones from others."""
    profile = fitted.profile
    grid, (learnt, unseen) = SensorGrid(SENSOR[0], SENSOR, "sum"), split_recordings(real.shape[1], split, held_out)
    count = max(MADE, 3 * real.shape[1])
    rows = np.random.default_rng(SEED).integers(len(images), size=count)
    draws = simulation_draws(SEED, 0, torch.arange(count), grid, device=torch.device("cpu"))
    if profile.hot_pixels:
        draws = replace(draws, hot_pixels=hot_pixel_draws(SEED, 0, torch.arange(count), profile, FINE_BINS))
    made = simulate_frames(images[rows], draws, grid, time_bins=FINE_BINS, profile=profile, instants=FINE_INSTANTS)
    exact = camera_in_microseconds(fitted)
    others = renderings(grid, profile, duration_us=fitted.duration_us, seed=SEED, fitted=exact)
    timed = others["microseconds"].render(images[rows], FINE_BINS)
    random, told, alike, exactly = np.random.default_rng(split), [], [], []
    for _ in range(DRAWS):
        drawn = random.choice(count, real.shape[1], replace=False)
        for found, simulated in ((told, made), (exactly, timed)):
            found.append(told_apart(real[:, learnt], real[:, unseen], simulated[:, drawn], whole_counts=True))
    for _ in range(DRAWS):
        both = made[:, random.choice(count, 2 * real.shape[1], replace=False)].split(real.shape[1], 1)
        first, second = both[0].split([len(learnt), len(unseen)], 1)
        alike.append(told_apart(first, second, both[1], whole_counts=True))
    events = float(made.sum() / count / (real.sum() / real.shape[1]))
    means = {"told": told, "microseconds": exactly, "alike": alike}
    return {name: float(np.mean(shares)) for name, shares in means.items()} | {"events": events}


def dealt(real: torch.Tensor) -> float:
    """Return the share told apart where real recordings stand on both sides."""
    random, told, quarter = np.random.default_rng(0), [], real.shape[1] // 4
    for _ in range(10 * DRAWS):
        drawn = real[:, random.permutation(real.shape[1])[: 4 * quarter]]
        first, second, others = drawn.split([quarter, quarter, 2 * quarter], 1)
        told.append(told_apart(first, second, others, whole_counts=True))
    return float(np.mean(told))


def simulated(images: Path, camera: int, count: int, recordings: Path, static: Path) -> None:
    """Write recordings of so many drawn images, by a camera of `nmnist_stand_in.py`, and copies of the other images."""
    recordings.mkdir()
    static.mkdir()
    settings, files = draw_camera(camera), sorted(images.rglob("*.png"))
    if len(files) <= count:
        sys.exit(f"{images}: {len(files)} images (.png); expected more than the {count} that are shown (--count)")
    order = np.random.default_rng(camera).permutation(len(files))
    for number, row in enumerate(order):
        if number >= count:
            shutil.copy(files[row], static / f"{number:05d}.png")
            continue
        grey = np.asarray(Image.open(files[row]).convert("L"))
        (recordings / f"{number:05d}.bin").write_bytes(
            encode(simulate(grey, settings=settings, seed=1 + camera, key=str(number)))
        )


def main() -> None:
    """Calibrate and judge, split by split, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--recordings", type=Path)
    source.add_argument("--camera", type=int)
    parser.add_argument("--static", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=10)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recordings, static = given.recordings, given.static
        if given.camera is not None:
            recordings, static = Path(folder) / "recordings", Path(folder) / "static"
            simulated(given.static, given.camera, given.count, recordings, static)
        seen = read_recordings([recordings], most=max(200, given.count), seed=0, sensor=SENSOR)
        placed = read_static_images(static, Placing(SENSOR[0], SENSOR, SHOWN), most=1000, seed=0)
    images = torch.from_numpy(placed.placed)
    real = torch.from_numpy(seen.frames(time_bins=FINE_BINS, size=SENSOR[0]))
    print(
        "| split | told apart | mean of draws | in microseconds | simulated from simulated | events | processor s |\n"
        + "|---" * 7
        + "|"
    )
    for split in given.splits:
        begun = time.process_time()
        made = calibrate_to(seen, images, shown_fraction=SHOWN, seed=split, held_out=given.held_out)
        seconds, found = time.process_time() - begun, judged(real, images, made.profile, split, given.held_out)
        assert made.fidelity is not None
        shares = (made.fidelity.accuracy, *found.values())
        print(f"| {split} |", " | ".join(f"{100 * share:.0f} %" for share in shares), f"| {seconds:.0f} |", flush=True)
    print(f"\nRecordings dealt to both sides: {100 * dealt(real):.0f} % told apart.")


if __name__ == "__main__":
    main()
