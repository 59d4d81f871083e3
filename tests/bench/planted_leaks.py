"""How many planted leaks does `verify --match` find, and how often does it report what is none? Simulated recordings.

Command:   python tests/bench/planted_leaks.py digits --mnist FOLDER --out DIR
           spikebridge simulate --images DIR/shown --out DIR/raw
           spikebridge match DIR/raw --dataset folders --static DIR/crops --sensor 34x34 --shown 0.8235 \\
               --out DIR/pairs.csv
           python tests/bench/planted_leaks.py count DIR
           DIR may also be one of `photo_crops.py make`, matched as it says there.
Data:      --mnist: train-images-idx3-ubyte and train-labels-idx1-ubyte.

`count` makes three shard sets of DIR/raw, whose recordings are called like the images that they show, and audits each:

    all    pairs by class: every held-out recording has its image in the static pool
    half   the same without the images of every second held-out recording: the other half leaks
    none   pairs by name: no held-out recording has its image in the pool

A leak counts as certain where `verify` says so, as possible where it says that, else as missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spikebridge.pipeline.containers import idx  # noqa: E402
from spikebridge.pipeline.shards.reader import ShardSet  # noqa: E402

IMAGES, SHOWN = 10_000, 400
HELD_OUT = ("test", "validation")


def run(*words: object) -> str:
    """Run a verb of spikebridge and return its stdout; `verify` ends with code 4 where it finds leaks."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "spikebridge", *map(str, words), "--quiet"], env=environment, stdout=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    if done.returncode not in (0, 4):
        raise SystemExit(done.returncode)
    return done.stdout.decode()


def digits(mnist: Path, out: Path, *, images: int, shown: int) -> None:
    """Write DIR/crops, MNIST's first images in folders by class, and DIR/shown, those that are drawn to be shown."""
    pixels, labels = idx.read(mnist / "train-images-idx3-ubyte"), idx.read(mnist / "train-labels-idx1-ubyte")
    drawn = set(np.random.default_rng(0).choice(images, shown, replace=False).tolist())
    for row in range(images):
        for folder in ("crops", "shown") if row in drawn else ("crops",):
            path = out / folder / str(labels[row]) / f"{row:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[row]).save(path)


def convert(folder: Path, static: Path, pairing: str, out: Path) -> list[str]:
    """Make a shard set and return the class and name of its held-out recordings, such as `cat-0001`, in order."""
    run(
        *(
            "preprocess",
            "--dataset",
            "folders",
            "--events",
            folder / "raw" / "events",
            "--static",
            static,
            "--out",
            out,
        ),
        *("--pairing", pairing, "--sensor", "34x34", "--time-bins", 2, "--size", 12),
    )
    shards = ShardSet(out)
    return sorted(key.partition("-")[2] for split in HELD_OUT for key in shards.splits[split].keys)


def audit(shards: Path, table: Path) -> tuple[set[str], set[str]]:
    """Return the held-out recordings that leak, and that may, as `verify --match` reports them."""
    report: dict[str, Any] = json.loads(run("verify", shards, "--match", table, "--json"))
    leaks = [line.removeprefix("leak by content: ") for line in report["problems"]]
    certain, possible = (
        {line.partition(" ")[0].partition("-")[2] for line in lines if line.startswith(HELD_OUT)}
        for lines in (leaks, report["possible_leaks"])
    )
    return certain, possible


def count(folder: Path) -> None:
    """Make the sets, audit them, and print a table."""
    held_out = convert(folder, folder / "crops", "class", folder / "sets" / "all")
    kept, half = held_out[1::2], folder / "half"
    for path in (folder / "crops").rglob("*.png"):
        there = half / path.relative_to(folder / "crops")
        label = sorted(each.name for each in (folder / "crops").iterdir()).index(path.parent.name)
        if f"{label}-{path.stem}" in held_out[::2] or there.exists():
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, there)
    convert(folder, half, "class", folder / "sets" / "half")
    convert(folder, folder / "crops", "exact", folder / "sets" / "none")
    print("| leaks | certain | possible | missed | no leaks | called certain | called possible |\n" + "|---" * 7 + "|")
    for name, planted in (("all", held_out), ("half", kept), ("none", [])):
        (certain, possible), leaks = audit(folder / "sets" / name, folder / "pairs.csv"), set(planted)
        others = set(held_out) - leaks
        row = [len(leaks), len(leaks & certain), len(leaks & possible), len(leaks - certain - possible)]
        print("|", " | ".join(map(str, [*row, len(others), len(others & certain), len(others & possible)])), "|")


def main() -> None:
    """Make the digits, or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("digits")
    for name in ("--mnist", "--out"):
        making.add_argument(name, type=Path, required=True)
    making.add_argument("--images", type=int, default=IMAGES)
    making.add_argument("--shown", type=int, default=SHOWN)
    verbs.add_parser("count").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.verb == "digits":
        digits(given.mnist, given.out, images=given.images, shown=given.shown)
    else:
        count(given.folder)


if __name__ == "__main__":
    main()
