"""Output of the verbs: results on stdout as text or JSON, notes and progress on stderr."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from spikebridge.pipeline.base.display import printable
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.places import in_the_way
from spikebridge.pipeline.ui.lines import LineProgress

COLUMNS = re.compile(r" *\S+(?: \S+)*  +(?=\S)")
"""A line's first column, with the gap of two or more spaces behind it."""
MOST_SIDE = 2**14
"""Pixels of a sensor's side, at most: as much as a shard set or a profile takes."""
QUIET = "spikebridge.quiet"
"""Key in the context's `meta`."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what an earlier command made there.")


def is_main_process() -> bool:
    """Return whether this process is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """Print one line on stderr, above any progress bar."""
    if (bars := sys.modules.get("tqdm")) is not None and sys.stderr is not None:
        bars.tqdm.write(printable(text), file=sys.stderr)
    else:
        click.echo(printable(text), err=True)


def complete_writes(stream: TextIO) -> TextIO:
    """Return a stream that writes a text as a whole or raises.

    Without a buffer (PYTHONUNBUFFERED, `python -u`) Python writes what a full disk takes of a text, drops the rest and
    says nothing.
    """
    if not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return stream
    whole: Any = _WholeWrites(stream)
    return io.TextIOWrapper(whole, encoding=stream.encoding, errors=stream.errors, write_through=True)


class _WholeWrites(io.RawIOBase):
    """Writes to a stream without a buffer until it has taken all; the stream stays open."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left:
            left = left[self._stream.buffer.write(left) :]
        return len(data)


class StderrHandler(logging.Handler):
    """Handler that prints log records on stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line a record."""
        note(self.format(record))


def print_result(
    values: Mapping[str, object], text: str, *, as_json: bool, then: Sequence[str | Path] = (), verbatim: bool = False
) -> None:
    """Print the result of a verb: JSON for programs, a few lines for people.

    `then` are the words of the command that most people want next; not printed under make, which runs the next step
    itself. `verbatim` leaves long lines as they are, in a text that people may copy into a file.
    """
    if not is_main_process():
        return
    if as_json:
        click.echo(json.dumps(values, indent=1, sort_keys=True).replace("\x7f", r"\u007f"))
    else:
        click.echo(printable(text if verbatim else wrap_text(text)))
    if then and not as_json and "MAKELEVEL" not in os.environ and not is_quiet():
        note(f"Next: {command(*then)}")


def wrap_text(text: str, *, first: int = 0, err: bool = False) -> str:
    """Wrap text between words at the terminal's width; return it unchanged where it goes to a pipe or a file.

    A broken line goes on below the second of two columns, or where the line began.

    Lines stay apart; `first` columns are taken at the start of the first one. `err` says that the text goes to stderr.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():  # None: closed before the program began
        return text
    width = max(40, shutil.get_terminal_size().columns)
    lines = []
    for line in ("_" * first + text).splitlines():
        column = COLUMNS.match(line)
        indent = " " * min(column.end() if column else len(line) - len(line.lstrip()), width // 2)
        wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines.append(wrapper.fill(line) if len(line) > width else line)
    return "\n".join(lines)[first:]


def format_columns(rows: Mapping[str, str]) -> str:
    """Return names and their meanings in two columns."""
    width = max(map(len, rows), default=0) + 2
    return "\n".join(f"{name:{width}}{text}" for name, text in rows.items())


def progress_bar(
    items: Iterable[Any] | None = None, total: int | None = None, desc: str | None = None, **more: Any
) -> Any:
    """Return a tqdm bar on stderr; where that is no terminal, lines half a minute apart; with --quiet, neither."""
    if is_quiet() or sys.stderr is None:
        return tqdm_bar(items, total, desc, disable=True, **more)
    if not sys.stderr.isatty():
        return LineProgress(items, total, desc, write=note, **more)
    return tqdm_bar(items, total, desc, disable=False, **more)


def tqdm_bar(items: Iterable[Any] | None, total: int | None, desc: str | None, **more: Any) -> Any:
    """Return a bar of tqdm that goes when it is done, as wide as the terminal at most."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=desc, leave=False, dynamic_ncols=True, **more)


def _be_quiet(ctx: click.Context, _: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.find_root().meta[QUIET] = True
        logging.getLogger("spikebridge").setLevel(logging.WARNING)


quiet_option = click.option(
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_be_quiet,
    help="No progress and no notes on standard error, only warnings and errors.",
)


def is_quiet() -> bool:
    """Return whether the verb that runs was given --quiet."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.find_root().meta.get(QUIET))


def byte_bar(total: int, what: str) -> Callable[[int], None]:
    """Return the function that moves a progress bar over bytes."""
    update: Callable[[int], None] = progress_bar(total=total, desc=what, unit="B", unit_scale=True).update
    return update


def repeat_options(context: click.Context, *, but: Sequence[str]) -> list[str | Path]:
    """Return the options that were given to a verb as the words of its command line, without those called `but`."""
    words: list[str | Path] = []
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in but or not option.expose_value or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[str(option.name)]
        name = max(option.secondary_opts if value is False else option.opts, key=len)
        words += [name] if isinstance(value, bool) else [name, str(value)]
    return words


def path_type(**more: Any) -> click.Path:
    """Return the type of an option that names a path."""
    return click.Path(path_type=Path, **more)


def parse_pair(text: str, sign: str, *, refusal: str, option: str) -> tuple[int, int]:
    """Parse two whole numbers with a sign between them; a refusal says what was expected.

    Raises:
        click.BadParameter: the text is something else.
    """
    first, _, second = text.partition(sign)
    if not (first.isdecimal() and second.isdecimal()):
        raise click.BadParameter(f"{text!r} {refusal}", param_hint=option)
    return int(first), int(second)


def parse_sensor(text: str | None) -> tuple[int, int] | None:
    """Parse `--sensor` into width and height in pixels; None where it was not given.

    Raises:
        click.BadParameter: the text is something else, or no sensor has so many pixels.
    """
    if text is None:
        return None
    refusal = f"is no size; expected WIDTHxHEIGHT in pixels, each from 1 to {MOST_SIDE}, for example 346x260"
    sides = parse_pair(text, "x", refusal=refusal, option="--sensor")
    if not all(1 <= side <= MOST_SIDE for side in sides):
        raise click.BadParameter(f"{text!r} {refusal}", param_hint="--sensor")
    return sides


class FiniteRange(click.FloatRange):
    """A number between two others, as `click.FloatRange`, which lets nan through and, where it is open, infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of a text; `click.BadParameter` where it is none, or none of these."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number; expected one in the range {self._describe_range()}.", param, ctx)
        return number


def require_free(*paths: Path | None, overwrite: bool) -> None:
    """Refuse files to write that are there already, or could not be written in the end; see `in_the_way`.

    Raises:
        click.UsageError: one of them.
    """
    for path in filter(None, paths):
        if reason := in_the_way(path, overwrite=overwrite):
            raise click.UsageError(f"{path} {reason}.")


def failure(message: str) -> click.ClickException:
    """Return the exception that ends a verb with code 1 and one paragraph on stderr."""
    return click.ClickException(wrap_text(printable(message), first=len("Error: "), err=True))
