"""Tables that a user writes about class folders: what the recordings are, and which class names mean the same."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError, shorten
from spikebridge.pipeline.datasets.pairs import UNUSED
from spikebridge.pipeline.shards.manifest import SPLITS

LABEL_COLUMNS, MORE_LABEL_COLUMNS = ("file", "label"), ("start", "end", "group", "split")
"""Columns that a table of labels must have, and that it may have."""
DELIMITERS = ",;\t"
CANDIDATE_COLUMNS = ("candidates", "candidates_confidence", "candidates_sha256")
PAIR_COLUMNS = ("recording", "image", "confidence", "pixels_sha256", *CANDIDATE_COLUMNS)
"""Columns of a table of pairs, of which the first two must be there."""
BETWEEN, ESCAPED = "|", {"%": "%25", "|": "%7C"}
"""Stands between the candidates of a cell; how it, and what escapes it, are written in a name."""
SHA256 = "[0-9a-f]{64}"
MOST_PROBLEMS = 5
"""Lines that a message shows."""
SAME_FOLDERS = "Names are paths below a folder: name the two folders that match was given, or match these."
"""What to do about a table of pairs with names that are not there."""


@dataclass(frozen=True)
class FolderOptions:
    """What a user says about class folders, besides their tables; `folders` only.

    Raises:
        SettingsError: a regular expression that is none.
    """

    labels: Path | None = None
    """CSV of what the recordings are, see `read_labels`."""
    class_map: Path | None = None
    """CSV of classes whose static images go by another name, see `read_class_map`."""
    group_by: str = ""
    """Regular expression that finds the group in a recording's name."""
    pairing: str = ""
    """`exact`, `class`, or empty: exact where names agree."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.group_by)
        except re.error as error:
            raise SettingsError(f"--group-by {self.group_by!r} is no regular expression ({error}).") from error

    def group_of(self, name: str) -> str | None:
        """Return the group in a recording's name, empty without a pattern, None where the pattern does not match."""
        if not self.group_by:
            return ""
        match = re.search(self.group_by, name)
        return "_".join(part or "" for part in match.groups() or (match[0],)) if match else None


DEFAULT = FolderOptions()


@dataclass(frozen=True)
class LabelRow:
    """A row of a table of labels."""

    line: int
    file: str
    """Path below the events root, with or without its ending."""
    label: str
    interval: tuple[int, int] | None
    """(start, stop) from the first event, stop exclusive; None for the whole file."""
    group: str
    subset: str | None


def read_labels(path: Path, notes: list[str]) -> list[LabelRow]:
    """Read a CSV with the columns `file` and `label`, and where wanted `start`, `end`, `group` and `split`.

    `start` and `end` (exclusive) are whole microseconds from the first event of the file; a row without both is the
    whole file. `split` is train, validation, test, unused, or empty: drawn. Columns of other names are said in `notes`.

    Raises:
        SettingsError: unreadable, columns missing, or rows that cannot be; the message names their lines.
    """
    rows, problems, table = [], list[str](), read_csv(path, LABEL_COLUMNS)
    if others := [name for name in table[0] if name and name not in (*LABEL_COLUMNS, *MORE_LABEL_COLUMNS)]:
        known = ", ".join((*LABEL_COLUMNS, *MORE_LABEL_COLUMNS))
        notes.append(f"columns of the table of labels that are not used: {shorten(others)}; those used are {known}")
    for line, row in enumerate(table, start=2):
        start, stop, split, label, group = (
            (row.get(n) or "").strip() for n in ("start", "end", "split", "label", "group")
        )
        interval = None
        if start or stop:
            if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop) < 2**62):
                problems.append(
                    f"line {line}: from {start!r} to {stop!r}; expected whole microseconds, start before end"
                )
                continue
            interval = (int(start), int(stop))
        if not row["file"] or not label:
            problems.append(f"line {line}: no file or no label")
        elif split not in ("", *SPLITS, UNUSED):
            problems.append(f"line {line}: split {split!r}, expected {', '.join(SPLITS)}, unused or nothing")
        else:
            file = (row["file"] or "").replace("\\", "/").removeprefix("./")
            rows.append(LabelRow(line, file, label, interval, group, split or None))
    refuse_lines(path, problems)
    return rows


def read_class_map(path: Path, *, classes: Collection[str], image_classes: Collection[str]) -> dict[str, str]:
    """Read a CSV with the columns `static` and `event`: folders of static images, and the classes they belong to.

    Raises:
        SettingsError: unreadable, other columns, or a class that is not there.
    """
    mapping, problems = dict[str, str](), list[str]()
    for line, row in enumerate(read_csv(path, ("static", "event")), start=2):
        static, event = row["static"] or "", row["event"] or ""
        if static not in image_classes:
            problems.append(f"line {line}: no class {static!r} of static images")
        elif event not in classes:
            problems.append(f"line {line}: no class {event!r} of recordings")
        elif mapping.setdefault(static, event) != event:
            problems.append(f"line {line}: {static!r} stands there twice")
    refuse_lines(path, problems)
    return mapping


@dataclass(frozen=True)
class Pair:
    """A row of a table of pairs."""

    line: int
    recording: str
    image: str
    """Empty where it is not known."""
    pixels_sha256: str
    """Of the full-size image as `pipeline.images.decode.hash_pixels` gives it, hexadecimal; empty where no row says
    it."""
    candidates: tuple[tuple[str, str], ...] = ()
    """Name and pixels_sha256 of the images one of which it shows, where `image` is empty."""
    held: float = 1.0
    """Confidence that the candidates hold the image that it shows; 1 where not said."""


def read_pairs(path: Path) -> list[Pair]:
    """Read a CSV with the columns `recording` and `image`, and where wanted the others of `PAIR_COLUMNS`.

    `candidates` are the names of images one of which the recording shows, with | between them (in a name | is written
    %7C and % as %25), `candidates_confidence` that they hold the right one, `candidates_sha256` their hashes in equal
    order. They count where `image` is empty. What one row says of an image's hash holds for all rows that name it, as
    where somebody wrote one of the candidates into `image`. Names are taken as they stand: files may begin or end with
    a space.

    Raises:
        SettingsError: unreadable, columns missing, a row without a recording or a second one, a confidence that is no
            share, a hash that is none, or not one for each candidate; the message names their lines.
    """
    pairs, problems, seen, hashes = [], list[str](), set[str](), dict[str, str]()
    for line, row in enumerate(read_csv(path, PAIR_COLUMNS[:2], errors="surrogateescape"), start=2):
        name, image, several = (_name(row.get(column)) for column in ("recording", "image", "candidates"))
        confidence, digest, held, of_several = (
            (row.get(column) or "").strip() for column in ("confidence", "pixels_sha256", *CANDIDATE_COLUMNS[1:])
        )
        candidates, digests = (cell.split(BETWEEN) if cell else [] for cell in (several, of_several))
        if not name or name in seen:
            problems.append(f"line {line}: " + (f"{name} is listed twice" if name else "no recording"))
        elif wrong := [share for share in (confidence, held) if share and not _is_share(share)]:
            problems.append(f"line {line}: confidence {wrong[0]!r}; expected a number from 0 to 1")
        elif digest and not re.fullmatch(SHA256, digest):
            problems.append(f"line {line}: pixels_sha256 {digest!r}; expected 64 hexadecimal digits")
        elif not all(candidates):
            problems.append(f"line {line}: candidates {several!r}; expected names with one {BETWEEN} between two")
        elif wrong := [each for each in digests if not re.fullmatch(SHA256, each)]:
            problems.append(f"line {line}: candidates_sha256 {wrong[0]!r}; expected 64 hexadecimal digits")
        elif digests and len(digests) != len(candidates):
            problems.append(f"line {line}: {len(digests)} hashes, {len(candidates)} candidates; expected one for each")
        seen.add(name)
        named = tuple(zip(map(_unescaped, candidates), digests or [""] * len(candidates), strict=False))
        hashes |= {each: said for each, said in ((image, digest), *named) if said}
        known = (digest, ()) if image else ("", named)
        pairs.append(Pair(line, name, image, *known, held=float(held) if _is_share(held) else 1.0))
    refuse_lines(path, problems)
    return [
        replace(
            pair,
            pixels_sha256=pair.pixels_sha256 or hashes.get(pair.image, ""),
            candidates=tuple((each, said or hashes.get(each, "")) for each, said in pair.candidates),
        )
        for pair in pairs
    ]


def join_candidates(names: Iterable[str]) -> str:
    """Return names as a cell of a table of pairs, which `read_pairs` reads."""
    return BETWEEN.join("".join(ESCAPED.get(sign, sign) for sign in name) for name in names)


def _unescaped(name: str) -> str:
    for sign, written in reversed(ESCAPED.items()):  # the escape itself last
        name = name.replace(written, sign)
    return name


def _name(cell: str | None) -> str:
    """Return the name in a cell as it stands, spaces around it, too; nothing but spaces is no name."""
    return cell if cell and cell.strip() else ""


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def near_matches(classes: Collection[str], image_classes: Collection[str]) -> list[tuple[str, str]]:
    """Return classes without static images, and image classes that differ in case, spaces or signs alone."""
    unused = {_folded(name): name for name in sorted(image_classes) if name not in classes}
    return [
        (name, unused[_folded(name)])
        for name in sorted(classes)
        if name not in image_classes and _folded(name) and _folded(name) in unused
    ]


def near_twins(classes: Collection[str]) -> list[str]:
    """Return pairs of classes that differ in case, spaces or signs alone: `Cat and cat`."""
    first: dict[str, str] = {}
    return [
        f"{first[_folded(name)]} and {name}"
        for name in sorted(classes)
        if first.setdefault(_folded(name), name) != name and _folded(name)
    ]


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def refuse_lines(path: Path, problems: list[str], *, remedy: str = "") -> None:
    """Raise the problems of a table's lines, if there are any, and what to do about them all.

    Raises:
        SettingsError: there are.
    """
    if problems:
        more = f"\n  and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise SettingsError(f"{path}:\n  " + "\n  ".join(problems[:MOST_PROBLEMS]) + more + (remedy and f"\n{remedy}"))


def read_csv(path: Path, columns: tuple[str, ...], *, errors: str = "strict") -> list[dict[str, str | None]]:
    """Read the rows of a CSV file that has a header with these columns, by their names in lower case.

    Cells are parted by what most often stands in the header: a comma, a semicolon or a tab. `errors` is that of `open`:
    names of files need not be UTF-8.

    Raises:
        SettingsError: unreadable, other columns, or no rows.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors=errors) as file:
            first = file.readline()
            if "\0" in first:
                raise SettingsError(f"{path}: no text; expected a CSV file with the columns {' and '.join(columns)}.")
            names = next(csv.reader([first], delimiter=max(DELIMITERS, key=first.count)), [])
            named = [name.strip().lower() for name in names]
            rows = list(csv.DictReader(file, named, delimiter=max(DELIMITERS, key=first.count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: cannot be read as a CSV file ({error}).") from error
    if not rows and not set(columns) - set(named):
        raise SettingsError(f"{path}: a header and nothing below it; expected at least one row.")
    if not rows or set(columns) - set(rows[0]):
        found = f" found {shorten(named)}," if any(named) else ""
        raise SettingsError(
            f"{path}:{found} expected a header with the columns {' and '.join(columns)}, and at least one row."
        )
    return rows
