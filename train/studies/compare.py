"""Comparison of methods: the same shard set, recipe and seeds, one run folder each, one table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.executors import open_workers
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe, override
from spikebridge.train.data import order
from spikebridge.train.errors import RecipeError
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.methods import find_method
from spikebridge.train.report.format import aligned, protocol_words, spread
from spikebridge.train.runs.checkpoints import write_json
from spikebridge.train.runs.folder import RunFolder, contents_id, require_shards
from spikebridge.train.signals import StopRequest
from spikebridge.train.statistics import FEW, difference, mean_and_std, worth_of_one
from spikebridge.train.studies.evaluated import (
    evaluate_runs,
    evaluated_run,
    evaluated_tables,
    evaluated_words,
    spreads_of,
)
from spikebridge.train.studies.grids import Evaluated
from spikebridge.train.studies.run_pool import Run, RunPool
from spikebridge.train.studies.workers import begin_worker, usable_gpus
from spikebridge.train.trainer.progress import NullProgress
from spikebridge.train.trainer.run import Progress, train

FIGURES = ("test_accuracy", "validation_accuracy", "last_test_accuracy", "last_validation_accuracy")


def compare(
    shards: ShardSet | str | Path,
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    expect: str | None = None,
    overwrite: bool = False,
    checkpoint_every: str = "10s",
    stop: StopRequest | None = None,
    trust: bool = False,
    evaluated: Evaluated | None = None,
) -> dict[str, Any]:
    """Train every method with every seed into `out/<method>-seed<k>`; finished runs are kept, unfinished continued.

    One run after the other, and on a machine with several GPUs one on each.
    Nothing is chosen here, so test accuracies are reported. `overrides` (texts `key=value`) hold for all runs alike,
    methods and seeds, each given once, replace those of the recipe; with one seed standard deviations are null. The
    other arguments are as in `train`; `evaluated` says what else finished runs are evaluated for, as in a grid.

    Returns:
        The content of compare.json.

    Raises:
        RecipeError: no method or seed, one twice, a wrong override, or a method that cannot have the augmentation.
        MethodError: an unknown method.
        TrainError: whatever stops a run; the runs before it are kept.
        RunError: a failure of the camera that the shard set cannot show.
    """
    problems = [f"{name}: none given" for name, values in (("methods", methods), ("seeds", seeds)) if not values]
    problems += [f"{value} is given twice" for values in (methods, seeds) for value in sorted(_repeated(values))]
    if problems:
        raise RecipeError(recipe.name, problems)
    plain = override(recipe, overrides)
    for name in methods:
        find_method(name)
        override(plain, method=name)
    shards, out = open_shards(shards), Path(out)
    planned = [  # seed by seed: what is done early is comparable early
        (name, out / f"{name}-seed{seed}", override(plain, method=name, seed=seed))
        for seed, name in itertools.product(seeds, methods)
    ]
    how: dict[str, Any] = {"device": device, "backend": backend, "checkpoint_every": checkpoint_every, "trust": trust}
    gpus = usable_gpus(device)
    if gpus > 1:
        framed = require_shards(shards, plain.shards, expect=expect)
        contents = contents_id(framed)
        runs = [Run(name, one, framed, contents, path, _steps(framed, one)) for name, path, one in planned]
        workers = partial(open_workers, processes=gpus, initializer=begin_worker)
        with RunFolder(out).lock(), RunPool(out, workers, how, progress or NullProgress, stop or StopRequest()) as pool:
            pool.finish(runs, what="runs", overwrite=overwrite)
        overwrite = False
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for name, path, one in planned:  # what is finished is read; what failed in a worker says here why
        result = train(shards, one, path, expect=expect, progress=progress, overwrite=overwrite, stop=stop, **how)
        results[name].append({"run": path.name, "seed": one.train.seed, **_excerpt(result)})
    first = next(iter(results.values()))[0]
    summaries = {name: summary(runs) for name, runs in results.items()}
    described = {}
    if evaluated is not None:
        finished = [(out / run["run"], shards) for runs in results.values() for run in runs]
        evaluate_runs(finished, evaluated, device=device, backend=backend, progress=progress, stop=stop)
        for entry in summaries.values():
            found = [evaluated_run(out / run["run"], evaluated) for run in entry["runs"]]
            entry["evaluated"] = spreads_of(found, evaluated)
        described = {"evaluated": evaluated.described()}
    table = {
        "schema": 1,
        "methods": summaries,
        "differences": [paired(results, *pair) for pair in itertools.combinations(methods, 2)],
        "shard_set": shards.id,
        "dataset": shards.settings["dataset"],
        "simulated": bool(shards.simulated),
        "protocol": shards.settings["protocol"],
        "selection": first["selection"],
        "samples": first["samples"],
        "seeds": list(seeds),
        "recipe_name": recipe.name,
        "recipe": plain.tables(),
        **described,
    }
    write_json(out / "compare.json", table)
    return table


def _steps(shards: ShardSet, recipe: Recipe) -> int:
    recordings = len(order.training_recordings(shards.split("train"), recipe.train))
    return recipe.train.epochs * order.batch_count(recordings, recipe.train.batch_size)


def _repeated(values: Sequence[Any]) -> set[Any]:
    return {value for value in values if list(values).count(value) > 1}


def _excerpt(result: Mapping[str, Any]) -> dict[str, Any]:
    names = (*FIGURES, "best_epoch", "epochs", "selection", "samples", "static_images", "training_seconds", "device")
    return {name: result[name] for name in names} | {"neurobench": result.get("neurobench")}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of every figure over the runs of one method, and the runs themselves."""
    figures: dict[str, Any] = {}
    for name in FIGURES:
        figures[f"{name}_mean"], figures[f"{name}_std"] = mean_and_std([run[name] for run in runs])
    return {**figures, "n": len(runs), "runs": list(runs)}


def paired(results: dict[str, list[dict[str, Any]]], first: str, second: str) -> dict[str, Any]:
    """Return the difference in test accuracy, second minus first, seed by seed."""
    accuracies = [{run["seed"]: run["test_accuracy"] for run in results[name]} for name in (second, first)]
    gain = difference(*accuracies)
    return {
        "minus": first,
        "method": second,
        "test_accuracy_mean": gain["mean"],
        "test_accuracy_std": gain["std"],
        "test_accuracy_interval": None if gain["low"] is None else [gain["low"], gain["high"]],
        "n": gain["n"],
        "values": gain["values"],
    }


def format_table(table: dict[str, Any]) -> str:
    """Format the comparison for a terminal, accuracies in per cent."""
    rows = [("method", "test %", "validation %", "last test %", "runs")]
    for name, entry in table["methods"].items():
        cells = (_cell(entry, figure) for figure in ("test_accuracy", "validation_accuracy", "last_test_accuracy"))
        rows.append((name, *cells, str(entry["n"])))
    lines = [aligned(rows)]
    for entry in table["differences"]:
        lines.append(
            f"{entry['method']} minus {entry['minus']}, seed by seed: {_cell(entry, 'test_accuracy', sign='+')} points"
            + (interval(entry["test_accuracy_interval"]) if table["samples"]["test"] >= FEW else "")
        )
    asked, samples = table.get("evaluated"), table["samples"]
    if asked is not None:
        figures = {name: entry["evaluated"] for name, entry in table["methods"].items()}
        lines += [text for title, cells in evaluated_tables(asked, figures) for text in ("", title, aligned(cells))]
        lines += ["", evaluated_words(asked)]
    lines += filter(None, (worth_of_one(samples[split], split) for split in ("test", "validation")))
    lines += [
        f"{table['dataset']}{' (simulated events)' if table['simulated'] else ''}, "
        f"protocol {protocol_words(table['protocol'])}, "
        f"{samples['train']} training, {samples['validation']} validation, {samples['test']} test recordings",
        f"selection: {table['selection']}; shard set {table['shard_set'][:12]}; ± is the standard deviation (n - 1)",
    ]
    return "\n".join(lines)


def _cell(entry: dict[str, Any], figure: str, *, sign: str = "") -> str:
    return spread(entry[f"{figure}_mean"], entry[f"{figure}_std"], sign=sign) or "-"


def interval(ends: list[float] | None) -> str:
    """Return `, 95 % interval +1.2 to +3.4`, in points; empty without ends."""
    return "" if ends is None else f", 95 % interval {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"
