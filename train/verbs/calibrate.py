"""The verb `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.base.fitting import ASKED_SHOWN
from spikebridge.pipeline.ui.table_options import given_options, table_options
from spikebridge.pipeline.ui.terminal import (
    FiniteRange,
    json_option,
    overwrite_option,
    parse_sensor,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)


@click.command()
@click.argument("files", metavar="RECORDINGS...", nargs=-1, required=True, type=path_type())
@click.option("--static", type=path_type(), help="Folder of static images of the kind that the recordings show.")
@click.option(
    "--pairs", type=path_type(), help="Table of the image that each recording shows, as match writes it; with --static."
)
@click.option("--out", type=path_type(), required=True, help="The profile, a TOML file.")
@click.option("--html", type=path_type(), help="Page with real beside simulated recordings; with --static.")
@click.option(
    "--shown",
    type=FiniteRange(*ASKED_SHOWN),
    default=1.0,
    show_default=True,
    help="Share of the sensor that a static image fills, as in the shard set: 0.8235 for N-MNIST; above 1 where the "
    "camera saw a part of it.",
)
@click.option(
    "--sensor", metavar="WxH", help="Sensor in pixels; else as stated, or the smallest that holds all events."
)
@click.option("--recordings", type=click.IntRange(10), default=200, show_default=True, help="Most that are read.")
@click.option(
    "--sets",
    type=click.IntRange(20),
    default=250,
    show_default=True,
    help="Simulated sets of each regression; fewer are faster, and less sure.",
)
@click.option(
    "--held-out",
    type=click.IntRange(0),
    help="Recordings that the fit does not see, to tell simulated ones from  [default: a quarter of 40 or more]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every draw.")
@table_options
@overwrite_option
@quiet_option
@json_option
def calibrate(
    files: tuple[Path, ...],
    static: Path | None,
    pairs: Path | None,
    out: Path,
    html: Path | None,
    shown: float,
    sensor: str | None,
    recordings: int,
    sets: int,
    held_out: int | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **table: str | None,
) -> None:
    """Fit the simulator that trains to the camera behind recordings.

    RECORDINGS are files and folders of one camera and one kind of movement; no labels and no pairs with static images
    are asked for; --pairs takes them. With --static, thresholds, bandwidth, dead time, leak, noise and the path of the
    movement are fitted, each with its uncertainty; without, only movement, polarities and dead time can be told. What
    the recordings do not decide is named and left wide. After an interruption the same command continues.

    \b
    Examples:
      spikebridge calibrate data/raw/digits/events/Train --static data/raw/digits/static/Train --out digits.toml
      spikebridge calibrate recordings --static photos --sensor 346x260 --out davis.toml
      spikebridge calibrate recordings --out profile.toml --json
    """
    from spikebridge.train.calibration.calibrate import calibrate as run_calibration
    from spikebridge.train.calibration.fit import Effort
    from spikebridge.train.report.calibration import calibration_page
    from spikebridge.train.report.write import require_matplotlib

    if html is not None:
        require_matplotlib("the page of a calibration needs")
    made = run_calibration(
        files,
        out,
        html=html,
        page=calibration_page,
        static=static,
        pairs=pairs,
        shown_fraction=shown,
        sensor=parse_sensor(sensor),
        table=given_options(table),
        recordings=recordings,
        seed=seed,
        effort=Effort(sets=sets),
        held_out=held_out,
        overwrite=overwrite,
        progress=progress_bar,
    )
    text = _text(made) + (f"\n  page      {html}" if html else "")
    print_result(made, text, as_json=as_json)


def _text(made: dict[str, Any]) -> str:
    """Return the values with their uncertainties, and what is not decided."""
    from spikebridge.train.report.calibration import (
        FREE,
        MOVEMENT,
        VALUES,
        cells_words,
        hot_pixels_words,
        movement_rows,
        others_words,
        seen_words,
        source_word,
        steps_words,
        value_rows,
    )
    from spikebridge.train.report.format import aligned

    undecided = made["undecided"]
    images = f"{made['static_images']:,} static images" if made["static_images"] else "no static image"
    images += f", each recording with its own ({made['pairs']:,} pairs)" if made["pairs"] else ""
    simulated = " (SIMULATED)" if made["simulated"] else ""
    others = f" ({made['unreadable']:,} cannot be used, see below)" if made["unreadable"] else ""
    width, height = made["sensor"]
    lines = [
        f"{made['recordings']:,} of {made['recordings_found']:,} recordings{simulated}{others}, {images}; "
        f"sensor {width}x{height}, {made['sensor_known']}",
        aligned([VALUES, *value_rows(made)]),
        *filter(None, [cells_words(made)]),
    ]
    lines.append(FREE if made["profile"]["free"] else aligned([MOVEMENT, *movement_rows(made)]))
    lines += filter(None, [steps_words(made)])
    if made["static_images"]:
        lines.append(aligned(seen_words(made)))
    lines += filter(None, [hot_pixels_words(made)])
    if undecided:
        lines.append(f"Not decided by these recordings: {', '.join(undecided)}")
    if made["fidelity"] is not None:
        told, asked, (low, high) = (made["fidelity"][name] for name in ("accuracy", "asked", "interval"))
        beside = ", ".join(others_words(made["fidelity"]["others"]))
        lines.append(
            f"A linear classifier tells simulated recordings from {source_word(made).lower()} ones that were held out: "
            f"{100 * told:.0f} % of {asked} right ({100 * low:.0f} to {100 * high:.0f} %), 50 % = alike; of the same "
            f"images by {beside}"
        )
    lines.append(f"  profile   {made['out']}")
    lines += [f"  cannot be used: {message}" for message in made["unreadable_messages"]]
    return "\n".join(lines)
