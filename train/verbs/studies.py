"""Verbs about many runs, and about what runs have learned."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.terminal import answer, folder, json_option, overwrite_option, progress_bar, say
from train.errors import ReportError
from train.recipes import load_recipe
from train.stopping import listening
from train.verbs.options import backend_option, checkpoint_option, device_option, set_option, shards_option
from train.verbs.runs import write_run_report


@click.command()
@shards_option
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--methods", default="event_only,kt", show_default=True, help="Methods, separated by commas.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, separated by commas.")
@click.option("--out", type=folder(), required=True, help="Folder for the runs, compare.json and report.html.")
@set_option
@device_option
@backend_option
@checkpoint_option
@overwrite_option
@json_option
def compare(
    shards: str,
    recipe: str,
    methods: str,
    seeds: str,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    backend: str,
    checkpoint_every: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train several methods over several seeds; one table.

    All see the same recordings. Finished runs are kept, unfinished ones continue; signals end it as they end train.

    \b
    Example:
      spikebridge compare --shards data/shards/digits --recipe digits --methods event_only,kt --seeds 0,1,2 --out cmp
    """
    numbers = whole_numbers(seeds, "--seeds")

    from pipeline.opening import open_set

    opened = open_set(shards)

    from train.comparison import compare as run_comparison
    from train.comparison import format_table

    names = [name.strip() for name in methods.split(",")]
    with listening() as stop:
        table = run_comparison(
            opened,
            load_recipe(recipe, overrides=overrides),
            names,
            numbers,
            out,
            device=device,
            backend=backend,
            progress=progress_bar,
            overwrite=overwrite,
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
    runs = [out / run["run"] for method in table["methods"].values() for run in method["runs"]]
    write_run_report(runs, out / "report.html", opened)
    text = f"{format_table(table)}\n  report  {out / 'report.html'}"
    answer(table, text, as_json=as_json)


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
@click.option("--out", type=folder(), required=True, help="Folder for the runs, the tables and report.html.")
@click.option("--seeds", help="Instead of the grid's, separated by commas.")
@click.option("--workers", type=click.IntRange(1), help="Processes of one thread  [default: one per processor]")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Train on the workers of this Dask scheduler instead.")
@set_option
@device_option
@backend_option
@checkpoint_option
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
    as_json: bool,
) -> None:
    """Train a grid of methods and switches over several seeds, and write one table with confidence intervals.

    Each row gets its learning rate from the same small list, chosen on the validation split. Test accuracies are shown
    for the baselines and the finalist that the grid names, and for no other row. Finished runs are kept and unfinished
    ones continue, killed or stopped wherever; signals end it as they end train. A run that fails is named, costs the
    others nothing, and makes the exit code 1.

    \b
    Examples:
      spikebridge ablate --grid digits --shards data/shards/digits --out data/runs/ablation
      spikebridge ablate --grid mine.toml --shards SHARDS --out DIR --seeds 0,1 --set epochs=20 --workers 2
      spikebridge ablate --grid leak --shards STRICT --shards LEAKY --out DIR
    """
    from train.grids import load_grid

    chosen = load_grid(grid, overrides=overrides, seeds=whole_numbers(seeds, "--seeds") if seeds else ())

    from pipeline.opening import open_set

    opened = [open_set(one) for one in shard_sets]

    from pipeline.processors import usable_processors
    from train.ablation import ablate as run_grid
    from train.ablation_table import terminal_text
    from train.report_ablation import write_ablation_report
    from train.workers import local_engine, scheduler_engine

    engine = scheduler_engine(scheduler) if scheduler else local_engine(workers or usable_processors())
    with listening() as stop:
        table = run_grid(
            chosen,
            opened,
            out,
            engine=engine,
            device=device,
            backend=backend,
            progress=progress_bar,
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
    try:
        write_ablation_report(table, out)
    except ReportError as error:
        say(f"no report: {error}")
    answer(table, terminal_text(table) + f"\ntables and report: {out}", as_json=as_json)
    if any(failure["kind"] == "failed" for failure in table["failures"]):
        click.get_current_context().exit(1)


def whole_numbers(text: str, option: str) -> list[int]:
    """Numbers separated by commas."""
    if not all(number.strip().isdigit() for number in text.split(",")):
        raise click.BadParameter(f"{text!r}: expected whole numbers separated by commas", param_hint=option)
    return [int(number) for number in text.split(",")]


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=folder())
@click.option("--out", type=folder(), help="HTML file  [default: RUN/report.html]")
@click.option("--shards", metavar="PATH|ADDRESS", help="Shard set, for pictures of samples.")
@overwrite_option
@json_option
def report(runs: tuple[Path, ...], out: Path | None, shards: str | None, overwrite: bool, as_json: bool) -> None:
    """Write one HTML file about a run, or about several.

    \b
    Examples:
      spikebridge report data/runs/digits --shards data/shards/digits
      spikebridge report data/runs/compare/kt-seed0 data/runs/compare/event_only-seed0 --out compare.html
    """
    if out is None and len(runs) > 1:
        raise click.UsageError("Missing option --out: several runs need a place for their report.")
    if out is not None and out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; choose another file, or replace it with --overwrite.")

    from pipeline.opening import open_set
    from train.report import write_report

    target = out or runs[0] / "report.html"
    write_report(list(runs), target, shards=open_set(shards) if shards else None)
    answer({"report": str(target)}, f"report: {target}", as_json=as_json)


@click.command()
@click.argument("run_path", metavar="RUN", type=folder())
@shards_option
@click.option("--out", type=folder(), required=True, help="Folder for the grid, as JSON and CSV, and the pictures.")
@click.option("--points", default=15, show_default=True, help="Points along each axis, an odd number.")
@click.option(
    "--radius", default=1.0, show_default=True, help="Largest distance; 1 is as far as 0 is from the weights."
)
@click.option("--line", is_flag=True, help="One direction alone, without the plane.")
@click.option(
    "--recordings",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Most that the loss is taken of, spread evenly over the split.",
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the directions.")
@click.option("--recalibrate", is_flag=True, help="Take BatchNorm's running statistics anew at every point.")
@overwrite_option
@json_option
def landscape(
    run_path: Path,
    shards: str,
    out: Path,
    points: int,
    radius: float,
    line: bool,
    recordings: int,
    split: str,
    seed: int,
    recalibrate: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the loss around a trained network, along one random direction and over the plane of two.

    Directions are normalised filter by filter (Li et al., NeurIPS 2018). The loss is that of event recordings in
    evaluation mode; train means the recordings that the run was trained on. Biases, and BatchNorm with its running
    statistics, stay as trained; with --recalibrate the statistics are those of the recordings at every point.
    What an interrupted command left is kept: the same command continues.

    \b
    Examples:
      spikebridge landscape data/runs/digits --shards data/shards/digits --out data/runs/digits-landscape
      spikebridge landscape data/runs/digits --shards data/shards/digits --out flat --line --points 51 --split test
    """
    from train.landscape import Grid
    from train.landscape import landscape as look_around

    with listening() as stop:
        found = look_around(
            run_path,
            shards,
            out,
            grid=Grid(points=points, radius=radius, plane=not line),
            split=split,
            most=recordings,
            seed=seed,
            anew=recalibrate,
            overwrite=overwrite,
            progress=progress_bar,
            stop=stop,
        )
    losses = [loss for loss in found["line"]["loss"] if loss is not None]
    text = (
        f"loss {found['trained']['loss']:.3f} of {found['recordings']:,} {split} recordings"
        f"{' (SIMULATED)' if found['simulated'] else ''}, up to {max(losses):.3f} along the line\n"
        f"  pictures and grid  {out}: line.png"
        + ("" if line else ", contour.png, surface.png")
        + ", landscape.csv, landscape.json"
    )
    answer(found, text, as_json=as_json)
