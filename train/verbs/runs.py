"""The verbs `runs` (also `runs list`) and `runs diff`."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result

DEFAULT_FOLDER = "data/runs"


class ListByDefault(click.Group):
    """A group that lists where no verb of its own is given: `runs FOLDER` is `runs list FOLDER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` before other words."""
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else ["list", *args])


@click.group(cls=ListByDefault)
def runs() -> None:
    """List runs and compare two: `runs FOLDER` is short for `runs list FOLDER`.

    \b
    Examples:
      spikebridge runs
      spikebridge runs data/runs --where method=kt --where state=finished --sort age
      spikebridge runs diff data/runs/a data/runs/b
    """


@runs.command("list")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=path_type())
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only runs with this setting, or recipe=NAME, set=ID (its beginning), state=diverged|...; repeatable.",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["validation", "test", "age", "method", "recipe", "state", "run"]),
    default="validation",
    show_default=True,
    help="Highest accuracy, youngest, or first of the alphabet on top.",
)
@json_option
def show_all(folders: tuple[Path, ...], conditions: tuple[str, ...], order: str, as_json: bool) -> None:
    """List the run folders below FOLDER (data/runs): method, recipe, set, accuracies, state, age.

    A damaged run is a row that says so. Sort by test accuracy to report, by validation accuracy to choose. The list as
    JSON can be given to report.

    \b
    Examples:
      spikebridge runs list data/runs --sort age
      spikebridge runs data/runs --where recipe=digits --where lr=1e-3
      spikebridge runs data/runs --where method=kt --json > kt.json; spikebridge report kt.json --out kt.html
    """
    from spikebridge.train.report.listing import list_text
    from spikebridge.train.runs.listing import choose_runs, find_runs, sort_runs

    places = folders or (Path(DEFAULT_FOLDER),)
    found = sort_runs(choose_runs(find_runs(places), conditions), order)
    none = f"no run{' with ' + ' and '.join(conditions) if conditions else ''} below {', '.join(map(str, places))}"
    text = list_text(found, datetime.datetime.now(datetime.UTC)) if found else none
    print_result({"runs": [run.row() for run in found]}, text, as_json=as_json)


@runs.command("diff")
@click.argument("first", metavar="A", type=path_type())
@click.argument("second", metavar="B", type=path_type())
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Show how two runs differ: settings, data, results, machine.

    \b
    Example:
      spikebridge runs diff data/runs/a data/runs/b
    """
    from spikebridge.train.errors import RunError
    from spikebridge.train.report.listing import difference_text, run_difference
    from spikebridge.train.runs.listing import is_run, read_run

    for path in (first, second):
        if not path.is_dir() or not is_run({entry.name for entry in path.iterdir()}, path):
            raise RunError(f"{path}: no run here; expected a folder written by train")
    difference = run_difference(read_run(first), read_run(second))
    print_result(difference, difference_text(difference), as_json=as_json)
