"""Recordings of a camera that nobody knows, and photographs of the same classes that none of them shows.

Command:   python tests/bench/unknown_camera.py --images FILE --labels FILE --camera N --out DIR
           and then the three commands of docs/tutorials/calibrating.md, "From recordings and photographs to a network"
Data:      idx files of images and classes. The tutorial has figures of Fashion-MNIST's training images, as Debian
           packages them (dataset-fashion-mnist 0.0~git20200523.55506a9-1).

The recordings are SIMULATED by the microsecond simulator of `spikebridge simulate`, with a camera that `ten_cameras.py`
draws, and marked as such: everything that is made of them says so.
"""

from __future__ import annotations

import argparse
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

PARTS = {"recordings/train": 20, "recordings/test": 40, "photos": 200}
"""Images of each class, drawn without an image in two of them."""


def make(images: Path, labels: Path, out: Path, *, camera: int, seed: int) -> str:
    """Write DIR/recordings/{train,test} and DIR/photos, by class; returns what kind of movement it is."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SIMULATION_NOTE).write_text('{"settings": null}\n')  # simulated, and of a camera that nobody knows
    pixels, classes = read(images), read(labels)
    kind, settings = draw_camera(camera)
    order = np.random.default_rng(seed).permutation(len(pixels))
    for label in np.unique(classes).tolist():
        mine = iter(order[classes[order] == label].tolist())
        for part, count in PARTS.items():
            folder = out / part / f"class{label}"
            folder.mkdir(parents=True)
            for number, i in zip(range(count), mine, strict=False):
                if part == "photos":
                    Image.fromarray(pixels[i]).save(folder / f"photo{number:04d}.png")
                    continue
                events = simulate(pixels[i], settings=settings, seed=camera, key=str(i))
                (folder / f"{part[11:]}{number:04d}.bin").write_bytes(encode(events))
    return kind


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--camera", type=int, required=True, help="number; 0 to 9 are those of the committed table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    given = parser.parse_args()
    print(make(given.images, given.labels, given.out, camera=given.camera, seed=given.seed))


if __name__ == "__main__":
    main()
