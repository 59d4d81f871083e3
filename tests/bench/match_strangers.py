"""How far `match` can be believed where many recordings show nothing of the folder: the same recordings, fewer images.

Command:   python tests/bench/match_strangers.py --images FILE --camera N --out DIR [--shown 600,200,60,20,0]
Data:      an idx file of images. docs/tutorials/matching.md has figures of Fashion-MNIST's training images, as Debian
           packages them (dataset-fashion-mnist 0.0~git20200523.55506a9-1).

600 images are recorded by a camera that `ten_cameras.py` draws; SIMULATED by the microsecond simulator of
`spikebridge simulate`. `spikebridge calibrate` fits the camera to these recordings and 2,000 other images, once; a file
DIR/camera.toml that is there is taken. `spikebridge match` is then asked with these 2,000 and the images of so many of
the recordings.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from ten_cameras import draw_camera  # noqa: E402

from spikebridge.pipeline.containers.idx import read  # noqa: E402
from spikebridge.pipeline.datasets.pairs import SIMULATION_NOTE  # noqa: E402
from spikebridge.pipeline.formats.bin40 import encode  # noqa: E402
from spikebridge.pipeline.simulation.camera import simulate  # noqa: E402

RECORDINGS, OTHERS = 600, 2000
ON_SENSOR = ("--sensor", "34x34", "--shown", "0.8235")


def run(*words: object) -> None:
    """Run a command of spikebridge."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "spikebridge", *map(str, words), "--quiet"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def make(images: Path, out: Path, camera: int) -> list[str]:
    """Write DIR/recordings, DIR/own and DIR/others; returns the names of the recordings in the order of the draw."""
    pixels, settings = read(images), draw_camera(camera)[1]
    order = np.random.default_rng(0).permutation(len(pixels))[: RECORDINGS + OTHERS].tolist()
    names = [f"{row:05d}" for row in order]
    if (out / "recordings").exists():
        return names[:RECORDINGS]
    for folder in ("recordings", "own", "others"):
        (out / folder).mkdir(parents=True)
    (out / SIMULATION_NOTE).write_text('{"settings": null}\n')
    for place, (row, name) in enumerate(zip(order, names, strict=True)):
        folder = "own" if place < RECORDINGS else "others"
        Image.fromarray(pixels[row]).save(out / folder / f"{name}.png")
        if folder == "own":
            events = simulate(pixels[row], settings=settings, seed=camera, key=str(row))
            (out / "recordings" / f"{name}.bin").write_bytes(encode(events))
    return names[:RECORDINGS]


def ask(out: Path, shown: list[str]) -> str:
    """Match with the images of some recordings and all others; returns a row of a table."""
    folder, pairs = out / "asked", out / f"pairs-{len(shown)}.csv"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(out / "others", folder)
    for name in shown:
        shutil.copy(out / "own" / f"{name}.png", folder)
    run("match", out / "recordings", "--static", folder, "--camera", out / "camera.toml", *ON_SENSOR,
        "--out", pairs, "--overwrite")  # fmt: skip
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sure = [float(row["confidence"]) for row in rows if row["image"]]
    right = sum(row["image"] == row["recording"] for row in rows if row["image"])
    mean = f"{np.mean(sure):.3f}" if sure else ""
    return f"| {len(rows)} | {len(shown)} | {len(sure)} | {right} | {mean} |"


def main() -> None:
    """Make what is not there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--camera", type=int, required=True, help="number; 0 to 9 are those of the committed table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shown", default="600,200,60,20,0", help="recordings whose image is in the folder")
    given = parser.parse_args()
    names = make(given.images, given.out, given.camera)
    if not (given.out / "camera.toml").exists():
        run("calibrate", given.out / "recordings", "--static", given.out / "others", *ON_SENSOR,
            "--out", given.out / "camera.toml")  # fmt: skip
    print("| recordings | of images in the folder | answered | right | mean confidence |")
    print("|---|---|---|---|---|")
    for shown in map(int, given.shown.split(",")):
        print(ask(given.out, names[:shown]), flush=True)


if __name__ == "__main__":
    main()
