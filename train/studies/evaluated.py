"""What a grid asks of its finished runs: failures of the camera, accuracy after part of a recording, an early exit."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from spikebridge.train.errors import RunStoppedError
from spikebridge.train.evaluation.early_exit import EXIT_CONFIDENCE
from spikebridge.train.report.format import spread
from spikebridge.train.report.robustness import meaning
from spikebridge.train.runs.evaluation import (
    AfterStep,
    CorruptedScore,
    Evaluation,
    ExitFigures,
    keep_evaluation,
    read_evaluation,
)
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies.grids import Evaluated, EvaluatedDescription, failure_label
from spikebridge.train.trainer.progress import NullProgress

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.signals import StopRequest
    from spikebridge.train.trainer.run import Progress


class EvaluatedRun(TypedDict):
    """What the evaluation of a run found, see `runs.evaluation`."""

    accuracy: float
    over_time: list[AfterStep]
    corrupted: list[CorruptedScore]
    early_exit: ExitFigures | None


class Spread(TypedDict):
    """Mean and standard deviation (n - 1) over seeds."""

    mean: float | None
    std: float | None


def evaluate_runs(
    runs: Sequence[tuple[Path, ShardSet]],
    asked: Evaluated,
    *,
    device: str,
    backend: str,
    progress: Progress | None,
    stop: StopRequest | None,
) -> None:
    """Evaluate finished runs in this process and keep what was found in their folders, but for those that have it.

    Raises:
        RunStoppedError: asked to stop; what was evaluated is kept.
        RunError: a set cannot show a failure, or has no validation recordings for an early exit.
    """
    from spikebridge.train.evaluation.evaluate import evaluate

    left = [(run, shards) for run, shards in runs if evaluation_of(run, asked) is None]
    bar = (progress or NullProgress)(total=len(left), desc="evaluated", unit="run")
    try:
        for done, (run, shards) in enumerate(left):
            if stop is not None and stop.signal:
                raise RunStoppedError(
                    f"Stopped by {signal.Signals(stop.signal).name}; {len(runs) - len(left) + done} of {len(runs)} "
                    "runs are evaluated. The same command continues.",
                    signal=stop.signal,
                )
            found = evaluate(
                run, shards, split=asked.split, device=device, backend=backend, corrupt=asked.corruptions,
                early_exit=asked.early_exit,
            )  # fmt: skip
            keep_evaluation(run, found)
            bar.update(1)
    finally:
        bar.close()


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


def evaluated_run(run: Path, asked: Evaluated) -> EvaluatedRun | None:
    """Return what a table shows of a run; None where its folder lacks what is asked for."""
    found = evaluation_of(run, asked)
    return None if found is None else {
        "accuracy": found["accuracy"],
        "over_time": found["over_time"],
        "corrupted": found.get("corrupted", []),
        "early_exit": found.get("early_exit"),
    }  # fmt: skip


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


def spreads_of(runs: Sequence[EvaluatedRun | None], asked: Evaluated) -> dict[str, Spread]:
    """Return mean and deviation of every figure of `figures_of`."""
    each = [figures_of(run, asked) for run in runs if run is not None]
    names = dict.fromkeys(name for figures in each for name in figures)
    spreads: dict[str, Spread] = {}
    for name in names:
        mean, std = mean_and_std([figures.get(name) for figures in each])
        spreads[name] = {"mean": mean, "std": std}
    return spreads


def evaluated_tables(
    asked: EvaluatedDescription, rows: Mapping[str, Mapping[str, Spread]]
) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return tables about failures, time and an early exit, each with its title, of figures of `spreads_of` by row."""
    groups: dict[str, dict[str, str]] = {}
    for label in asked["corruptions"]:
        name, _, level = label.partition(":")
        group = groups.setdefault(f"{name}: {meaning(name)}", {"accuracy": "none"})
        group[label] = level
    made = [(f"Accuracy in %, {title}", group) for title, group in groups.items()]
    if asked["after_ms"]:
        heads = {after_label(ms): f"{ms:g} ms" for ms in asked["after_ms"]} | {"accuracy": "whole"}
        made.append(("Accuracy in % after so many milliseconds", heads))
    if asked["early_exit"] is not None:
        heads = {"exit_answered": "answered %", "exit_accuracy": "of answers %", "exit_lost": "lost %"}
        heads |= {"exit_step": "steps", "exit_ms": "ms", "exit_energy_saved": "energy saved %"}
        made.append((f"Early exit that loses at most {asked['early_exit']:g} points", heads))
    return [
        (
            title,
            [
                ("row", *heads.values()),
                *((row, *(_cell(found, name) for name in heads)) for row, found in rows.items()),
            ],
        )
        for title, heads in made
    ]


def _cell(found: Mapping[str, Spread], name: str) -> str:
    one = found.get(name)
    if one is None or one["mean"] is None:
        return "–"
    if name in ("exit_step", "exit_ms"):
        return f"{one['mean']:.3g}" + ("" if one["std"] is None else f" ± {one['std']:.2g}")
    return spread(one["mean"], one["std"])


def evaluated_words(asked: EvaluatedDescription) -> str:
    """Return on which recordings the tables of `evaluated_tables` are."""
    exits = (
        " The exit's threshold is chosen on the validation split"
        + (", that of each half on the other half" if asked["split"] == "validation" else "")
        + f", so that it loses no more points with {EXIT_CONFIDENCE:.0%} confidence; lost: recordings that are "
        "answered wrongly and would be right when whole; – where the recordings are too few for the promise."
        if asked["early_exit"] is not None
        else ""
    )
    steps = (
        " A recording that ends after so many milliseconds has the steps that end by then." if asked["after_ms"] else ""
    )
    return (
        f"Failures, time and early exit: {asked['split']} recordings, best weights, failures with seed 0.{steps}{exits}"
    )
