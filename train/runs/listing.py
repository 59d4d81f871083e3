"""Run folders side by side: what each is, how far it came, how well; a broken one is a row, not an error for all."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.files import is_locked, real_path
from spikebridge.pipeline.base.names import suggest
from spikebridge.train.config.recipes import Recipe, changed_settings, load_recipe, parse_override
from spikebridge.train.errors import RecipeError, RunError, TrainError
from spikebridge.train.runs.checkpoints import BEFORE_FILE, STATE_FILE, read_state
from spikebridge.train.runs.folder import LOCK_FILE, RunFolder, read_divergence, read_metrics, read_result
from spikebridge.train.runs.result import RunResult

STATES = ("finished", "running", "unfinished", "diverged", "damaged")
HEADER = "# recipe: "
"""Beginning of config.toml, behind which the recipe's name stands."""
FILTERS = ("recipe", "set", "state")
"""What a run is chosen by besides its settings."""


@dataclass(frozen=True)
class ListedRun:
    """A run folder as far as it can be read."""

    path: Path
    state: str
    """One of `STATES`; `running` where a process of this machine works there, `diverged` where a loss or weight became
    NaN or infinite."""
    problem: str
    """What cannot be read, or where a run diverged; else empty. A finished run whose recipe is of a plugin is finished
    all the same."""
    recipe: Recipe | None
    recipe_name: str | None
    shard_set: str | None
    """ID; None before the first checkpoint."""
    epoch: int
    """Finished epochs."""
    validation_accuracy: float | None
    """Of the best weights; of an unfinished run, the highest so far."""
    test_accuracy: float | None
    """Of a finished run."""
    changed: datetime.datetime
    """When it was finished, or when a file of it was last written; UTC."""
    result: RunResult | None
    """result.json of a finished run; a run of an early version may lack something."""

    @property
    def method(self) -> str | None:
        """Return the training method."""
        if self.recipe:
            return self.recipe.train.method
        return self.result.get("method") if self.result else None

    def row(self) -> dict[str, Any]:
        """Return the run for JSON, with all settings of its recipe."""
        return {
            "run": str(self.path),
            "state": self.state,
            "problem": self.problem,
            "method": self.method,
            "recipe_name": self.recipe_name,
            "recipe": self.recipe.tables() if self.recipe else None,
            "shard_set": self.shard_set,
            "epoch": self.epoch,
            "validation_accuracy": self.validation_accuracy,
            "test_accuracy": self.test_accuracy,
            "changed": self.changed.isoformat(timespec="seconds"),
        }


def find_runs(folders: Iterable[Path]) -> list[ListedRun]:
    """Read every run below some folders, in the order of their paths; links are followed, each run comes once.

    Raises:
        RunError: no such folder, or one that cannot be looked into.
    """
    seen: set[Path] = set()
    return [read_run(path) for folder in folders for path in _run_folders(folder, seen)]


def _run_folders(folder: Path, seen: set[Path]) -> Iterator[Path]:
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected one that holds runs, see train --run")

    def refuse(error: OSError) -> None:
        raise RunError(f"{error.filename}: cannot be looked into ({error.strerror}); name other folders") from error

    for path, names, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = real_path(Path(path))
        if real in seen:  # a link in a circle, or to what was listed
            names.clear()
            continue
        seen.add(real)
        if is_run({*names, *files}, Path(path)):
            names.clear()
            yield Path(path)
        names.sort()


def is_run(names: set[str], path: Path) -> bool:
    """Return whether a folder with entries of these names is a run's: many tools have a config.toml or result.json."""
    run = RunFolder(path)
    own = (run.config, run.metrics, run.checkpoint, run.best.parent, run.predictions, run.result)
    if sum(one.name in names for one in own) > 1:
        return True
    return run.config.name in names and recipe_name(run) is not None


def is_begun(path: str | Path) -> bool:
    """Return whether a folder holds a run without a result."""
    run = RunFolder(path)
    return run.config.exists() and not run.result.exists()


def read_run(path: Path) -> ListedRun:
    """Read a run folder; what is damaged becomes its state, not an error. Sums of weights are not compared here."""
    run, problems = RunFolder(path), []

    def attempt(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (TrainError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            return None

    recipe = attempt(lambda: load_recipe(run.config))
    unknown = bool(problems)  # of another version, or of a plugin that is not here; or damaged
    result: RunResult | None = attempt(lambda: read_result(path)) if run.result.exists() else None
    state: Any = None
    if result is None and not run.result.exists():
        state = attempt(lambda: read_state(run.checkpoint) or read_state(run.checkpoint, BEFORE_FILE))
    lines = attempt(lambda: read_metrics(path)) or []
    divergence = attempt(lambda: read_divergence(path)) if result is None else None
    damaged = len(problems) > (unknown and result is not None)
    seen = [line["validation_accuracy"] for line in lines if line.get("validation_accuracy") is not None]
    name = result.get("recipe_name") if result else None
    return ListedRun(
        path=path,
        state=_state(run, finished=result is not None, damaged=damaged, diverged=divergence is not None),
        problem="; ".join([*problems, *([divergence["message"]] if divergence else [])]),
        recipe=recipe,
        recipe_name=name or recipe_name(run),
        shard_set=(result or state or {}).get("shard_set"),
        epoch=result.get("epochs", len(lines)) if result else len(lines),
        validation_accuracy=result.get("validation_accuracy") if result else max(seen, default=None),
        test_accuracy=result.get("test_accuracy") if result else None,
        changed=_changed(run, result),
        result=result,
    )


def _state(run: RunFolder, *, finished: bool, damaged: bool, diverged: bool) -> str:
    if damaged:
        return "damaged"
    if finished:
        return "finished"
    if is_locked(run.path / LOCK_FILE):
        return "running"
    return "diverged" if diverged else "unfinished"


def recipe_name(run: RunFolder) -> str | None:
    """Return the recipe's name in the first line of config.toml; None where there is none."""
    try:
        with run.config.open(encoding="utf-8") as file:
            line = file.readline(4096).rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return line.removeprefix(HEADER) if line.startswith(HEADER) else None


def _changed(run: RunFolder, result: RunResult | None) -> datetime.datetime:
    made = result.get("environment") if result else None
    if made:
        try:
            moment = datetime.datetime.fromisoformat(made["finished"])
            return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        except ValueError:
            pass  # the time of the file is good enough for an age
    files = (run.result, run.checkpoint / STATE_FILE, run.metrics, run.config, run.path)
    newest = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    return datetime.datetime.fromtimestamp(newest, datetime.UTC)


ORDERS: dict[str, Callable[[ListedRun], Any]] = {
    "validation": lambda run: -run.validation_accuracy if run.validation_accuracy is not None else None,
    "test": lambda run: -run.test_accuracy if run.test_accuracy is not None else None,
    "age": lambda run: -run.changed.timestamp(),
    "method": lambda run: run.method,
    "recipe": lambda run: run.recipe_name,
    "state": lambda run: STATES.index(run.state),
    "run": lambda run: str(run.path),
}
"""What runs are sorted by: the highest accuracy, the youngest and the first of the alphabet come first."""


def sort_runs(runs: Iterable[ListedRun], order: str) -> list[ListedRun]:
    """Sort by one of `ORDERS`; runs without such a figure come last, equal ones by their paths."""

    def key(run: ListedRun) -> tuple[bool, Any, str]:
        value = ORDERS[order](run)
        return value is None, 0 if value is None else value, str(run.path)

    return sorted(runs, key=key)


def choose_runs(runs: Iterable[ListedRun], conditions: Sequence[str]) -> list[ListedRun]:
    """Return the runs for which all conditions `KEY=VALUE` hold.

    A key is one of `FILTERS` or a setting of recipes; its value is written as for `--set`. A shard set is known by the
    beginning of its ID.

    Raises:
        RecipeError: a key that is neither, or a value that it cannot have.
    """
    tests = [_condition(text) for text in conditions]
    return [run for run in runs if all(test(run) for test in tests)]


def _condition(text: str) -> Callable[[ListedRun], bool]:
    key, _, value = (part.strip() for part in text.partition("="))
    if key == "recipe":
        return lambda run: run.recipe_name == value
    if key == "set":
        return lambda run: bool(value) and (run.shard_set or "").startswith(value.lower())
    if key == "state":
        if value not in STATES:
            problem = f"--where {text}: expected one of {', '.join(STATES)}{suggest(value, STATES)}"
            raise RecipeError(text, [problem], what="condition")
        return lambda run: run.state == value
    try:
        _, setting, wanted = parse_override(text)
    except RecipeError as error:
        problems = [problem.replace("--set", "--where") for problem in error.problems]
        raise RecipeError(text, [*problems, f"besides settings: {', '.join(FILTERS)}"], what="condition") from None
    return lambda run: run.recipe is not None and run.recipe.settings()[setting] == wanted


def best_earlier(run_dir: Path) -> tuple[ListedRun, ListedRun] | None:
    """Return a finished run and, of those beside it that were finished before, the best one of its recipe and set.

    The recipe is known by its name: its settings may differ. Best is the highest validation accuracy, then the
    earliest. None where there is no such run, or no validation accuracy.
    """
    this = read_run(run_dir)
    if this.validation_accuracy is None or this.result is None:
        return None
    kind, earlier = (this.recipe_name, this.result.get("contents")), []
    own = real_path(run_dir)
    beside = run_dir.parent if real_path(run_dir.parent) == own.parent else own.parent
    for folder in sorted(own.parent.iterdir()):
        if real_path(folder) == own or not (folder / "result.json").is_file():
            continue
        one = read_run(beside / folder.name)
        if one.state != "finished" or one.result is None or one.validation_accuracy is None:
            continue
        if (one.recipe_name, one.result.get("contents")) == kind and one.changed <= this.changed:
            earlier.append((-one.validation_accuracy, one.changed, folder.name, one))
    return (this, min(earlier)[-1]) if earlier else None


def setting_changes(first: ListedRun, second: ListedRun) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two runs differ, each with both values; empty where one has no recipe."""
    if first.recipe is None or second.recipe is None:
        return {}
    return changed_settings(first.recipe, second.recipe)
