"""What a grid asks of its finished runs: failures of the camera, accuracy after part of a recording, an early exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikebridge.train.runs.evaluation import Evaluation, keep_evaluation, read_evaluation
from spikebridge.train.studies.grids import Evaluated, failure_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spikebridge.pipeline.shards.reader import ShardSet


def evaluate_run(run: Path, shards: ShardSet, asked: Evaluated, *, device: str, backend: str) -> None:
    """Evaluate a finished run as a grid asks and keep what was found in its folder.

    Raises:
        RunError: the set cannot show a failure, or has no validation recordings for an early exit.
    """
    from spikebridge.train.evaluation.evaluate import evaluate

    found = evaluate(
        run, shards, split=asked.split, device=device, backend=backend, corrupt=asked.corruptions,
        early_exit=asked.early_exit,
    )  # fmt: skip
    keep_evaluation(run, found)


def evaluation_of(run: Path, asked: Evaluated) -> Evaluation | None:
    """Return what was kept of a run where it is what a grid asks for; else None.

    Raises:
        RunError: the file is damaged.
    """
    kept = read_evaluation(run)
    if kept is None or (kept["split"], kept["weights"], kept.get("corrupt_seed", 0)) != (asked.split, "best", 0):
        return None
    ended = kept.get("early_exit")
    same = [(row["name"], row["level"]) for row in kept.get("corrupted", [])] == list(asked.corruptions)
    promised = None if ended is None or "confidence" not in ended else ended["points"]
    return kept if same and promised == asked.early_exit else None


def is_evaluated(run: Path, asked: Evaluated) -> bool:
    """Return whether a run's folder has what a grid asks for."""
    return evaluation_of(run, asked) is not None


def after_label(ms: float) -> str:
    """Return the name of the accuracy after so many milliseconds."""
    return f"after_{ms:g}_ms"


def figures_of(run: Mapping[str, Any], asked: Evaluated) -> dict[str, float | None]:
    """Return the figures of an evaluated run by name: shares, and of an early exit also steps and milliseconds.

    Accuracy after so many milliseconds is that after the last step that ends by then; 0 steps, and steps without a
    duration, give None. So does an exit that too few validation recordings could choose.
    """
    made: dict[str, float | None] = {"accuracy": run["accuracy"]}
    made |= {failure_label(row["name"], row["level"]): row["accuracy"] for row in run["corrupted"]}
    for ms in asked.after_ms:
        ended = [at["accuracy"] for at in run["over_time"] if at["ms"] is not None and at["ms"] <= ms]
        made[after_label(ms)] = ended[-1] if ended else None
    if (exit_ := run["early_exit"]) is not None:
        names = {"answered": "answered", "accuracy": "accuracy", "lost": "lost", "step": "mean_step", "ms": "mean_ms"}
        names["energy_saved"] = "energy_saved"
        promised = exit_["needed"] is not None and exit_["chosen_on"] >= exit_["needed"]
        made |= {f"exit_{name}": exit_[key] if promised else None for name, key in names.items()}
    return made
