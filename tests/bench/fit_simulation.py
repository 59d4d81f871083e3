"""Fit the training simulator to real recordings of known photographs: where the middles of its ranges come from.

Command:   python tests/bench/fit_simulation.py --recordings FOLDER [--generations 50] [--seed 0]
Data:      FOLDER/expected.csv with a column `file`, the N-MNIST recordings that it names, and FOLDER/mnist_images.npy
           [n,28,28] uint8 with the photograph of each. Nothing of them is written.

The frames of simulated and real recordings (T=10, 28x28, sum, canvas) are compared cell by cell, smoothed over 3x3
cells, by events per bin and polarity, by events per recording, and by the distribution of counts. Settings and legs
are sought together by the cross-entropy method: normal proposals, of which the best quarter makes the next.

Source: Rubinstein and Kroese, "The cross-entropy method", 2004.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.events.framing import to_frames  # noqa: E402
from spikebridge.pipeline.formats.bin40 import decode_packed  # noqa: E402
from spikebridge.pipeline.images.decode import to_static  # noqa: E402
from spikebridge.train.config.simulation_ranges import LANES, TRIANGLE, Leg, Profile, SimulationRanges  # noqa: E402
from spikebridge.train.data.simulation import SensorGrid, simulate_frames, simulation_draws  # noqa: E402

T, SIZE, SENSOR = 10, 28, (34, 34)
BY_SAMPLE = {"amplitude": 1.0, "pace": 1.0, **dict.fromkeys(("amplitude_spread", "turn", "delay"), 0.0)}
"""Settings that only make samples differ; not fitted."""
START = {
    "light_gamma": (1.2, 0.2), "dark_level": (0.05, 0.02), "softness": (-0.3, 0.3), "threshold_on": (0.25, 0.05),
    "off_ratio": (1.0, 0.1), "threshold_spread": (0.08, 0.05), "bandwidth": (300.0, 80.0), "dead_time": (0.005, 0.002),
    "leak": (0.1, 0.1), "noise": (0.01, 0.01), "x_start": (-2.7, 0.5), "y_start": (-1.5, 0.5), "scale": (1.0, 0.04),
    "stretch": (0.0, 0.04), "rotation": (0.0, 0.04), "shear": (0.0, 0.04),
}  # fmt: skip
"""Where the search begins: mean and standard deviation."""
LEG_SPREAD = (0.5, 0.5, 0.03, 0.03)
POSITIVE = ("light_gamma", "dark_level", "threshold_on", "off_ratio", "bandwidth")
NOT_NEGATIVE = ("threshold_spread", "dead_time", "leak", "noise")


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Photographs [n,1,S,S] in [0, 1], placed as the pipeline places them, and frames [T,n,2,S,S] of the recordings."""
    with (folder / "expected.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file)]
    frames = []
    for name in names:
        events = decode_packed((folder / name).read_bytes(), sensor_size=SENSOR, source=name)
        made = to_frames(
            events, time_bins=T, size=SIZE, reduction="sum", dtype="uint8", canvas=SENSOR, source=name
        ).frames
        frames.append(torch.from_numpy(made.astype(np.float32)))
    images = [
        to_static(np.repeat(image[..., None], 3, -1), size=SIZE, encoding="v", canvas=SENSOR, shown_fraction=28 / 34)
        for image in np.load(folder / "mnist_images.npy")
    ]
    return torch.from_numpy(np.stack(images)) / 255, torch.stack(frames, 1)


def profile_of(values: NDArray[np.float64]) -> Profile:
    """Ranges of no width, and legs."""
    settings = dict(zip(START, values, strict=False)) | BY_SAMPLE
    for name in POSITIVE + NOT_NEGATIVE:
        settings[name] = max(settings[name], 0.01 if name in POSITIVE else 0.0)
    legs = values[len(START) :].reshape(-1, 4)
    ranges = SimulationRanges(**{name: (float(settings[name]),) * 2 for name in LANES})
    return Profile(ranges, tuple(Leg(*map(float, leg[:3]), max(float(leg[3]), 0.05)) for leg in legs), inverted=True)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's over all cells of a sample, mean over the samples; both [T,n,2,S,S]."""
    x, y = (frames.transpose(0, 1).flatten(1) for frames in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return float(((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-9)).mean())


def smooth(frames: Tensor) -> Tensor:
    return F.avg_pool2d(frames.flatten(0, 2)[:, None], 3, 1, 1).view(frames.shape)


def agreement(made: Tensor, real: Tensor) -> dict[str, float]:
    """How simulated frames compare with the real ones, see the module."""
    bins, real_bins = (x.sum((3, 4)).mean(1) for x in (made, real))  # [T,2]
    per_recording = torch.log(made.sum((0, 2, 3, 4)).clamp(min=1)) - torch.log(real.sum((0, 2, 3, 4)))
    counts = [(float((made == n).float().mean()), float((real == n).float().mean())) for n in range(1, 6)]
    return {
        "correlation": correlation(made, real),
        "smooth": correlation(smooth(made), smooth(real)),
        "bins": float((bins - real_bins).abs().sum() / real_bins.sum()),
        "recordings": float(per_recording.std()),
        "counts": float(np.mean([abs(ours / theirs - 1) for ours, theirs in counts])),
    }


def main() -> None:
    """Search and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--generations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    images, real = read(asked.recordings)
    grid = SensorGrid(SIZE, SENSOR, "sum")
    draws = simulation_draws(asked.seed, 0, torch.arange(len(images)), grid, device=torch.device("cpu"))

    def compared(values: NDArray[np.float64]) -> dict[str, float]:
        made = simulate_frames(images, draws, grid, time_bins=T, profile=profile_of(values))
        return agreement(made, real)

    def cost(values: NDArray[np.float64]) -> float:
        a = compared(values)
        return 2 - a["correlation"] - a["smooth"] + 0.5 * a["bins"] + 0.3 * a["recordings"] + 0.2 * a["counts"]

    legs = [
        (getattr(leg, name), spread) for leg in TRIANGLE for name, spread in zip(vars(leg), LEG_SPREAD, strict=True)
    ]
    mean, deviation = (np.array(column) for column in zip(*START.values(), *legs, strict=True))
    random = np.random.default_rng(asked.seed)
    for generation in range(asked.generations):
        proposals = mean + deviation * random.standard_normal((28, len(mean)))
        best = proposals[np.argsort([cost(proposal) for proposal in proposals])[:7]]
        mean = 0.2 * mean + 0.8 * best.mean(0)
        deviation = 0.35 * deviation + 0.65 * np.maximum(best.std(0), 0.3 * deviation)
        if generation % 10 == 9 or generation == asked.generations - 1:
            print(generation + 1, {name: round(value, 3) for name, value in compared(mean).items()}, flush=True)
    for name, value in zip(START, mean, strict=False):
        print(f"{name:18}{value:.4g}")
    for leg in mean[len(START) :].reshape(-1, 4):
        print("Leg({:.3g}, {:.3g}, {:.3g}, {:.3g})".format(*leg))


if __name__ == "__main__":
    main()
