"""Augmentation of events before they are binned: for sets that store events, one draw per recording.

Axes: N events. Every augmentation is a pure function of events and numbers in [0, 1); a recipe joins several with `+`
in `event_augmentation`, and they are applied in that order. What `train.data.augmentation` does to frames under the
same name is done here to events, with the same strength: no cell moves as a whole, and time is not cut into bins yet.

The time bins stay those of the recording as it was: what is moved beyond its first or last event, or off its sensor, is
gone. A recording that is left without events enough for its bins stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.base.names import register
from spikebridge.pipeline.events.packing import (
    TIME_SHIFT,
    X_MASK,
    X_SHIFT,
    Y_MASK,
    Y_SHIFT,
    CheckedEvents,
    PackedEvents,
)
from spikebridge.train.config.settings import JOIN
from spikebridge.train.data.augmentation import (
    LARGEST_AREA,
    LONGEST_DELAY,
    MAX_ROTATION_DEG,
    MAX_TEMPO,
    MAX_ZOOM,
    MOST_DROPPED,
)
from spikebridge.train.data.draws import Epoch, random_words

LARGEST_SHIFT = 1 / 12
"""Of the shift in space, share of a side."""
TIME_JITTER = 0.01
"""Largest shift of an event in time, share of the recording's length."""
PIXEL_JITTER = 1
"""Largest shift of an event in space, pixels."""
BACKGROUND_HZ = 1.0
"""Highest rate of the background activity of a pixel."""
HOT_PIXELS, HOT_HZ = 0.001, 100.0
"""Largest share of hot pixels, and the highest rate of one."""
MOST_NOISE = 1.0
"""Events that noise adds at most, times those of the recording."""

Numbers = Callable[[int], NDArray[np.float64]]
"""Returns so many numbers in [0, 1), the next of a recording's own."""


@dataclass
class MovedEvents:
    """Events that are being augmented; in any order, and anywhere."""

    t: NDArray[np.float64]
    """[N] microseconds from the first event of the recording as it was."""
    x: NDArray[np.float64]
    """[N] pixels; 0 is the centre of the first."""
    y: NDArray[np.float64]
    p: NDArray[np.int64]
    """[N] 1 for ON."""
    duration_us: int
    """Of the recording as it was."""
    sensor: tuple[int, int]
    """(W, H) in pixels."""

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Leave out the other events."""
        self.t, self.x, self.y, self.p = self.t[kept], self.x[kept], self.y[kept], self.p[kept]

    def add(self, t: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], p: NDArray[np.bool_]) -> None:
        """Add events."""
        self.t, self.x, self.y = np.append(self.t, t), np.append(self.x, x), np.append(self.y, y)
        self.p = np.append(self.p, p.astype(np.int64))


@dataclass(frozen=True)
class AugmentedEvents(PackedEvents):
    """A recording as it was augmented, whose time bins are those that it had."""

    length_us: int = 0
    """Of the recording as it was, in microseconds."""

    @property
    def duration_us(self) -> int:
        """Return the time from the first event to the last of the recording as it was."""
        return self.length_us


EVENT_AUGMENTATIONS: dict[str, Callable[[MovedEvents, Numbers], None]] = {}


def _register(function: Callable[[MovedEvents, Numbers], None]) -> Callable[[MovedEvents, Numbers], None]:
    register(EVENT_AUGMENTATIONS, function.__name__, function)
    return function


def augment_events(names: str, events: CheckedEvents, *, sensor: tuple[int, int], word: int) -> AugmentedEvents | None:
    """Apply `EVENT_AUGMENTATIONS` to a recording; a pure function of its arguments.

    Args:
        names: one of them, or several joined with `+`, e.g. `drop_events+rotate`; applied from left to right.
        events: the recording.
        sensor: (W, H) in pixels; events beyond are left out.
        word: 64 random bits of the draw.

    Returns:
        The recording, with the bins that it had; None where no event is left.

    Raises:
        ValueError: unknown name.
    """
    if unknown := [name for name in names.split(JOIN) if name not in EVENT_AUGMENTATIONS]:
        raise ValueError(f"unknown augmentation {unknown[0]!r}: expected one of {', '.join(EVENT_AUGMENTATIONS)}")
    words = np.concatenate(list(events.chunks()))
    moved = MovedEvents(
        (words >> TIME_SHIFT).astype(np.float64),
        (words >> X_SHIFT & X_MASK).astype(np.float64),
        (words >> Y_SHIFT & Y_MASK).astype(np.float64),
        words & 1,
        events.duration_us,
        sensor,
    )
    generator = np.random.Generator(np.random.Philox(key=word % 2**64))
    for name in names.split(JOIN):
        EVENT_AUGMENTATIONS[name](moved, generator.random)
    t, x, y = (np.floor(column + 0.5).astype(np.int64) for column in (moved.t, moved.x, moved.y))
    inside = (t >= 0) & (t <= events.duration_us) & (x >= 0) & (x < sensor[0]) & (y >= 0) & (y < sensor[1])
    packed = (t << TIME_SHIFT | x << X_SHIFT | y << Y_SHIFT | moved.p)[inside]
    if not len(packed):
        return None
    packed.sort()
    return AugmentedEvents(packed, events.start_us, sensor, length_us=events.duration_us)


def words_of(seed: int, epoch: Epoch, draws: Tensor) -> list[int]:
    """Return the random word of each draw, the same on every machine."""
    return [int(word) for word in random_words(seed, "event augmentation", epoch, draws).tolist()]


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number


@_register
def none(events: MovedEvents, numbers: Numbers) -> None:
    """Leave the events alone."""


@_register
def drop_events(events: MovedEvents, numbers: Numbers) -> None:
    """Drop up to half of the events, each on its own.

    Source: Gu et al., "EventDrop", IJCAI 2021 (random drop).
    """
    dropped = MOST_DROPPED * numbers(1)[0]
    events.keep(numbers(len(events.t)) >= dropped)


@_register
def drop_time(events: MovedEvents, numbers: Numbers) -> None:
    """Drop the events of an interval of up to half of the time, anywhere.

    Source: Gu et al., "EventDrop", IJCAI 2021 (drop by time).
    """
    length, place = numbers(2)
    length *= MOST_DROPPED * events.duration_us
    first = place * (events.duration_us - length)
    events.keep((events.t < first) | (events.t >= first + length))


@_register
def drop_area(events: MovedEvents, numbers: Numbers) -> None:
    """Drop the events of a box with sides of up to 40 % of the sensor's, centred anywhere.

    Source: Gu et al., "EventDrop", IJCAI 2021 (drop by area).
    """
    side, *centre = numbers(3)
    inside = np.ones(len(events.t), np.bool_)
    for place, pixels, middle in zip((events.x, events.y), events.sensor, centre, strict=True):
        inside &= np.abs((place + 0.5) / pixels - middle) < side * LARGEST_AREA / 2
    events.keep(~inside)


@_register
def time_shift(events: MovedEvents, numbers: Numbers) -> None:
    """Begin earlier or later by up to a tenth of the time."""
    events.t += _between(-LONGEST_DELAY, LONGEST_DELAY, numbers(1)[0]) * events.duration_us


@_register
def time_stretch(events: MovedEvents, numbers: Numbers) -> None:
    """Play faster or slower by up to 20 % about the middle."""
    middle = events.duration_us / 2
    events.t = (events.t - middle) / _between(1 - MAX_TEMPO, 1 + MAX_TEMPO, numbers(1)[0]) + middle


@_register
def jitter(events: MovedEvents, numbers: Numbers) -> None:
    """Move every event by up to a hundredth of the time and up to a pixel in x and in y, small moves more often."""
    count = len(events.t)
    moves = (numbers(3 * count) - numbers(3 * count)).reshape(3, count)  # in (-1, 1)
    events.t += moves[0] * TIME_JITTER * events.duration_us
    events.x += moves[1] * (PIXEL_JITTER + 0.5)
    events.y += moves[2] * (PIXEL_JITTER + 0.5)


@_register
def polarity_flip(events: MovedEvents, numbers: Numbers) -> None:
    """Exchange ON and OFF with probability 1/2, as if bright and dark were exchanged."""
    if numbers(1)[0] < 0.5:
        events.p = 1 - events.p


@_register
def shift(events: MovedEvents, numbers: Numbers) -> None:
    """Shift by up to a twelfth of the sensor in x and in y: what `crop` is to frames.

    Source: He et al., AAAI 2024 (padding 4 at 48 pixels).
    """
    across, down = numbers(2)
    events.x += np.round(_between(-LARGEST_SHIFT, LARGEST_SHIFT, across) * events.sensor[0])
    events.y += np.round(_between(-LARGEST_SHIFT, LARGEST_SHIFT, down) * events.sensor[1])


@_register
def flip(events: MovedEvents, numbers: Numbers) -> None:
    """Flip horizontally with probability 1/2; not for digits or letters.

    Source: Li et al., "Neuromorphic data augmentation for training spiking neural networks", ECCV 2022.
    """
    if numbers(1)[0] < 0.5:
        events.x = events.sensor[0] - 1 - events.x


@_register
def rotate(events: MovedEvents, numbers: Numbers) -> None:
    """Rotate by up to 15 degrees about the centre.

    Source: Li et al., ECCV 2022.
    """
    angle = math.radians(_between(-MAX_ROTATION_DEG, MAX_ROTATION_DEG, numbers(1)[0]))
    middle = [(pixels - 1) / 2 for pixels in events.sensor]
    x, y = events.x - middle[0], events.y - middle[1]
    events.x = math.cos(angle) * x - math.sin(angle) * y + middle[0]
    events.y = math.sin(angle) * x + math.cos(angle) * y + middle[1]


@_register
def scale(events: MovedEvents, numbers: Numbers) -> None:
    """Zoom about the centre by up to 15 % either way; the number of events stays."""
    factor = _between(1 - MAX_ZOOM, 1 + MAX_ZOOM, numbers(1)[0])
    width, height = events.sensor
    events.x = (events.x - (width - 1) / 2) * factor + (width - 1) / 2
    events.y = (events.y - (height - 1) / 2) * factor + (height - 1) / 2


@_register
def noise(events: MovedEvents, numbers: Numbers) -> None:
    """Add background activity of up to 1 event per pixel and second, at most as many events as there are.

    Source: Hu et al., "v2e", CVPRW 2021, for the rates of leak and shot noise.
    """
    width, height = events.sensor
    expected = numbers(1)[0] * BACKGROUND_HZ * width * height * events.duration_us / 1e6
    _add_noise(events, numbers, expected, np.array([]))


@_register
def hot_pixels(events: MovedEvents, numbers: Numbers) -> None:
    """Add up to one hot pixel in a thousand, one at least, firing at random up to 100 times a second.

    Together they add at most as many events as there are.
    """
    width, height = events.sensor
    share, rate = numbers(2)
    hot = np.floor(numbers(max(1, round(share * HOT_PIXELS * width * height))) * width * height)
    _add_noise(events, numbers, rate * HOT_HZ * len(hot) * events.duration_us / 1e6, hot)


def _add_noise(events: MovedEvents, numbers: Numbers, expected: float, pixels: NDArray[np.float64]) -> None:
    """Add events at random times and of random polarity, at the pixels given, or anywhere where none are."""
    width, height = events.sensor
    count = int(min(expected, MOST_NOISE * len(events.t)) + numbers(1)[0])
    place = numbers(count)
    at = pixels[(place * len(pixels)).astype(np.int64)] if len(pixels) else np.floor(place * width * height)
    times = np.floor(numbers(count) * (events.duration_us + 1))
    events.add(times, at % width, np.floor(at / width), numbers(count) < 0.5)
