"""How two shard sets differ: settings, classes, samples, static images, files.

Axes: a sample is [T,P,H,W]. What is compared is the content: sets of equal samples in another container, codec or
shard size hold the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import shorten
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.shards.reader import ShardSet, Split
from spikebridge.pipeline.shards.settings import describe_difference

CHUNK = 256
"""Samples in memory at a time, of each set."""
Rows = NDArray[np.int64]
SHOWN = 5
"""Keys named in the text."""


@dataclass
class Comparison:
    """One split, the static images, or the files: what is in one set only, what differs, and how many are equal."""

    only_first: list[str] = field(default_factory=list)
    """Keys that only the first set has."""
    only_second: list[str] = field(default_factory=list)
    """Keys that only the second has."""
    changed: list[str] = field(default_factory=list)
    """Keys with another content, class, or role."""
    equal: int = 0
    """Number of equal ones."""
    reasons: dict[str, int] = field(default_factory=dict)
    """What the changed ones differ in, and how many do; some in several things."""

    def take(self, keys: Sequence[str], differs: dict[str, NDArray[np.bool_]]) -> None:
        """Count keys of both sets as equal or changed; each thing says of which keys it differs."""
        changed = np.stack(list(differs.values())).any(axis=0)
        self.changed += [keys[i] for i in np.flatnonzero(changed).tolist()]
        self.equal += int((~changed).sum())
        for what, rows in differs.items():
            if rows.any():
                self.reasons[what] = self.reasons.get(what, 0) + int(rows.sum())

    @property
    def same(self) -> bool:
        """Return whether nothing differs."""
        return not (self.only_first or self.only_second or self.changed)

    def lines(self, name: str) -> list[str]:
        """Return the lines for the terminal; the first keys of each kind are named."""
        reasons = ", ".join(f"{count:,} {what}" for what, count in self.reasons.items())
        counts = {
            "equal": self.equal,
            f"changed ({reasons})": len(self.changed),
            "only in the first": len(self.only_first),
            "only in the second": len(self.only_second),
        }
        lines = [f"  {name}: " + (", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing")]
        for word in ("changed", "only_first", "only_second"):
            if keys := getattr(self, word):
                lines.append(f"    {word.replace('_', ' in the ')}: {shorten(keys, most=SHOWN)}")
        return lines


@dataclass
class Difference:
    """What differs between two sets."""

    ids: tuple[str, str]
    """Of both sets."""
    bytes: tuple[int, int]
    """Of all files of both."""
    settings: list[str]
    """One line each, as for the classes."""
    classes: list[str]
    parts: dict[str, Comparison]
    """By split, and `static`."""
    order: bool
    """Whether the samples of every split come in the same order."""
    samples: tuple[str, ...]
    """Shape and type of a sample of both, where they differ, so that no two can be equal."""
    files: Comparison

    @property
    def identical(self) -> bool:
        """Return whether the sets are the same, byte for byte."""
        return self.ids[0] == self.ids[1]

    @property
    def same_content(self) -> bool:
        """Return whether samples, their order, classes and static images are equal; settings may differ."""
        return not self.classes and self.order and all(part.same for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        return {
            **vars(self),
            "parts": parts,
            "files": asdict(self.files),
            "identical": self.identical,
            "same_content": self.same_content,
        }

    def text(self) -> str:
        """Return the text for the terminal."""
        if self.identical:
            return f"the same shard set, {self.ids[0]}"
        head = "same samples, classes and images" if self.same_content else "different"
        lines = [
            f"{head}: {self.ids[0][:12]} ({self.bytes[0]:,} bytes) and {self.ids[1][:12]} ({self.bytes[1]:,} bytes)"
        ]
        lines += [f"  setting {show(line, most=400)}" for line in self.settings]
        lines += [f"  {line}" for line in self.classes]
        if self.samples:
            lines.append(f"  samples: {' and '.join(self.samples)}, so that none can be equal")
        for name, part in self.parts.items():
            lines += part.lines(name)
        if not self.order:
            lines.append("  the samples come in another order")
        lines += self.files.lines("files")
        return "\n".join(lines)


def difference(first: ShardSet, second: ShardSet, *, progress: Progress = no_progress) -> Difference:
    """Compare two sets; of large splits a part at a time.

    Raises:
        ShardSetError: a shard is damaged, or one of the sets was pulled in part.
    """
    sets = (first, second)
    names = list(first.manifest["splits"])
    parts = {n: compare_splits(first.split(n), second.split(n)) for n in progress(names, len(names), "splits")}
    parts["static"] = _compare_static(first, second)
    order = all(first.split(name).keys == second.split(name).keys for name in names)
    return Difference(
        ids=(first.id, second.id),
        bytes=(sum(e["bytes"] for e in first.manifest["files"]), sum(e["bytes"] for e in second.manifest["files"])),
        settings=[
            line.strip().replace(" there,", " in the first,").replace(" wanted", " in the second")
            for line in describe_difference(*(s.settings for s in sets)).splitlines()
        ],
        classes=_class_lines(first.classes, second.classes),
        parts=parts,
        order=order,
        samples=() if len({*map(_sample, sets)}) == 1 else tuple(map(_sample, sets)),
        files=_compare_files(first, second),
    )


def _sample(shards: ShardSet) -> str:
    """Return the shape and type of a sample."""
    return f"{'x'.join(map(str, shards.sample_shape))} {shards.dtype}"


def _class_lines(first: Sequence[str], second: Sequence[str]) -> list[str]:
    if first == second:
        return []
    lines = []
    for which, here, there in (("first", first, second), ("second", second, first)):
        if only := [name for name in here if name not in set(there)]:
            lines.append(f"classes only in the {which}: {shorten(only, most=SHOWN)}")
    return lines or ["classes: the same names with other numbers"]


def _compare_files(first: ShardSet, second: ShardSet) -> Comparison:
    one, other = ({e["name"]: e["sha256"] for e in shards.manifest["files"]} for shards in (first, second))
    part = Comparison(only_first=sorted(one.keys() - other.keys()), only_second=sorted(other.keys() - one.keys()))
    common = sorted(one.keys() & other.keys())
    part.take(common, {"bytes": np.array([one[name] != other[name] for name in common], bool)})
    return part


def compare_splits(first: Split, second: Split) -> Comparison:
    """Compare the samples of two splits by key."""
    comparable = first.shape == second.shape and first.dtype == second.dtype

    def compare(here: Rows, there: Rows) -> dict[str, NDArray[np.bool_]]:
        frames = _rows_differ(first.read(here), second.read(there)) if comparable else np.ones(len(here), bool)
        groups = np.array([first.groups[i] != second.groups[j] for i, j in zip(here, there, strict=True)])
        return {"frames": frames, "class": first.labels[here] != second.labels[there], "group": groups}

    return _compare_by_key(first.keys, second.keys, compare)


def _compare_static(first: ShardSet, second: ShardSet) -> Comparison:
    one, other = (shards.static_images(resident=False) for shards in (first, second))
    comparable = one.images.shape[1:] == other.images.shape[1:]

    def compare(here: Rows, there: Rows) -> dict[str, NDArray[np.bool_]]:
        pixels = _rows_differ(one.images[here], other.images[there]) if comparable else np.ones(len(here), bool)
        roles = np.array([one.roles[i] != other.roles[j] for i, j in zip(here, there, strict=True)])
        return {"pixels": pixels, "class": one.labels[here] != other.labels[there], "role": roles}

    return _compare_by_key(one.keys, other.keys, compare)


def _compare_by_key(
    first: Sequence[str], second: Sequence[str], compare: Callable[[Rows, Rows], dict[str, NDArray[np.bool_]]]
) -> Comparison:
    """Compare rows of equal keys, a part at a time; `compare` returns in what which of them differ."""
    row, known = {key: i for i, key in enumerate(second)}, set(first)
    part = Comparison([key for key in first if key not in row], [key for key in second if key not in known])
    pairs = [(i, row[key]) for i, key in enumerate(first) if key in row]
    for start in range(0, len(pairs), CHUNK):
        here, there = np.array(pairs[start : start + CHUNK]).T
        part.take([first[i] for i in here], compare(here, there))
    return part


def _rows_differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    return (one != other).reshape(len(one), -1).any(1)
