"""The verb `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.table_options import given_options, table_options
from spikebridge.pipeline.ui.terminal import (
    json_option,
    note,
    overwrite_option,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
    require_free,
)


@click.command()
@click.argument("path", type=path_type(exists=True))
@click.option("--dataset", help="Data set of a raw folder  [default: the one whose layout fits]")
@click.option("--static", type=path_type(), help="Folder of the static images of a raw data set  [default: PATH]")
@click.option("--sample", help="One recording of a raw data set, or one sample of a shard set.")
@click.option("--class", "only", help="Contact sheet of this class alone.")
@click.option("--time-bins", type=click.IntRange(1, 1000), default=10, show_default=True, help="Frames shown.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Raw recordings inspected.")
@click.option("--png", type=path_type(), help="Write an image: frames and plots, or a contact sheet of a set.")
@click.option("--gif", type=path_type(), help="Write the recording in motion.")
@click.option("--html", type=path_type(), help="Write one page with all of it.")
@table_options
@overwrite_option
@quiet_option
@json_option
def inspect(
    path: Path, png: Path | None, gif: Path | None, html: Path | None, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Inspect recordings or a set and name anomalies.

    PATH is a recording, a raw data set or a shard set; --sample shows one of a set.

    \b
    Examples:
      spikebridge inspect N-MNIST/Train/3/00007.bin --png seven.png --gif seven.gif
      spikebridge inspect data/raw/digits --html digits.html
      spikebridge inspect night.h5 --group davis/right/events --time-unit s
      spikebridge inspect data/shards/digits --png sheet.png
      spikebridge inspect data/shards/digits --sample train-3-00320 --html sample.html
    """
    require_free(png, gif, html, overwrite=overwrite)

    from spikebridge.pipeline.inspection.inspect import inspect_path

    options |= given_options(options)
    inspection = inspect_path(path, progress=progress_bar, **options)
    print_result(inspection.values, inspection.text, as_json=as_json)
    for kind, target in (("png", png), ("gif", gif), ("html", html)):
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            omission = inspection.write(kind, target)
            note(f"wrote {target}" + (f" ({omission})" if omission else ""))
