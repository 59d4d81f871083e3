"""What every verb says to the person or program in front of it: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click


def speaks_for_all() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """One line for the person at the terminal."""
    click.echo(text, err=True)


def answer(values: dict[str, Any], text: str, *, as_json: bool, then: Sequence[str | Path] = ()) -> None:
    """The result of a verb: JSON for programs, a few lines for people.

    Args:
        values: for programs.
        text: for people.
        as_json: whether a program listens.
        then: words of the command that most people want next; make, which takes the next step itself, is not told.
    """
    if not speaks_for_all():
        return
    click.echo(json.dumps(values, indent=1, sort_keys=True) if as_json else text)
    if then and not as_json and "MAKELEVEL" not in os.environ:
        say(f"Next: spikebridge {shlex.join(map(str, then))}")


def progress_bar(
    items: Iterable[Any] | None = None, total: int | None = None, desc: str | None = None, **more: Any
) -> Any:
    """A tqdm bar on stderr that is silent when piped."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=desc, disable=None, leave=False, **more)


def byte_bar(total: int, what: str) -> Callable[[int], None]:
    """A progress bar over bytes, as the function that moves it."""
    moved: Callable[[int], None] = progress_bar(total=total, desc=what, unit="B", unit_scale=True).update
    return moved


def folder(**more: Any) -> click.Path:
    """The type of an option that names a path."""
    return click.Path(path_type=Path, **more)
