"""Several shard sets as one: of several data sets, or of recordings that came later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.cards.card import JOIN
from spikebridge.pipeline.derive.join import join
from spikebridge.pipeline.derive.sources import open_source, read_source
from spikebridge.pipeline.derive.write import Plan, derive
from spikebridge.pipeline.preprocess.output import ConversionResult
from spikebridge.pipeline.preprocess.reformat import settings_of
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

STORED = ("format", "codec", "samples_per_shard", "min_shards", "preview")
"""Settings of the storage: those of the first set hold for all."""
WHICH_RECORDINGS = (
    *("dataset", "seed", "classes", "limit", "splits_sha256", "published", "labels_sha256", "class_map_sha256"),
    "pairs_sha256",
    *("group_by", "pairing", "columns", "group", "time_unit", "image_bits"),
)
"""Settings that say which recordings there are and how their files are read: sets may differ in them."""


def combine(
    paths: Sequence[Path], out: Path, *, overwrite: bool = False, progress: Progress = no_progress
) -> ConversionResult:
    """Write one shard set with the recordings and static images of several.

    Classes are joined by name, those of the first set first. All settings of the frames agree; container, codec and
    shard size are those of the first set. The leak checks of a conversion hold over all together.

    Raises:
        SettingsError: fewer than two sets, one of them twice, settings that differ, or an `out` with something else.
        ShardSetError: a set is damaged, or they leak together.
    """
    sources = [open_source(path) for path in paths]
    if len(sources) < 2:
        raise SettingsError("one set alone; expected several to combine.")
    for number, source in enumerate(sources):
        if source.id in [other.id for other in sources[:number]]:
            raise SettingsError(f"{source.path}: shard set {source.id} is given twice; expected different ones.")
    settings = _agree(sources)
    classes = tuple(dict.fromkeys(name for source in sources for name in source.classes))
    plan = Plan("combine", sources, settings, classes, {})

    def read(work: Path) -> Any:
        read = [read_source(source, work, progress=progress) for source in sources]
        return join(read, [np.ones(len(source.rows), bool) for source in read], classes)

    return derive(plan, out, read, overwrite=overwrite, progress=progress)


def _agree(sources: Sequence[ShardSet]) -> ConversionSettings:
    """Return the settings of all together.

    Raises:
        SettingsError: they differ where they must not; names every difference.
    """
    every = [settings_of(source) for source in sources]
    first, names = every[0], [field.name for field in fields(ConversionSettings) if field.compare]
    joined: dict[str, Any] = {}
    differences = list[str]()
    for source, settings in zip(sources[1:], every[1:], strict=True):
        found = {name: getattr(settings, name) for name in names}
        wanted = {name: getattr(first, name) for name in names}
        if settings.extent == "canvas":  # which the sensor is stretched to
            found |= {"sensor size": source.manifest["sensor_size"], "shown": source.manifest["shown_fraction"]}
            wanted |= {
                "sensor size": sources[0].manifest["sensor_size"],
                "shown": sources[0].manifest["shown_fraction"],
            }
        for name in ("crop", "span_us"):  # of what becomes frames
            found[name], wanted[name] = (one.manifest.get("stored", {}).get(name) for one in (source, sources[0]))
        for name in found:
            if found[name] == wanted[name] or name in STORED:
                continue
            if name in WHICH_RECORDINGS:
                joined[name] = next(f.default for f in fields(ConversionSettings) if f.name == name)
            else:
                differences.append(f"  {name}: {found[name]} in {source.path}, {wanted[name]} in {sources[0].path}")
    if differences:
        raise SettingsError(
            "the sets differ in what their frames are:\n" + "\n".join(differences) + "\nPreprocess one of them again "
            "with the settings of the other."
        )
    datasets = dict.fromkeys(name for settings in every for name in settings.dataset.split(JOIN))
    return replace(first, **{**joined, "dataset": JOIN.join(datasets)})
