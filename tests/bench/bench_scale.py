"""What a set costs as it grows: CPU and memory of every stage at several numbers of recordings, and how they grow.

Command:   python tests/bench/bench_scale.py [--sizes 2000,10000,40000] [--folder DIR] [--json FILE]
Data:      small random recordings (60 events, 40-bit records) in 1,000 class folders, one static image a class
Growth:    the exponent between the two largest sizes, of what comes on top of the smallest, and what it gives for the
           1,281,167 recordings of N-ImageNet

Each stage is a process of its own that reports its CPU and its peak of memory; with workers, the parent's peak and the
CPU of all.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rounds import machine  # isort: skip  (sets the number of threads)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
from memory import peak_bytes

CLASSES, EVENTS, SENSOR = 1000, 60, (34, 34)
WANTED = 1_281_167
"""Recordings of N-ImageNet's training part."""
LEAST_GROWTH = 0.1
"""Share of the base from which on growth is told from noise."""
CROP_BAR_US = 150
RECIPE = """
[shards]
dataset = "folders"
time_bins = 2
size = 16
reduction = "sum"
extent = "canvas"
encoding = "v"
protocol = "strict"

[train]
method = "event_only"
model = "scnn"
width = 0.1
epochs = 1
batch_size = 100
lr = 1e-3
events_per_class = 1
"""


@dataclass(frozen=True)
class Bar:
    """What is asked of a stage at `WANTED` recordings."""

    quantity: str
    """`cpu_s`, `cpu_us` (for each recording), `peak_mb` or `seconds`."""
    most: float | None
    """None where it is what the second size took."""


BARS: dict[str, tuple[Bar, ...]] = {
    "plan": (Bar("cpu_s", math.inf), Bar("peak_mb", 1500)),
    "convert": (Bar("cpu_us", None), Bar("peak_mb", 1500)),
    "repeat": (Bar("cpu_s", 30),),
    "first batch": (Bar("seconds", 10), Bar("peak_mb", 2000)),
    "train": (Bar("peak_mb", 2000),),
    "report": (Bar("peak_mb", 1000),),
    "inspect": (Bar("cpu_s", 120), Bar("peak_mb", 500)),
}
"""By stage, with an infinite bar where only the growth is asked for."""


def write_raw(folder: Path, recordings: int) -> None:
    """Write recordings and static images into class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 100_000, (recordings, EVENTS)), axis=1)
    x, y, p = (rng.integers(0, high, (recordings, EVENTS)) for high in (*SENSOR, 2))
    bytes_ = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=-1).astype(np.uint8)
    for label in range(CLASSES):
        for kind in ("events", "static"):
            (folder / kind / f"{label:04d}").mkdir(parents=True)
        image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(image).save(folder / "static" / f"{label:04d}" / f"image{label}.png")
    for number, data in enumerate(bytes_):
        label = number % CLASSES
        (folder / "events" / f"{label:04d}" / f"{number:07d}.bin").write_bytes(data.tobytes())
    (folder / "recipe.toml").write_text(RECIPE)


def stages(folder: Path) -> dict[str, list[str]]:
    """The command of each stage, for data in a folder."""
    raw = ["--dataset", "folders", "--events", str(folder / "events"), "--static", str(folder / "static")]
    raw += ["--time-bins", "2", "--size", "16", "--workers", "2"]
    made, recipe, run = str(folder / "shards"), str(folder / "recipe.toml"), str(folder / "run")
    convert = ["preprocess", *raw, "--out", made]
    return {
        "plan": [*convert, "--dry-run"],
        "convert": convert,
        "repeat": convert,
        "first batch": ["first batch", made, recipe],
        "train": ["train", "--shards", made, "--recipe", recipe, "--run", run, "--no-test"],
        "report": ["report", run, "--shards", made, "--out", str(folder / "report.html")],
        "inspect": ["inspect", made],
    }


def first_batch(made: str, recipe: str) -> None:
    """Open a set and make the first batch of a training, from the disk, with all labelled recordings."""
    import torch

    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.config.recipes import load_recipe, override
    from spikebridge.train.data.batches import TrainingBatches

    settings = override(load_recipe(recipe), events_per_class=0).train
    batches = TrainingBatches(
        ShardSet(made), settings, device=torch.device("cpu"), needs_static=False, residence="disk"
    )
    batches.batch(0, 0)


def assemble(folder: Path) -> dict[str, float]:
    """Return the microseconds of CPU that a sample of a batch takes, without augmentation and with `crop`."""
    import torch
    from made_shards import write_shards

    from spikebridge.train.config.recipes import load_recipe, override
    from spikebridge.train.data.batches import TrainingBatches

    torch.set_num_threads(1)
    size, batches, each = 120, 20, {}
    shards = write_shards(folder, recordings=batches * size, classes=10, images=500, size=48, time_bins=10)
    for name in ("none", "crop"):
        recipe = override(load_recipe("nmnist"), augmentation=name, batch_size=size, events_per_class=0)
        made = TrainingBatches(shards, recipe.train, device=torch.device("cpu"), needs_static=True, residence="disk")
        made.batch(0, 0)
        times = []
        for index in range(1, batches):
            started = time.process_time()
            made.batch(0, index)
            times.append((time.process_time() - started) / size * 1e6)
        each[name] = statistics.median(times)
    return each


def do(words: Sequence[str], out: Path) -> None:
    """Do one stage in this process, and write what it took."""
    started = time.perf_counter()
    if words[0] == "assemble":
        out.write_text(json.dumps(assemble(Path(words[1]))))
        return
    if words[0] == "first batch":
        first_batch(*words[1:])
    else:
        from spikebridge.cli import main

        main(list(words), standalone_mode=False)
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    found = {"seconds": time.perf_counter() - started, "cpu_s": cpu_s, "peak_mb": peak_bytes() / 1e6}
    out.write_text(json.dumps(found))


def run(folder: Path, what: str, words: Sequence[str]) -> dict[str, float]:
    """Do something in a process of its own, and return what it took."""
    out = folder / "took.json"
    done = subprocess.run(
        [sys.executable, __file__, "--do", str(out), "--", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{what}: exit code {done.returncode}\n{done.stderr}")
    took: dict[str, float] = json.loads(out.read_text())
    return took


def measure(folder: Path, recordings: int) -> dict[str, dict[str, float]]:
    """Make a set of so many recordings in a folder, and return what each stage took."""
    write_raw(folder, recordings)
    found = {}
    for name, words in stages(folder).items():
        found[name] = run(folder, f"{recordings} recordings, {name}", words)
        print(f"{recordings:,} {name}: {found[name]['cpu_s']:.1f} s CPU, {found[name]['peak_mb']:.0f} MB", flush=True)
    return found


def grow(sizes: Sequence[int], values: Sequence[float]) -> tuple[float | None, float]:
    """Return the exponent between the two largest sizes, and the value at `WANTED`; the smallest is the base.

    None, and growth in proportion, where what comes on top of the base is too little to tell.
    """
    more = [size - sizes[0] for size in (*sizes[-2:], WANTED)]
    before, after = (value - values[0] for value in values[-2:])
    least = LEAST_GROWTH * values[0]
    told = before > least and after > least
    exponent = math.log(after / before) / math.log(more[1] / more[0]) if told else None
    return exponent, values[0] + max(after, 0.0) * (more[2] / more[1]) ** (1.0 if exponent is None else exponent)


def rows(sizes: Sequence[int], found: dict[int, dict[str, dict[str, float]]]) -> list[tuple[str, ...]]:
    """The table: stage, quantity, a column a size, exponent, extrapolation, bar."""
    units = {"cpu_s": "CPU, s", "cpu_us": "CPU a recording, us", "peak_mb": "peak, MB", "seconds": "wall, s"}
    lines = [("stage", "of it", *(f"{size:,}" for size in sizes), "exponent", f"at {WANTED:,}", "bar")]
    for stage, bars in BARS.items():
        for bar in bars:
            each = bar.quantity == "cpu_us"
            values = [found[size][stage]["cpu_s" if each else bar.quantity] for size in sizes]
            exponent, at = grow(sizes, values)
            if each:
                values = [value / size * 1e6 for value, size in zip(values, sizes, strict=True)]
                at *= 1e6 / WANTED
            most = values[1] if bar.most is None else bar.most
            verdict = "-" if math.isinf(most) else f"{most:,.0f} {'reached' if at <= most else 'missed'}"
            cells = [f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in (*values, at)]
            lines.append(
                (
                    stage,
                    units[bar.quantity],
                    *cells[:-1],
                    "-" if exponent is None else f"{exponent:.2f}",
                    cells[-1],
                    verdict,
                )
            )
    return lines


def main() -> None:
    """Measure, print, and write the table where it is wanted."""
    parser = argparse.ArgumentParser(description="What a set costs as it grows.")
    parser.add_argument("--sizes", default="2000,10000,40000", help="recordings, increasing, three or more")
    parser.add_argument("--folder", type=Path, help="where sets are made and deleted again (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, and the table as .md")
    parser.add_argument("--do", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        return do(given.words, given.do)
    sizes = [int(size) for size in given.sizes.split(",")]
    if len(sizes) < 3 or sizes != sorted(set(sizes)) or sizes[0] < 2 * CLASSES:
        parser.error(f"--sizes {given.sizes}: expected three or more increasing numbers from {2 * CLASSES} on.")
    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found[size] = measure(Path(folder), size)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        batch_us = run(Path(folder), "batches", ["assemble", str(Path(folder) / "set")])
    assembled = (
        f"a sample of a batch of 120, uint8 10x2x48x48 from the disk, one core: {batch_us['none']:.0f} us of CPU, "
        f"{batch_us['crop']:.0f} us with crop (bar {CROP_BAR_US}: "
        f"{'reached' if batch_us['crop'] <= CROP_BAR_US else 'missed'})"
    )
    facts, table = machine(("numpy", "torch", "h5py")), rows(sizes, found)
    head = "; ".join(f"{name} {value}" for name, value in facts.items())
    text = [f"| {' | '.join(line)} |" for line in table]
    text.insert(1, "|" + "---|" * len(table[0]))
    text += ["", assembled]
    print("\n".join((head, "", *text)))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"machine": facts, "sizes": found, "batch_us": batch_us}, indent=1) + "\n")
        given.json.with_suffix(".md").write_text("\n".join(("# make bench-scale", "", head, "", *text)) + "\n")
    return None


if __name__ == "__main__":
    main()
