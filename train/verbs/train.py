"""The verb `train`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import (
    is_main_process,
    json_option,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)
from spikebridge.train.config.recipes import dump_recipe, load_recipe
from spikebridge.train.runs.result import RunResult, accuracy_of
from spikebridge.train.signals import stop_on_signals
from spikebridge.train.statistics import worth_of_one
from spikebridge.train.verbs.options import (
    TRACKERS,
    backend_option,
    checkpoint_option,
    device_option,
    set_option,
    trust_option,
)
from spikebridge.train.verbs.report import write_run_report


@click.command()
@click.option("--shards", metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published.")
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--run", "run_path", type=path_type(), help="Folder of the run.")
@set_option
@click.option("--seed", type=click.IntRange(0), help="Seed of the run; wins over --set and the recipe.")
@device_option
@click.option("--expect", metavar="ID", help="Refuse any shard set but this one.")
@checkpoint_option
@click.option(
    "--residence",
    type=click.Choice(["auto", "device", "host", "disk"]),
    default="auto",
    show_default=True,
    help="Where frames are kept; auto goes by their size.",
)
@backend_option
@click.option("--graph/--no-graph", default=True, help="On CUDA, record each step once and replay it.")
@click.option("--test/--no-test", default=True, help="Score the test split at the end; without, choose freely.")
@trust_option
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs to RUN/tensorboard too.")
@click.option("--track", multiple=True, type=click.Choice(TRACKERS), help="Tell a tracker every epoch; see verb track.")
@click.option("--init", type=path_type(), metavar="RUN", help="Begin with the best weights of this finished run.")
@click.option("--settings-hash", is_flag=True, help="Print the hash of the complete recipe and stop.")
@overwrite_option
@quiet_option
@json_option
def train(
    shards: str | None,
    recipe: str,
    run_path: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    init: Path | None,
    settings_hash: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,  # of `trainer.run.train`, by the same names
) -> None:
    """Train a network, score it once, write a report.

    An unfinished run continues, killed or stopped at whatever step; of a finished one it prints the result, and the
    difference to the best earlier run beside it of the same recipe and set.
    Ctrl-C (exit code 130; twice ends at once), SIGTERM (143) and SIGUSR1 (138) finish the step and write a checkpoint.
    With torchrun several processes train one network; batch_size counts the samples of all.
    With --init the network begins with the weights of another run of the same architecture; it names what does not
    fit (other classes, another number of time steps), which begins fresh.

    \b
    Examples:
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/digits
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/e --set method=event_only --seed 1
      torchrun --nproc-per-node 2 -m -- spikebridge train --shards SET --recipe digits --run RUN --set synchronize=true
      spikebridge train --shards data/shards/nmnist --recipe nmnist --run data/runs/fine --init data/runs/digits
    """
    loaded = load_recipe(recipe, overrides=overrides, seed=seed)
    if settings_hash:
        start = b""
        if init is not None:
            from spikebridge.train.networks.initial_weights import read_start

            start = read_start(init).record["sha256"].encode()
        return click.echo(hashlib.sha256(dump_recipe(loaded).encode() + start).hexdigest()[:12])
    if shards is None or run_path is None:
        raise click.UsageError(f"Missing option {'--shards' if shards is None else '--run'}.")

    from spikebridge.pipeline.sharing.open import open_set

    opened = open_set(shards)  # before torch, which is slow to import: a wrong path fails at once

    from spikebridge.train.runs.folder import RunFolder
    from spikebridge.train.trainer.run import train as run_training

    was_finished = RunFolder(run_path).result.exists()
    with stop_on_signals() as stop:
        result = run_training(
            opened,
            loaded,
            run_path,
            progress=progress_bar,
            overwrite=overwrite,
            stop=stop,
            init=init,
            **options,
        )
    report_path = run_path / "report.html"
    if is_main_process() and (overwrite or not was_finished or not report_path.exists()):  # of a finished run it stays
        write_run_report([run_path], report_path, opened)
    found = best_before(run_path)
    text = result_text(result, run_path)
    values: dict[str, object] = {**result}
    if found is not None:
        values["best_earlier"], sentence = found
        text += f"\n  best earlier run     {sentence}"
    step = ["compare", "--shards", shards, "--recipe", recipe, "--out", "DIR"]
    print_result(values, text, as_json=as_json, then=step)


def best_before(run_path: Path) -> tuple[dict[str, object], str] | None:
    """Return the best earlier run beside this one, of the same recipe and set, for JSON and as a sentence."""
    from spikebridge.train.report.listing import earlier_text
    from spikebridge.train.runs.listing import best_earlier

    if not is_main_process() or (found := best_earlier(run_path)) is None:
        return None
    row = found[1].row()
    kept = ("run", "method", "validation_accuracy", "test_accuracy", "changed")
    return {name: row[name] for name in kept}, earlier_text(*found)


def result_text(result: RunResult, run_path: Path) -> str:
    """Return the closing lines of a run."""
    samples = result["samples"]
    lines = [result["method"] + " on " + result["dataset"] + (" (SIMULATED recordings)" if result["simulated"] else "")]
    if result["protocol"] == "leaky":
        lines[0] += " (LEAKY protocol: no result)"
    for split in ("test", "validation"):
        accuracy = accuracy_of(result, split)
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {samples[split]:,} recordings")
            if worth := worth_of_one(samples[split], split):
                lines.append(f"  {'':20} {worth}")
    if result.get("tested") is False:
        lines.append("  test accuracy        not scored; evaluate does it once the choice is made")
    lines += [
        f"  checkpoint           epoch {result['best_epoch']}: {result['selection']}",
        f"  run                  {run_path}",
        f"  report               {run_path / 'report.html'}",
    ]
    return "\n".join(lines)
