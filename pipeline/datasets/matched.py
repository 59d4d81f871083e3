"""A listing whose recordings get their static images from a table, by content, in place of their names or classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError, shorten
from spikebridge.pipeline.datasets.pairs import PAIRS_UNKNOWN, UNUSED, Listing, Recording
from spikebridge.pipeline.datasets.tables import SAME_FOLDERS, read_pairs, refuse_lines


def apply_pairs(listing: Listing, path: Path) -> Listing:
    """Pair recordings with the static images that a table names, see `pipeline.datasets.tables.read_pairs`.

    Recordings that the table names no image for, and those whose image is of another class, are not used: what they
    show is not known. Recordings of one image become a group; those of an image of the official test or validation
    subset that have no subset of their own become of it. The notes say how many each are.

    Raises:
        SettingsError: the table cannot be read, names what is not there, or one image for recordings of two groups.
    """
    pairs = read_pairs(path)
    names, images = {r.name for r in listing.recordings}, {image.name: image for image in listing.images}
    refuse_lines(
        path,
        [
            f"line {p.line}: no recording {p.recording!r}; they are named like {min(names)!r}"
            for p in pairs
            if p.recording not in names
        ]
        + [
            f"line {p.line}: no static image {p.image!r}; they are named like {min(images, default='none')!r}"
            for p in pairs
            if p.image and p.image not in images
        ],
        remedy=SAME_FOLDERS,
    )
    shown = {pair.recording: images[pair.image] for pair in pairs if pair.image}
    recordings, unanswered, other_class, official = list[Recording](), 0, 0, 0
    for recording in listing.recordings:
        image = shown.get(recording.name)
        if recording.subset == UNUSED or image is None or image.label != recording.label:
            unanswered += recording.subset != UNUSED and image is None
            other_class += recording.subset != UNUSED and image is not None
            recordings.append(replace(recording, image=None, subset=UNUSED))
            continue
        subset = recording.subset or (image.subset if image.subset != "train" else None)
        official += subset != recording.subset
        recordings.append(replace(recording, image=image.name, subset=subset))
    used = [r for r in recordings if r.subset != UNUSED]
    if not used:
        raise SettingsError(
            f"{path}: names a static image for none of the recordings that are used; nothing could be paired. "
            "match --least names images of which it is less sure."
            if not other_class
            else f"{path}: names static images of other classes than the recordings' alone; nothing could be paired. "
            "Is it a table of this data set?"
        )
    groups = _groups(used, path)
    notes = [
        f"static images by a table: {len(used):,} recordings show {len({r.image for r in used}):,} of them",
        *([f"{unanswered:,} recordings are not used: the table names no static image for them"] if unanswered else []),
        *(
            [f"{other_class:,} recordings are not used: the table names an image of another class"]
            if other_class
            else []
        ),
        *(
            [f"{official:,} recordings show images of an official test or validation subset, and are of it"]
            if official
            else []
        ),
    ]
    return replace(
        listing,
        recordings=tuple(replace(r, group=groups.get(r.name, r.group)) for r in recordings),
        pairing="exact",
        notes=(*(note for note in listing.notes if not note.startswith(PAIRS_UNKNOWN)), *notes),
    )


def _groups(recordings: Iterable[Recording], path: Path) -> dict[str, str]:
    """Return the groups of recordings that share their image, by name.

    Raises:
        SettingsError: an image that recordings of two groups show.
    """
    showing: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        showing[recording.image or ""].append(recording)
    shared = {image: members for image, members in showing.items() if len(members) > 1}
    for image, members in shared.items():
        if len(groups := {r.group for r in members}) > 1:
            raise SettingsError(
                f"{path}: {shorten([r.name for r in members])} show {image} and are of several groups "
                f"({shorten(sorted(groups))}), so that a split could part them. Leave all but one out of the table."
            )
    return {r.name: r.group or image for image, members in shared.items() for r in members}
