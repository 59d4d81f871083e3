"""The command line of spikebridge: one thin function per verb; what they do lives in pipeline/ and train/.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but recordings were
rejected, 4 verification failed, 130 interrupted (Ctrl-C), 138 and 143 training stopped by SIGUSR1 and SIGTERM with a
checkpoint (under torchrun, of its workers). Heavy packages are imported inside the verbs that need them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.errors import PipelineError, SettingsError
from pipeline.settings import CHOICES, ConversionSettings
from pipeline.terminal import Sayings, answer, byte_bar, folder, progress_bar, say, speaks_for_all, two_columns, wrapped
from train.errors import ReportError, RunStoppedError, TrainError
from train.recipes import dump_recipe, fitting_recipe, load_recipe
from train.shelf import GRIDS, RECIPES, Shelf
from train.stopping import EXIT_CODES, listening

DONE_WITH_REJECTS, VERIFICATION_FAILED, INTERRUPTED = 3, 4, 130
Verb = TypeVar("Verb", bound=Callable[..., Any])


class Commands(click.Group):
    """A group that turns the errors of the packages into one paragraph on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of the work, which is that of this file."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except RunStoppedError as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(EXIT_CODES[stopped.signal])
        except (PipelineError, TrainError) as error:
            raise failure(str(error)) from error
        except ValueError as error:
            if type(error).__module__ != "models.errors":  # torch is slow to import, so look before asking
                raise
            raise failure(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            what = f"{where}{error.strerror or error}. Nothing half-written was kept"
            raise failure(f"{what}; once that is mended, the same command continues.") from error
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted. What is finished stays; the same command continues.", err=True)
            ctx.exit(INTERRUPTED)


def failure(message: str) -> click.ClickException:
    """What ends a verb with code 1: one paragraph on stderr."""
    return click.ClickException(wrapped(message, first=len("Error: "), err=True))


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what an earlier command made there.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe."
)
checkpoint_option = click.option(
    "--checkpoint-every",
    default="10s",
    show_default=True,
    metavar="TIME|STEPS",
    help="Least time between checkpoints (30s, 10m), or a number of steps.",
)
shards_option = click.option(
    "--shards", required=True, metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spikebridge", prog_name="spikebridge")
def main() -> None:
    """Static-to-event transfer training for spiking neural networks.

    \b
    From raw data to a result:
      spikebridge simulate digits --out raw
      spikebridge preprocess --dataset digits --events raw --static raw --out shards
      spikebridge train --shards shards --recipe digits --run run

    \b
    Examples of every verb: spikebridge VERB --help. What this machine offers: spikebridge doctor.
    """
    level = logging.INFO if speaks_for_all() else logging.ERROR
    logging.basicConfig(format="%(message)s", handlers=[Sayings()], level=level)


@main.command()
@click.argument("name", required=False)
@json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets, or describe one.

    Said are its source, its licence and how its folders look.

    \b
    Examples:
      spikebridge datasets
      spikebridge datasets nmnist
    """
    from pipeline.pairs import all_readers, get_reader

    readers = [get_reader(name)] if name else all_readers()
    facts = {reader.name: reader.describe() for reader in readers}
    if name:
        answer(facts[name], two_columns({f"{key}:": value for key, value in facts[name].items()}), as_json=as_json)
    else:
        titles = {key: fact["title"] for key, fact in facts.items()}
        answer(facts, two_columns(titles), as_json=as_json, then=["datasets", "NAME"])


@main.command()
@click.argument("name", type=click.Choice(["digits"]), default="digits")
@click.option("--out", type=folder(), required=True, help="Folder for events/ and static/.")
@click.option("--images", type=folder(), help="Simulate recordings of these class folders of images instead.")
@click.option("--sensor", default="34x34", show_default=True, metavar="WxH", help="Sensor in pixels, at most 256x240.")
@click.option("--seed", default=0, show_default=True, help="Seed of the simulation.")
@overwrite_option
@json_option
def simulate(name: str, out: Path, images: Path | None, sensor: str, seed: int, overwrite: bool, as_json: bool) -> None:
    """Make event recordings of photographs.

    Photographs are the built-in digits, or your own images. The recordings are SIMULATED, and everything made from
    them says so.

    \b
    Examples:
      spikebridge simulate digits --out data/raw/digits
      spikebridge simulate --images photos --sensor 64x48 --out data/raw/photos
    """
    from pipeline.rawdata import write_digits, write_images

    width, _, height = sensor.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise click.BadParameter(
            f"{sensor!r} is no size; expected WIDTHxHEIGHT, for example 34x34", param_hint="--sensor"
        )
    size = (int(width), int(height))
    shown = lambda items: progress_bar(items, desc="simulate")  # noqa: E731
    if images is None and size != (34, 34):
        raise click.BadParameter(
            "the built-in digits are recorded on 34x34 pixels; use --images", param_hint="--sensor"
        )
    if images is None:
        made = write_digits(out, seed=seed, progress=shown, overwrite=overwrite)
    else:
        made = write_images(images, out, sensor=size, seed=seed, progress=shown, overwrite=overwrite)
    text = f"{made['recordings']:,} simulated recordings in {out}" + (" (up to date)" if made["up_to_date"] else "")
    kind = "folders" if images else name
    step: list[str | Path] = ["preprocess", "--dataset", kind, "--events", out, "--static", out, "--out", "SHARDS"]
    answer({**made, "out": str(out)}, text, as_json=as_json, then=step)


@main.command()
@click.option("--dataset", help="Name of the data set, see `spikebridge datasets`.")
@click.option("--events", type=folder(), help="Folder of the recordings.")
@click.option("--static", type=folder(), help="Folder of the static images.")
@click.option("--out", type=folder(), help="Folder of the shard set.")
@click.option("--recipe", help="Take the settings from this recipe  [default: the one named like the data set]")
@click.option("--time-bins", type=int, help="Frames per recording, T.")
@click.option("--size", type=int, help="Height and width of frames and images in pixels.")
@click.option("--binning", type=click.Choice(CHOICES["binning"]), help="Equal bins, windows, or counts of events.")
@click.option("--window-us", type=int, help="Length of a window (--binning window).")
@click.option("--events-per-bin", type=int, help="Events of a bin (--binning count)  [default: equal shares]")
@click.option("--time-window", metavar="START:STOP", help="Part of a recording that is used, in microseconds.")
@click.option("--hot-pixels", type=float, help="Leave out pixels with more than this many times the mean events.")
@click.option("--refractory-us", type=int, help="Leave out events this soon after their pixel's last.")
@click.option("--background-us", type=int, help="Leave out events without a neighbour's this shortly before.")
@click.option("--reduction", type=click.Choice(CHOICES["reduction"]), help="How events become cells.")
@click.option("--extent", type=click.Choice(CHOICES["extent"]), help="Stretch the recording's extent or the sensor.")
@click.option("--encoding", type=click.Choice(CHOICES["encoding"]), help="Channels of the static images.")
@click.option("--dtype", type=click.Choice(CHOICES["dtype"]), help="Stored type  [default: by the reduction]")
@click.option(
    "--protocol",
    type=click.Choice(CHOICES["protocol"]),
    help="Splits without leaks, the published ones, or leaks on purpose.",
)
@click.option(
    "--splits", type=folder(exists=True, dir_okay=False), help="CSV (recording,split) that replaces the splits."
)
@click.option("--format", type=click.Choice(CHOICES["format"]), help="Container of the event shards.")
@click.option("--codec", type=click.Choice(CHOICES["codec"]), help="How frames are stored  [default: raw]")
@click.option("--samples-per-shard", type=int, help="Samples in a full shard.")
@click.option("--workers", type=click.IntRange(1), help="Processes  [default: one per processor]")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Use the workers of this Dask cluster, for example tcp://host:8786."
)
@click.option("--task", metavar="I/N", help="Do one of N shares, as one job of a batch queue; then see finish.")
@click.option("--seed", type=int, help="Seed of splits and order  [default: 0]")
@click.option("--limit", type=int, help="Convert at most this many recordings.")
@click.option("--classes", help="Convert only these classes, separated by commas.")
@click.option("--max-bad", type=click.IntRange(0), default=0, show_default=True, help="Recordings that may be dropped.")
@click.option("--dry-run", is_flag=True, help="Say what was found and what would be made; write nothing.")
@click.option("--settings-hash", is_flag=True, help="Print the hash of the settings and stop.")
@overwrite_option
@json_option
def preprocess(
    dataset: str | None,
    recipe: str | None,
    events: Path | None,
    static: Path | None,
    out: Path | None,
    splits: Path | None,
    workers: int | None,
    scheduler: str | None,
    task: str | None,
    max_bad: int,
    dry_run: bool,
    settings_hash: bool,
    overwrite: bool,
    as_json: bool,
    classes: str | None,
    time_window: str | None,
    **flags: Any,
) -> None:
    """Turn raw recordings and images into a shard set.

    Interrupted, it continues where it was; repeated, it finds that nothing is to do. Recordings that cannot be used are
    listed in rejects.jsonl: more than --max-bad of them fail the conversion, fewer end with exit code 3.

    The bytes do not depend on who works. With --scheduler, scheduler and workers of the Dask cluster need spikebridge
    installed, and see the folders under the same paths. With --task I/N, N jobs share out the work on a shared disk: in
    any order, on any machine, killed and run again as you like; spikebridge finish, or preprocess without --task, then
    completes the set. A recording that kills the process that reads it is found and rejected at the next attempt: that
    of another worker, or with --workers 1 that of the same command run again.

    \b
    Examples:
      spikebridge preprocess --dataset nmnist --events N-MNIST --static MNIST --out shards
      spikebridge preprocess --dataset nmnist --events N-MNIST --static MNIST --out shards --dry-run
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --time-bins 5
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --scheduler tcp://head:8786
      spikebridge preprocess --recipe digits --events raw --static raw --out shards --task $SLURM_ARRAY_TASK_ID/8
    """
    flags["classes"] = tuple(classes.split(",")) if classes else None
    flags["time_window_us"] = _time_window(time_window) if time_window else None
    settings = conversion_settings(dataset, recipe, flags)
    if settings_hash:
        return click.echo(settings.sha256[:12])
    if missing := [option for option, value in (("--events", events), ("--static", static)) if value is None]:
        raise click.UsageError(f"Missing option {' and '.join(missing)}.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option --out.")
    if task and (overwrite or scheduler):
        raise click.UsageError(f"--task does not go with {'--overwrite' if overwrite else '--scheduler'}.")

    from pipeline.convert import convert, default_workers
    from pipeline.shares import Sources, convert_share

    assert events is not None
    assert static is not None
    sources = Sources(events, static, splits)
    conversion = sources.prepare(settings)
    for line in conversion.report():
        say(line)
    if dry_run or out is None:
        summary = conversion.summary(workers=workers or default_workers())
        lines = [f"{key.replace('_', ' ') + ':':16} {value}" for key, value in summary.items() if value != []]
        return answer(summary, "\n".join(lines), as_json=as_json)
    workers = workers or default_workers()
    if task:
        share = parse_share(task)
        standing = convert_share(conversion, out, sources, share=share, workers=workers, progress=progress_bar)
        return answer(standing.values(share), standing.text(share, out), as_json=as_json)
    outcome = convert(
        conversion,
        out,
        workers=workers,
        scheduler=scheduler,
        max_bad=max_bad,
        overwrite=overwrite,
        progress=progress_bar,
    )
    show_set(outcome, out, as_json=as_json)


def parse_share(text: str) -> tuple[int, int]:
    """`--task I/N` as two numbers."""
    number, _, tasks = text.partition("/")
    if not (number.isdigit() and tasks.isdigit() and 1 <= int(number) <= int(tasks)):
        raise click.BadParameter(f"{text!r} is no share; expected I/N, for example 1/8 or 8/8", param_hint="--task")
    return int(number), int(tasks)


def show_set(outcome: Any, out: Path, *, as_json: bool) -> None:
    """The closing lines of a conversion; where recordings were dropped, the verb ends with its own exit code."""
    manifest, rejected = outcome.manifest, len(outcome.rejects)
    counts = {name: manifest["splits"][name]["samples"] for name in ("train", "validation", "test")}
    result = {"out": str(out), "id": manifest["self_sha256"], "splits": counts, "static": manifest["static"]["roles"]}
    result |= {"rejected": rejected, "up_to_date": outcome.up_to_date, "simulated": manifest["simulated"]}
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  samples    {', '.join(f'{count:,} {name}' for name, count in counts.items())}"
        + (" (SIMULATED recordings)\n" if manifest["simulated"] else "\n")
        + f"  pool       {manifest['static']['roles']['pool']:,} of {manifest['static']['images']:,} static images"
        + (" (LEAKY: with those of held-out recordings)" if manifest["settings"]["protocol"] == "leaky" else "")
    )
    fitting = fitting_recipe(manifest["settings"]) or "FILE.toml"
    step: list[str | Path] = ["train", "--shards", out, "--recipe", fitting, "--run", "RUN"]
    answer(result, text, as_json=as_json, then=[] if rejected else step)
    if rejected:
        say(f"{rejected} recordings or images were dropped, see {out / 'rejects.jsonl'}")
        click.get_current_context().exit(DONE_WITH_REJECTS)


def _time_window(text: str) -> tuple[int, int]:
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit()):
        raise click.BadParameter(
            f"{text!r} is no part of a recording; expected START:STOP in microseconds, for example 0:100000",
            param_hint="--time-window",
        )
    return int(start), int(stop)


def conversion_settings(dataset: str | None, recipe: str | None, flags: dict[str, Any]) -> ConversionSettings:
    """Settings from the recipe, flags winning; the default recipe is the one named like the data set, if any."""
    if dataset is None and recipe is None:
        raise click.UsageError("Missing option --dataset (or --recipe).")
    if recipe is None and dataset in RECIPES.names():
        recipe = dataset
    chosen = load_recipe(recipe).tables()["shards"] if recipe else {}
    if dataset is not None and recipe is not None and chosen["dataset"] != dataset:
        raise SettingsError(f"recipe {recipe} is made for data set {chosen['dataset']}, not for {dataset}.")
    given = {name: value for name, value in flags.items() if value is not None}
    return ConversionSettings(**{**chosen, **({"dataset": dataset} if dataset else {}), **given})


@main.command()
@click.argument("shards_path", metavar="SHARDS", type=folder())
@click.option("--events", type=folder(), help="Folder of the recordings  [default: as the tasks had it]")
@click.option("--static", type=folder(), help="Folder of the static images  [default: as the tasks had it]")
@click.option("--splits", type=folder(), help="CSV of the splits  [default: as the tasks had it]")
@click.option("--max-bad", type=click.IntRange(0), default=0, show_default=True, help="Recordings that may be dropped.")
@json_option
def finish(
    shards_path: Path, events: Path | None, static: Path | None, splits: Path | None, max_bad: int, as_json: bool
) -> None:
    """Complete a shard set that several jobs made.

    The jobs are those of preprocess --task; which of them have to run (again) is said. Usually that is none: only
    where an image turned out to be undecodable after another job had gone past it.

    \b
    Example:
      spikebridge finish data/shards/nmnist
    """
    from pipeline.shares import finish_shares

    where = {"events": events, "static": static, "splits": splits}
    outcome = finish_shares(shards_path, where=where, max_bad=max_bad, progress=progress_bar)
    show_set(outcome, shards_path, as_json=as_json)


@main.command()
@click.argument("shards_path", metavar="SHARDS", type=folder())
@json_option
def verify(shards_path: Path, as_json: bool) -> None:
    """Check a shard set: bytes, counts, leaks.

    Every byte and every count, and that no held-out photograph is in the pool that training draws from.

    \b
    Example:
      spikebridge verify data/shards/digits
    """
    from pipeline.errors import ShardSetError
    from pipeline.verify import verify as check

    try:
        found = check(shards_path, progress=progress_bar)
    except ShardSetError as error:
        failure(str(error)).show()
        click.get_current_context().exit(VERIFICATION_FAILED)
    head = (
        f"{found.files} files, {found.samples:,} samples, {found.images:,} static images, {found.bytes / 1e6:,.1f} MB"
    )
    lines = [*(f"problem: {problem}" for problem in found.problems), *(f"note: {note}" for note in found.notes)]
    text = "\n".join([f"{found.verdict}: {head}", *lines])
    answer({**vars(found), "ok": found.ok}, text, as_json=as_json)
    if not found.ok:
        click.get_current_context().exit(VERIFICATION_FAILED)


@main.command()
@click.argument("path", type=folder(exists=True))
@click.option("--dataset", help="Data set of a raw folder  [default: the one whose layout fits]")
@click.option("--static", type=folder(), help="Folder of the static images of a raw data set  [default: PATH]")
@click.option("--sample", help="One recording of a raw data set, or one sample of a shard set.")
@click.option("--class", "only", help="Contact sheet of this class alone.")
@click.option("--time-bins", type=click.IntRange(1, 1000), default=10, show_default=True, help="Frames shown.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Raw recordings looked into.")
@click.option("--png", type=folder(), help="Write a picture: frames and plots, or a contact sheet of a set.")
@click.option("--gif", type=folder(), help="Write the recording in motion.")
@click.option("--html", type=folder(), help="Write one page with all of it.")
@json_option
def inspect(path: Path, png: Path | None, gif: Path | None, html: Path | None, as_json: bool, **options: Any) -> None:
    """Look at recordings or a set; what looks wrong is named.

    PATH is a recording, a raw data set or a shard set; --sample shows one of a set.

    \b
    Examples:
      spikebridge inspect N-MNIST/Train/3/00007.bin --png seven.png --gif seven.gif
      spikebridge inspect data/raw/digits --html digits.html
      spikebridge inspect data/shards/digits --png sheet.png
      spikebridge inspect data/shards/digits --sample train-3-00320 --html sample.html
    """
    from pipeline.inspection.look import look

    seen = look(path, progress=progress_bar, **options)
    answer(seen.values, seen.text, as_json=as_json)
    for kind, target in (("png", png), ("gif", gif), ("html", html)):
        if target is not None:
            seen.write(kind, target)
            say(f"wrote {target}")


@main.command()
@click.argument("shards_path", metavar="SHARDS", type=folder())
@click.option("--out", type=folder(), required=True, help="Folder of the new shard set.")
@click.option("--format", "format_", type=click.Choice(CHOICES["format"]), help="Container  [default: as it is]")
@click.option("--codec", type=click.Choice(CHOICES["codec"]), help="How frames are stored  [default: as it is]")
@overwrite_option
@json_option
def convert(
    shards_path: Path, out: Path, format_: str | None, codec: str | None, overwrite: bool, as_json: bool
) -> None:
    """Store a shard set in another container or codec.

    The raw data is not needed. The result is the very set that preprocess makes with these settings, under the same
    ID. Interrupted, it continues where it was; a damaged source is refused.

    \b
    Examples:
      spikebridge convert data/shards/digits --format hdf5 --out data/shards/digits-hdf5
      spikebridge convert data/shards/digits --codec gzip --out data/shards/digits-small
    """
    from pipeline.rewrite import rewrite

    outcome = rewrite(shards_path, out, format_=format_, codec=codec, overwrite=overwrite, progress=progress_bar)
    manifest = outcome.manifest
    size = sum(entry["bytes"] for entry in manifest["files"])
    result = {"out": str(out), "id": manifest["self_sha256"], "bytes": size, "up_to_date": outcome.up_to_date}
    text = (
        f"Shard set {out}" + (" is up to date" if outcome.up_to_date else "") + "\n"
        f"  ID         {manifest['self_sha256']}\n"
        f"  stored as  {manifest['settings']['format']}, {manifest['settings']['codec']}: {size / 1e6:,.1f} MB"
    )
    answer(result, text, as_json=as_json)


@main.command()
@click.argument("first", type=folder())
@click.argument("second", type=folder())
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Say how two shard sets differ.

    Exit code 1 when their samples, classes or images do.

    \b
    Example:
      spikebridge diff data/shards/digits fetched
    """
    from pipeline.difference import difference
    from pipeline.shardset import ShardSet

    found = difference(ShardSet(first), ShardSet(second), progress=progress_bar)
    answer(found.as_dict(), found.text(), as_json=as_json)
    if not found.same_content:
        click.get_current_context().exit(1)


@main.command()
@click.argument("shards_path", metavar="SHARDS", type=folder())
@click.argument("address")
@click.option("--flat", is_flag=True, help="Files beside README.md, as a hub repository takes them; one set alone.")
@json_option
def push(shards_path: Path, address: str, flat: bool, as_json: bool) -> None:
    """Publish a shard set.

    ADDRESS is a folder, s3://bucket/path or sftp://host/path. What is there already is not sent again. Readers of
    the address get this set from now on, whole, never a mixture. With --flat into the clone of a hub repository,
    what is left to do is git add, commit and push.

    \b
    Examples:
      spikebridge push data/shards/digits /mnt/share/digits
      spikebridge push data/shards/digits s3://our-bucket/digits
      spikebridge push data/shards/digits clone-of-a-hub-repository --flat
    """
    from pipeline.sharing import push as publish

    done = publish(shards_path, address, flat=flat, bar=byte_bar)
    text = f"Published {done['id']}\n  at         {done['address']}\n  sent       {done['sent']} files"
    answer(done, text, as_json=as_json, then=["pull", done["address"], "SHARDS", "--expect", done["id"]])


@main.command()
@click.argument("address")
@click.argument("out", type=folder())
@click.option("--split", "splits", multiple=True, help="Fetch the shards of this split only (can be repeated).")
@click.option("--expect", metavar="ID", help="Refuse any other shard set.")
@json_option
def pull(address: str, out: Path, splits: tuple[str, ...], expect: str | None, as_json: bool) -> None:
    """Fetch a published shard set; every file is checked.

    ADDRESS is a folder, or begins with http(s)://, s3:// or sftp://. Interrupted, the same command goes on where it
    was cut off.

    \b
    Examples:
      spikebridge pull https://data.example.org/digits data/shards/digits
      spikebridge pull s3://our-bucket/digits data/shards/digits --split test
    """
    from pipeline.sharing import pull as fetch

    done = fetch(address, out, splits=splits, expect=expect, bar=byte_bar)
    text = f"Shard set {out}\n  ID         {done['id']}\n  splits     {', '.join(done['splits'])}"
    answer(done, text, as_json=as_json, then=["inspect", out])


@main.command("import-checkpoint")
@click.argument("file", type=folder(exists=True, dir_okay=False))
@shards_option
@click.option("--recipe", required=True, help="Recipe whose network it is: a shipped name, or a TOML file.")
@click.option("--run", "run_path", type=folder(), required=True, help="Folder of the run to make.")
@set_option
@click.option("--partial", is_flag=True, help="Accept weights that do not all fit; the others stay fresh.")
@click.option("--expect", metavar="ID", help="Refuse any shard set but this one.")
@device_option
@overwrite_option
@json_option
def import_checkpoint(
    file: Path,
    shards: str,
    recipe: str,
    run_path: Path,
    overrides: tuple[str, ...],
    partial: bool,
    expect: str | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a run of a published checkpoint, and score it.

    FILE is a .pth.tar of timm. Weights alone are taken; nothing in FILE is executed. What does not fit is named and
    refused, or left out with --partial. Recipe and shard set say what the network is: classes, time steps, size.
    The run is finished: evaluate scores it again, report shows it, train --init starts from it.

    \b
    Examples:
      spikebridge import-checkpoint model_best.pth.tar --shards SHARDS --recipe ncaltech101-legacy --run RUN
      spikebridge evaluate RUN --shards SHARDS
    """
    from pipeline.opening import open_set
    from train.importing import import_checkpoint as make_run

    result = make_run(
        file,
        open_set(shards),
        load_recipe(recipe, overrides=overrides),
        run_path,
        partial=partial,
        expect=expect,
        device=device,
        overwrite=overwrite,
    )
    taken = result["imported"]
    lines = [f"{taken['file']}: {taken['fitted']} of {taken['tensors']} tensors fitted"]
    lines += [f"  {kind:20} {', '.join(taken[kind])}" for kind in ("missing", "unexpected", "misfits") if taken[kind]]
    for split in ("test", "validation"):
        accuracy, label = result[f"{split}_accuracy"], " (SIMULATED)" if result["simulated"] else ""
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {result['samples'][split]:,} recordings{label}")
    text = "\n".join([*lines, f"  run                  {run_path}"])
    answer(result, text, as_json=as_json, then=["report", run_path, "--shards", shards])


@main.command()
@click.option("--shards", metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published.")
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--run", "run_path", type=folder(), help="Folder of the run.")
@set_option
@click.option("--seed", type=click.IntRange(0), help="Seed of the run; wins over --set and the recipe.")
@device_option
@click.option("--expect", metavar="ID", help="Refuse any shard set but this one.")
@checkpoint_option
@click.option(
    "--residence",
    type=click.Choice(["auto", "device", "host", "disk"]),
    default="auto",
    show_default=True,
    help="Where frames are kept; auto goes by their size.",
)
@click.option("--graph/--no-graph", default=True, help="On CUDA, record each step once and replay it.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs to RUN/tensorboard too.")
@click.option("--init", type=folder(), metavar="RUN", help="Begin with the best weights of this finished run.")
@click.option("--settings-hash", is_flag=True, help="Print the hash of the complete recipe and stop.")
@overwrite_option
@json_option
def train(
    shards: str | None,
    recipe: str,
    run_path: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    expect: str | None,
    checkpoint_every: str,
    residence: str,
    graph: bool,
    tensorboard: bool,
    init: Path | None,
    settings_hash: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a network, score it once, write a report.

    An unfinished run continues, killed or stopped at whatever step; of a finished one the result is printed.
    Ctrl-C (exit code 130; twice ends at once), SIGTERM (143) and SIGUSR1 (138) finish the step and write a checkpoint.
    With torchrun several processes train one network; batch_size counts the samples of all.
    With --init the network begins with the weights of another run of the same architecture; what does not fit (other
    classes, another number of time steps) is named and begins fresh.

    \b
    Examples:
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/digits
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/e --set method=event_only --seed 1
      torchrun --nproc-per-node 2 -- cli.py train --shards SHARDS --recipe digits --run RUN --set synchronize=true
      spikebridge train --shards data/shards/nmnist --recipe nmnist --run data/runs/fine --init data/runs/digits
    """
    chosen = load_recipe(recipe, overrides=overrides, seed=seed)
    if settings_hash:
        began = b""
        if init is not None:
            from train.initialization import read_start

            began = read_start(init).sha256.encode()
        return click.echo(hashlib.sha256(dump_recipe(chosen).encode() + began).hexdigest()[:12])
    if shards is None or run_path is None:
        raise click.UsageError(f"Missing option {'--shards' if shards is None else '--run'}.")

    from pipeline.opening import open_set
    from train.loop import train as run_training

    opened = open_set(shards)
    with listening() as stop:
        result = run_training(
            opened,
            chosen,
            run_path,
            device=device,
            expect=expect,
            progress=progress_bar,
            overwrite=overwrite,
            residence=residence,
            graph=graph,
            checkpoint_every=checkpoint_every,
            stop=stop,
            tensorboard=tensorboard,
            init=init,
        )
    report_path = run_path / "report.html"
    if speaks_for_all() and (overwrite or not report_path.exists()):
        write_run_report([run_path], report_path, opened)
    step = ["compare", "--shards", shards, "--recipe", recipe, "--out", "DIR"]
    answer(result, result_text(result, run_path), as_json=as_json, then=step)


def result_text(result: dict[str, Any], run_path: Path) -> str:
    """The closing lines of a run."""
    samples = result["samples"]
    lines = [result["method"] + " on " + result["dataset"] + (" (SIMULATED recordings)" if result["simulated"] else "")]
    if result["protocol"] == "leaky":
        lines[0] += " (LEAKY protocol: no result)"
    for split in ("test", "validation"):
        accuracy = result[f"{split}_accuracy"]
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {samples[split]:,} recordings")
    lines += [
        f"  checkpoint           epoch {result['best_epoch']}: {result['selection']}",
        f"  run                  {run_path}",
        f"  report               {run_path / 'report.html'}",
    ]
    return "\n".join(lines)


def write_run_report(runs: list[Path], out: Path, shards: Any) -> None:
    """Write the report of runs; a machine without the packages for pictures still gets its training done."""
    from train.report import write_report

    try:
        write_report(runs, out, shards=shards)
    except TrainError as error:
        say(f"no report: {error}")


@main.command()
@click.argument("run_path", metavar="RUN", type=folder())
@shards_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--trust", is_flag=True, help="Open a torch.export program, which can run any code.")
@device_option
@json_option
def evaluate(run_path: Path, shards: str, split: str, weights: str, trust: bool, device: str, as_json: bool) -> None:
    """Score a finished run or an exported file again.

    The figure of a run is that of its result.json. NIR and safetensors files hold numbers alone. A torch.export
    program runs code while it is opened: --trust it only if you know who wrote it.

    \b
    Examples:
      spikebridge evaluate data/runs/digits --shards data/shards/digits --split test --json
      spikebridge evaluate digits.nir --shards data/shards/digits
    """
    from train.evaluation import evaluate as score

    result = score(run_path, shards, split=split, weights=weights, device=device, trust=trust)
    text = f"{split} accuracy {result['accuracy']:.1%} of {result['samples']:,} recordings"
    text += " (SIMULATED)" if result["simulated"] else ""
    text += " (LEAKY protocol: no result)" if result["protocol"] == "leaky" else ""
    if result.get("recorded") is not None:
        text += f"; the file says {result['recorded']:.1%}"
    answer(result, text, as_json=as_json)


@main.command()
@click.argument("run_path", metavar="RUN", type=folder())
@click.option("--format", "form", type=click.Choice(["nir", "torch", "safetensors"]), required=True)
@click.option("--out", required=True, help="File to write; its model card is FILE.md. Or a folder, see below.")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--license", "licence", default="other", show_default=True, help="Identifier for the model card.")
@overwrite_option
@json_option
def export(run_path: Path, form: str, out: str, weights: str, licence: str, overwrite: bool, as_json: bool) -> None:
    """Write a trained network for other tools.

    What is written is its event path in evaluation mode. nir: the interchange format of the spiking field
    (snnTorch, SpikingJelly and others read it). torch: a torch.export program, frames [T,B,P,H,W] to logits
    [T,B,K]. safetensors: weights. Each says what it was trained on and how its input is made. What a format cannot
    express is refused by name; what was folded or left out is said.

    With a folder as --out (one that exists, or a name ending in /) it gets the file and README.md, the card: what a hub
    repository takes as it is.

    \b
    Examples:
      spikebridge export data/runs/digits --format nir --out digits.nir
      spikebridge export data/runs/digits --format safetensors --out clone-of-a-hub-repository/
      spikebridge evaluate digits.nir --shards data/shards/digits
    """
    from train.exporting import export as write

    made = write(run_path, out, format=form, weights=weights, licence=licence, overwrite=overwrite)
    lines = [f"{made.file}: {form}, {made.file.stat().st_size / 1e6:,.1f} MB", *(f"  {note}" for note in made.notes)]
    lines += [f"{made.card}: its model card, the README.md of a hub repository"]
    trust = " --trust" if form == "torch" else ""
    lines += [f"Score it again: spikebridge evaluate {made.file} --shards SHARDS{trust}"]
    values = {"file": str(made.file), "card": str(made.card), "format": form, "description": made.description}
    answer(values, "\n".join(lines), as_json=as_json)


@main.command()
@shards_option
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--methods", default="event_only,kt", show_default=True, help="Methods, separated by commas.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, separated by commas.")
@click.option("--out", type=folder(), required=True, help="Folder for the runs, compare.json and report.html.")
@set_option
@device_option
@checkpoint_option
@overwrite_option
@json_option
def compare(
    shards: str,
    recipe: str,
    methods: str,
    seeds: str,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    checkpoint_every: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train several methods over several seeds; one table.

    All see the same recordings. Finished runs are kept, unfinished ones continue; signals end it as they end train.

    \b
    Example:
      spikebridge compare --shards data/shards/digits --recipe digits --methods event_only,kt --seeds 0,1,2 --out cmp
    """
    numbers = whole_numbers(seeds, "--seeds")

    from pipeline.opening import open_set
    from train.comparison import compare as run_comparison
    from train.comparison import format_table

    opened = open_set(shards)
    names = [name.strip() for name in methods.split(",")]
    with listening() as stop:
        table = run_comparison(
            opened,
            load_recipe(recipe, overrides=overrides),
            names,
            numbers,
            out,
            device=device,
            progress=progress_bar,
            overwrite=overwrite,
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
    runs = [out / run["run"] for method in table["methods"].values() for run in method["runs"]]
    write_run_report(runs, out / "report.html", opened)
    text = f"{format_table(table)}\n  report  {out / 'report.html'}"
    answer(table, text, as_json=as_json)


@main.command()
@click.option("--grid", required=True, help="Name of a shipped grid, or a TOML file; see `spikebridge grids`.")
@click.option(
    "--shards",
    "shard_sets",
    required=True,
    multiple=True,
    metavar="PATH|ADDRESS",
    help="Shard set; once more for rows with other settings of [shards].",
)
@click.option("--out", type=folder(), required=True, help="Folder for the runs, the tables and report.html.")
@click.option("--seeds", help="Instead of the grid's, separated by commas.")
@click.option("--workers", type=click.IntRange(1), help="Processes of one thread  [default: one per processor]")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Train on the workers of this Dask scheduler instead.")
@set_option
@device_option
@checkpoint_option
@json_option
def ablate(
    grid: str,
    shard_sets: tuple[str, ...],
    out: Path,
    seeds: str | None,
    workers: int | None,
    scheduler: str | None,
    overrides: tuple[str, ...],
    device: str,
    checkpoint_every: str,
    as_json: bool,
) -> None:
    """Train a grid of methods and switches over several seeds, and write one table with confidence intervals.

    Each row gets its learning rate from the same small list, chosen on the validation split. Test accuracies are shown
    for the baselines and the finalist that the grid names, and for no other row. Finished runs are kept and unfinished
    ones continue, killed or stopped wherever; signals end it as they end train. A run that fails is named, costs the
    others nothing, and makes the exit code 1.

    \b
    Examples:
      spikebridge ablate --grid digits --shards data/shards/digits --out data/runs/ablation
      spikebridge ablate --grid mine.toml --shards SHARDS --out DIR --seeds 0,1 --set epochs=20 --workers 2
      spikebridge ablate --grid leak --shards STRICT --shards LEAKY --out DIR
    """
    from train.grids import load_grid

    chosen = load_grid(grid, overrides=overrides, seeds=whole_numbers(seeds, "--seeds") if seeds else ())

    from pipeline.opening import open_set
    from train.ablation import ablate as run_grid
    from train.ablation_table import terminal_text
    from train.report_ablation import write_ablation_report
    from train.workers import local_engine, processors, scheduler_engine

    engine = scheduler_engine(scheduler) if scheduler else local_engine(workers or processors())
    with listening() as stop:
        table = run_grid(
            chosen,
            [open_set(one) for one in shard_sets],
            out,
            engine=engine,
            device=device,
            progress=progress_bar,
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
    try:
        write_ablation_report(table, out)
    except ReportError as error:
        say(f"no report: {error}")
    answer(table, terminal_text(table) + f"\ntables and report: {out}", as_json=as_json)
    if any(failure["kind"] == "failed" for failure in table["failures"]):
        click.get_current_context().exit(1)


def whole_numbers(text: str, option: str) -> list[int]:
    """Numbers separated by commas."""
    if not all(number.strip().isdigit() for number in text.split(",")):
        raise click.BadParameter(f"{text!r}: expected whole numbers separated by commas", param_hint=option)
    return [int(number) for number in text.split(",")]


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=folder())
@click.option("--out", type=folder(), help="HTML file  [default: RUN/report.html]")
@click.option("--shards", metavar="PATH|ADDRESS", help="Shard set, for pictures of samples.")
@overwrite_option
@json_option
def report(runs: tuple[Path, ...], out: Path | None, shards: str | None, overwrite: bool, as_json: bool) -> None:
    """Write one HTML file about a run, or about several.

    \b
    Examples:
      spikebridge report data/runs/digits --shards data/shards/digits
      spikebridge report data/runs/compare/kt-seed0 data/runs/compare/event_only-seed0 --out compare.html
    """
    if out is None and len(runs) > 1:
        raise click.UsageError("Missing option --out: several runs need a place for their report.")
    if out is not None and out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; choose another file, or replace it with --overwrite.")

    from pipeline.opening import open_set
    from train.report import write_report

    target = out or runs[0] / "report.html"
    write_report(list(runs), target, shards=open_set(shards) if shards else None)
    answer({"report": str(target)}, f"report: {target}", as_json=as_json)


@main.command()
@click.argument("run_path", metavar="RUN", type=folder())
@shards_option
@click.option("--out", type=folder(), required=True, help="Folder for the grid, as JSON and CSV, and the pictures.")
@click.option("--points", default=15, show_default=True, help="Points along each axis, an odd number.")
@click.option(
    "--radius", default=1.0, show_default=True, help="Largest distance; 1 is as far as 0 is from the weights."
)
@click.option("--line", is_flag=True, help="One direction alone, without the plane.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the directions.")
@click.option("--recalibrate", is_flag=True, help="Take BatchNorm's running statistics anew at every point.")
@overwrite_option
@json_option
def landscape(
    run_path: Path,
    shards: str,
    out: Path,
    points: int,
    radius: float,
    line: bool,
    split: str,
    seed: int,
    recalibrate: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the loss around a trained network, along one random direction and over the plane of two.

    Directions are normalised filter by filter (Li et al., NeurIPS 2018). The loss is that of event recordings in
    evaluation mode; train means the recordings that the run was trained on. Biases, and BatchNorm with its running
    statistics, stay as trained; with --recalibrate the statistics are those of the recordings at every point.
    What an interrupted command left is kept: the same command continues.

    \b
    Examples:
      spikebridge landscape data/runs/digits --shards data/shards/digits --out data/runs/digits-landscape
      spikebridge landscape data/runs/digits --shards data/shards/digits --out flat --line --points 51 --split test
    """
    from train.landscape import Grid
    from train.landscape import landscape as look_around

    with listening() as stop:
        found = look_around(
            run_path,
            shards,
            out,
            grid=Grid(points=points, radius=radius, plane=not line),
            split=split,
            seed=seed,
            anew=recalibrate,
            overwrite=overwrite,
            progress=progress_bar,
            stop=stop,
        )
    losses = [loss for loss in found["line"]["loss"] if loss is not None]
    text = (
        f"loss {found['trained']['loss']:.3f} of {found['recordings']:,} {split} recordings"
        f"{' (SIMULATED)' if found['simulated'] else ''}, up to {max(losses):.3f} along the line\n"
        f"  pictures and grid  {out}: line.png"
        + ("" if line else ", contour.png, surface.png")
        + ", landscape.csv, landscape.json"
    )
    answer(found, text, as_json=as_json)


@main.command()
@click.option("--data", type=folder(), default="data", show_default=True, help="Folder of raw/, shards/ and runs/.")
@json_option
def doctor(data: Path, as_json: bool) -> None:
    """Say what this machine offers and what is missing.

    Packages, processor, GPU, memory and disk, data found, and which fast paths are active and why not.

    \b
    Example:
      spikebridge doctor
    """
    from pipeline.doctor import examine, screen

    found = examine(data)
    try:
        from train.doctor import examine as examine_training

        training = examine_training(data / "runs")
    except ImportError as error:
        training = {"torch": f"cannot be imported: {error}", "gpus": [], "fast_paths": [], "runs": []}
    found["fast_paths"] += training.pop("fast_paths")
    found["data"]["runs"] = training.pop("runs")
    found |= training
    answer(found, screen(found), as_json=as_json)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
@click.option("--install", is_flag=True, help="Have the shell load it from now on, instead of printing it.")
@json_option
def completion(shell: str | None, install: bool, as_json: bool) -> None:
    """Complete verbs and options at the Tab key.

    Prints the script for SHELL ($SHELL by default), or installs it.

    \b
    Examples:
      spikebridge completion --install
      spikebridge completion zsh
    """
    from click.shell_completion import get_completion_class

    from pipeline.completion import install_completion

    shell = shell or Path(os.environ.get("SHELL", "")).name
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"$SHELL is {shell!r}; say which shell it is: bash, zsh or fish.")
    script = completer(main, {}, "spikebridge", "_SPIKEBRIDGE_COMPLETE").source()
    if not install:
        return answer({"shell": shell, "script": script}, script, as_json=as_json)
    changed = install_completion(shell, script)
    text = "\n".join([*(f"wrote {path}" for path in changed), f"Open a new {shell}, and Tab completes spikebridge."])
    answer({"shell": shell, "changed": [str(path) for path in changed]}, text, as_json=as_json)


@main.group()
def recipes() -> None:
    """List, show, copy and check recipes.

    \b
    Examples:
      spikebridge recipes list
      spikebridge recipes copy digits mine.toml
    """


@main.group()
def grids() -> None:
    """List, show, copy and check grids, which say what ablate does.

    \b
    Examples:
      spikebridge grids list
      spikebridge grids copy digits mine.toml
    """


def _recipe_tables(name: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    return load_recipe(name, overrides=overrides).tables()


def _grid_tables(name: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    from train.grids import load_grid

    return load_grid(name, overrides=overrides).described()


def shelf_verbs(group: click.Group, shelf: Shelf, tables: Callable[..., dict[str, Any]]) -> None:
    """Give a group the verbs list, show, copy and validate; `tables` reads and checks one file."""
    verb, what = group.name, shelf.what

    def example(text: str, line: str) -> str:
        return f"{text}\n\n\b\nExample:\n  spikebridge {verb} {line}"

    @group.command("list", help=example(f"List the shipped {what}s.", "list"))
    @json_option
    def show_all(as_json: bool) -> None:
        listed = shelf.listed()
        summaries = {one.name: one.summary for one in listed}
        answer(summaries, two_columns(summaries), as_json=as_json, then=[str(verb), "show", "NAME"])

    summary = f"Print a {what} with its comments; as JSON its settings, defaults included."

    @group.command("show", help=example(summary, "show digits"))
    @click.argument("name")
    @json_option
    def show_one(name: str, as_json: bool) -> None:
        answer(tables(name) if as_json else {}, shelf.show(name).rstrip(), as_json=as_json)

    @group.command("copy", help=example(f"Copy a shipped {what}, to change it.", "copy digits mine.toml"))
    @click.argument("name")
    @click.argument("destination", type=folder())
    @overwrite_option
    @json_option
    def copy(name: str, destination: Path, overwrite: bool, as_json: bool) -> None:
        copied = str(shelf.copy(name, destination, overwrite=overwrite))
        answer({what: copied}, copied, as_json=as_json, then=[str(verb), "validate", copied])

    checks = f"Check a {what}; every problem is shown at once."

    @group.command("validate", help=example(checks, "validate mine.toml --set epochs=20"))
    @click.argument("name")
    @set_option
    @json_option
    def validate(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
        tables(name, overrides)
        answer({what: name, "ok": True}, f"{name}: good", as_json=as_json)


shelf_verbs(recipes, RECIPES, _recipe_tables)
shelf_verbs(grids, GRIDS, _grid_tables)


if __name__ == "__main__":
    main()
