"""A shard set with other frames, made of its stored events: the frames that a conversion of the raw data would make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.pipeline.base.errors import RecordingError, SettingsError, ShardSetError
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.derive.join import join
from spikebridge.pipeline.derive.sources import open_source, read_source
from spikebridge.pipeline.derive.write import Plan, derive
from spikebridge.pipeline.preprocess.output import ConversionResult
from spikebridge.pipeline.preprocess.reformat import reformat, settings_of, stored_as
from spikebridge.pipeline.preprocess.remarks import MOST_CLIPPED
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import DTYPES, FRAMING


def reframe(
    source: Path,
    out: Path,
    frames: Mapping[str, Any],
    *,
    format_: str | None = None,
    codec: str | None = None,
    store: str | None = None,
    preview: bool | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Write a shard set again with frames of other settings, some of `pipeline.shards.settings.FRAMING`.

    Samples and their facts are those of a conversion of the raw data. Static images are those of the source, resized
    from there; recordings that the source lacks are not there either; so the set has an ID of its own and names the
    source. Without `dtype` in `frames` the narrowest is taken that clips at most 1 % of the events. Frames as the
    source has them make this a `reformat`, whose other arguments these are.

    Raises:
        SettingsError: settings that contradict each other, or see `reformat`.
        ShardSetError: the source stores no events, not those needed, or a recording cannot be framed; or see
            `reformat`.
    """
    stored: dict[str, Any] = {"format_": format_, "codec": codec, "store": store, "preview": preview}
    shards = open_source(source)
    framed = shards.with_frames(**frames)
    if not framed.reframed:
        return reformat(source, out, **stored, overwrite=overwrite, progress=progress)
    settings_of(shards)  # refuses those of another version
    framed.fitted(framed.static_images(resident=False))  # refuses frames that the images do not fit
    before, now = framed.framing.stored, framed.framing.settings
    if before.time_window_us != now.time_window_us and (
        before.hot_pixels or before.refractory_us or before.background_us
    ):
        raise SettingsError(
            f"{source}: its events were filtered over whole recordings, which is not the same as filtering "
            f"{list(now.time_window_us)} microseconds. Preprocess the raw data with --time-window."
        )
    if "dtype" not in frames:
        framed = framed.with_frames(dtype=_choose_dtype(framed, progress))
        now = framed.framing.settings
    selection = {name: now.as_dict()[name] for name in FRAMING if getattr(now, name) != getattr(before, name)}
    plan = Plan("convert", [framed], stored_as(shards, now, **stored), framed.classes, selection)

    def read(work: Path) -> Any:
        everything = read_source(framed, work, progress=progress)
        return join([everything], [np.ones(len(everything.rows), bool)], framed.classes)

    return derive(plan, out, read, overwrite=overwrite, progress=progress)


def _choose_dtype(shards: ShardSet, progress: Progress) -> str:
    """Return the narrowest type that clips at most `MOST_CLIPPED` of the events, as a conversion chooses it.

    Differs: all recordings are looked at, of which a conversion draws some where there are very many.
    """
    narrow, *wider = DTYPES[shards.settings["reduction"]]
    if not wider:
        return narrow
    framing = replace(shards.framing, settings=replace(shards.framing.settings, dtype=narrow))
    clipped, limit = 0, MOST_CLIPPED * shards.manifest["events"]["events"]
    for split in shards.splits.values():
        rows = range(len(split))
        for row in progress(rows, len(rows), "recordings looked at"):
            (data,) = split.read_compact([row])
            try:
                clipped += framing.frame(data, source=split.keys[row])[1].clipped_events
            except RecordingError as error:
                raise ShardSetError(
                    f"{shards.path}: {error} Choose other frames, or preprocess the raw data with these settings and "
                    "--max-bad, which leaves such recordings out."
                ) from error
    return wider[-1] if clipped > limit else narrow
