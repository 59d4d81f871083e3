"""The verb `subset`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, progress_bar, quiet_option
from spikebridge.pipeline.verbs.combine import show_derived

SPLITS = ("train", "validation", "test")


@click.command()
@click.argument("shards_path", metavar="SET", type=path_type())
@click.option(
    "--to", "--out", "out", metavar="DIR", type=path_type(), required=True, help="Folder of the new shard set."
)
@click.option("--classes", help="Keep only these classes, separated by commas.")
@click.option("--split", "splits", multiple=True, type=click.Choice(SPLITS), help="Keep this split (can be repeated).")
@click.option(
    "--per-class", multiple=True, metavar="[SPLIT=]N", help="Keep at most N recordings of a class, in all or one split."
)
@click.option("--keys", type=path_type(exists=True, dir_okay=False), help="Keep only samples whose keys FILE lists.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what --per-class draws.")
@overwrite_option
@quiet_option
@json_option
def subset(
    shards_path: Path,
    out: Path,
    classes: str | None,
    splits: tuple[str, ...],
    per_class: tuple[str, ...],
    keys: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a shard set of a part of another one.

    What is given must hold together. Static images of the classes that stay are kept, the held-out ones held out.
    The manifest and the card say of which set, and what was kept.

    \b
    Examples:
      spikebridge subset data/shards/digits --classes 3,8 --to threes-and-eights
      spikebridge subset data/shards/digits --per-class train=10 --to ten-shots
      spikebridge subset data/shards/digits --keys chosen.txt --split test --to chosen
    """
    from spikebridge.pipeline.derive.subset import subset as take

    outcome = take(
        shards_path,
        out,
        classes=tuple(classes.split(",")) if classes else (),
        splits=splits,
        per_class=parse_counts(per_class),
        keys=keys,
        seed=seed,
        overwrite=overwrite,
        progress=progress_bar,
    )
    show_derived(outcome, out, as_json=as_json)


def parse_counts(texts: tuple[str, ...]) -> dict[str, int]:
    """Parse `--per-class N` (of every split) and `--per-class SPLIT=N`; the latter wins for its split.

    Raises:
        click.BadParameter: something else.
    """
    counts: dict[str, int] = {}
    for text in sorted(texts, key=lambda text: "=" in text):
        split, sign, number = text.rpartition("=")
        if (sign and split not in SPLITS) or not number.isdecimal() or int(number) < 1:
            raise click.BadParameter(
                f"{text!r} is no number of recordings; expected for example 10, or train=10", param_hint="--per-class"
            )
        counts |= {name: int(number) for name in ([split] if sign else SPLITS)}
    return counts
