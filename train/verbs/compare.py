"""The verb `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import (
    FiniteRange,
    json_option,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.signals import stop_on_signals
from spikebridge.train.verbs.options import (
    backend_option,
    checkpoint_option,
    corrupt_option,
    device_option,
    early_exit_option,
    set_option,
    shards_option,
    trust_option,
    whole_numbers,
)
from spikebridge.train.verbs.report import write_run_report


@click.command()
@shards_option
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--methods", default="event_only,kt", show_default=True, help="Methods, separated by commas.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, separated by commas.")
@click.option("--out", type=path_type(), required=True, help="Folder for the runs, compare.json and report.html.")
@corrupt_option
@click.option(
    "--after-ms",
    type=FiniteRange(0, min_open=True),
    multiple=True,
    metavar="MS",
    help="Accuracy when a recording ends after so many milliseconds; may be repeated.",
)
@early_exit_option
@set_option
@device_option
@backend_option
@checkpoint_option
@trust_option
@overwrite_option
@quiet_option
@json_option
def compare(
    shards: str,
    recipe: str,
    methods: str,
    seeds: str,
    out: Path,
    corrupt: tuple[str, ...],
    after_ms: tuple[float, ...],
    early_exit: float | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **options: Any,  # of `studies.compare.compare`, by the same names
) -> None:
    """Train several methods over several seeds; one table.

    All train on the same recordings, one after the other, or with several GPUs one on each. Running it again keeps
    finished runs and continues unfinished ones; signals end it as they end train. --corrupt, --after-ms and
    --early-exit evaluate finished runs, too, for further tables, and keep what they find beside each run.

    \b
    Examples:
      spikebridge compare --shards data/shards/digits --recipe digits --methods event_only,kt --seeds 0,1,2 --out cmp
      spikebridge compare --shards SHARDS --recipe digits --out cmp --corrupt background --after-ms 150 --early-exit 5
    """
    from spikebridge.train.evaluation.failures import parse_corruptions
    from spikebridge.train.studies.grids import Evaluated

    numbers, corruptions = whole_numbers(seeds, "--seeds"), tuple(parse_corruptions(corrupt))
    asked = corruptions or after_ms or early_exit is not None
    evaluated = Evaluated(corruptions, after_ms, early_exit, "test") if asked else None

    from spikebridge.pipeline.sharing.open import open_set

    opened = open_set(shards)

    from spikebridge.train.studies.compare import compare as run_comparison
    from spikebridge.train.studies.compare import format_table

    names = [name.strip() for name in methods.split(",")]
    with stop_on_signals() as stop:
        table = run_comparison(
            opened,
            load_recipe(recipe, overrides=overrides),
            names,
            numbers,
            out,
            evaluated=evaluated,
            progress=progress_bar,
            stop=stop,
            **options,
        )
    runs = [out / run["run"] for method in table["methods"].values() for run in method["runs"]]
    write_run_report(runs, out / "report.html", opened)
    text = f"{format_table(table)}\n  report  {out / 'report.html'}"
    print_result(table, text, as_json=as_json)
