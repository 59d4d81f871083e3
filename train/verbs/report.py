"""The verb `report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikebridge.pipeline.ui.terminal import json_option, note, overwrite_option, path_type, print_result, require_free
from spikebridge.train.errors import TrainError

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=path_type())
@click.option("--out", type=path_type(), help="HTML file  [default: RUN/report.html]")
@click.option("--shards", metavar="PATH|ADDRESS", help="Shard set, to show samples.")
@click.option("--figures", type=path_type(), metavar="DIR", help="Also every plot as PDF and SVG, a column wide.")
@overwrite_option
@json_option
def report(
    runs: tuple[Path, ...], out: Path | None, shards: str | None, figures: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Write one HTML file about a run, or about several.

    A run may be unfinished or diverged; the page says so, and what to do. Among several it is in no mean.
    RUN may be a list that `runs --json` printed, or - for one that is piped in.

    \b
    Examples:
      spikebridge report data/runs/digits --shards data/shards/digits
      spikebridge report data/runs/digits --out paper/digits.html --figures paper/figures
      spikebridge report data/runs/compare/kt-seed0 data/runs/compare/event_only-seed0 --out compare.html
      spikebridge runs data/runs --where method=kt --json | spikebridge report - --out kt.html
    """
    runs = tuple(path for word in runs for path in _runs_of(word))
    if out is None and len(runs) != 1:
        raise click.UsageError("Missing option --out: several runs need a place for their report.")
    require_free(out, overwrite=overwrite)
    if figures is not None and figures.exists() and not overwrite and (figures.is_file() or any(figures.iterdir())):
        raise click.UsageError(
            f"{figures} is not empty; choose another folder, or replace its figures with --overwrite."
        )

    from spikebridge.pipeline.sharing.open import open_set
    from spikebridge.train.report.write import write_report

    target = out or runs[0] / "report.html"
    write_report(list(runs), target, shards=open_set(shards) if shards else None, figures=figures)
    text = f"report: {target}" + (f"\nfigures: {figures}" if figures else "")
    print_result({"report": str(target), "figures": str(figures) if figures else None}, text, as_json=as_json)


def _runs_of(word: Path) -> list[Path]:
    """Return a run folder as it is, and the runs of a list but for damaged ones."""
    if word.is_dir() or (str(word) != "-" and not word.is_file()):
        return [word]
    from spikebridge.train.report.listing import read_list

    data = sys.stdin.read() if str(word) == "-" else word.read_bytes()
    listed, left_out = read_list(data, str(word))
    for sentence in left_out:
        note(sentence)
    return listed


def write_run_report(runs: list[Path], out: Path, shards: ShardSet | None) -> None:
    """Write the report of runs; a machine without the packages for plots still gets its training done."""
    from spikebridge.train.report.write import write_report

    try:
        write_report(runs, out, shards=shards)
    except TrainError as error:
        note(f"no report: {error}")
