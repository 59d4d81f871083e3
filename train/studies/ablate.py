"""A grid of runs: learning rates chosen on the validation split, then every row with every seed, and one table.

Each run is an ordinary run folder below OUT/runs, named after its row and the hash of its settings and samples: what is
finished is kept, what is unfinished continues, and a changed setting makes another run. The table is a function of the
run folders alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.executors import Workers
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe, dump_recipe
from spikebridge.train.errors import RecipeError, ShardMismatchError
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.runs.folder import RunFolder, contents_id, read_result, require_shards
from spikebridge.train.signals import StopRequest
from spikebridge.train.statistics import mean_and_std
from spikebridge.train.studies.evaluated import evaluate_runs
from spikebridge.train.studies.grids import Grid, Row
from spikebridge.train.studies.run_pool import Run, RunPool
from spikebridge.train.studies.table import AblationTable, Entry, Failure, Tuning, table_of, write_tables
from spikebridge.train.trainer.progress import NullProgress
from spikebridge.train.trainer.run import Progress, with_least_steps


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
        RunPool(
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
        recipe = with_least_steps(recipe, shards)  # as `train` does, so that a finished run is known again
        digest = hashlib.sha256(f"{dump_recipe(recipe)}{contents}".encode()).hexdigest()[:10]
        path = self.out / "runs" / f"{row.slug}-{amount:g}-lr{lr:g}-seed{seed}-{digest}"
        samples = recipe.train.epochs * self.grid.samples(amount, self.sets.per_class)
        steps = max(1, -(-samples // recipe.train.batch_size))
        return Run(row.label, recipe, shards, contents, path, steps, amount)

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
