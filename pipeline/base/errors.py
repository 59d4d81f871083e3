"""The errors of the pipeline: each names the file, what was found, what was expected, and what to do."""

import errno
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence

from spikebridge.pipeline.base.display import show


class PipelineError(Exception):
    """Something about the data or the settings that the user can put right; base of the family."""


class LayoutError(PipelineError):
    """A raw folder is missing, empty, or not laid out as its data set is."""


class RecordingError(PipelineError):
    """One recording or image cannot be used; a conversion counts it as a reject.

    `reason` is a short machine-readable name, written into rejects.jsonl; `counts` may say by name how many events are
    concerned.
    """

    def __init__(self, message: str, *, reason: str, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.reason, self.counts = reason, dict(counts or {})


class SettingsError(PipelineError):
    """A setting is out of range, or contradicts what is already on disk."""


class ShardSetError(PipelineError):
    """A shard set is missing, incomplete, damaged, or written by a newer version."""


def shorten(names: Sequence[str], *, most: int = 10) -> str:
    """Join names for a message, each as people may see it: of many the first, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(show, names[:most])) + more


def without_numbers(sentence: str) -> str:
    """Return what a sentence says but for its numbers: those that differ in nothing else say the same."""
    return NUMBERS.sub("#", sentence)


def group_alike(cases: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return names and what is said of them, those of which the same is said together, by name."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, sentence in cases:
        groups.setdefault(without_numbers(sentence), []).append((name, sentence))
    return [sorted(group) for group in groups.values()]


NUMBERS = re.compile(r"[\d.,]+(e[+-]\d+)?")
COMPILER = ("llvmlite", "numba")
"""Packages that cannot load compiled loops where memory is short."""


def blame_machine(error: BaseException, source: str) -> None:
    """Refuse to hold an error against a file that says no more than that this machine is short of memory or open files.

    Raises:
        PipelineError: it does.
    """
    if not isinstance(error, OSError):
        return
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    compiling = str(last.f_globals.get("__name__", "")).startswith(COMPILER)
    if compiling or error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        raise PipelineError(
            f"{source}: cannot be read now, memory or open files are short ({error}). Nothing is said against the "
            "file: give the same command again, with fewer --workers."
        ) from error
