"""Ten or so photographs as a set of many: crops of each are a class, every tenth is shown to the simulated camera.

Command:   python tests/bench/photo_crops.py make --photos FOLDER --out DIR [--seed N]
               [--sensor 240x180 --sides 150,400 --shown 1.5]
           spikebridge simulate --images DIR/shown --out DIR/raw [--camera DIR/camera.toml]
           spikebridge match DIR/raw --dataset folders --static DIR/crops --out DIR/pairs.csv
           python tests/bench/photo_crops.py score DIR/pairs.csv
Data:      docs/tutorials/matching.md has figures of ten: astronaut, chelsea, coffee, hubble_deep_field, ihc, rocket,
           retina and motorcycle_left of scikit-image 0.24.0, china and flower of scikit-learn.

Crops are squares of 48 to 127 pixels, anywhere, resized to 32x32; many overlap. Those of little contrast are left out.
DIR/camera.toml is a camera unlike N-MNIST's: sign of the light, thresholds, speed, path and place differ.
With --sensor it has so many pixels, the path and the place are as much longer, and crops keep their own size.
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
SENSOR, FILLS = (34, 34), 0.9
"""Of the camera, unless it is said otherwise: width and height in pixels, share that a crop fills."""
CAMERA = """
sensor = [{width}, {height}]
duration_us = 250000
inverted = false
free = false
legs = [
    {{x = {x[0]}, y = {y[0]}, start = 0.05, duration = 0.3}},
    {{x = {x[1]}, y = {y[1]}, start = 0.4, duration = 0.2}},
    {{x = {x[2]}, y = {y[2]}, start = 0.62, duration = 0.33}},
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
shown_fraction = {shown}
x_offset_px = {x[3]}
y_offset_px = {y[3]}
"""
X, Y = (4.4, -1.2, -3.0, 0.8), (1.6, 3.8, -5.2, -1.9)
"""Legs and beginning of the path, pixels of `SENSOR`."""


def make(
    photos: Path, out: Path, *, crops: int, seed: int, sensor: tuple[int, int], sides: tuple[int, int], shown: float
) -> None:  # fmt: skip
    """Write DIR/crops and DIR/shown, a folder for each photograph, and DIR/camera.toml."""
    random, (width, height) = np.random.default_rng(seed), sensor
    for path in sorted(photos.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        for folder in ("crops", "shown"):
            (out / folder / path.stem).mkdir(parents=True)
        made = 0
        while made < crops:
            side = int(random.integers(*sides))
            top, left = (int(random.integers(0, length - side)) for length in pixels.shape[:2])
            crop = pixels[top : top + side, left : left + side]
            if crop.std() <= CONTRAST:
                continue
            image = Image.fromarray(crop)
            if sensor == SENSOR:
                image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            for folder in ("crops", "shown") if made % SHOWN == 0 else ("crops",):
                image.save(out / folder / path.stem / f"{made:04}.png")
            made += 1
    longer = max(sensor) / max(SENSOR)
    path = {axis: [round(longer * value, 2) for value in values] for axis, values in (("x", X), ("y", Y))}
    (out / "camera.toml").write_text(CAMERA.format(width=width, height=height, shown=shown, **path))


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
    making.add_argument("--sensor", default="x".join(map(str, SENSOR)), help="WxH")
    making.add_argument("--sides", default=",".join(map(str, SIDES)), help="of crops, pixels: least,most")
    making.add_argument("--shown", type=float, default=FILLS, help="share of the sensor that a crop fills")
    verbs.add_parser("score").add_argument("table", type=Path)
    given = parser.parse_args()
    if given.verb == "make":
        (width, height), (least, most) = map(int, given.sensor.split("x")), map(int, given.sides.split(","))
        make(
            given.photos, given.out, crops=given.crops, seed=given.seed, sensor=(width, height), sides=(least, most),
            shown=given.shown,
        )  # fmt: skip
    else:
        score(given.table)


if __name__ == "__main__":
    main()
