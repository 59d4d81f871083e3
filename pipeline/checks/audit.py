"""Leaks that only the content shows: recordings of two splits that were found to show one static image.

Axes: n samples, N static images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.checks.leaks import Recordings
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.static_pool import POOL, StaticImages


class MatchedImage(NamedTuple):
    """The static image that a recording was found to show."""

    name: str
    """Empty where it could not be told."""
    pixels_sha256: str
    """Of the full-size pixels, hexadecimal; empty where it is not said."""


class Audit(NamedTuple):
    """What a table of pairs says of a shard set."""

    leaks: list[str]
    notes: list[str]


def audit_matched(
    recordings: Recordings, sources: Mapping[str, str], static: StaticImages, matched: Mapping[str, MatchedImage]
) -> Audit:
    """Look for static images that recordings of the training split and of a held-out one were found to show.

    Args:
        recordings: samples of the set.
        sources: names of the recordings by the keys of their samples.
        static: images of the set; images of its pool that a held-out recording shows are leaks, too.
        matched: static images by the names of recordings.
    """
    row_of = {digest.tobytes().hex(): row for row, digest in enumerate(np.ascontiguousarray(static.pixels_sha256))}
    showing: dict[MatchedImage | str, list[tuple[int, str, MatchedImage]]] = defaultdict(list)
    answered, paired, other = 0, 0, 0
    for key, split, own in zip(
        recordings.keys.tolist(), recordings.splits.tolist(), recordings.static.tolist(), strict=True
    ):
        name = key.decode("ascii", "backslashreplace")
        image = matched.get(sources[name])
        if image is None or not image.name:
            continue
        answered += 1
        showing[image.pixels_sha256 or image.name].append((split, name, image))
        if own and (row := row_of.get(image.pixels_sha256)) is not None:
            paired += 1
            other += static.keys[row] != own.decode("ascii", "backslashreplace")
    leaks = [leak for members in showing.values() for leak in _leaks_of(members, static, row_of)]
    total = len(recordings.keys)
    notes = [
        f"by content, {answered:,} of {total:,} recordings show a known static image; of the others nothing is said"
    ]
    if paired:
        notes.append(
            f"{paired - other:,} of {paired:,} recordings show by content the image that the set pairs them with"
        )
    return Audit(leaks, notes)


def _leaks_of(
    members: list[tuple[int, str, MatchedImage]], static: StaticImages, row_of: Mapping[str, int]
) -> list[str]:
    """Return the leaks by one image, which these samples show: (split, key, image) each."""
    trained = [name for split, name, _ in members if split == SPLITS.index("train")]
    held_out = [(SPLITS[split], name) for split, name, _ in members if split != SPLITS.index("train")]
    if not held_out:
        return []
    image, (split, key) = members[0][2], held_out[0]
    leaks = [f"{name} and {key} ({split}) show one static image, {show(image.name)}" for name in trained]
    row = row_of.get(image.pixels_sha256)
    if row is not None and static.roles[row] == POOL:
        leaks.append(f"{show(static.keys[row])} in the static pool is the image that {key} ({split}) shows")
    return leaks
