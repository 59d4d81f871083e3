"""A set of frames (schema 1) as one that stores the events too (schema 2): its raw recordings are read once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.checks.diff import difference
from spikebridge.pipeline.derive.sources import open_source
from spikebridge.pipeline.preprocess.array_jobs import Sources
from spikebridge.pipeline.preprocess.output import ConversionResult, read_rejects
from spikebridge.pipeline.preprocess.plan import sample_keys
from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.preprocess.reformat import settings_of
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


def migrate(
    source: Path,
    sources: Sources,
    out: Path,
    *,
    store: str = "both",
    workers: int = 1,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda line: None,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Write a set of schema 1 again as schema 2, with the settings that its manifest names.

    The raw data must give the same recordings in the same splits, which is seen before anything is written, and the
    same frames and static images, to the bit, which is compared at the end. As many recordings may be dropped as were
    when the set was made. The result is the set that a conversion with `store` makes.

    Args:
        source: the set of frames.
        sources: the raw data that it was made of, with the tables that were given then.
        out: folder of the new set.
        store: `both`, or `events` alone.
        workers: processes.
        overwrite: replace another conversion's set.
        say: told what a conversion reports.
        progress: shown while recordings are converted and compared.

    Raises:
        SettingsError: the set stores events, or was made of other sets; a table is missing or another one.
        ShardSetError: the set is damaged or of another version, or the raw data is not that it was made of.
        PipelineError: as `pipeline.preprocess.run.convert`.
    """
    shards = open_source(source)
    settings = _settings_for(shards, sources, store)
    rejects = read_rejects(source)
    conversion = sources.prepare(settings)
    for line in conversion.report():
        say(line)
    _require_same_recordings(shards, conversion, dropped=sum(row["kind"] == "recording" for row in rejects))
    done = convert(conversion, out, workers=workers, max_bad=len(rejects), overwrite=overwrite, progress=progress)
    found = difference(shards, ShardSet(out), progress=progress)
    if not found.same_content:
        raise ShardSetError(
            f"{out}: a whole set, but not {source} again: the raw data has changed since that was made.\n{found.text()}"
        )
    return done


def _settings_for(shards: ShardSet, sources: Sources, store: str) -> ConversionSettings:
    if shards.settings.get("store"):
        raise SettingsError(
            f"{shards.path} stores events: it is of schema 2 already. What it stores is changed by convert --store."
        )
    if made_from := shards.manifest.get("made_from"):
        verb = made_from[-1]["verb"]
        raise SettingsError(
            f"{shards.path} was made of other sets ({verb}), not of raw data. Migrate those, then give {verb} again."
        )
    settings = settings_of(shards)
    for name, path in sources.tables.items():
        digest, option = getattr(settings, f"{name}_sha256"), f"--{name.replace('_', '-')}"
        if name == "splits" and settings.published:
            digest = ""  # that of the published list, which comes with the reader
        if digest and path is None:
            raise SettingsError(f"{shards.path} was made with {option}: give the same file again.")
        if path is not None and sha256_file(path) != digest:
            raise SettingsError(
                f"{path}: not the {option} that {shards.path} was made with "
                f"({f'whose SHA-256 is {digest}' if digest else 'it was made without'})."
            )
    return replace(settings, store=store)


def _require_same_recordings(shards: ShardSet, conversion: Conversion, *, dropped: int) -> None:
    planned = set(sample_keys(conversion.used, conversion.split).values())
    there = {key for split in shards.splits.values() for key in split.keys}
    if missing := sorted(there - planned):
        raise ShardSetError(
            f"{shards.path}: the raw data lacks {len(missing):,} of its {len(there):,} recordings, or has them in "
            f"other splits; the first is {show(missing[0])}. Expected the raw data that the set was made of."
        )
    if len(more := sorted(planned - there)) > dropped:
        raise ShardSetError(
            f"{shards.path}: the raw data gives {len(more):,} recordings that the set lacks, {dropped:,} of them "
            f"dropped when it was made; one is {show(more[0])}. Preprocess the raw data anew for all of them."
        )
