"""Verbs about raw data and shard sets; `preprocess` and `finish`, which know recipes, are in cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.settings import CHOICES
from pipeline.terminal import (
    answer,
    byte_bar,
    failure,
    folder,
    json_option,
    overwrite_option,
    progress_bar,
    say,
    two_columns,
)

VERIFICATION_FAILED = 4


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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
            left_out = seen.write(kind, target)
            say(f"wrote {target}" + (f" ({left_out})" if left_out else ""))


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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
