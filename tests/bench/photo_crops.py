"""Ten or so photographs as a set of many: crops of each are a class, every tenth is shown to the simulated camera.

Command:   python tests/bench/photo_crops.py make --photos FOLDER --out DIR [--seed N]
           spikebridge simulate --images DIR/shown --out DIR/raw [--camera DIR/camera.toml]
           spikebridge match DIR/raw --dataset folders --static DIR/crops --out DIR/pairs.csv
           python tests/bench/photo_crops.py score DIR/pairs.csv
Data:      docs/tutorials/matching.md has figures of ten: astronaut, chelsea, coffee, hubble_deep_field, ihc, rocket,
           retina and motorcycle_left of scikit-image 0.24.0, china and flower of scikit-learn.

Crops are squares of 48 to 127 pixels, anywhere, resized to 32x32; many overlap. Those of little contrast are left out.
DIR/camera.toml is a camera unlike N-MNIST's: sign of the light, thresholds, speed, path and place differ.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIDES, SIZE, CONTRAST = (48, 128), 32, 20
"""Pixels of a crop's side; of a stored one; least standard deviation of its values."""
SHOWN = 10
"""One of so many is shown to the camera."""
CAMERA = """
sensor = [34, 34]
duration_us = 250000
inverted = false
free = false
legs = [
    {x = 4.4, y = 1.6, start = 0.05, duration = 0.3},
    {x = -1.2, y = 3.8, start = 0.4, duration = 0.2},
    {x = -3.0, y = -5.2, start = 0.62, duration = 0.33},
]
[microseconds]
gamma = 0.9
dark_level = 0.09
threshold_on = 0.19
threshold_off = 0.16
threshold_spread = 0.06
bandwidth_hz = 420.0
refractory_us = 800
leak_hz = 0.15
shot_hz = 0.06
shown_fraction = 0.9
x_offset_px = 0.8
y_offset_px = -1.9
"""


def make(photos: Path, out: Path, *, crops: int, seed: int) -> None:
    """Write DIR/crops and DIR/shown, a folder for each photograph, and DIR/camera.toml."""
    random = np.random.default_rng(seed)
    for path in sorted(photos.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        for folder in ("crops", "shown"):
            (out / folder / path.stem).mkdir(parents=True)
        made = 0
        while made < crops:
            side = int(random.integers(*SIDES))
            top, left = (int(random.integers(0, length - side)) for length in pixels.shape[:2])
            crop = pixels[top : top + side, left : left + side]
            if crop.std() <= CONTRAST:
                continue
            image = Image.fromarray(crop).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            for folder in ("crops", "shown") if made % SHOWN == 0 else ("crops",):
                image.save(out / folder / path.stem / f"{made:04}.png")
            made += 1
    (out / "camera.toml").write_text(CAMERA)


def score(table: Path) -> None:
    """Print how many recordings were answered, and how many answers name the crop of the recording's name."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    answered = [row for row in rows if row["image"]]
    right = sum(row["image"] == row["recording"] for row in answered)
    print(f"{len(answered)} of {len(rows)} answered, {right} right")


def main() -> None:
    """Make the folders, or score a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("--photos", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--crops", type=int, default=500, help="of a photograph")
    making.add_argument("--seed", type=int, default=0, help="of the crops")
    verbs.add_parser("score").add_argument("table", type=Path)
    given = parser.parse_args()
    if given.verb == "make":
        make(given.photos, given.out, crops=given.crops, seed=given.seed)
    else:
        score(given.table)


if __name__ == "__main__":
    main()
