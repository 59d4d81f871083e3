"""The verb `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import failure, json_option, path_type, print_result, progress_bar

VERIFICATION_FAILED = 4


@click.command()
@click.argument("shards_path", metavar="SHARDS", type=path_type())
@json_option
def verify(shards_path: Path, as_json: bool) -> None:
    """Check a shard set: bytes, counts, leaks.

    Checks every byte and every count, and that no held-out static image is in the pool that training draws from.

    \b
    Example:
      spikebridge verify data/shards/digits
    """
    from spikebridge.pipeline.base.errors import ShardSetError
    from spikebridge.pipeline.checks.verify import verify as check

    try:
        report = check(shards_path, progress=progress_bar)
    except ShardSetError as error:
        failure(str(error)).show()
        click.get_current_context().exit(VERIFICATION_FAILED)
    counts = f"{report.files} files, {report.samples:,} samples, {report.images:,} static images"
    lines = [*(f"problem: {problem}" for problem in report.problems), *(f"note: {note}" for note in report.notes)]
    lines += [f"not checked: {name} (outside the set's ID; no hash covers it)" for name in report.unchecked]
    text = "\n".join([f"{report.verdict}: {counts}, {report.bytes / 1e6:,.1f} MB", *lines])
    print_result({**vars(report), "ok": report.ok, "state": report.state}, text, as_json=as_json)
    if not report.ok:
        click.get_current_context().exit(VERIFICATION_FAILED)
