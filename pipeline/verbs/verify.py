"""The verb `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import failure, json_option, path_type, print_result, progress_bar, quiet_option

VERIFICATION_FAILED = 4


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@click.option(
    "--match", "table", type=path_type(exists=True, dir_okay=False), help="Table of match: look for leaks by content."
)
@quiet_option
@json_option
def verify(shards_path: Path, table: Path | None, as_json: bool) -> None:
    """Check a shard set: bytes, counts, leaks.

    Checks every byte and every count, and that no held-out static image is in the pool that training draws from.
    With a table of `spikebridge match`, also that no held-out recording shows a static image of the pool, or one that a
    recording of the training split shows, whatever names and classes say. Of a recording that shows one of several
    images: a leak where training sees them all, a possible leak where it sees some, or may. Possible leaks are listed
    and counted apart, and are no error.

    \b
    Examples:
      spikebridge verify data/shards/digits
      spikebridge verify shards --match pairs.csv
    """
    from spikebridge.pipeline.base.errors import ShardSetError
    from spikebridge.pipeline.checks.audit import matched_of
    from spikebridge.pipeline.checks.verify import verify as check
    from spikebridge.pipeline.datasets.tables import read_pairs

    matched = matched_of(read_pairs(table)) if table else None
    try:
        report = check(shards_path, matched=matched, progress=progress_bar)
    except ShardSetError as error:
        failure(str(error)).show()
        click.get_current_context().exit(VERIFICATION_FAILED)
    counts = f"{report.files} files, {report.samples:,} samples, {report.images:,} static images"
    lines = [*(f"problem: {problem}" for problem in report.problems)]
    lines += [f"possible leak by content: {leak}" for leak in report.possible_leaks]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"not checked: {name} (outside the set's ID; no hash covers it)" for name in report.unchecked]
    text = "\n".join([f"{report.verdict}: {counts}, {report.bytes / 1e6:,.1f} MB", *lines])
    print_result({**vars(report), "ok": report.ok, "state": report.state}, text, as_json=as_json)
    if not report.ok:
        click.get_current_context().exit(VERIFICATION_FAILED)
