"""A grid of runs: learning rates chosen on the validation split, then every row with every seed, and one table.

Each run is an ordinary run folder below OUT/runs, named after its row and the hash of its settings and samples: what is
finished is kept, what is unfinished continues, and a changed setting makes another run. The table is a function of the
run folders alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import signal
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import PipelineError, ShardSetError
from spikebridge.pipeline.base.executors import Workers
from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe, dump_recipe
from spikebridge.train.errors import RecipeError, RunError, RunStoppedError, ShardMismatchError, TrainError
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.runs.folder import RunFolder, contents_id, read_result, require_shards
from spikebridge.train.signals import StopRequest
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies.evaluated import evaluate_runs
from spikebridge.train.studies.grids import Grid, Row
from spikebridge.train.studies.table import AblationTable, Entry, Failure, Tuning, table_of, write_tables
from spikebridge.train.studies.workers import POLL_S, RunOutcome, RunSpec, train_run
from spikebridge.train.trainer.progress import NullProgress
from spikebridge.train.trainer.run import Progress

log = logging.getLogger(__name__)

STOP_FILE = ".stop"
"""In OUT, while running tasks are asked to end."""
MOST_ATTEMPTS = 3
"""Deaths of workers that a run may be blamed for."""


@dataclass(frozen=True)
class Run:
    """One run of the grid."""

    row: Row
    amount: float
    """Labelled recordings, in the unit of the grid's axis."""
    recipe: Recipe
    """Complete."""
    shards: ShardSet
    """Open shard set that fits the recipe."""
    contents: str
    """Hash of what it holds, see `contents_id`."""
    path: Path
    steps: int
    """Of the whole run."""

    def finished(self) -> bool:
        """Return whether the result is there.

        Raises:
            RunError: the folder holds something else.
        """
        status = RunFolder(self.path).status(self.recipe, self.shards.id, contents=self.contents)
        return status == "finished"


class ShardSets:
    """The shard sets of an ablation; their held-out and training recordings must be the same.

    Raises:
        ShardMismatchError: they do not hold the same recordings.
    """

    def __init__(self, shards: Sequence[ShardSet | str | Path]) -> None:
        self.sets = [open_shards(one) for one in shards]
        if not self.sets:
            raise ShardMismatchError("an ablation needs at least one shard set; none given")
        first, *others = self.sets
        for other, name in itertools.product(others, ("train", "validation", "test")):
            if tuple(first.split(name).keys) != tuple(other.split(name).keys):
                raise ShardMismatchError(
                    f"{other.path} and {first.path} hold different {name} recordings, so that their accuracies cannot "
                    "be compared; preprocess both from the same raw data with the same seed"
                )
        counts = np.bincount(np.asarray(first.split("train").labels, np.int64), minlength=len(first.classes))
        self.per_class = [int(count) for count in counts]
        self._contents: dict[str, str] = {}

    def fitting(self, recipe: Recipe, *, label: str) -> tuple[ShardSet, str]:
        """Return the shard set for a recipe, with frames as it asks for, and the hash of what it holds.

        Raises:
            ShardMismatchError: none fits.
        """
        problems = []
        for one in self.sets:
            try:
                framed = require_shards(one, recipe.shards)
            except (ShardMismatchError, ShardSetError) as error:
                problems.append(str(error))
                continue
            frames = json.dumps([framed.id, framed.settings], sort_keys=True)
            if frames not in self._contents:
                self._contents[frames] = contents_id(framed)
            return framed, self._contents[frames]
        raise ShardMismatchError(f"row {label!r} has no shard set; give it with another --shards:\n{problems[0]}")


def ablate(
    grid: Grid,
    shards: Sequence[ShardSet | str | Path],
    out: str | Path,
    *,
    workers: Callable[[], AbstractContextManager[Workers]],
    device: str = "auto",
    backend: str = "auto",
    progress: Progress | None = None,
    checkpoint_every: str = "10s",
    stop: StopRequest | None = None,
    trust: bool = False,
) -> AblationTable:
    """Do what a grid says, or what is left of it, and write ablation.json, .csv and .md to the folder of the runs.

    A row takes the first of the shard sets, open or as paths, that fits its `[shards]` settings. `workers` opens the
    workers that train, when the first run needs them; progress is that of all runs that are left, in steps. The other
    arguments are as in `train`.

    Returns:
        The table; see `studies.table`. Runs that failed are named in it and leave gaps.

    Raises:
        RecipeError: rates are to be chosen without a validation split.
        ShardMismatchError: a row has no shard set, or the sets do not hold the same recordings.
        RunError: another process works in `out`.
        RunStoppedError: `stop` was asked.
        RunError: a failure of the camera that the shard set cannot show.
        TrainError: the cluster is gone, or has had no worker for long; what is finished is kept.
    """
    sets, out = ShardSets(shards), Path(out)
    plan = _Plan(grid, sets, out)
    tuning_runs = [run for row in grid.rows for run in plan.tuning(row)]
    if grid.tuning_seeds and not all(len(run.shards.split("validation")) for run in tuning_runs):
        raise RecipeError(grid.name, ["learning rates are chosen on the validation split, which is empty"], what="grid")
    for row in grid.rows:  # every row has a shard set before anything is trained
        plan.runs(row, grid.learning_rates[0])
    with (
        RunFolder(out).lock(),
        _RunPool(
            out,
            workers,
            {
                "device": device,
                "backend": backend,
                "checkpoint_every": checkpoint_every,
                "test": not grid.sweep,
                "trust": trust,
            },
            progress or NullProgress,
            stop or StopRequest(),
        ) as pool,
    ):
        pool.finish(tuning_runs, what="learning rates")
        tuned = {row.slug: _choose_rate(grid, plan, row, pool.failures) for row in grid.rows}
        runs = {row.slug: plan.runs(row, rate) for row in grid.rows if (rate := tuned[row.slug]["chosen"]) is not None}
        # Seed by seed: what is done early is comparable early.
        ordered = sorted(itertools.chain(*runs.values()), key=lambda run: grid.seeds.index(run.recipe.train.seed))
        pool.finish(ordered, what="runs")
        failed = {failure["run"] for failure in pool.failures}
        if grid.evaluated:
            finished = [(run.path, run.shards) for run in ordered if run.path.name not in failed]
            evaluate_runs(finished, grid.evaluated, device=device, backend=backend, progress=progress, stop=stop)
        entries = [
            Entry(row.label, run.amount, run.recipe.train.seed, run.path)
            for row in grid.rows
            for run in runs.get(row.slug, ())
            if run.path.name not in failed
        ]
        used = list({run.shards.id: run.shards for run in [*tuning_runs, *ordered]}.values())
        table = table_of(grid, entries, [tuned[row.slug] for row in grid.rows], pool.failures, shard_sets=used)
        write_tables(table, out)
    return table


class _Plan:
    """The runs of a grid on shard sets."""

    def __init__(self, grid: Grid, sets: ShardSets, out: Path) -> None:
        self.grid, self.sets, self.out = grid, sets, out

    def make_run(self, row: Row, amount: float, *, seed: int, lr: float) -> Run:
        """Return one run with its complete recipe and its folder."""
        recipe = self.grid.recipe_of(row, amount, seed=seed, lr=lr, per_class=self.sets.per_class)
        shards, contents = self.sets.fitting(recipe, label=row.label)
        digest = hashlib.sha256(f"{dump_recipe(recipe)}{contents}".encode()).hexdigest()[:10]
        path = self.out / "runs" / f"{row.slug}-{amount:g}-lr{lr:g}-seed{seed}-{digest}"
        samples = recipe.train.epochs * self.grid.samples(amount, self.sets.per_class)
        return Run(row, amount, recipe, shards, contents, path, max(1, -(-samples // recipe.train.batch_size)))

    def tuning(self, row: Row) -> list[Run]:
        """Return the runs that choose a row's learning rate."""
        pairs = itertools.product(self.grid.learning_rates, self.grid.tuning_seeds)
        return [self.make_run(row, self.grid.tuning_amount, seed=seed, lr=lr) for lr, seed in pairs]

    def runs(self, row: Row, lr: float) -> list[Run]:
        """Return the runs of a row."""
        pairs = itertools.product(row.amounts, self.grid.seeds)
        return [self.make_run(row, amount, seed=seed, lr=lr) for amount, seed in pairs]


def _choose_rate(grid: Grid, plan: _Plan, row: Row, failures: Sequence[Failure]) -> Tuning:
    """Choose the rate with the highest mean validation accuracy over all tuning seeds; of equals the smallest.

    A rate with a run that failed or diverged is out. No test figure is read.
    """
    if not grid.tuning_seeds:
        return {"row": row.label, "chosen": row.lr or grid.learning_rates[0], "validation": {}}
    failed = {failure["run"] for failure in failures}
    means: dict[float, float | None] = {}
    for lr in sorted(grid.learning_rates):
        runs = [run for run in plan.tuning(row) if run.recipe.train.lr == lr]
        whole = not any(run.path.name in failed for run in runs)
        accuracies = [read_result(run.path)["validation_accuracy"] for run in runs] if whole else []
        means[lr] = mean_and_std(accuracies)[0]
    known = {lr: mean for lr, mean in means.items() if mean is not None}
    return {
        "row": row.label,
        "chosen": max(known, key=lambda lr: known[lr]) if known else None,
        "validation": {f"{lr:g}": mean for lr, mean in means.items()},
    }


class _RunPool:
    """Runs on their way through workers; `options` are those of every run, see `RunSpec`."""

    def __init__(
        self,
        out: Path,
        workers: Callable[[], AbstractContextManager[Workers]],
        options: dict[str, Any],
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self.stop_file = out / STOP_FILE
        self.stop_file.unlink(missing_ok=True)  # of an earlier session
        self.options, self.progress, self.stop = options, progress, stop
        self.failures: list[Failure] = []
        self._open_workers = workers
        self._workers: Workers | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> _RunPool:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self.stop_file.unlink(missing_ok=True)

    def finish(self, runs: Sequence[Run], *, what: str) -> None:
        """Finish all runs that can be finished; the others are in `failures`.

        Raises:
            RunStoppedError: asked to stop; everything is at a checkpoint.
            TrainError: the cluster is gone.
        """
        left: dict[Path, Run] = {}
        for run in {run.path: run for run in runs}.values():
            try:
                if not run.finished():
                    left[real_path(run.path)] = run
            except (RunError, ShardMismatchError) as error:
                self._fail(run, RunOutcome("failed", str(error)))
        bar = self.progress(total=sum(run.steps for run in left.values()), desc=what, unit="step", smoothing=0)
        try:
            self._train(left, bar)
        except PipelineError as error:
            raise TrainError(str(error)) from error
        finally:
            bar.close()
        if left and self.stop.signal:
            raise RunStoppedError(
                f"Stopped by {signal.Signals(self.stop.signal).name}; {len(runs) - len(left)} of {len(runs)} "
                f"{what} are done, the others are at a checkpoint. The same command continues.",
                signal=self.stop.signal,
            )

    def _train(self, left: dict[Path, Run], bar: Any) -> None:
        """Train runs until all are done or a stop is asked; take those that are done, or failed, out of `left`."""
        if not left or self.stop.signal:
            return
        if self._workers is None:  # the workers stay for all that follows: each imports torch once
            self._workers = self._opened.enter_context(self._open_workers())
        deaths: Counter[str] = Counter()

        def end(spec: RunSpec, outcome: RunOutcome) -> None:
            run = left.pop(Path(spec.run))
            bar.update(run.steps)
            if outcome.kind != "done":
                self._fail(run, outcome)

        def requeue(lost: list[RunSpec], waiting: deque[RunSpec]) -> None:
            """Put the first of the lost runs, which was at work, behind all others, or give it up."""
            waiting.extendleft(reversed(lost[1:]))
            for spec in lost[:1]:
                deaths[spec.run] += 1
                if deaths[spec.run] < MOST_ATTEMPTS:
                    waiting.append(spec)
                else:
                    end(spec, RunOutcome("failed", "its worker process died (killed, or out of memory)"))

        def stopping() -> bool:
            if self.stop.signal and not self.stop_file.exists():  # runs at work see it and end with a checkpoint
                write_atomic(self.stop_file, str(self.stop.signal).encode())
            return bool(self.stop.signal)

        specs = [self._spec(run) for run in left.values()]
        for spec, outcome in self._workers.run(train_run, specs, requeue=requeue, stopping=stopping, poll_s=POLL_S):
            if outcome.kind != "stopped":
                end(spec, outcome)

    def _spec(self, run: Run) -> RunSpec:
        stop_file = str(real_path(self.stop_file))
        return RunSpec(
            run.shards.address, run.shards.id, run.recipe, str(real_path(run.path)), stop_file, **self.options
        )

    def _fail(self, run: Run, outcome: RunOutcome) -> None:
        self.failures.append(
            {"run": run.path.name, "label": run.row.label, "kind": outcome.kind, "message": outcome.message}
        )
        log.warning("%s %s: %s", run.path.name, outcome.kind, outcome.message.splitlines()[0])
