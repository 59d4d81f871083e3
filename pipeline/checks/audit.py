"""Leaks that only the content shows: recordings of two splits that were found to show one static image.

Axes: n samples, N static images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spikebridge.pipeline.base.errors import shorten
from spikebridge.pipeline.checks.leaks import Recordings
from spikebridge.pipeline.datasets.tables import Pair
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.static_pool import POOL, StaticImages

CERTAIN = 0.8
"""Confidence from which on the candidates of a recording hold the image that it shows."""
MOST_NAMED = 3
"""Images or recordings that a line names."""


class MatchedImage(NamedTuple):
    """A static image that a recording was found to show, or may show."""

    name: str
    pixels_sha256: str
    """Of the full-size pixels, hexadecimal; empty where it is not said."""

    @property
    def identity(self) -> str:
        """Return what equal images have in common, whatever they are called."""
        return self.pixels_sha256 or self.name


class Matched(NamedTuple):
    """What is known of the static image that a recording shows."""

    images: tuple[MatchedImage, ...] = ()
    """It is one of these; none where nothing is known."""
    sure: bool = True
    """That it is one of them is `CERTAIN`, not only likely."""

    @property
    def answered(self) -> bool:
        """Return whether the image is known."""
        return self.sure and len(self.images) == 1


def matched_of(pairs: Iterable[Pair]) -> dict[str, Matched]:
    """Return what a table of pairs says, by the names of recordings."""
    return {
        pair.recording: Matched((MatchedImage(pair.image, pair.pixels_sha256),))
        if pair.image
        else Matched(tuple(MatchedImage(*candidate) for candidate in pair.candidates), pair.held >= CERTAIN)
        for pair in pairs
    }


class Audit(NamedTuple):
    """What a table of pairs says of a shard set."""

    leaks: list[str]
    """One line for each held-out recording that shows what training sees, whichever of its candidates that is."""
    possible: list[str]
    """The same for those that may."""
    notes: list[str]


class _Training(NamedTuple):
    """Keys of what training sees, by the identity of images."""

    pool: dict[str, list[str]]
    """Images in the static pool."""
    shown: dict[str, list[str]]
    """Recordings that show the image."""
    maybe: dict[str, list[str]]
    """Recordings that show one of several images, of which this is one."""

    def sees(self, image: MatchedImage) -> bool:
        """Return whether training sees an image for certain."""
        return image.identity in self.pool or image.identity in self.shown


class _Sample(NamedTuple):
    key: str
    split: str
    shows: Matched


def audit_matched(
    recordings: Recordings, sources: Mapping[str, str], static: StaticImages, matched: Mapping[str, Matched]
) -> Audit:
    """Look for static images that training sees and a held-out recording was found to show.

    Training sees the images of the static pool, and those that recordings of the training split show.

    Args:
        recordings: samples of the set.
        sources: names of the recordings by the keys of their samples.
        static: images of the set.
        matched: static images by the names of recordings, see `Matched`.
    """
    digests = [digest.tobytes().hex() for digest in np.ascontiguousarray(static.pixels_sha256)]
    training, keys = _Training(defaultdict(list), defaultdict(list), defaultdict(list)), defaultdict[str, set[str]](set)
    for key, role, digest in zip(static.keys, static.roles, digests, strict=True):
        keys[digest].add(key)
        if role == POOL:
            training.pool[digest].append(key)
    held_out, counts = list[_Sample](), [0, 0, 0]  # of recordings by what is known: nothing, one image, one of several
    paired, other = 0, 0
    for name, split, own in zip(
        recordings.keys.tolist(), recordings.splits.tolist(), recordings.static.tolist(), strict=True
    ):
        key = name.decode("ascii", "backslashreplace")
        shows = matched.get(sources[key], Matched())
        images = shows.images
        counts[1 if shows.answered else 2 * bool(images)] += 1
        if SPLITS[split] != "train":
            held_out.append(_Sample(key, SPLITS[split], shows))
        for image in images if SPLITS[split] == "train" else ():
            (training.shown if shows.answered else training.maybe)[image.identity].append(key)
        if own and shows.answered and images[0].pixels_sha256 in keys:
            paired += 1
            other += own.decode("ascii", "backslashreplace") not in keys[images[0].pixels_sha256]
    unhashed = sum(any(not image.pixels_sha256 for image in sample.shows.images) for sample in held_out)
    audit = Audit([], [], list(_notes(counts, paired, other, unhashed)))
    for sample in held_out:
        images = sample.shows.images
        seen = [image for image in images if training.sees(image)]
        if seen and len(seen) == len(images) and sample.shows.sure:
            audit.leaks.append(_line(sample, seen, "sees", training))
        elif maybe := [image for image in images if training.sees(image) or image.identity in training.maybe]:
            audit.possible.append(_line(sample, maybe, "may see", training))
    audit.notes.extend(_remedies(audit))
    return audit


def _notes(counts: list[int], paired: int, other: int, unhashed: int) -> Iterator[str]:
    """Yield how many recordings the table knows the image of, and how many of these images are the set's own pairs.

    And of how many held-out ones the image cannot be looked for in the static pool.
    """
    several = f", {counts[2]:,} one of the table's candidates" if counts[2] else ""
    yield (
        f"by content, {counts[1]:,} of {sum(counts):,} recordings show a known static image{several}; of the others "
        "nothing is said"
    )
    if paired:
        yield f"{paired - other:,} of {paired:,} recordings show by content the image that the set pairs them with"
    if unhashed:
        yield (
            f"of {unhashed:,} held-out recordings the table says no pixels_sha256 of an image: whether that is in the "
            "static pool cannot be told"
        )


def _remedies(audit: Audit) -> Iterator[str]:
    """Yield what to do about leaks, and about possible ones."""
    if audit.leaks:
        yield (
            f"{len(audit.leaks):,} leaks by content: preprocess --pairs TABLE makes a set without them: it keeps "
            "what held-out recordings show out of the pool, and leaves out recordings without an image"
        )
    if audit.possible:
        yield (
            f"{len(audit.possible):,} possible leaks by content: look at the candidates of these recordings, write the "
            "right one into the table's column image and verify again; or make a set by preprocess --pairs TABLE"
        )


def _line(sample: _Sample, images: Sequence[MatchedImage], sees: str, training: _Training) -> str:
    """Return what a held-out recording shows and where training sees these of its images."""
    named, count = shorten([image.name for image in images], most=MOST_NAMED), len(sample.shows.images)
    which = f"one of {count:,} static images, {len(images):,} of which training {sees}, {named}"
    what = f"{named}, which training {sees}" if count == 1 else which
    shows = "shows" if sample.shows.sure else "may show"
    places = [
        f"{said} {shorten(sorted(keys), most=MOST_NAMED)}"
        for said, found in (
            ("in the static pool as", training.pool),
            ("shown by", training.shown),
            ("perhaps shown by", training.maybe),
        )
        if (keys := {key for image in images for key in found.get(image.identity, [])})
    ]
    return f"{sample.key} ({sample.split}) {shows} {what}: {'; '.join(places)}"
