"""What a report is made from: the files of runs, read and grouped.

Axes: n test samples, K classes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import csv_cell
from spikebridge.pipeline.base.files import real_path
from spikebridge.train.errors import RunError
from spikebridge.train.runs.evaluation import Evaluation, read_evaluation
from spikebridge.train.runs.folder import RunFolder, open_run, read_metrics
from spikebridge.train.runs.listing import ListedRun
from spikebridge.train.runs.result import RunResult

SHARD_SET = "shard set"
"""What a label calls the ID of one."""
LONGEST_VALUE, SHOWN_VALUE = 60, 24
"""Letters of a setting's value in a label, and of a longer one those that stand before its hash."""


@dataclass(frozen=True)
class Predictions:
    """The content of predictions.csv."""

    keys: tuple[str, ...]
    """Of the test samples, n."""
    labels: NDArray[np.int64]
    """Class index [n]."""
    predicted: NDArray[np.int64]
    """Class index [n]."""
    confidence: NDArray[np.float64]
    """Softmax of the time-averaged scores at the predicted class [n], 0 to 1."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it."""

    name: str
    result: RunResult
    """Of an unfinished run what is known before the end, see `unfinished_record`."""
    metrics: list[dict[str, Any]]
    """metrics.jsonl, one per epoch."""
    config: str
    predictions: Predictions | None
    """None where the test split is empty or the file is absent."""
    path: Path
    """The folder, which no page names."""
    evaluation: Evaluation | None = None
    """Of `evaluate --keep`; None where none was kept."""

    @property
    def method(self) -> str:
        """Return the name of the training method."""
        return str(self.result.get("method", "unknown"))

    @property
    def seed(self) -> str:
        """Return the run's seed as text."""
        return str(self.result.get("seed", "?"))

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a figure over the epochs [E]; NaN where it is absent."""
        return np.array([_number(line.get(name)) for line in self.metrics], np.float64)

    def rows(self, name: str) -> NDArray[np.float64] | None:
        """Return a list over the epochs [E,T], an absent one as NaN; None where no epoch has it."""
        lists = [line.get(name) for line in self.metrics]
        length = max((len(row) for row in lists if row), default=0)
        if not length:
            return None
        return np.array([row if row and len(row) == length else [math.nan] * length for row in lists], np.float64)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """Return epoch numbers [E], from 1."""
        return self.column("epoch")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def load_run(run_dir: Path) -> RunRecord:
    """Read a finished run.

    Raises:
        RunError: no run, an unfinished one, or a damaged file.
    """
    run, result = open_run(run_dir, complete=False)
    try:
        metrics, config = read_metrics(run_dir), run.config.read_text(encoding="utf-8")
        predictions = _read_predictions(run.predictions, result["classes"]) if run.predictions.exists() else None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{run.path}: a file of this run is damaged ({error}); evaluate or train it again") from error
    kept = read_evaluation(run.path)
    return RunRecord(real_path(run.path).name, result, metrics, config, predictions, run.path, kept)


def unfinished_record(run: ListedRun) -> RunRecord:
    """Return what is known of a run that has no result: recipe, shard set and finished epochs.

    Raises:
        RunError: it is damaged.
    """
    if run.state == "damaged" or run.recipe is None:
        raise RunError(f"{run.path}: this run is unfinished, and damaged: {run.problem}")
    recipe = run.recipe
    selection = None if recipe.train.selection == "last" else recipe.train.selection
    known = {
        "method": recipe.train.method,
        "recipe_name": run.recipe_name,
        "recipe": recipe.tables(),
        "shard_set": run.shard_set,
        "dataset": recipe.shards.dataset,
        "protocol": recipe.shards.protocol,
        "selection_split": "test" if selection and recipe.shards.protocol == "legacy" else selection,
        "epochs": run.epoch,
        "seed": recipe.train.seed,
    }
    config = RunFolder(run.path).config.read_text(encoding="utf-8")
    return RunRecord(real_path(run.path).name, cast(RunResult, known), read_metrics(run.path), config, None, run.path)


def load_runs(run_dirs: Sequence[Path]) -> list[RunRecord]:
    """Read runs in the order given; folders of equal names are told apart by their parents.

    Raises:
        RunError: none given, or one that cannot be read.
    """
    if not run_dirs:
        raise RunError("a report needs at least one run folder; none given")
    records = [load_run(Path(path)) for path in run_dirs]
    names = [record.name for record in records]
    return [
        replace(record, name=f"{real_path(Path(path)).parent.name}/{record.name}")
        if names.count(record.name) > 1
        else record
        for path, record in zip(run_dirs, records, strict=True)
    ]


def _read_predictions(path: Path, classes: Sequence[str]) -> Predictions | None:
    index = {cell: k for k, name in enumerate(classes) for cell in (name, csv_cell(name))}  # earlier runs: as it is
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    if not rows:
        return None
    scores = np.array([[float(cell) for cell in row[3:]] for row in rows])  # [n,K]
    predicted = np.array([index[row[2]] for row in rows], np.int64)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return Predictions(
        keys=tuple(row[0] for row in rows),
        labels=np.array([index[row[1]] for row in rows], np.int64),
        predicted=predicted,
        confidence=shares[np.arange(len(rows)), predicted],
    )


def group_runs(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Group runs that differ in nothing but the seed, under the method and whatever else tells groups apart.

    A label names no setting that the group's recipe left out.

    Returns:
        Groups by label, in the order of their first run; a spread inside a group is a spread over seeds.
    """
    settings = [_settings(record) for record in records]
    names = sorted({name for one in settings for name in one})
    differing = [name for name in names if len({json.dumps(one.get(name)) for one in settings}) > 1]
    kinds = {(record.method, json.dumps(one, sort_keys=True)) for record, one in zip(records, settings, strict=True)}
    if len(kinds) == len({record.method for record in records}):
        differing = []  # the method alone tells them apart
    groups: dict[str, list[RunRecord]] = {}
    for record, one in zip(records, settings, strict=True):
        label = ", ".join([record.method, *(f"{name} {_short(name, one[name])}" for name in differing if name in one)])
        groups.setdefault(label, []).append(record)
    return groups


def _settings(record: RunRecord) -> dict[str, Any]:
    """Return what must be equal inside a group, besides the method."""
    recipe = record.result.get("recipe") or {}
    merged = {**recipe.get("shards", {}), **recipe.get("train", {}), SHARD_SET: record.result.get("shard_set")}
    return {name: value for name, value in merged.items() if name not in ("seed", "method")}


def _short(name: str, value: Any) -> str:
    """Return a value as a label says it: different ones stay different, a camera's profile by its hash."""
    text = str(value)
    if name == SHARD_SET:
        return text[:12]
    kept = text[:SHOWN_VALUE].rstrip("+")
    return text if len(text) <= LONGEST_VALUE else f"{kept}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
