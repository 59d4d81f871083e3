"""Events as text (`.csv`, `.txt`, and whatever holds lines of numbers): with and without a line of names.

Known orders without names: `t x y p` with t in seconds (RPG's data sets, E2VID, whose first line may be the width and
height), `x,y,p,t` with t in microseconds (Prophesee's converter), `y,x,b,p,t` (CeleX-V; rows with p = 0 are no events).
Lines at the top that begin with `#` or `%` are comments; `%geometry:W,H` states the sensor.

Axes: N events, k columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, shorten
from spikebridge.pipeline.formats.decoded import Stream
from spikebridge.pipeline.formats.source import Source
from spikebridge.pipeline.formats.tables.choose import choose
from spikebridge.pipeline.formats.tables.columns import BRACKETS, DEFAULT, Candidate, TableOptions, at_once

MOST_HEAD_BYTES = 2**16
MOST_COLUMNS = 64
QUOTE, BLANK = ord('"'), ord(" ")
DECIMAL_COMMA = re.compile(r"\d,\d.*[;\t]|[;\t].*\d,\d|\d,\d+\s+[-+\d]|\d\s+[-+]?\d+,\d|\"[-+]?\d+,\d+\"")
"""Commas inside numbers, which something else separates."""
NEWLINE, BLOCK_BYTES = ord("\n"), 2**22
"""The byte that ends a line, and bytes of a block of lines: some hundred thousand events."""
LEAST_DECIMALS, MOST_DECIMALS = -60, 120
"""Of a number in scientific notation, as `text_kernel` lets them through."""
POWERS = 10.0 ** np.arange(LEAST_DECIMALS, MOST_DECIMALS + 1).astype(np.float64)


def looks_like_text(data: bytes) -> bool:
    """Whether the first bytes of a file are lines of numbers, or a line of names above such."""
    head = data[:1024]
    if not head or b"\0" in head or b"<" in head:
        return False
    try:
        text = head.decode("utf-8", "ignore" if len(data) > 1024 else "strict")
    except UnicodeDecodeError:
        return False
    rows = [line for line in text.lstrip("\ufeff").splitlines() if line.strip() and line.strip()[0] not in "#%"]
    return any(_is_numbers(_words(row)) and len(_words(row)) >= 4 for row in rows[:3])


def stream(source: Source, options: TableOptions = DEFAULT) -> Stream:
    """Return the events of a file, a block of lines at a time.

    Args:
        source: the file, or its unpacked content.
        options: what its columns are, and the unit of time, where the file leaves that open.

    Raises:
        RecordingError: no bytes, no lines or none below the names (`empty`), no lines of numbers, or numbers in UTF-16
            or with decimal commas (`format`), other numbers than names (`columns`), a line that does not have the
            columns of the first (`truncated` at the end, else `damaged`), or as `columns.choose`.
    """
    head = source.read(0, 2 * MOST_HEAD_BYTES)
    if not head.strip():
        raise RecordingError(f"{source.name}: no text in it; expected a line an event. Copy it again.", reason="empty")
    names, size, begin, columns, quoted = _head(head, source.name)
    if names and len(names) != columns:
        if not options.positions or len(options.columns) != columns:
            raise RecordingError(
                f"{source.name}: {len(names)} names ({shorten(names, most=8)}) above lines of {columns} numbers. Say "
                "what each number is with --columns (- for one to leave out), for example --columns "
                f"{','.join(['-'] * max(0, columns - 4))}{',' * (columns > 4)}t,x,y,p.",
                reason="columns",
            )
        names = ()
    places = {name: i for i, name in enumerate(names)}

    kept = list[list[NDArray[Any]]]()

    def parsed() -> Iterator[list[NDArray[Any]]]:
        line, rows, all_of_it = head.count(b"\n", 0, begin) + 1, 0, list[list[NDArray[Any]]]()
        for lines in _whole_lines(source, begin):
            plain = np.where(lines == QUOTE, np.uint8(BLANK), lines) if quoted else lines
            numbers, ends = _numbers(plain, columns, source.name, line)
            line += ends
            rows += len(numbers[0])
            all_of_it += [numbers] if at_once(source.size) else []
            yield numbers
        if not rows:
            raise RecordingError(f"{source.name}: no events; expected a line an event.", reason="empty")
        kept[:] = all_of_it

    def blocks(wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
        for numbers in kept or parsed():
            yield tuple(numbers[places[name]] for name in wanted) if names else (_joined(numbers),)

    candidate = Candidate("", names or None, blocks)
    return choose([candidate], options, format="text", source=source.name, found=names, sensor_size=size)[0]


def _whole_lines(source: Source, start: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes from `start` on in blocks of whole lines."""
    rest, left = np.empty(0, np.uint8), source.size - start
    for block in source.blocks(start, "u1", size=BLOCK_BYTES):
        data = np.concatenate([rest, block]) if len(rest) else block
        left -= len(block)
        whole = _behind_last_line(data) if left else len(data)
        rest = data[whole:].copy()
        if whole:
            yield data[:whole]


def _behind_last_line(data: NDArray[np.uint8]) -> int:
    """Return where the last whole line ends, 0 where none does."""
    for start in range(len(data) - MOST_HEAD_BYTES, -MOST_HEAD_BYTES, -MOST_HEAD_BYTES):
        part = max(start, 0)
        if len(ends := np.flatnonzero(data[part : start + MOST_HEAD_BYTES] == NEWLINE)):
            return part + int(ends[-1]) + 1
    return 0


def sensor_size(data: bytes) -> tuple[int, int] | None:
    """Return (W, H) as the first lines of a file state it, or None."""
    try:
        return _head(data, "").size
    except RecordingError:
        return None


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return a table [N,k], of whole numbers where all of its columns are."""
    table = np.empty((len(columns[0]), len(columns)), np.result_type(*columns), "F")
    for i, column in enumerate(columns):
        table[:, i] = column
    return table


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[\s,;\"]+", line.strip()) if word]


def _cells(line: str) -> tuple[str, ...]:
    """Return the names in a line."""
    cells = re.split(r"[,;\t]" if re.search(r"[,;\t]", line) else r"\s+", line)
    names = tuple(cell.strip().strip("\"'").strip() for cell in cells)
    return names if names[-1] else names[:-1]


def _is_numbers(words: list[str]) -> bool:
    return bool(words) and all(
        re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|true|false", word, re.I) for word in words
    )


class Head(NamedTuple):
    """What the first lines of a file say."""

    names: tuple[str, ...]
    """Of the columns; none where there are none."""
    size: tuple[int, int] | None
    """(W, H) of the sensor."""
    start: int
    """Where the rows begin."""
    columns: int
    """Of the first row."""
    quoted: bool
    """Its numbers stand in quotes."""


def _head(data: bytes, source: str) -> Head:
    """Look at the lines up to the first row.

    Raises:
        RecordingError: there is no row (`empty` below names, else `format`), or one whose numbers cannot be told.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _no_text(source, "text in UTF-16, as PowerShell's > writes it", "Save it as UTF-8.")
    if b"\r" in data and b"\n" not in data:
        raise _no_text(source, "lines that end with a carriage return alone", "Write line feeds.")
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    names: tuple[str, ...] = ()
    size, commented = None, False
    while start < len(data) and start < MOST_HEAD_BYTES:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start : min(end, start + MOST_HEAD_BYTES)].decode("utf-8", "replace").strip()
        words = _words(line)
        if line.startswith(("#", "%")):
            stated = re.match(r"[#%]\s*geometry\s*:\s*(\d{1,5})\s*[,x]\s*(\d{1,5})", line, re.I)
            size = (int(stated[1]), int(stated[2])) if stated else size
            cells = _cells(line.lstrip("#% "))
            if not names and {"x", "y"} <= {BRACKETS.sub("", cell.lower()) for cell in cells}:
                names, commented = cells, True
        elif words and _is_numbers(words):
            if len(words) == 2 and size is None and all(word.isdigit() for word in words):
                size = (int(words[0]), int(words[1]))  # E2VID's first line
            else:
                _check_row(line, len(words), source)
                names = () if commented and len(names) != len(words) else names  # a comment may say anything
                return Head(names, size, start, len(words), '"' in line)
        elif words and not names:
            names = _cells(line)
        elif words:
            found = f"{line[:60]!r} below a line of names"
            raise _no_text(source, found, "Write numbers alone, polarity as 1 and 0.")
        start = end + 1
    if names and start >= len(data):
        raise RecordingError(f"{source}: no events below its line of names.", reason="empty")
    raise _no_text(source, f"{data[:24]!r} at the beginning", "Is this the right file?")


def _check_row(line: str, columns: int, source: str) -> None:
    """Refuse a row of too many numbers, or of decimal commas.

    Raises:
        RecordingError: it is one (`format`).
    """
    if columns > MOST_COLUMNS:
        raise _no_text(source, f"{columns} numbers in a line", "Is this the right file?")
    if DECIMAL_COMMA.search(line):
        found = f"numbers with a comma as decimal point ({line[:40]!r})"
        raise _no_text(source, found, "Write them with a point.")


def _no_text(source: str, found: str, advice: str) -> RecordingError:
    return RecordingError(
        f"{source}: {found}; expected lines of numbers, an event each, perhaps below a line of names. {advice}",
        reason="format",
    )


def _numbers(raw: NDArray[np.uint8], columns: int, source: str, before: int) -> tuple[list[NDArray[Any]], int]:
    """Parse lines, the first of which has the number `before`.

    Returns:
        The columns [N], exact int64 of whole numbers alone and float64 of others; and how many lines end.
    """
    from spikebridge.pipeline.formats.tables import text_kernel as kernel

    lines = kernel.count_lines(raw)
    # column by column in memory: what follows takes one column at a time
    digits, decimals = np.empty((lines, columns), np.int64, "F"), np.empty((lines, columns), np.int8, "F")
    how, rows, where = kernel.parse(raw, columns, digits, decimals)
    if how != kernel.FINE:
        ends = np.flatnonzero(raw[where:] == NEWLINE)
        line = before + int(np.count_nonzero(raw[:where] == NEWLINE))
        content = raw[where : where + int(ends[0]) if len(ends) else None][:60].tobytes().decode("utf-8", "replace")
        cut = not len(ends)  # no line of others lacks its end
        raise RecordingError(
            f"{source}: line {line} is {content.strip()!r}; expected {columns} numbers as in the first line. "
            + ("The file is truncated: copy it again." if cut else "Mend or remove the line."),
            reason="truncated" if cut else "damaged",
        )
    digits, decimals = digits[:rows], decimals[:rows]
    numbers = list[NDArray[Any]]()
    for i in range(columns):
        places = decimals[:, i]
        if (places == places[:1]).all():  # the same for all, as programs write them
            places = places[:1]
        exact = not places.any()
        numbers.append(digits[:, i] if exact else digits[:, i] / POWERS[places.astype(np.intp) - LEAST_DECIMALS])
    return numbers, lines - 1
