"""Splits that papers use, by name: `--splits NAME`.

A name stands for a rule on the names of recordings, or, where a list cannot be shipped, for the command that makes it.
The hash of a list is that of its lines `recording,split` in the order of the names; where the names of the whole data
set are known, it is written down here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.datasets.pairs import UNUSED, Listing, Recording
from spikebridge.pipeline.datasets.splits import split_by_first_share

Assign = Callable[[Listing, int], Mapping[str, str]]
"""Returns the split of every recording that is used, from the whole listing and a seed."""


@dataclass(frozen=True)
class PublishedSplit:
    """A split that a paper uses."""

    dataset: str
    rule: str
    """What it is, or the command that makes its list, in words."""
    assign: Assign | None = None
    """The rule; None where a list has to be made."""
    sha256: str = ""
    """Hash of the list of the whole data set; empty where it depends on files or on a seed."""


def list_text(split: Mapping[str, str]) -> str:
    """Return the CSV of a split: what `--splits FILE.csv` would read."""
    return "recording,split\n" + "".join(f"{name},{part}\n" for name, part in sorted(split.items()))


def list_published(dataset: str) -> dict[str, str]:
    """Return the rules of the published splits of a data set, by `--splits NAME`."""
    return {f"--splits {name}": split.rule for name, split in PUBLISHED.items() if split.dataset == dataset}


def find_published(name: str, dataset: str) -> PublishedSplit:
    """Return a split by its name.

    Raises:
        SettingsError: no file and no known name, a split of another data set, or one whose list has to be made.
    """
    if name not in PUBLISHED:
        known = [one for one, split in PUBLISHED.items() if split.dataset == dataset]
        raise SettingsError(
            f"{name}: no such file, and no published split of that name; of {dataset} there are "
            f"{', '.join(known) or 'none'}{suggest(name, PUBLISHED)}"
        )
    found = PUBLISHED[name]
    if found.dataset != dataset:
        raise SettingsError(f"{name} is a split of {found.dataset}, not of {dataset}.")
    if found.assign is None:
        raise SettingsError(f"{name}: its list cannot be shipped. {found.rule}")
    return found


def assign_published(name: str, listing: Listing, *, dataset: str, seed: int) -> tuple[dict[str, str], str]:
    """Return the split of every recording that a published split uses, and the hash of the list.

    Raises:
        SettingsError: see `find_published`, or recordings whose names the rule does not know.
    """
    found = find_published(name, dataset)
    assert found.assign is not None
    split = {key: part for key, part in found.assign(listing, seed).items() if part != UNUSED}
    return split, hashlib.sha256(list_text(split).encode("utf-8", "surrogateescape")).hexdigest()


def _by_name(choose: Callable[[Recording], str]) -> Assign:
    return lambda listing, _seed: {r.name: choose(r) for r in listing.recordings}


def _first_share(share: Fraction, order: Callable[[Recording], object]) -> Assign:
    """Train on the first recordings of each class in an order, round half to even, and test the rest."""

    def assign(listing: Listing, _seed: int) -> dict[str, str]:
        split = dict[str, str]()
        for label in range(len(listing.classes)):
            members = sorted((r for r in listing.recordings if r.label == label), key=order)  # type: ignore[arg-type]
            split |= {r.name: "train" if i < round(share * len(members)) else "test" for i, r in enumerate(members)}
        return split

    return assign


def _drawn(listing: Listing, seed: int) -> dict[str, str]:
    drawn = split_by_first_share((replace(r, subset=None) for r in listing.recordings), 0.9, seed=seed)
    return {r.name: r.subset or "" for r in drawn}


def _number(pattern: str, recording: Recording) -> int:
    """Return the number in a recording's name.

    Raises:
        SettingsError: there is none.
    """
    if match := re.search(pattern, recording.name, re.IGNORECASE):
        return int(match[1])
    raise SettingsError(f"{recording.name}: the published split goes by {pattern} in the names, and this has none.")


def _tested(pattern: str, first: int, last: int) -> Assign:
    """Test the recordings of these numbers, and train on the others."""
    return _by_name(lambda r: "test" if first <= _number(pattern, r) <= last else "train")


def _recorded_again(part: str) -> Assign:
    """Test a validation set that was recorded again in place of the first."""
    parts = {"train": "train", part: "test"}
    return _by_name(lambda r: parts.get(r.name.partition("/")[0], UNUSED))


MAKE_LIST = (
    "Make it from the files that go with the paper, which lie in folders named after the subsets: "
    "(echo recording,split; for s in training:train validation:validation testing:test; do "
    "find ${s%:*} -name '*.npy' | "
    'sed -E "s|.*/([^/]+)/([^/]+)\\.npy$|\\1/\\2,${s#*:}|"; done) > list.csv, then --splits list.csv.'
)
MAKE_FROM_LISTS = (
    "Make it from the two lists that go with its code, one path a line: (echo recording,split; for s in train test; do "
    'sed -E "s|.*/([^/]+)/(image_[0-9]+).*|\\1/\\2,$s|" $s.txt; done) > list.csv, then --splits list.csv.'
)
RECORDED_AGAIN = (
    *(f"brightness_{number}" for number in (4, 5, 6, 7)),
    *(f"mode_{number}" for number in (1, 3, 5, 6, 7)),
)
"""Validation sets of N-ImageNet that were recorded again under other light or by another movement."""

PUBLISHED: dict[str, PublishedSplit] = {
    "ncaltech101-kt": PublishedSplit(
        "ncaltech101",
        "the first 90 % of each class train, the rest test, in a seeded order for the unknown one (He et al. 2024)",
        _drawn,
    ),
    "ncaltech101-est": PublishedSplit("ncaltech101", f"The release of Gehrig et al. 2019 (EST). {MAKE_LIST}"),
    "ncaltech101-eventbind": PublishedSplit(
        "ncaltech101", f"The lists of Zhou et al. 2024 (EventBind). {MAKE_FROM_LISTS}"
    ),
    "cifar10dvs-90-10": PublishedSplit(
        "cifar10dvs",
        "the first 900 recordings of each class train, the last 100 test, in the order of their numbers",
        _first_share(Fraction(9, 10), lambda r: int(r.stem)),
        "87fb4239b57e413de4ebee6092bdf31c68d3ac8e32151c79b1c723818ade993d",
    ),
    "cifar10dvs-90-10-names": PublishedSplit(
        "cifar10dvs",
        "the same in the order of the file names as text, which is that of folders listed by name",
        _first_share(Fraction(9, 10), lambda r: r.name),
        "a2de8d3f04f4dc4abdb6ebc23ea34002347fb1810ef09594b15c0198cceef685",
    ),
    **{
        f"ucf101dvs-{number}": PublishedSplit(
            "ucf101dvs",
            f"list {number} of UCF101: source videos {first} to {first + 6} of each class test, the others train",
            _tested(r"_g(\d\d)_", first, first + 6),
        )
        for number, first in ((1, 1), (2, 8), (3, 15))
    },
    "dvsgesture-trials": PublishedSplit(
        "dvsgesture",
        "trials_to_train and trials_to_test: users 1 to 23 train, 24 to 29 test; nothing validates",
        _tested(r"user(\d+)", 24, 29),
    ),
    **{
        f"{dataset}-{part.replace('_', '-')}": PublishedSplit(
            dataset, f"the validation set that was recorded again as {part} is tested", _recorded_again(part)
        )
        for dataset in ("nimagenet", "mininimagenet")
        for part in RECORDED_AGAIN
    },
}
"""Published splits by name."""
