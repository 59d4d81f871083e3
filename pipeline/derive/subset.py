"""A part of a shard set: some of its classes, splits or recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError, shorten
from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.datasets.splits import rank
from spikebridge.pipeline.derive.join import join
from spikebridge.pipeline.derive.sources import Source, open_source, read_source
from spikebridge.pipeline.derive.write import Plan, derive
from spikebridge.pipeline.preprocess.output import ConversionResult
from spikebridge.pipeline.preprocess.reformat import settings_of
from spikebridge.pipeline.shards.manifest import SPLITS


def subset(
    path: Path,
    out: Path,
    *,
    classes: Sequence[str] = (),
    splits: Sequence[str] = (),
    per_class: Mapping[str, int] | None = None,
    keys: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Write a shard set with a part of another one's recordings; each condition that is given must hold.

    Static images of the classes that stay are all there, in their roles: what was held out stays held out.

    Args:
        path: of the set.
        out: missing, empty, or with the same set, finished or not.
        classes: names that stay, renumbered in the order of the set; empty keeps all.
        splits: those whose recordings stay; empty keeps all.
        per_class: most recordings of a class by split, drawn by `seed`.
        keys: file with a sample's key on each line.
        seed: of the drawing.
        overwrite: replace another shard set in `out`.
        progress: shows what is done.

    Raises:
        SettingsError: nothing is asked for, or an unknown class, split or key.
        ShardSetError: the set is damaged, or nothing is left.
    """
    source = open_source(path)
    per_class = dict(per_class or {})
    for kind, given, known in (("class", classes, source.classes), ("split", [*splits, *per_class], SPLITS)):
        for name in given:
            if name not in known:
                raise SettingsError(f"{path}: no {kind} {name!r}{suggest(name, known)}; it has {shorten(known)}.")
    if least := [split for split, count in per_class.items() if count < 1]:
        raise SettingsError(f"{per_class[least[0]]} recordings of a class of {least[0]}; expected at least 1.")
    wanted = read_keys(keys) if keys else None
    selection: dict[str, Any] = {
        "classes": [name for name in source.classes if name in classes],
        "splits": [name for name in SPLITS if name in splits],
        "per_class": {**per_class, "seed": seed} if per_class else {},
        "keys_sha256": sha256_file(keys) if keys else "",
    }
    selection = {name: value for name, value in selection.items() if value}
    if not selection:
        raise SettingsError("nothing is left out; expected classes, splits, a number per class, or a file of keys.")
    kept_classes = tuple(name for name in source.classes if not classes or name in classes)
    settings = settings_of(source)
    if classes:
        settings = replace(settings, classes=kept_classes)
    plan = Plan("subset", [source], settings, kept_classes, selection)

    def read(work: Path) -> Any:
        everything = read_source(source, work, progress=progress)
        if wanted is not None and (
            unknown := sorted(wanted - {k.decode() for k in everything.recordings.keys.tolist()})
        ):
            raise SettingsError(f"{keys}: the set has no sample {shorten(unknown)}. Keys are those of its index files.")
        kept = _keep(everything, kept_classes, selection.get("splits", SPLITS), wanted)
        return join([everything], [_draw(everything, kept, per_class, seed)], kept_classes)

    return derive(plan, out, read, overwrite=overwrite, progress=progress)


def read_keys(path: Path) -> set[str]:
    """Read a file with a key on each line; empty lines are passed over.

    Raises:
        SettingsError: unreadable, empty, or with a key twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read ({error}); expected a text file with a key on each line."
        ) from error
    keys = Counter(line for line in lines if line)
    if not keys:
        raise SettingsError(f"{path}: empty; expected a sample's key on each line.")
    if twice := [key for key, count in keys.items() if count > 1]:
        raise SettingsError(f"{path}: {shorten(twice)} stand(s) there twice; expected every key once.")
    return set(keys)


def _keep(source: Source, classes: Sequence[str], splits: Sequence[str], keys: set[str] | None) -> NDArray[np.bool_]:
    """Return which samples [n] are of these classes, splits and keys."""
    columns = source.recordings
    kept = np.isin(columns.splits, [SPLITS.index(name) for name in splits])
    kept &= np.isin(columns.labels, [source.shards.classes.index(name) for name in classes])
    if keys is not None:
        kept &= np.isin(columns.keys, np.array([key.encode() for key in keys]))
    return kept


def _draw(source: Source, kept: NDArray[np.bool_], per_class: Mapping[str, int], seed: int) -> NDArray[np.bool_]:
    """Return which of the kept samples [n] are drawn, by a hash of seed and key: a larger draw holds a smaller one."""
    drawn, columns, keys = kept.copy(), source.recordings, source.recordings.keys.tolist()
    for split, most in per_class.items():
        of_split = kept & (columns.splits == SPLITS.index(split))
        for label in np.unique(columns.labels[of_split]).tolist():
            rows = np.flatnonzero(of_split & (columns.labels == label)).tolist()
            rows.sort(key=lambda row: rank(seed, "subset", keys[row].decode()))
            drawn[rows[most:]] = False
    return drawn
