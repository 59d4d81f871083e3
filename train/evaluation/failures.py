"""How a camera fails: names, levels and their units; what they do to recordings is in `corruption`. No torch needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spikebridge.pipeline.base.names import suggest
from spikebridge.train.errors import RunError

HOT_HZ = 200.0
"""Rate of a hot pixel."""
BURSTS = 20
"""Parts of a recording, each of which is kept or lost as a whole."""
FLICKER_HZ = 100.0
"""Of light on mains of 50 Hz."""


@dataclass(frozen=True)
class Corruption:
    """A failure of the camera."""

    meaning: str
    """Of its level, with the unit."""
    levels: tuple[float, ...]
    """Of the curve."""
    highest: float
    of_frames: bool = True
    """Whether stored counts can show it."""


CORRUPTIONS = {
    "hot_pixels": Corruption(f"share of pixels that fire {HOT_HZ:g} times a second", (0.001, 0.003, 0.01, 0.03), 1.0),
    "background": Corruption("events of a pixel in a second, at random", (0.3, 1.0, 3.0, 10.0), 1000.0),
    "dropped_bursts": Corruption(f"share of {BURSTS} parts of the recording that are lost", (0.1, 0.2, 0.4, 0.6), 1.0),
    "polarity_imbalance": Corruption("share of ON events that are lost", (0.2, 0.4, 0.6, 0.8), 1.0),
    "flicker": Corruption(
        f"ON, then OFF events of a pixel in each of {FLICKER_HZ:g} cycles a second", (0.003, 0.01, 0.03, 0.1), 1.0
    ),
    "clock_jitter": Corruption(
        "standard deviation of an event's time, microseconds", (1e3, 3e3, 1e4, 3e4), 1e9, of_frames=False
    ),
}


def parse_corruptions(texts: Sequence[str], *, option: str = "--corrupt ") -> list[tuple[str, float]]:
    """Parse `NAME:LEVEL`, or `NAME` for all levels of its curve; `option` begins messages.

    Raises:
        RunError: unknown name, or a level out of its range.
    """
    found = []
    for text in texts:
        name, colon, number = text.partition(":")
        if name not in CORRUPTIONS:
            raise RunError(
                f"{option}{text}: no failure is called {name!r}; expected one of {', '.join(CORRUPTIONS)}"
                f"{suggest(name, CORRUPTIONS)}"
            )
        kind = CORRUPTIONS[name]
        try:
            levels = (float(number),) if colon else kind.levels
        except ValueError:
            levels = (math.nan,)
        if not all(0 <= level <= kind.highest for level in levels):
            raise RunError(
                f"{option}{text}: expected {name}:LEVEL, {kind.meaning}, from 0 to {kind.highest:g}, "
                f"or {name} alone for {', '.join(f'{level:g}' for level in kind.levels)}"
            )
        found += [(name, level) for level in levels]
    return found
