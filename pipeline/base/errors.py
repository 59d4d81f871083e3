"""The errors of the pipeline: each names the file, what was found, what was expected, and what to do."""

from collections.abc import Sequence

from spikebridge.pipeline.base.display import show


class PipelineError(Exception):
    """Something about the data or the settings that the user can put right; base of the family."""


class LayoutError(PipelineError):
    """A raw folder is missing, empty, or not laid out as its data set is."""


class RecordingError(PipelineError):
    """One recording or image cannot be used; a conversion counts it as a reject.

    `reason` is a short machine-readable name, written into rejects.jsonl.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SettingsError(PipelineError):
    """A setting is out of range, or contradicts what is already on disk."""


class ShardSetError(PipelineError):
    """A shard set is missing, incomplete, damaged, or written by a newer version."""


def shorten(names: Sequence[str], *, most: int = 10) -> str:
    """Join names for a message, each as people may see it: of many the first, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(show, names[:most])) + more
