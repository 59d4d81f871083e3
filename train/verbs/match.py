"""The verb `match`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.base.fitting import ASKED_SHOWN
from spikebridge.pipeline.ui.table_options import given_options, table_options
from spikebridge.pipeline.ui.terminal import (
    FiniteRange,
    format_columns,
    json_option,
    overwrite_option,
    parse_sensor,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)


@click.command()
@click.argument("recordings", metavar="RECORDINGS", type=path_type())
@click.option("--static", type=path_type(), required=True, help="Folder of static images.")
@click.option("--out", type=path_type(), required=True, help="The table of pairs, a CSV file.")
@click.option("--dataset", help="List and name both as preprocess does for this data set; else by their paths.")
@click.option("--camera", type=path_type(), help="Profile made by calibrate  [default: calibrated to the recordings]")
@click.option(
    "--shown",
    type=FiniteRange(*ASKED_SHOWN),
    help="Share of the sensor that a static image fills  [default: as --camera was fitted, else as the data set "
    "has it, or 1]",
)
@click.option(
    "--sensor", metavar="WxH", help="Sensor in pixels; else as stated, or the smallest that holds all events."
)
@click.option(
    "--least",
    type=FiniteRange(0, 1),
    default=0.9,
    show_default=True,
    help="Confidence from which on an image is named.",
)
@click.option("--sets", type=click.IntRange(20), default=250, show_default=True, help="As calibrate --sets.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every draw.")
@table_options
@overwrite_option
@quiet_option
@json_option
def match(
    recordings: Path,
    static: Path,
    out: Path,
    dataset: str | None,
    camera: Path | None,
    shown: float | None,
    sensor: str | None,
    least: float,
    sets: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **table: str | None,
) -> None:
    """Find the static image that each recording shows, by content.

    Every static image is rendered as the camera would record it, and each recording compared with all. Where the
    nearest image is not clearly nearer than the second, the table names none, but candidates: images one of which the
    recording shows. No label is used; where the data set has classes, the share of answers of their recording's class
    is printed. An interrupted command continues when it is given again.

    \b
    Examples:
      spikebridge match dvs --static cifar --dataset cifar10dvs --out pairs.csv
      spikebridge match recordings --static photos --camera davis.toml --sensor 346x260 --out pairs.csv
      spikebridge preprocess --dataset cifar10dvs --events dvs --static cifar --pairs pairs.csv --out shards
    """
    from spikebridge.train.calibration.fit import Effort
    from spikebridge.train.matching.match import match as run_match

    made = run_match(
        recordings,
        static,
        out,
        dataset=dataset,
        camera=camera,
        shown_fraction=shown,
        table=given_options(table),
        sensor=parse_sensor(sensor),
        least=least,
        seed=seed,
        effort=Effort(sets=sets),
        overwrite=overwrite,
        progress=progress_bar,
    )
    print_result(made, _text(made), as_json=as_json)


def _text(made: dict[str, Any]) -> str:
    """Return what was found, and what was not."""
    from spikebridge.train.matching.gallery import FEWEST_CLEAR

    answered, recordings, classes = made["answered"], made["recordings"], made["classes"]
    nothing = f"; nothing is told where fewer than {FEWEST_CLEAR} are clearly nearer to one image"
    width, height = made["sensor"]
    share = "it" if made["shown_fraction"] == 1 else f"{made['shown_fraction']:g} of it"
    rows = {
        "recordings": f"{recordings:,}" + (" (SIMULATED)" if made["simulated"] else "")
        + (f"; {made['unreadable']:,} cannot be used:" if made["unreadable"] else ""),
        "images": f"{made['static_images']:,}, {made['different_images']:,} of them different",
        "sensor": f"{width}x{height}, {made['sensor_known']}; images fill {share}",
        "camera": made["camera"] + ("; recordings move each in its own way" if made["path"] == "free" else ""),
        "answered": f"{answered:,} with a confidence of {made['least']:g} or more, {made['images_shown']:,} images",
        "not told": f"{recordings - answered:,}"
        + (f", of which {made['one_of_several']:,} have candidates" if made["one_of_several"] else "")
        + ("" if answered else f"{nothing}: are --sensor, --shown and --camera right?"),
        "classes": f"{classes['of_one_class']:,} of {classes['answers']:,} answers are of their recording's class"
        if classes else "",
        "table": made["out"],
    }  # fmt: skip
    lines = [f"  {message}" for message in made["unreadable_messages"]]
    return "\n".join([format_columns({name: text for name, text in rows.items() if text}), *lines])
