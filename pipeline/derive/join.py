"""Samples and static images of several sets under one list of classes: keys, groups, roles, and no leak between them.

Axes: n samples, N static images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.cards.card import JOIN
from spikebridge.pipeline.checks.leaks import Recordings, StaticContent, find_leaks, forbidden_leaks
from spikebridge.pipeline.datasets.pairs import Recording, StaticImage, make_key_part
from spikebridge.pipeline.datasets.splits import assign_image_roles
from spikebridge.pipeline.derive.sources import JoinedImages, Source
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.static_pool import DUPLICATE, POOL, StaticImages

STRICTEST = ("test", "validation", DUPLICATE, POOL)
"""Roles of images; where two sets disagree about one, the first of these wins."""
SHOWN_LEAKS = 5
NOWHERE = ""
"""Path of recordings and images that are looked at by name alone."""


@dataclass(frozen=True)
class Joined:
    """Samples and images of a set that is being made."""

    sources: Sequence[Source]
    recordings: Recordings
    """Columns [n] with new labels, keys, groups and static keys."""
    places: NDArray[np.int64]
    """[n,2] number of the source, and row in its columns."""
    static: StaticImages
    repeated: int
    """Samples that several sources hold, and this set once."""


class _Sample(NamedTuple):
    split: int
    label: int
    key: str
    static: str
    digest: bytes
    group: str
    place: tuple[int, int]


class _Image(NamedTuple):
    label: int
    key: str
    role: str
    pixels: bytes
    stored: tuple[int, bytes]
    place: tuple[int, int]


def join(sources: Sequence[Source], kept: Sequence[NDArray[np.bool_]], classes: Sequence[str]) -> Joined:
    """Join the samples of `sources` that are `kept` ([n] of each), and all images of `classes`.

    Keys stay where they can; one that an earlier set has for something else gets the beginning of the set's ID. What
    two sets hold alike is there once. An image that any set holds out stays held out.

    Raises:
        ShardSetError: no sample is left, or the sets together leak where their protocol forbids it.
    """
    labels = [[classes.index(name) if name in classes else -1 for name in s.shards.classes] for s in sources]
    images, renamed = _join_images(sources, labels)
    samples, repeated = _join_samples(sources, kept, labels, renamed)
    if not samples:
        raise ShardSetError("no recording is left; expected at least one. Keep more classes, splits or keys.")
    recordings = Recordings(
        np.array([sample.split for sample in samples], np.int8),
        np.array([sample.label for sample in samples], np.int32),
        np.array([sample.key.encode() for sample in samples], np.bytes_),
        np.array([sample.static.encode() for sample in samples], np.bytes_),
        np.frombuffer(b"".join(sample.digest for sample in samples), np.uint8).reshape(-1, 32),
        np.array([sample.group.encode() for sample in samples], np.bytes_),
    )
    protocol = sources[0].shards.settings["protocol"]
    roles = _assign_roles(images, samples, protocol)
    pixels = np.frombuffer(b"".join(image.pixels for image in images), np.uint8).reshape(-1, 32)
    stored = [source.static.images for source in sources]
    static = StaticImages.sort(
        JoinedImages(stored, [image.place for image in images], stored[0].shape[1:]),
        labels=[image.label for image in images],
        keys=[image.key for image in images],
        roles=[roles[image.key] for image in images],
        pixels_sha256=pixels,
        num_classes=len(classes),
    )
    crc32 = {image.key: image.stored[0] for image in images}
    content = StaticContent(static, np.array([crc32[key] for key in static.keys], np.uint32))
    if leaks := forbidden_leaks(protocol, *find_leaks(recordings, content)):
        more = f"\n  and {len(leaks) - SHOWN_LEAKS:,} more" if len(leaks) > SHOWN_LEAKS else ""
        listed = "\n".join(f"  {leak}" for leak in leaks[:SHOWN_LEAKS])
        raise ShardSetError(
            f"{len(leaks):,} leak(s) between the splits, and protocol {protocol}:\n{listed}{more}\nCombine sets that "
            "were split alike (the same --splits or --seed), or leave out what both hold with subset."
        )
    return Joined(sources, recordings, np.array([sample.place for sample in samples], np.int64), static, repeated)


def _join_samples(
    sources: Sequence[Source],
    kept: Sequence[NDArray[np.bool_]],
    labels: Sequence[Sequence[int]],
    renamed: Sequence[dict[str, str]],
) -> tuple[list[_Sample], int]:
    """Return the samples, and how many were left out because an earlier set holds them."""
    datasets = {source.shards.settings["dataset"] for source in sources}
    samples, repeated = list[_Sample](), 0
    keys, seen = set[str](), set[tuple[int, int, bytes, int]]()
    for number, source in enumerate(sources):
        columns, dataset, new = source.recordings, source.shards.settings["dataset"], set[tuple[int, int, bytes, int]]()
        for row in np.flatnonzero(kept[number]).tolist():
            split, label = int(columns.splits[row]), labels[number][columns.labels[row]]
            content = (split, label, columns.events_sha256[row].tobytes(), int(source.crc32[row]))
            if label < 0 or content in seen:
                repeated += label >= 0
                continue
            new.add(content)
            stem = columns.keys[row].decode().split("-", 2)[2]
            key = _free_key(f"{SPLITS[split]}-{label}", stem, source, keys)
            group = columns.groups[row].decode("ascii", "backslashreplace")
            if group and len(datasets) > 1 and JOIN not in dataset:  # groups of a joined set name theirs already
                group = make_key_part(f"{dataset}-{group}")
            static = renamed[number].get(columns.static[row].decode("ascii", "backslashreplace"), "")
            samples.append(_Sample(split, label, key, static, content[2], group, (number, row)))
        seen |= new
    return samples, repeated


def _join_images(
    sources: Sequence[Source], labels: Sequence[Sequence[int]]
) -> tuple[list[_Image], list[dict[str, str]]]:
    """Return the images of all sources, equal ones of one name once, and for each source the new name of each key."""
    images, taken, renamed = dict[str, _Image](), set[str](), list[dict[str, str]]()
    for number, source in enumerate(sources):
        static, new = source.static, dict[str, str]()
        for row, (key, old) in enumerate(zip(static.keys, static.labels.tolist(), strict=True)):
            label, pixels = labels[number][old], static.pixels_sha256[row].tobytes()
            if label < 0:
                continue
            beginning, stem = f"static-{label}", key.split("-", 2)[-1]
            same = images.get(f"{beginning}-{stem}")
            if same and (same.pixels, same.stored) == (pixels, source.stored[row]) and same.place[0] != number:
                role = min(same.role, static.roles[row], key=STRICTEST.index)
                new[key], images[same.key] = same.key, same._replace(role=role)
                continue
            new[key] = _free_key(beginning, stem, source, taken)
            images[new[key]] = _Image(label, new[key], static.roles[row], pixels, source.stored[row], (number, row))
        renamed.append(new)
    return list(images.values()), renamed


def _free_key(beginning: str, stem: str, source: Source, taken: set[str]) -> str:
    """Return a key that nothing has, also in another case, and take it.

    Raises:
        ShardSetError: there is none.
    """
    for key in (f"{beginning}-{stem}", f"{beginning}-{source.shards.id[:8]}-{stem}"):
        if key.casefold() not in taken:
            taken.add(key.casefold())
            return key
    raise ShardSetError(f"{source.shards.path}: key {beginning}-{stem} stands in another set, too. Leave it out there.")


def _assign_roles(images: Sequence[_Image], samples: Sequence[_Sample], protocol: str) -> dict[str, str]:
    """Assign roles over all sets by the rules of a conversion; what one of them kept out of its pool stays out."""
    listed = [StaticImage(i.key, NOWHERE, i.label, i.role if i.role in SPLITS else None, i.key) for i in images]
    shown = [Recording(s.key, NOWHERE, s.label, None, s.key, s.static or None, group=s.group) for s in samples]
    roles = assign_image_roles(
        listed,
        {image.key: (image.pixels, image.stored[1]) for image in images},
        recordings=shown,
        split={sample.key: SPLITS[sample.split] for sample in samples},
        protocol=protocol,
    )
    kept_out = {image.key for image in images if image.role == DUPLICATE and protocol == "strict"}
    return {key: DUPLICATE if role == POOL and key in kept_out else role for key, role in roles.items()}
