"""The report of one or several runs: a single HTML file that needs no network, no script and no other file.

report_records   what the run folders say              report_run       sections of one run
examination      what the network does with the data   report_several   runs side by side
report_figures   pictures over epochs                  report_points    other pictures
report_curves    which of them                         report_cost      early exit, spikes, energy
report_samples   recordings, seen                      report_gradcam   where the network looks (captum)
report_domains   both domains (scikit-learn)           report_data      the shard set and its hashes
(pieces of a page, colours and type: spikebridge.pipeline.ui.html and .style)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spikebridge.pipeline.ui.html import folded, page, section
from spikebridge.train.errors import ReportError, TrainError
from spikebridge.train.report.records import RunRecord, group_runs, load_runs
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.runs.folder import RunFolder

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.report.run import Subject


def write_report(run_dirs: Sequence[Path], out: Path, *, shards: ShardSet | None = None) -> Path:
    """Write the report of finished runs; equal runs and shard set give equal bytes.

    Args:
        run_dirs: run folders, at least one; several are compared, grouped by what differs besides the seed.
        out: the HTML file; replaced where it exists.
        shards: the shard set of the runs, for all that needs recordings; without it, or with another, the report says
            what is missing.

    Returns:
        `out`.

    Raises:
        ReportError: matplotlib is not installed.
        RunError: no run given, an unfinished or damaged one, or `out` cannot be written.
        ShardSetError: a shard is damaged.
    """
    require_matplotlib("a report needs")
    records = load_runs(run_dirs)
    html = _one(records[0], shards) if len(records) == 1 else _several(records, shards)
    write_atomic(Path(out), html.encode())
    return Path(out)


def require_matplotlib(who: str) -> None:
    """Raise a `ReportError` that says what to install where matplotlib is absent; `who` says who needs it."""
    if find_spec("matplotlib") is None:
        raise ReportError(f"{who} matplotlib, which is not installed; pip install 'spikebridge[report]'")


def _subject(record: RunRecord, shards: ShardSet | None, *, prefix: str, in_depth: bool) -> Subject:
    """A run with its shard set and what its network makes of it, as far as both are at hand."""
    from spikebridge.train.report.analysis import examine
    from spikebridge.train.report.run import Subject

    wanted = str(record.result.get("shard_set", ""))
    if shards is None:
        missing = f"The shard set was not given. Make the report again with --shards and shard set {wanted}."
        return Subject(record, None, None, missing, prefix, in_depth)
    if shards.id != wanted:
        missing = f"Nothing to show: this run used shard set {wanted}, the one given is {shards.id}."
        return Subject(record, None, None, missing, prefix, in_depth)
    try:
        return Subject(record, shards, examine(RunFolder(record.path), record.result, shards), "", prefix, in_depth)
    except TrainError as error:
        missing = str(error).replace(str(record.path), record.name)
        return Subject(record, shards, None, f"Nothing to show: {missing}.", prefix, in_depth)


def _one(record: RunRecord, shards: ShardSet | None) -> str:
    from spikebridge.train.report.run import labels, run_sections

    title = f"{record.method} on {record.result.get('dataset', 'unknown')}, seed {record.seed}"
    subject = _subject(record, shards, prefix="run", in_depth=True)
    return page(title, _heading(title, labels(record.result)) + run_sections(subject))


def _several(records: Sequence[RunRecord], shards: ShardSet | None) -> str:
    from spikebridge.train.report.run import labels, run_sections
    from spikebridge.train.report.several import comparison_sections

    methods = list(dict.fromkeys(record.method for record in records))
    datasets = list(dict.fromkeys(str(record.result.get("dataset", "unknown")) for record in records))
    title = f"{', '.join(methods)} on {', '.join(datasets)}: {len(records)} runs"
    marks = "".join(dict.fromkeys(labels(record.result) for record in records))
    firsts = {id(group[0]) for group in group_runs(records).values()}
    subjects = [
        _subject(record, shards, prefix=f"run{index}", in_depth=id(record) in firsts)
        for index, record in enumerate(records)
    ]
    details = [folded(subject.record.name, run_sections(subject)) for subject in subjects]
    single = section("Every run in full", "\n".join(details), name="details")
    return page(title, _heading(title, marks) + comparison_sections(subjects) + single)


def _heading(title: str, labels_html: str) -> str:
    from html import escape

    return f"<header>\n<h1>{escape(title)}</h1>\n{labels_html}\n</header>\n"
