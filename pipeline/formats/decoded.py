"""What decoding a recording gives: the events, and what a careful person would want to know about the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from spikebridge.pipeline.events.arrays import Events


@dataclass(frozen=True)
class Facts:
    """What a file says besides its events.

    Args:
        format: name and version of the format, and the camera where the file names it.
        sensor_size: (W, H) in pixels as the file states it; None where it does not.
        passed_over: number of words, records or packets that are no events, by what they are.
        choices: what was decided where the file left it open: layout, group, columns, unit of time.
        doubts: what may be wrong about the file although it can be read, one sentence each.
    """

    format: str
    sensor_size: tuple[int, int] | None = None
    passed_over: Mapping[str, int] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """The events of a file as stored (times not shifted, nothing checked), and the facts about it."""

    events: Events
    facts: Facts

    def annotated(self) -> Events:
        """Return the events with what was passed over and doubted attached, as a conversion counts it."""
        passed_over = tuple(sorted((what, count) for what, count in self.facts.passed_over.items() if count))
        return replace(self.events, passed_over=passed_over, doubts=self.facts.doubts)
