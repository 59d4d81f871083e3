"""How two shard sets differ: settings, classes, samples, static images, bytes.

Axes: a sample is [T,P,H,W]. What is compared is the content: sets of equal samples in another container, codec or
shard size hold the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.settings import describe_difference
from pipeline.shardset import ShardSet, Split
from pipeline.static_pool import STATIC_FILE, read_static

CHUNK = 256
"""Samples in memory at a time, of each set."""
SHOWN = 5
"""Keys named in the text."""


@dataclass
class Part:
    """One split, or the static images: what is in one set only, what differs, and how many are equal.

    Args:
        only_first: keys that only the first set has.
        only_second: keys that only the second has.
        changed: keys with another content, class, or role.
        equal: number of equal ones.
    """

    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    equal: int = 0

    @property
    def same(self) -> bool:
        """True when nothing differs."""
        return not (self.only_first or self.only_second or self.changed)


@dataclass
class Difference:
    """What differs between two sets.

    Args:
        ids: of both.
        bytes: of all files of both.
        settings: one line each.
        classes: one line each.
        parts: by split, and `static`.
        order: whether the samples of every split come in the same order.
    """

    ids: tuple[str, str]
    bytes: tuple[int, int]
    settings: list[str]
    classes: list[str]
    parts: dict[str, Part]
    order: bool

    @property
    def identical(self) -> bool:
        """The same set, byte for byte."""
        return self.ids[0] == self.ids[1]

    @property
    def same_content(self) -> bool:
        """Equal samples in equal order, classes and static images; settings may differ."""
        return not self.classes and self.order and all(part.same for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        return {**vars(self), "parts": parts, "identical": self.identical, "same_content": self.same_content}

    def text(self) -> str:
        """For the terminal."""
        if self.identical:
            return f"the same shard set, {self.ids[0]}"
        head = "same samples, classes and images" if self.same_content else "different"
        lines = [
            f"{head}: {self.ids[0][:12]} ({self.bytes[0]:,} bytes) and {self.ids[1][:12]} ({self.bytes[1]:,} bytes)"
        ]
        lines += [f"  setting {line}" for line in self.settings]
        lines += [f"  {line}" for line in self.classes]
        for name, part in self.parts.items():
            counts = {
                "equal": part.equal,
                "changed": len(part.changed),
                "only in the first": len(part.only_first),
                "only in the second": len(part.only_second),
            }
            lines.append(f"  {name}: " + (", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing"))
            for word in ("changed", "only_first", "only_second"):
                keys = getattr(part, word)
                if keys:
                    more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
                    lines.append(f"    {word.replace('_', ' in the ')}: {', '.join(keys[:SHOWN])}{more}")
        if not self.order:
            lines.append("  the samples come in another order")
        return "\n".join(lines)


Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def difference(first: ShardSet, second: ShardSet, *, progress: Progress | None = None) -> Difference:
    """Compare two sets; of large splits a part at a time.

    Raises:
        ShardSetError: a shard is damaged, or one of the sets was pulled in part.
    """
    show = progress or (lambda items, total, what: items)
    sets = (first, second)
    names = list(first.manifest["splits"])
    parts = {name: compare_splits(first.split(name), second.split(name)) for name in show(names, len(names), "splits")}
    parts["static"] = _compare_static(first, second)
    order = all(first.split(name).keys == second.split(name).keys for name in names)
    classes = []
    if first.classes != second.classes:
        classes.append(f"classes: {len(first.classes)} and {len(second.classes)}, or in another order")
    return Difference(
        ids=(first.id, second.id),
        bytes=(sum(e["bytes"] for e in first.manifest["files"]), sum(e["bytes"] for e in second.manifest["files"])),
        settings=[
            line.strip().replace(" there,", " in the first,").replace(" wanted", " in the second")
            for line in describe_difference(*(s.settings for s in sets)).splitlines()
        ],
        classes=classes,
        parts=parts,
        order=order,
    )


def compare_splits(first: Split, second: Split) -> Part:
    """Samples of two splits by key."""
    part = Part()
    place = {key: i for i, key in enumerate(second.keys)}
    known = set(first.keys)
    part.only_second = [key for key in second.keys if key not in known]
    part.only_first = [key for key in first.keys if key not in place]
    pairs = [(i, place[key]) for i, key in enumerate(first.keys) if key in place]
    comparable = first.shape == second.shape and first.dtype == second.dtype
    for start in range(0, len(pairs), CHUNK):
        some = np.array(pairs[start : start + CHUNK])
        equal = first.labels[some[:, 0]] == second.labels[some[:, 1]]
        if comparable:
            one, other = first.read(some[:, 0]), second.read(some[:, 1])
            equal &= (one == other).reshape(len(some), -1).all(1)
        else:
            equal[:] = False
        part.changed += [first.keys[i] for i in some[~equal, 0]]
        part.equal += int(equal.sum())
    return part


def _compare_static(first: ShardSet, second: ShardSet) -> Part:
    one, other = (read_static(shards.path / STATIC_FILE) for shards in (first, second))
    part = Part()
    row = {key: i for i, key in enumerate(other.keys)}
    known = set(one.keys)
    part.only_second = [key for key in other.keys if key not in known]
    for i, key in enumerate(one.keys):
        if key not in row:
            part.only_first.append(key)
            continue
        j = row[key]
        same = one.roles[i] == other.roles[j] and one.labels[i] == other.labels[j]
        if same and np.array_equal(one.images[i], other.images[j]):
            part.equal += 1
        else:
            part.changed.append(key)
    return part
