"""The content of evaluation.json: what `evaluate --keep` found of a run, for reports and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from spikebridge.pipeline.base.foreign_json import Count, Range
from spikebridge.train.errors import RunError
from spikebridge.train.runs.checkpoints import read_file, read_json, write_json
from spikebridge.train.runs.folder import RunFolder, read_result
from spikebridge.train.runs.result import Accuracy, NotNegative
from spikebridge.train.runs.sums import SEAL, require_seal, seal

EVALUATION_SCHEMA = 1
AGAIN = "Make it again with evaluate --keep --overwrite."
Level = Annotated[float, Range(0)]


class AfterStep(TypedDict):
    """Accuracy when the first steps of recordings count alone."""

    step: Count
    ms: NotNegative | None
    """From the beginning, mean over the recordings; None where steps have no duration."""
    accuracy: Accuracy


class ExitScores(TypedDict):
    """What an early exit does to recordings."""

    answered: Accuracy
    """Share of them."""
    accuracy: Accuracy | None
    """Of the answers; None without any."""
    mean_step: NotNegative
    """At which a recording ends; without an answer at the last."""


class ExitFigures(ExitScores):
    """The same of recordings without failure, and how the exit was chosen."""

    points: NotNegative
    """Of accuracy that it may lose."""
    confidence: NotRequired[Accuracy]
    """With which it loses no more; not in files of before such promises."""
    thresholds: list[Accuracy | None]
    """Probability that ends a recording; two where each half of the recordings has that of the other; None where none
    keeps the promise."""
    chosen_on: NotRequired[Count]
    """Validation recordings that chose a threshold."""
    needed: NotRequired[Count | None]
    """How many it takes at least; None where no number is enough."""
    lost: NotRequired[Accuracy]
    """Share of the recordings that are answered wrongly, and rightly when whole."""
    mean_ms: NotNegative | None
    energy_saved: Annotated[float, Range(-1, 1)] | None
    """Share, estimated."""


class CorruptedScore(TypedDict):
    """Scores of recordings as a failing camera would have made them."""

    name: str
    level: Level
    accuracy: Accuracy
    loss: NotNegative
    early_exit: NotRequired[ExitScores]


class Evaluation(TypedDict):
    """What is read of evaluation.json; the file has all that `evaluate --json` says."""

    schema: Annotated[int, Range(EVALUATION_SCHEMA, EVALUATION_SCHEMA)]
    of_result: str
    """SHA-256 that stands in the result.json of the run."""
    split: str
    weights: str
    samples: Count
    simulated: bool
    accuracy: Accuracy
    over_time: list[AfterStep]
    corrupted: NotRequired[list[CorruptedScore]]
    corrupt_seed: NotRequired[Count]
    early_exit: NotRequired[ExitFigures]


def require_place(run_dir: Path, *, overwrite: bool) -> None:
    """Refuse to keep an evaluation where that could not be done in the end, or would replace another.

    Raises:
        RunError: an exported file, which has no folder; or an evaluation is there and not `overwrite`.
    """
    if not run_dir.is_dir():
        raise RunError(f"{run_dir}: an evaluation is kept in the folder of a run; expected one, or leave --keep out")
    path = RunFolder(run_dir).evaluation
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists, which an earlier evaluate --keep made; leave --keep out, or pass --overwrite")


def keep_evaluation(run_dir: Path, found: dict[str, Any]) -> None:
    """Write what `evaluate` found of a run into its folder.

    Raises:
        RunError: no finished run, or it cannot be written.
    """
    of_result = read_result(run_dir).get(SEAL, "")
    content = seal({"schema": EVALUATION_SCHEMA, "of_result": of_result, **found})
    write_json(RunFolder(run_dir).evaluation, content)


def read_evaluation(run_dir: Path) -> Evaluation | None:
    """Read the evaluation of a finished run; None without one, or where it is of an earlier run in this folder.

    Raises:
        RunError: damaged.
    """
    path = RunFolder(run_dir).evaluation
    if not path.exists():
        return None
    content = read_json(path, Evaluation, remedy=AGAIN)
    try:
        require_seal(path, read_file(path), content, schema=EVALUATION_SCHEMA)
    except RunError as error:
        raise RunError(f"{error}. {AGAIN}") from error
    if not content["over_time"]:
        raise RunError(f"{path}: over_time is empty, expected a line for every time step. {AGAIN}")
    return content if content["of_result"] == read_result(run_dir).get(SEAL, "") else None
