"""The loss around a trained network: along one random direction, and over the plane of two.

A folder made here holds

    settings.json     what the figures belong to; another run, split or seed is refused
    points.jsonl      a line per point as it is done; what an interrupted command left is kept
    landscape.json    the losses in order, with settings and the trained loss; written last
    landscape.csv     the same points as a table
    line.png, contour.png, surface.png

Axes: n recordings.

Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets", NeurIPS 2018: random
directions, normalised filter by filter.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from spikebridge.models import TransferNetwork
from spikebridge.pipeline.base.foreign_json import parse_json
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.data.frames import Frames
from spikebridge.train.data.order import derived_seed, training_recordings
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.evaluate import open_shards_of
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import score
from spikebridge.train.networks.build import load_network
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.report.format import csv_text
from spikebridge.train.runs.checkpoints import read_json, write_atomic, write_json
from spikebridge.train.runs.folder import LOCK_FILE, RunFolder, open_run
from spikebridge.train.runs.result import RunResult
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.progress import NullProgress
from spikebridge.train.trainer.run import Progress

LINE_FACTOR = 2
"""Points of the line lie so many times as dense as those of the plane."""
SETTINGS, POINTS, TABLE, RESULT = "settings.json", "points.jsonl", "landscape.csv", "landscape.json"
PLOTS = ("line.png", "contour.png", "surface.png")

Offset = tuple[int, int]
"""Whole numbers of steps along both directions."""
Figure = Literal["loss", "accuracy"]
FIGURES: tuple[Figure, ...] = ("loss", "accuracy")


class Point(TypedDict):
    """A line of points.jsonl."""

    place: tuple[int, int]
    """Its offset."""
    loss: float | None
    """None where it is not finite."""
    accuracy: float


@dataclass(frozen=True)
class LossPoints:
    """Points at which the loss is computed."""

    points: int = 15
    """Points along each axis of the plane, odd, at least 3: the trained network is one of them."""
    radius: float = 1.0
    """Largest distance from the trained weights along an axis; 1 is a step as long as the weights of each filter."""
    plane: bool = True
    """Whether the plane is computed too, or the line alone."""

    def __post_init__(self) -> None:
        if self.points < 3 or self.points % 2 == 0:
            raise RunError(f"points is {self.points}: expected an odd number of at least 3, so that 0 is among them")
        if not 0 < self.radius < float("inf"):
            raise RunError(f"radius is {self.radius}: expected a positive number")

    @property
    def offsets(self) -> list[Offset]:
        """Return offsets in units of radius / half: first the line, then what the plane adds, row by row."""
        half = LINE_FACTOR * (self.points - 1) // 2
        line = [(a, 0) for a in range(-half, half + 1)]
        steps = range(-half, half + 1, LINE_FACTOR)
        return line + [(a, b) for b in steps for a in steps if b != 0] if self.plane else line

    def coordinate(self, offset: int) -> float:
        """Return the distance along an axis."""
        return self.radius * offset / (LINE_FACTOR * (self.points - 1) // 2)


def landscape(
    run_dir: str | Path,
    shards: ShardSet | str | Path,
    out: str | Path,
    *,
    points: LossPoints | None = None,
    split: str = "train",
    limit: int = 500,
    seed: int = 0,
    recalibrated: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Compute a landscape, continue an interrupted one, or return a finished one; then draw it.

    The loss is the cross entropy of the time-averaged logits of event recordings, unaugmented, in evaluation mode.
    Weights with two or more dimensions move; biases, BatchNorm's gains and biases, neurons' time constants and the
    coefficients of the loss stay, as in the source. BatchNorm's running statistics stay too, unless `recalibrated`.
    On the CPU, with the run's number of threads, equal arguments give equal figures.

    Args:
        run_dir: a finished run.
        shards: its shard set, open or as a path.
        out: the folder.
        points: which points.
        split: `train` (the recordings that the run was trained on), `validation` or `test`.
        limit: recordings that the loss is taken of, spread evenly over the split.
        seed: of the directions.
        recalibrated: take BatchNorm's running statistics from the split's recordings at every point, see `recalibrate`.
        overwrite: replace what is there.
        progress: a tqdm-like callable; silent without.
        stop: end after the point during which a signal arrives.

    Returns:
        The content of landscape.json.

    Raises:
        RunError: no finished run, an empty split, or a folder that holds something else.
        ShardMismatchError: another shard set.
        RunStoppedError: `stop` was asked; the points that were done are kept.
        ReportError: the plots need a package that is missing.
    """
    from spikebridge.train.report.write import require_matplotlib

    require_matplotlib("a landscape's plots need")
    points, (run, result), out = points or LossPoints(), open_run(run_dir), Path(out)
    shards = open_shards_of(run, result, shards)
    network, _ = load_network(run.best, device=torch.device("cpu"))
    frames = _frames(shards, result, split, limit)
    settings = {
        "schema": 1,
        "weights_sha256": hashlib.sha256(run.best.read_bytes()).hexdigest(),
        "shard_set": shards.id,
        "dataset": result.get("dataset"),
        "simulated": bool(result.get("simulated")),
        "method": result.get("method"),
        "split": split,
        "recordings": len(frames),
        "seed": seed,
        "statistics": "taken anew at every point" if recalibrated else "those of the trained network",
        **asdict(points),
    }
    with RunFolder(out).lock():
        if _claim(out, settings, overwrite=overwrite):
            return read_json(out / RESULT, dict[str, Any])
        batch = evaluation_batch(recipe_from(result["recipe"], name=result.get("recipe_name", "")).train)
        score_at = _make_scorer(network, frames, points, seed=seed, batch_size=batch, recalibrated=recalibrated)
        with same_threads(int(result.get("threads", torch.get_num_threads()))):
            scored = _score_points(
                out / POINTS, points, score_at, progress=progress or NullProgress, stop=stop or StopRequest()
            )
        return _finish(out, settings, points, scored)


def _frames(shards: ShardSet, result: RunResult, split: str, limit: int) -> Frames:
    """Return at most so many recordings of a split; of `train` those that the run was trained on.

    Raises:
        RunError: none, or an unknown split.
    """
    if split not in ("train", "validation", "test"):
        raise RunError(f"split {split!r}: expected train, validation or test")
    recordings = shards.split(split)
    positions = np.arange(len(recordings), dtype=np.int64)
    if split == "train":
        recipe = recipe_from(result["recipe"], name=result.get("recipe_name", ""))
        positions = training_recordings(recordings, recipe.train)
    if not len(positions):
        raise RunError(f"{shards.path}: the {split} split is empty; it has no loss")
    rows = np.unique(np.linspace(0, len(positions) - 1, min(limit, len(positions))).round().astype(np.int64))
    return Frames(recordings, positions[rows], sample_shape=shards.sample_shape)


def filter_normalised(network: nn.Module, *, seed: int, number: int) -> dict[str, Tensor]:
    """Draw a random direction in which each filter of a weight is as long as that of the network.

    Args:
        network: with its weights.
        seed: the same seed gives the same direction.
        number: tells directions apart.

    Returns:
        By name, for every weight with two or more dimensions; a filter is a slice along the first, so for a linear
        layer all weights of one neuron. A filter of zeros does not move.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "landscape", number))
    directions = {}
    for name, weight in network.named_parameters():
        if weight.ndim >= 2:
            direction = torch.randn(weight.shape, generator=generator)
            lengths = torch.linalg.vector_norm(weight.detach().float().flatten(1), dim=1)
            own = torch.linalg.vector_norm(direction.flatten(1), dim=1)
            directions[name] = direction * (lengths / own).reshape(-1, *[1] * (weight.ndim - 1))
    return directions


def _make_scorer(
    network: TransferNetwork, frames: Frames, points: LossPoints, *, seed: int, batch_size: int, recalibrated: bool
) -> Callable[[Offset], Point]:
    """Return a function that scores the network at an offset."""
    device = torch.device("cpu")
    centre = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    directions = [filter_normalised(network, seed=seed, number=number) for number in range(2)]

    @torch.no_grad()
    def score_at(offset: Offset) -> Point:
        for name, weight in network.named_parameters():
            moved = centre[name]
            for step, direction in zip(offset, directions, strict=True):
                moved = moved + points.coordinate(step) * direction[name] if name in direction else moved
            weight.copy_(moved)
        if recalibrated:
            recalibrate(network, frames, batch_size=batch_size, device=device)
        scores = score(network, frames, batch_size=batch_size, device=device)
        assert scores is not None
        loss = scores.loss if math.isfinite(scores.loss) else None
        return {"place": offset, "loss": loss, "accuracy": scores.accuracy}

    return score_at


def _score_points(
    path: Path, points: LossPoints, score_at: Callable[[Offset], Point], *, progress: Progress, stop: StopRequest
) -> dict[Offset, Point]:
    """Score all points that the file lacks and add them to it one by one; return all by offset."""
    scored = _read_points(path, points)
    bar = progress(total=len(points.offsets), initial=len(scored), desc="landscape", unit="point")
    try:
        with path.open("ab") as file:
            for offset in points.offsets:
                if offset in scored:
                    continue
                scored[offset] = score_at(offset)
                file.write((json.dumps(scored[offset], allow_nan=False) + "\n").encode())
                file.flush()
                bar.update(1)
                if stop.signal:
                    os.fsync(file.fileno())
                    raise stop.error()
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; make room, then give the same command again") from error
    finally:
        bar.close()
    return scored


def _read_points(path: Path, points: LossPoints) -> dict[Offset, Point]:
    """Read the points that an earlier command left; a half line is cut off.

    Raises:
        RunError: damaged.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    scored = dict[Offset, Point]()
    for number, line in enumerate(content[:whole].splitlines(), 1):
        remedy = "It is damaged; start again with --overwrite."
        point = parse_json(line, Point, source=f"{path}, line {number}", error=RunError, remedy=remedy)
        a, b = point["place"]
        if (a, b) not in points.offsets:
            raise RunError(f"{path}, line {number}: a point of another landscape. {remedy}")
        scored[a, b] = point
    return scored


def _finish(out: Path, settings: dict[str, Any], points: LossPoints, scored: dict[Offset, Point]) -> dict[str, Any]:
    """Write the plots, the table, and last the result."""
    from spikebridge.train.studies.landscape_figures import plots

    along = sorted({a for a, b in points.offsets if b == 0})
    line: dict[str, Any] = {"a": [points.coordinate(a) for a in along]} | {
        f: [scored[a, 0][f] for a in along] for f in FIGURES
    }
    content = {**settings, "trained": {f: scored[0, 0][f] for f in FIGURES}, "line": line, "plane": None}
    if points.plane:
        steps = sorted({b for _, b in points.offsets})
        axis = [points.coordinate(step) for step in steps]
        rows = {f: [[scored[a, b][f] for a in steps] for b in steps] for f in FIGURES}
        content["plane"] = {"a": axis, "b": axis, **rows}
    table: list[dict[str, Any]] = [
        {"a": points.coordinate(a), "b": points.coordinate(b), **{f: scored[a, b][f] for f in FIGURES}}
        for a, b in sorted(points.offsets)
    ]
    write_atomic(out / TABLE, csv_text(table).encode())
    for name, plot in plots(content).items():
        write_atomic(out / name, plot)
    write_json(out / RESULT, content)
    return content


def _claim(out: Path, settings: dict[str, Any], *, overwrite: bool) -> bool:
    """Take the folder for these settings; return True where a finished landscape with the same ones is there.

    Raises:
        RunError: it holds something else, or a landscape with other settings.
    """
    own = (SETTINGS, POINTS, TABLE, RESULT, *PLOTS)
    if (out / SETTINGS).exists():
        there = read_json(out / SETTINGS, dict[str, Any])
        if there == settings and not overwrite:
            return (out / RESULT).exists()
        if not overwrite:
            other = [
                f"  - {name}: {there.get(name)} there, {value} now"
                for name, value in settings.items()
                if there.get(name) != value
            ]
            raise RunError(
                f"{out} holds a landscape with other settings:\n"
                + "\n".join(other)
                + "\nchoose a new folder, or pass --overwrite to start again"
            )
        for name in (RESULT, *own):  # first: a half-cleared folder must not look finished
            (out / name).unlink(missing_ok=True)
    elif foreign := sorted(p.name for p in out.iterdir() if p.name != LOCK_FILE and not p.name.endswith(".partial")):
        raise RunError(
            f"{out} is not empty and holds no landscape (found {', '.join(foreign[:3])}); choose a new folder"
        )
    write_json(out / SETTINGS, settings)
    return False
