"""The report of one or several runs: a single HTML file that needs no network, no script and no other file.

records    content of the run folders              run        all sections of one run
analysis   what the network makes of the data      sections   one file each
unfinished the page of a run without a result
plots      drawn by matplotlib                     several    sections that compare runs
format     tables and figures as text
(pieces of a page, colours and type: spikebridge.pipeline.ui.html and .style)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.ui.html import folded, page, section
from spikebridge.train.errors import ReportError, TrainError
from spikebridge.train.report.records import RunRecord, group_runs, load_runs, unfinished_record
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.runs.folder import RunFolder, framed_for
from spikebridge.train.runs.listing import is_begun, read_run

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.report.plots.drawing import Drawing
    from spikebridge.train.report.run import ReportedRun
    from spikebridge.train.runs.listing import ListedRun


FIGURE_KINDS = ("pdf", "svg")


def write_report(
    run_dirs: Sequence[Path], out: Path, *, shards: ShardSet | None = None, figures: Path | None = None
) -> Path:
    """Write the report of runs; equal runs and shard set give equal bytes.

    Args:
        run_dirs: run folders, at least one; several are compared, grouped by what differs besides the seed. Any
            may be unfinished, running or diverged: the page says so, shows what there is, and has them in no mean.
        out: the HTML file; replaced where it exists.
        shards: the shard set of the runs, for all that needs recordings; without it, or with another, the report says
            what is missing.
        figures: folder that gets every plot as PDF and SVG, one column of a paper wide; made where it is missing.

    Returns:
        `out`.

    Raises:
        ReportError: matplotlib is not installed.
        RunError: no run given, a damaged one, or `out` cannot be written.
        ShardSetError: a shard is damaged.
    """
    require_matplotlib("a report needs")
    with _collecting(figures) as drawings:
        begun = [read_run(Path(path)) for path in run_dirs if is_begun(path)]
        if begun and len(run_dirs) == 1:
            html = _unfinished(begun[0], shards)
        else:
            finished = [path for path in run_dirs if not is_begun(path)]
            records = load_runs(finished) if finished or not begun else []
            html = _several(records, begun, shards) if len(run_dirs) > 1 else _one(records[0], shards)
    write_atomic(Path(out), html.encode())
    for drawing in drawings if figures else ():
        drawing.fit_column()
        for kind in FIGURE_KINDS:
            write_atomic(Path(figures or ".") / f"{drawing.name}.{kind}", drawing.file(kind))
    return Path(out)


def _collecting(figures: Path | None) -> AbstractContextManager[list[Drawing]]:
    from spikebridge.train.report.plots.drawing import collecting

    return collecting() if figures else nullcontext([])


def require_matplotlib(who: str) -> None:
    """Refuse to go on without matplotlib; `who` says who needs it.

    Raises:
        ReportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ReportError(f"{who} matplotlib, which is not installed; {install_command('report')}")


def _reported(record: RunRecord, shards: ShardSet | None, *, prefix: str, in_depth: bool) -> ReportedRun:
    """Return a run with its shard set and the analysis of its network, as far as both are at hand."""
    from spikebridge.train.report.analysis import analyse
    from spikebridge.train.report.run import ReportedRun

    shard_set = str(record.result.get("shard_set", ""))
    if shards is None:
        missing = f"The shard set was not given. Make the report again with --shards and shard set {shard_set}."
        return ReportedRun(record, None, None, missing, prefix, in_depth)
    framed = framed_for(shards, record.result)
    if framed is None:
        missing = f"Nothing to show: this run used shard set {shard_set}, the one given is {shards.id}."
        return ReportedRun(record, None, None, missing, prefix, in_depth)
    if record.result.get("tested") is False:
        missing = "Not shown: this run did not score its test split (--no-test), and this would look at it."
        return ReportedRun(record, framed, None, missing, prefix, in_depth)
    try:
        return ReportedRun(record, framed, analyse(RunFolder(record.path), record.result, framed), "", prefix, in_depth)
    except TrainError as error:
        missing = str(error).replace(str(record.path), record.name)
        return ReportedRun(record, framed, None, f"Nothing to show: {missing}.", prefix, in_depth)


def _one(record: RunRecord, shards: ShardSet | None) -> str:
    from spikebridge.train.report.run import labels, one_run, run_sections

    title = f"{record.method} on {record.result.get('dataset', 'unknown')}, seed {record.seed}"
    run = _reported(record, shards, prefix="run", in_depth=True)
    return page(title, _heading(title, labels(record.result)) + one_run(record) + run_sections(run))


def _unfinished(run: ListedRun, shards: ShardSet | None) -> str:
    from spikebridge.train.report.unfinished import unfinished_page_body

    record = unfinished_record(run)
    title = f"{record.method} on {record.result['dataset']}, seed {record.seed}"
    return page(f"{title}, {run.state}", _heading(title, "") + unfinished_page_body(run, record, shards))


def _several(records: Sequence[RunRecord], begun: Sequence[ListedRun], shards: ShardSet | None) -> str:
    from spikebridge.train.report.run import labels, run_sections
    from spikebridge.train.report.several import comparison_sections
    from spikebridge.train.report.unfinished import begun_mark, begun_section

    every = [*records, *map(unfinished_record, begun)]
    methods = list(dict.fromkeys(record.method for record in every))
    datasets = list(dict.fromkeys(str(record.result.get("dataset", "unknown")) for record in every))
    title = f"{', '.join(methods)} on {', '.join(datasets)}: {len(every)} runs"
    marks = "".join(dict.fromkeys(labels(record.result) for record in records))
    head = _heading(title, marks + begun_mark(begun, len(every))) + begun_section(begun)
    if not records:
        return page(title, head)
    firsts = {id(group[0]) for group in group_runs(records).values()}
    runs = [
        _reported(record, shards, prefix=f"run{index}", in_depth=id(record) in firsts)
        for index, record in enumerate(records)
    ]
    details = [folded(run.record.name, run_sections(run)) for run in runs]
    single = section("Every run in full", "\n".join(details), name="details")
    return page(title, head + comparison_sections(runs) + single)


def _heading(title: str, labels_html: str) -> str:
    from html import escape

    return f"<header>\n<h1>{escape(title)}</h1>\n{labels_html}\n</header>\n"
