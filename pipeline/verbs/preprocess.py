"""The verb `preprocess`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.shards.manifest import CARD
from spikebridge.pipeline.shards.settings import CHOICES, ConversionSettings
from spikebridge.pipeline.ui.table_options import given_options, table_options
from spikebridge.pipeline.ui.terminal import (
    failure,
    format_columns,
    json_option,
    note,
    overwrite_option,
    parse_pair,
    parse_sensor,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
    repeat_options,
)
from spikebridge.pipeline.verbs.framing_options import framing_flags, framing_options
from spikebridge.pipeline.verbs.training import Training

DONE_WITH_REJECTS = 3
MOST_UNUSABLE = 10
"""Messages of recordings and images that are printed by --dry-run."""
PAUSES = "pauses:"
"""Before the time, where recordings are cut at pauses."""
MOST_NOTES = 12
"""Notes of a set that are printed."""


@click.command()
@click.option("--dataset", help="Name of the data set, see `spikebridge datasets`.")
@click.option("--events", type=path_type(), help="Folder of the recordings.")
@click.option("--static", type=path_type(), help="Folder of the static images.")
@click.option("--out", type=path_type(), help="Folder of the shard set.")
@click.option("--recipe", help="Take the settings from this recipe  [default: the one named like the data set]")
@framing_options
@click.option(
    "--cut",
    metavar="TIME",
    help="Cut recordings, decoded once more for it, into parts of 300ms, or at pauses:50ms (ms, us, s).",
)
@click.option("--overlap", metavar="TIME", help="What a part has in common with the one before, for example 100ms.")
@click.option("--hot-pixels", type=float, help="Leave out pixels with more than this many times the mean events.")
@click.option("--refractory-us", type=int, help="Leave out events this soon after their pixel's last.")
@click.option("--background-us", type=int, help="Leave out events without a neighbour's this shortly before.")
@click.option("--sensor", metavar="WxH", help="Sensor of the recordings  [default: as they state, or measured]")
@click.option(
    "--mixed-sensors", type=click.Choice(CHOICES["mixed_sensors"]), help="Stretch each recording by its own sensor."
)
@click.option("--image-bits", type=int, help="Bits of a pixel in images of more than 8  [default: the fewest that fit]")
@click.option("--encoding", type=click.Choice(CHOICES["encoding"]), help="Channels of the static images.")
@click.option(
    "--protocol",
    type=click.Choice(CHOICES["protocol"]),
    help="Splits without leaks, the published ones, or leaks on purpose.",
)
@click.option("--splits", metavar="FILE|NAME", help="CSV (recording,split), or name of a published split.")
@click.option("--format", type=click.Choice(CHOICES["format"]), help="Container of the event shards.")
@click.option("--codec", type=click.Choice(CHOICES["codec"]), help="How samples are stored  [default: raw]")
@click.option(
    "--store",
    type=click.Choice(("frames", *CHOICES["store"])),
    help="Store frames, the events, of which frames are made at reading, or both  [default: frames]",
)
@click.option("--preview/--no-preview", default=None, help="A picture of every recording in the tars, for catalogues.")
@click.option("--samples-per-shard", type=int, help="Samples in a full shard.")
@click.option("--min-shards", type=int, help="Shards of a split, at least  [default: 8 where each holds 250 samples]")
@click.option("--workers", type=click.IntRange(1), help="Processes  [default: one per processor]")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Use the workers of this Dask cluster, for example tcp://host:8786."
)
@click.option("--task", metavar="I/N", help="Do one of N shares, as one job of a batch queue; then see finish.")
@click.option("--seed", type=int, help="Seed of splits and order  [default: 0]")
@click.option("--limit", type=int, help="Convert at most this many recordings.")
@click.option("--classes", help="Convert only these classes, separated by commas.")
@table_options
@click.option("--labels", type=path_type(exists=True, dir_okay=False), help="CSV (file,start,end,label,group,split).")
@click.option("--group-by", metavar="REGEX", help="What in a recording's name no split may part: subject, session ...")
@click.option("--pairing", type=click.Choice(CHOICES["pairing"]), help="Pair by equal names, or by class alone.")
@click.option("--class-map", type=path_type(exists=True, dir_okay=False), help="CSV (static,event) of class names.")
@click.option("--pairs", type=path_type(exists=True, dir_okay=False), help="CSV (recording,image), as match writes it.")
@click.option("--max-bad", type=click.IntRange(0), default=0, show_default=True, help="Recordings that may be dropped.")
@click.option("--strict", is_flag=True, help="Turn warnings into errors.")
@click.option("--dry-run", is_flag=True, help="Try one of each class, print what would be made; write nothing.")
@click.option("--settings-hash", is_flag=True, help="Print the hash of the settings and stop.")
@overwrite_option
@quiet_option
@json_option
@click.pass_obj
def preprocess(
    training: Training,
    dataset: str | None,
    recipe: str | None,
    events: Path | None,
    static: Path | None,
    out: Path | None,
    splits: str | None,
    labels: Path | None,
    class_map: Path | None,
    pairs: Path | None,
    workers: int | None,
    scheduler: str | None,
    task: str | None,
    max_bad: int,
    strict: bool,
    dry_run: bool,
    settings_hash: bool,
    overwrite: bool,
    as_json: bool,
    classes: str | None,
    sensor: str | None,
    cut: str | None,
    overlap: str | None,
    store: str | None,
    **flags: Any,
) -> None:
    """Turn raw recordings and images into a shard set.

    Interrupted, it continues where it was; repeated, it finds that nothing is to do. Recordings that cannot be used are
    listed in rejects.jsonl: more than --max-bad of them fail the conversion, fewer end with exit code 3.

    The output is byte-identical for any number of workers. With --scheduler, scheduler and workers of the Dask
    cluster need spikebridge installed, and see the folders under the same paths. With --task I/N, N jobs share out
    the work on a shared disk: in any order, on any machine, killed and run again as you like; spikebridge finish, or
    preprocess without --task, then completes the set. A recording that kills the process that reads it is found and
    rejected at the next attempt: that of another worker, or with --workers 1 that of the same command run again.

    \b
    Examples:
      spikebridge preprocess --dataset nmnist --events N-MNIST --static MNIST --out shards
      spikebridge preprocess --dataset nmnist --events N-MNIST --static MNIST --out shards --dry-run
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --time-bins 5
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --scheduler tcp://head:8786
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --task $SLURM_ARRAY_TASK_ID/8
    """
    flags = framing_flags(flags)
    flags["classes"] = tuple(classes.split(",")) if classes else None
    flags |= {name: value or None for name, value in given_options(flags).items()}
    flags["sensor"] = parse_sensor(sensor)
    pauses = cut is not None and cut.startswith(PAUSES)
    flags["pauses_us" if pauses else "cut_us"] = (
        parse_time((cut or "").removeprefix(PAUSES), option="--cut") if cut else None
    )
    flags["overlap_us"] = parse_time(overlap, option="--overlap") if overlap else None
    splits_file = Path(splits) if splits and Path(splits).is_file() else None
    flags["published"] = splits if splits and splits_file is None else None
    flags["store"] = store if store != "frames" else ""
    settings = conversion_settings(training, dataset, recipe, flags)
    if settings.published:
        from spikebridge.pipeline.datasets.published import find_published

        try:
            find_published(settings.published, settings.dataset)
        except SettingsError as error:
            raise click.BadParameter(str(error), param_hint="--splits") from error
    if settings_hash:
        return click.echo(settings.sha256[:12])
    if missing := [option for option, value in (("--events", events), ("--static", static)) if value is None]:
        raise click.UsageError(f"Missing option {' and '.join(missing)}.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option --out.")
    if task and (overwrite or scheduler):
        raise click.UsageError(f"--task does not go with {'--overwrite' if overwrite else '--scheduler'}.")
    if task and strict:
        raise click.UsageError("--task does not go with --strict: warnings are known at the end, give it to finish.")

    from spikebridge.pipeline.base.processors import usable_processors
    from spikebridge.pipeline.preprocess.array_jobs import Sources, convert_share
    from spikebridge.pipeline.preprocess.repeat import convert_sources

    assert events is not None
    assert static is not None
    sources = Sources(events, static, splits_file, labels, class_map, pairs)
    workers = workers or usable_processors()
    if dry_run or out is None or task:
        conversion = sources.prepare(settings)
        for line in conversion.report():
            note(line)
        if dry_run or out is None:
            return show_plan(conversion.summary(workers=workers), out, strict=strict, as_json=as_json)
        share = parse_share(task or "")
        status = convert_share(conversion, out, sources, share=share, workers=workers, progress=progress_bar)
        return print_result(status.values(share), status.text(share, out), as_json=as_json)
    outcome = convert_sources(
        sources,
        settings,
        out,
        say=note,
        workers=workers,
        scheduler=scheduler,
        max_bad=max_bad,
        overwrite=overwrite,
        strict=strict,
        progress=progress_bar,
    )
    show_set(training, outcome, out, as_json=as_json, recipe=recipe)


def show_plan(summary: dict[str, Any], out: Path | None, *, strict: bool, as_json: bool) -> None:
    """Print what --dry-run found, and the command that does it.

    Raises:
        click.ClickException: something is doubtful, and `strict`.
    """
    words = repeat_options(click.get_current_context(), but=("dry_run", "as_json"))
    then: list[str | Path] = ["preprocess", *words, *([] if out else ["--out", "SHARDS"])]
    hopeless = len(summary["unusable"]) == sum(summary["tried"].values())
    print_result(summary, plan_text(summary), as_json=as_json, then=[] if hopeless else then)
    if strict and (doubts := [*summary["unusable"], *summary["passed_over"]]):
        raise failure(f"--strict, and {len(doubts)} of the lines above are warnings.")


def parse_time(text: str, *, option: str) -> int:
    """Parse a time such as 300ms, 50us or 1.5s into whole microseconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())
    time_us = float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]] if found else 0.0
    if time_us < 1 or time_us != int(time_us):
        raise click.BadParameter(
            f"{text!r} is no time; expected a number of us, ms or s, for example 300ms"
            + (", or pauses:50ms to cut at pauses" if option == "--cut" else ""),
            param_hint=option,
        )
    return int(time_us)


def parse_share(text: str) -> tuple[int, int]:
    """Parse `--task I/N` into two numbers."""
    refusal = "is no share; expected I/N, for example 1/8 or 8/8"
    number, tasks = parse_pair(text, "/", refusal=refusal, option="--task")
    if not 1 <= number <= tasks:
        raise click.BadParameter(f"{text!r} {refusal}", param_hint="--task")
    return number, tasks


def plan_text(summary: dict[str, Any]) -> str:
    """Return the text of --dry-run."""
    counts = ", ".join(f"{summary[name]:,} {name}" for name in ("train", "validation", "test"))
    lost = summary["no_static_image"]
    rows = {
        "recordings": f"{summary['recordings']:,} of {summary['classes']:,} classes"
        + (" (SIMULATED)" if summary["simulated"] else ""),
        "images": f"{summary['static_images']:,}" + (f"; {lost:,} recordings have none" if lost else ""),
        "samples": counts,
        "missing": "; ".join(summary["missing"]),
        "sensor": summary["sensor"],
        "output": f"{summary['shards']:,} shards, about {summary['output_bytes'] / 1e6:,.1f} MB",
        "time": f"about {summary['about_seconds']:,.0f} s",
        "settings": summary["settings_hash"],
        "tried": ", ".join(f"{count:,} {what}" for what, count in summary["tried"].items())
        + (f"; {len(summary['unusable']):,} of them cannot be used:" if summary["unusable"] else "; all can be used"),
    }
    text = format_columns({f"{summary['dataset']}, nothing written": "", **{f"  {k}": v for k, v in rows.items() if v}})
    unusable, shown = summary["unusable"], summary["unusable"][:MOST_UNUSABLE]
    more = [f"and {len(unusable) - len(shown):,} more, in --json"] if len(unusable) > len(shown) else []
    return "\n".join([text, *(f"  {line}" for line in [*shown, *more, *summary["passed_over"]])])


def show_set(training: Training, outcome: Any, out: Path, *, as_json: bool, recipe: str | None = None) -> None:
    """Print the closing lines of a conversion; where recordings were dropped, the verb ends with its own exit code."""
    from spikebridge.pipeline.preprocess.remarks import lines_of, list_warnings, pool_words

    manifest, rejected = outcome.manifest, len(outcome.rejects)
    counts = {name: manifest["splits"][name]["samples"] for name in ("train", "validation", "test")}
    result = {"out": str(out), "id": manifest["self_sha256"], "splits": counts, "static": manifest["static"]["roles"]}
    result |= {"rejected": rejected, "up_to_date": outcome.up_to_date, "simulated": manifest["simulated"]}
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  samples    {', '.join(f'{count:,} {name}' for name, count in counts.items())}"
        + (" (SIMULATED recordings)\n" if manifest["simulated"] else "\n")
        + f"  pool       {pool_words(manifest)}"
    )
    fitting = training.fitting_recipe(manifest["settings"], wish=recipe)
    step: list[str | Path] = ["train", "--shards", out, "--recipe", fitting or "", "--run", "RUN"]
    if not fitting:
        step = ["recipes", "new", "--shards", out, "mine.toml"]
    lines = outcome.lines or lines_of(manifest)
    text += "".join(f"\n  {name:10} {line}" for name, line in lines.items())
    warnings = list_warnings(manifest)
    notes = [*manifest["notes"], *(line for line in warnings if line not in manifest["notes"])]
    text += "".join(f"\n  {line}" for line in notes[:MOST_NOTES])
    text += f"\n  and {len(notes) - MOST_NOTES:,} more notes, see {out / CARD}" if len(notes) > MOST_NOTES else ""
    values = {**result, "notes": manifest["notes"], "warnings": warnings, **lines}
    print_result(values, text, as_json=as_json, then=[] if rejected else step)
    if rejected:
        note(f"{rejected} recordings or images were dropped, see {out / 'rejects.jsonl'}")
        click.get_current_context().exit(DONE_WITH_REJECTS)


def conversion_settings(
    training: Training, dataset: str | None, recipe: str | None, flags: dict[str, Any]
) -> ConversionSettings:
    """Return the settings of the recipe, flags winning; by default of the recipe named like the data set, if any."""
    if dataset is None and recipe is None:
        raise click.UsageError("Missing option --dataset (or --recipe).")
    if recipe is None and dataset in training.recipe_names():
        recipe = dataset
    table = training.recipe_shards(recipe) if recipe else {}
    if dataset is not None and recipe is not None and table["dataset"] != dataset:
        raise SettingsError(f"recipe {recipe} is made for data set {table['dataset']}, not for {dataset}.")
    given = {name: value for name, value in flags.items() if value is not None}
    return ConversionSettings(**{**table, **({"dataset": dataset} if dataset else {}), **given})
