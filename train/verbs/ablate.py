"""The verb `ablate`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, note, path_type, print_result, progress_bar, quiet_option
from spikebridge.train.errors import ReportError
from spikebridge.train.signals import stop_on_signals
from spikebridge.train.verbs.options import (
    backend_option,
    checkpoint_option,
    device_option,
    set_option,
    trust_option,
    whole_numbers,
)


@click.command()
@click.option("--grid", required=True, help="Name of a shipped grid, or a TOML file; see `spikebridge grids`.")
@click.option(
    "--shards",
    "shard_sets",
    required=True,
    multiple=True,
    metavar="PATH|ADDRESS",
    help="Shard set; once more for rows with other settings of [shards].",
)
@click.option("--out", type=path_type(), required=True, help="Folder for the runs, the tables and report.html.")
@click.option("--seeds", help="Instead of the grid's, separated by commas.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes of one thread  [default: one per processor, or per GPU]"
)
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Train on the workers of this Dask scheduler instead.")
@set_option
@device_option
@backend_option
@checkpoint_option
@trust_option
@quiet_option
@json_option
def ablate(
    grid: str,
    shard_sets: tuple[str, ...],
    out: Path,
    seeds: str | None,
    workers: int | None,
    scheduler: str | None,
    overrides: tuple[str, ...],
    device: str,
    backend: str,
    checkpoint_every: str,
    trust: bool,
    as_json: bool,
) -> None:
    """Train a grid of methods and switches over several seeds, and write one table with confidence intervals.

    Each row gets its learning rate from the same small list, chosen on the validation split. Test accuracies are shown
    for the baselines and the finalist that the grid names, and for no other row. Running it again keeps
    finished runs and continues unfinished ones; signals end it as they end train. It names a run that fails, finishes
    the others, and ends with exit code 1.

    \b
    Examples:
      spikebridge ablate --grid digits --shards data/shards/digits --out data/runs/ablation
      spikebridge ablate --grid mine.toml --shards SHARDS --out DIR --seeds 0,1 --set epochs=20 --workers 2
      spikebridge ablate --grid leak --shards STRICT --shards LEAKY --out DIR
    """
    from spikebridge.train.studies.grids import load_grid

    loaded = load_grid(grid, overrides=overrides, seeds=whole_numbers(seeds, "--seeds") if seeds else ())

    from spikebridge.pipeline.sharing.open import open_set

    opened = [open_set(one) for one in shard_sets]

    from spikebridge.pipeline.base.executors import open_workers
    from spikebridge.train.studies.ablate import ablate as run_grid
    from spikebridge.train.studies.report import write_ablation_report
    from spikebridge.train.studies.table import terminal_text
    from spikebridge.train.studies.workers import begin_worker, usual_workers

    processes = workers or usual_workers(device)
    with stop_on_signals() as stop:
        table = run_grid(
            loaded,
            opened,
            out,
            workers=lambda: open_workers(processes=processes, scheduler=scheduler, initializer=begin_worker),
            device=device,
            backend=backend,
            progress=progress_bar,
            checkpoint_every=checkpoint_every,
            stop=stop,
            trust=trust,
        )
    try:
        write_ablation_report(table, out)
    except ReportError as error:
        note(f"no report: {error}")
    print_result(table, terminal_text(table) + f"\ntables and report: {out}", as_json=as_json)
    if any(failure["kind"] == "failed" for failure in table["failures"]):
        click.get_current_context().exit(1)
