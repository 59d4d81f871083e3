"""Cameras drawn at random from wide ranges: `kt` and recipe `best` on recordings that each of them makes of the digits.

Command:   python tests/bench/ten_cameras.py run --out DIR --cameras 0-9 --test
           python tests/bench/ten_cameras.py table DIR --out docs/results/cameras-DATE --command ... --machine ...
Data:      scikit-learn's digits; the recordings are SIMULATED by the microsecond simulator of `spikebridge simulate`.
           Training simulates with another program (train/data/simulation.py) and is told nothing about the camera.
Terms:     10 labelled recordings per class, 300 steps, the same recordings, weights and order for all rows of a seed.
           Cameras 0 to 9 are for the table and choose nothing; whatever is tuned is tuned on cameras 100 and up,
           on the validation split: without --test no figure of the test split is computed.

What is finished is kept, row by row: an interrupted command continues when it is given again, and two commands with
other cameras may share a folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from spikebridge.pipeline.preprocess.prepare import prepare  # noqa: E402
from spikebridge.pipeline.preprocess.run import convert  # noqa: E402
from spikebridge.pipeline.shards.reader import ShardSet  # noqa: E402
from spikebridge.pipeline.shards.settings import ConversionSettings  # noqa: E402
from spikebridge.pipeline.simulation.settings import Saccade, SimulatorSettings  # noqa: E402
from spikebridge.pipeline.simulation.write import write_digits  # noqa: E402
from spikebridge.train.calibration.auto import calibrated_profile  # noqa: E402
from spikebridge.train.config.recipes import Recipe, load_recipe, override  # noqa: E402
from spikebridge.train.statistics import Difference, difference, mean_and_std  # noqa: E402
from spikebridge.train.trainer.run import train  # noqa: E402

TERMS = ("events_per_class=10", "validate_every=12", "epochs=60")
"""Of rows in batches of 20; the others give their own."""


@dataclass(frozen=True)
class Row:
    """One way of training."""

    recipe: str
    switches: tuple[str, ...]
    note: str


ROWS = {
    "kt": Row("digits", (*TERMS, "lr=8e-3"), "the published method, at the learning rate of its row in `make ablate`"),
    "best": Row("best", ("validate_every=6",), "recipe `best`: calibrated on the training recordings, labels unused"),
    "best, noise": Row(
        "best",
        ("validate_every=6", "simulated_background=8", "simulated_hot_pixels=0.03"),
        "the same with background activity and hot pixels in simulated recordings",
    ),
    "best, guessed": Row("best", ("validate_every=6", "simulation=saccades"), "the same with the built-in guess"),
    "event only": Row("digits", ("method=event_only", *TERMS, "lr=4e-3"), "without static images"),
}
REFERENCE = "kt"
FIGURE = "test_accuracy"

LOGARITHMIC = {
    "gamma": (0.7, 2.0),
    "dark_level": (0.02, 0.25),
    "blur_px": (0.3, 0.9),
    "threshold_on": (0.12, 0.5),
    "off_ratio": (0.6, 1.6),
    "bandwidth_hz": (40.0, 1500.0),
    "refractory_us": (300.0, 5000.0),
    "leak_hz": (0.05, 2.0),
    "shot_hz": (0.005, 0.5),
    "duration_us": (120_000.0, 600_000.0),
}
"""Lowest and highest value, drawn uniformly by the logarithm."""
UNIFORM = {
    "threshold_spread": (0.01, 0.15),
    "threshold_noise": (0.0, 0.15),
    "refractory_spread": (0.0, 0.2),
    "position_jitter_px": (0.05, 0.6),
    "amplitude_jitter": (0.01, 0.15),
    "threshold_jitter": (0.0, 0.08),
}
"""Lowest and highest value, drawn uniformly."""
PATHS = ("saccades", "curve", "sweep")
WAY_PX = (3.0, 7.0)
"""Length of a saccade, radius-wise width of a curve, and half of a sweep."""
TURNS = 8
"""Overlapping saccades that make a curve."""


def draw_camera(number: int) -> tuple[str, SimulatorSettings]:
    """Return kind of movement and settings of a camera, which its number decides; sensor 34x34 as that of N-MNIST."""
    random = np.random.default_rng([number, 2611])
    drawn = {name: math.exp(random.uniform(math.log(low), math.log(high))) for name, (low, high) in LOGARITHMIC.items()}
    drawn |= {name: random.uniform(low, high) for name, (low, high) in UNIFORM.items()}
    threshold_off = drawn["threshold_on"] * drawn.pop("off_ratio")
    duration = round(drawn.pop("duration_us"))
    inverted, kind = bool(random.integers(2)), PATHS[random.integers(len(PATHS))]
    path, start = _draw_path(kind, duration, random)
    settings = SimulatorSettings(
        **drawn | {"refractory_us": round(drawn["refractory_us"])},
        threshold_off=threshold_off,
        duration_us=duration,
        duration_jitter_us=0.01 * duration,
        timing_jitter_us=duration * random.uniform(0.002, 0.02),
        inverted=inverted,
        saccades=path,
        x_offset_px=float(start[0]),
        y_offset_px=float(start[1]),
    )
    return kind, settings


def _draw_path(
    kind: str, duration: int, random: np.random.Generator
) -> tuple[tuple[Saccade, ...], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return a path and its start, so that its middle lies within 1.5 pixels of that of the sensor."""
    way, angle = random.uniform(*WAY_PX), random.uniform(0, 2 * math.pi)
    if kind == "saccades":  # two to four, each in any direction but straight on, with pauses
        count = int(random.integers(2, 5))
        angles = angle + np.cumsum([0, *random.uniform(0.5 * math.pi, 1.5 * math.pi, count - 1)])
        ways = np.stack([np.cos(angles), np.sin(angles)], 1) * random.uniform(*WAY_PX, (count, 1))
        starts = (np.arange(count) + random.uniform(0.02, 0.15, count)) / count
        lengths = random.uniform(0.5, 0.85, count) / count
    elif kind == "curve":  # a part of an ellipse, one and a half turns at most
        around = angle + np.linspace(0, random.uniform(1.0, 3.0) * math.pi, TURNS + 1)
        points = np.stack([np.cos(around), random.uniform(0.5, 1.0) * np.sin(around)], 1) * way
        ways = np.diff(points, axis=0)
        starts, lengths = (np.arange(TURNS) - 0.5) / TURNS, np.full(TURNS, 2 / TURNS)
    else:  # one way across, and not back
        ways = 2 * way * np.array([[math.cos(angle), math.sin(angle)]])
        starts, lengths = random.uniform(0.0, 0.1, 1), random.uniform(0.7, 0.9, 1)
    saccades = []
    for (x, y), start, length in zip(ways, starts, lengths, strict=True):
        begin, long = round(max(start, 0.0) * duration), round(length * duration)
        saccades.append(Saccade(float(x), float(y), begin, long, begin, long))
    middle = np.cumsum(np.vstack([np.zeros(2), ways]), 0)
    return tuple(saccades), random.uniform(-1.5, 1.5, 2) - (middle.max(0) + middle.min(0)) / 2


def shard_set(number: int, out: Path) -> ShardSet:
    """Return the shard set of a camera's recordings, made first where it is not there; recipe `digits` says how."""
    folder = out / f"camera-{number}"
    write_digits(folder / "raw", seed=number, settings=draw_camera(number)[1])
    shards = folder / "shards"
    if not (shards / "manifest.json").exists():
        raw = folder / "raw"
        settings = ConversionSettings(**load_recipe("digits").tables()["shards"])
        convert(prepare(settings, events_root=raw / "events", static_root=raw / "static"), shards)
    return ShardSet(shards)


def recipe_of(row: Row, seed: int) -> Recipe:
    """Return the recipe of a run."""
    return override(load_recipe(row.recipe), [*row.switches, f"seed={seed}"])


def run(out: Path, *, cameras: Iterable[int], seeds: Sequence[int], rows: Sequence[str], test: bool) -> None:
    """Train every row on every camera, seed by seed; what is done is kept."""
    torch.set_num_threads(1)
    cameras = list(cameras)
    for seed in seeds:
        for number in cameras:
            wanted = {name: out / f"camera-{number}" / "rows" / f"{name}, seed {seed}.json" for name in rows}
            missing = {name: path for name, path in wanted.items() if not path.exists()}
            if not missing:
                continue
            shards = shard_set(number, out)
            for name, path in missing.items():
                recipe, folder = recipe_of(ROWS[name], seed), out / f"camera-{number}" / "runs"
                begun = time.process_time()
                if recipe.train.simulation == "auto":
                    calibrated_profile(shards, folder)
                calibration = time.process_time() - begun
                result = train(shards, recipe, folder / f"{name}, seed {seed}", device="cpu", test=test)
                found = {
                    "camera": number,
                    "kind": draw_camera(number)[0],
                    "row": name,
                    "seed": seed,
                    "validation_accuracy": result["validation_accuracy"],
                    "test_accuracy": result["test_accuracy"] if test else None,
                    "training_cpu_seconds": result["training_cpu_seconds"],
                    "calibration_cpu_seconds": calibration,
                    "shard_set": shards.id,
                    "date": f"{datetime.now(UTC):%F}",
                    "commit": _commit(),
                }
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1))
                shown = found["test_accuracy"] if test else found["validation_accuracy"]
                print(f"camera {number} ({found['kind']}), seed {seed}, {name}: {100 * shown:.1f}", flush=True)


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def write_table(out: Path, to: Path, *, command: str, machine: str) -> None:
    """Write `to`.md, .csv (a line a run) and .json (cameras and runs too) of what is finished."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("camera-*/rows/*.json"))]
    cameras, rows = (
        sorted({run["camera"] for run in runs}),
        [name for name in ROWS if any(r["row"] == name for r in runs)],
    )

    def figures(camera: int, row: str, name: str = FIGURE) -> dict[int, float]:
        return {run["seed"]: run[name] for run in runs if run["camera"] == camera and run["row"] == row}

    others = [name for name in rows if name != REFERENCE]
    gains = {name: {c: difference(figures(c, name), figures(c, REFERENCE)) for c in cameras} for name in others}
    shares = {name: {c: _over_recordings(out, runs, c, name) for c in cameras} for name in others}
    heads = [text for name in others for text in (f"{name} minus {REFERENCE}", "over recordings")]
    lines = [
        ["camera", "movement", *(f"{name} %" for name in rows), *heads, "n"],
        *(
            [
                str(c),
                draw_camera(c)[0],
                *(_spread(list(figures(c, name).values())) for name in rows),
                *(_interval(found[name][c]) for name in others for found in (gains, shares)),
                str(min(len(figures(c, name)) for name in rows)),
            ]
            for c in cameras
        ),
    ]
    means = {
        name: difference({c: gains[name][c]["mean"] for c in cameras}, dict.fromkeys(cameras, 0.0)) for name in others
    }
    above = {
        name: [
            sum((gain[end] or 0) > 0 for gain in found[name].values())
            for found, end in ((gains, "low"), (shares, "low"), (gains, "mean"))
        ]
        for name in others
    }
    costs = {name: statistics.fmean(r["training_cpu_seconds"] for r in runs if r["row"] == name) for name in rows}
    fits = [run["calibration_cpu_seconds"] for run in runs if run["calibration_cpu_seconds"] > 1]
    facts = [
        f"{name} minus {REFERENCE}, mean over {len(cameras)} cameras: {_interval(means[name])}; above 0 lie the "
        f"intervals over seeds of {above[name][0]} cameras, those over recordings of {above[name][1]}, the means of "
        f"{above[name][2]}."
        for name in others
    ]
    facts += [
        "Test accuracy in %, mean ± standard deviation over seeds; differences seed by seed with 95 % confidence "
        "intervals (Student's t) over n seeds, and again over test recordings, of the networks that were trained alone "
        "(each recording a mean over seeds); the interval of the mean is one over cameras.",
        f"Processor seconds of a run: {', '.join(f'{name} {cost:.0f}' for name, cost in costs.items())}"
        + (f"; of a calibration, once a camera: {statistics.fmean(fits):.0f}." if fits else "."),
        *(f"{name}: {ROWS[name].note}." for name in rows),
        f"Command: {command}. Machine: {machine}. Date: {max(run['date'] for run in runs)}. Code: "
        f"{', '.join(sorted({run['commit'] for run in runs}))}.",
    ]
    head, *body = lines
    text = [
        "# Cameras drawn at random, recordings SIMULATED",
        "",
        _line(head),
        _line(["---"] * len(head)),
        *map(_line, body),
    ]
    to.with_suffix(".md").write_text("\n".join([*text, "", *(f"- {fact}" for fact in facts)]) + "\n")
    with to.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(runs[0]))
        writer.writeheader()
        writer.writerows(runs)
    described = {str(c): {"kind": draw_camera(c)[0], "settings": draw_camera(c)[1].as_dict()} for c in cameras}
    content = {
        "schema": 1,
        "facts": facts,
        "means": means,
        "gains": gains,
        "over_recordings": shares,
        "cameras": described,
        "runs": runs,
    }
    to.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


def _over_recordings(out: Path, runs: Sequence[dict[str, Any]], camera: int, row: str) -> Difference:
    """Return the difference to the reference for each test recording, a mean over the seeds that both have."""

    def right(name: str, seed: int) -> dict[str, float]:
        path = out / f"camera-{camera}" / "runs" / f"{name}, seed {seed}" / "predictions.csv"
        with path.open(newline="") as file:
            return {line["key"]: float(line["label"] == line["prediction"]) for line in csv.DictReader(file)}

    seeds = {name: {r["seed"] for r in runs if r["camera"] == camera and r["row"] == name} for name in (row, REFERENCE)}
    both = sorted(seeds[row] & seeds[REFERENCE])
    means = []
    for name in (row, REFERENCE):
        found = [right(name, seed) for seed in both]
        means.append(
            {i: statistics.fmean(each[key] for each in found) for i, key in enumerate(found[0])} if found else {}
        )
    return difference(*means)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    mean, std = mean_and_std(values)
    return "-" if mean is None else f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def _interval(gain: Difference) -> str:
    """Return mean and interval in points, with the signs of the committed tables."""
    if gain["mean"] is None:
        return "-"
    text = f"{100 * gain['mean']:+.1f}"
    if gain["low"] is not None and gain["high"] is not None:
        text += f" [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    return text.replace("-", "−")


def main() -> None:
    """Train, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--cameras", default="0-9", help="FIRST-LAST")
    running.add_argument("--seeds", default="0,1,2,3,4")
    running.add_argument("--rows", default="kt;best", help="names separated by ;")
    running.add_argument("--test", action="store_true", help="score the test split: once, for the table")
    tabling = verbs.add_parser("table")
    tabling.add_argument("folder", type=Path, help="--out of run")
    tabling.add_argument("--out", type=Path, required=True, help="without an ending")
    for name in ("--command", "--machine"):
        tabling.add_argument(name, required=True, help="as the table should say it")
    given = parser.parse_args()
    if given.verb == "table":
        write_table(given.folder, given.out, command=given.command, machine=given.machine)
        return
    first, last = (int(text) for text in given.cameras.split("-"))
    run(
        given.out,
        cameras=range(first, last + 1),
        seeds=[int(seed) for seed in given.seeds.split(",")],
        rows=given.rows.split(";"),
        test=given.test,
    )


if __name__ == "__main__":
    main()
