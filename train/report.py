"""The report of one or several runs: a single HTML file that needs no network, no script and no other file.

report_records   what the run folders say            report_run       sections of one run
report_figures   pictures (the only matplotlib)      report_several   runs side by side
report_curves    which pictures                      report_samples   recordings, seen
(pieces of a page, colours and type: pipeline.inspection.html and .style)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.inspection.html import folded, page, section
from train.checkpoints import write_atomic
from train.errors import TrainError
from train.report_records import RunRecord, load_runs

if TYPE_CHECKING:
    from pipeline.shardset import ShardSet


def write_report(run_dirs: Sequence[Path], out: Path, *, shards: ShardSet | None = None) -> Path:
    """Write the report of finished runs; equal runs and shard set give equal bytes.

    Args:
        run_dirs: run folders, at least one; several are compared, grouped by what differs besides the seed.
        out: the HTML file; replaced where it exists.
        shards: the shard set of the runs, for pictures of samples; without it, or with another, the report says so.

    Returns:
        `out`.

    Raises:
        TrainError: matplotlib is not installed.
        RunError: no run given, an unfinished or damaged one, or `out` cannot be written.
        ShardSetError: a shard is damaged.
    """
    if find_spec("matplotlib") is None:
        raise TrainError("a report needs matplotlib, which is not installed; pip install 'spikebridge[report]'")
    records = load_runs(run_dirs)
    html = _one(records[0], shards) if len(records) == 1 else _several(records, shards)
    write_atomic(Path(out), html.encode())
    return Path(out)


def _one(record: RunRecord, shards: ShardSet | None) -> str:
    from train.report_run import labels, run_sections

    title = f"{record.method} on {record.result.get('dataset', 'unknown')}, seed {record.seed}"
    return page(title, _heading(title, labels(record.result)) + run_sections(record, shards, prefix="run"))


def _several(records: Sequence[RunRecord], shards: ShardSet | None) -> str:
    from train.report_run import labels, run_sections
    from train.report_several import comparison_sections

    methods = list(dict.fromkeys(record.method for record in records))
    datasets = list(dict.fromkeys(str(record.result.get("dataset", "unknown")) for record in records))
    title = f"{', '.join(methods)} on {', '.join(datasets)}: {len(records)} runs"
    marks = "".join(dict.fromkeys(labels(record.result) for record in records))
    details = [
        folded(record.name, run_sections(record, shards, prefix=f"run{index}")) for index, record in enumerate(records)
    ]
    single = section("Every run in full", "\n".join(details), name="details")
    return page(title, _heading(title, marks) + comparison_sections(records) + single)


def _heading(title: str, labels_html: str) -> str:
    from html import escape

    return f"<header>\n<h1>{escape(title)}</h1>\n{labels_html}\n</header>\n"
