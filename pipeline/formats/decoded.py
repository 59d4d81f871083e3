"""What decoding a recording gives: the events, and what a careful person would want to know about the file.

A recording is decoded in passes: a pass yields the events in chunks, and what it learned about the file at its end. So
a recording of any length takes the memory of a chunk, and whoever wants all events at once gathers them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from spikebridge.pipeline.events.arrays import Events, StartOver
from spikebridge.pipeline.events.packing import Chunk


@dataclass(frozen=True)
class Facts:
    """What a file says besides its events.

    Args:
        format: name and version of the format, and the camera where the file names it.
        sensor_size: (W, H) in pixels as the file states it; None where it does not.
        passed_over: number of words, records or packets that are no events, by what they are.
        choices: what was decided where the file left it open: layout, group, columns, unit of time.
        doubts: what may be wrong about the file although it can be read, one sentence each.
        overflow_markers: records of the clock that were taken out (`.bin` only).
        not_read: events outside the time window that alone was asked for.
    """

    format: str
    sensor_size: tuple[int, int] | None = None
    passed_over: Mapping[str, int] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    overflow_markers: int = 0
    not_read: int = 0

    def annotate(self, events: Events) -> Events:
        """Return events with what was passed over and doubted attached, as a conversion counts it."""
        passed_over = tuple(sorted((what, count) for what, count in self.passed_over.items() if count))
        return replace(
            events,
            overflow_markers=self.overflow_markers,
            passed_over=passed_over,
            doubts=self.doubts,
            not_read=self.not_read,
            choices=self.choices,
        )


@dataclass(frozen=True)
class Decoded:
    """The events of a file as stored (times not shifted, nothing checked), and the facts about it."""

    events: Events
    facts: Facts

    def annotated(self) -> Events:
        """Return the events with what was passed over and doubted attached, as a conversion counts it."""
        return self.facts.annotate(self.events)


Pass = Generator[Chunk, None, Facts]
"""Yields the events in chunks, each valid until the next is asked for; returns the facts."""


@dataclass(frozen=True)
class Stream:
    """A recording that can be gone over any number of times."""

    passes: Callable[[], Pass]
    """Begins a pass over columns; every pass yields the same."""
    likely: int = 0
    """Number of events, as far as the size of the file tells it."""
    sensor_size: tuple[int, int] | None = None
    """(W, H) in pixels, where it is known before the first pass."""
    window: Callable[[tuple[int, ...]], Stream | None] = lambda window_us: None
    """Returns the first event and those of a time window, (start, stop) in microseconds counted from it, as a stream
    that reads no others; None where the format does not tell where they lie. What lies outside is not checked."""
    at_once: Callable[[], Decoded] | None = None
    """Of a format that is decoded at once."""
    packed: Callable[[], Pass] | None = None
    """Likewise over words, of a format whose decoder packs; it starts over with columns where they do not hold all."""
    _facts: list[Facts] = field(default_factory=list)

    @classmethod
    def of(cls, decode: Callable[[], Decoded]) -> Stream:
        """Return the stream of a format that is decoded at once: one chunk, decoded at the first pass and kept."""
        once = cache(decode)

        def passes() -> Pass:
            yield once().events
            return once().facts

        return cls(passes, at_once=once)

    def decoded(self) -> Decoded:
        """Return all events at once."""
        if self.at_once:
            return self.at_once()
        chunks, found = list[Events](), self.passes()
        while True:
            try:
                chunk = next(found)
            except StopIteration as end:
                return Decoded(gathered(chunks), end.value)
            except StartOver:
                return self.decoded()
            assert isinstance(chunk, Events)
            chunks.append(Events(chunk.t.copy(), chunk.x.copy(), chunk.y.copy(), chunk.p.copy()))

    def annotated(self) -> Iterator[Chunk]:
        """Yield the chunks, packed where the decoder packs, and at the end one that carries no events.

        What was passed over and doubted is attached to that.
        """
        facts = yield from (self.packed or self.passes)()
        self._facts[:] = [facts]
        yield facts.annotate(Events.room(0))

    @property
    def facts(self) -> Facts:
        """Return the facts, which are known when `annotated` has come to its end."""
        return self._facts[0]


def gathered(chunks: list[Events]) -> Events:
    """Return chunks as one."""
    if len(chunks) == 1:
        return chunks[0]
    t, x, y, p = (
        np.concatenate(columns) for columns in zip(*(c.columns for c in [*chunks, Events.room(0)]), strict=True)
    )
    return Events(t, x, y, p)
