"""The unit of time stamps: converted to microseconds, inferred where the numbers leave one choice, doubted aloud.

Axes: N events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats.tables.survey import Numbers

UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in a unit."""
LARGEST_US = 2**62
FEWEST = 50
"""Events below which a rate says nothing."""
BUSIEST_HZ = 1000.0
"""Events a second, of each pixel that saw one, on average over a recording: real scenes stay far below it."""
QUIETEST_HZ = 0.1
"""Likewise: the noise of a pixel alone is more, over a recording of more than `LONG_US`."""
SHORTEST_US, LONG_US = 1000, 10_000_000
"""No recording is made as short as the first; one as long as the second has pauses of other reasons."""
LOOKED_AT = 10**5
"""Events from the first on whose times are told apart."""
COARSE_HZ = 1.0
"""Likewise where all times are multiples of 1000, as those are that were counted in microseconds and stored in ns."""
COARSE_US = 1.0
"""Steps of float32 seconds from which microseconds are lost."""


def to_microseconds(t: NDArray[Any], unit: str, *, source: str) -> NDArray[np.int64]:
    """Convert time stamps [N] of a unit to whole microseconds, rounded to the nearest.

    Raises:
        RecordingError: times that are no numbers (`fractional`) or beyond 62 bits of microseconds (`out_of_range`).
    """
    factor = UNITS[unit]
    if t.dtype.kind not in "iufb" or (t.dtype.kind == "f" and not np.isfinite(t).all()):
        raise RecordingError(f"{source}: t of type {t.dtype} holds no numbers throughout.", reason="fractional")
    if t.size and max(abs(float(t.max())), abs(float(t.min()))) * factor >= LARGEST_US:
        raise RecordingError(
            f"{source}: t reaches {t.max()} {unit}, beyond 62 bits of microseconds. Is --time-unit right?",
            reason="out_of_range",
        )
    if t.dtype.kind == "f":
        return np.rint(t.astype(np.float64) * factor).astype(np.int64)
    if unit == "ns":
        return (t // 1000).astype(np.int64) + (t % 1000 >= 500)
    return t.astype(np.int64) * int(factor)


def infer_unit(t: Numbers, *, active_pixels: int, source: str) -> str:
    """Return the unit of times whose file does not name it: `us` for whole numbers, `s` for fractions.

    Raises:
        RecordingError: fractions that are no seconds of any recording (`fractional`).
    """
    if t.dtype.kind != "f" or t.whole:
        return "us"
    if not t.finite:
        raise RecordingError(f"{source}: t holds values that are no numbers. Write it again.", reason="fractional")
    duration_us = (float(t.high) - float(t.low)) * 1e6
    rate = _rate(t.count, duration_us, active_pixels)
    if duration_us > LONG_US and rate < QUIETEST_HZ:
        likely = next((unit for unit in ("ms", "us") if _usual(t.count, duration_us, unit, "s", active_pixels)), "us")
        raise RecordingError(
            f"{source}: t holds fractions, which would be seconds, but {t.count:,} events in {duration_us / 1e6:,.0f} "
            f"s are no recording. Say the unit with --time-unit (likely {likely}), or write whole microseconds.",
            reason="fractional",
        )
    return "s"


def doubts(
    count: int, duration_us: int, *, unit: str, active_pixels: int, coarse: Callable[[], bool]
) -> tuple[str, ...]:
    """Return what is doubtful about the times of a recording whose unit nothing but custom says.

    Args:
        count: of its events.
        duration_us: from the earliest to the latest, in microseconds as taken.
        unit: of the times as they stand in the file.
        active_pixels: that saw an event.
        coarse: finds out whether its times are `multiples_of_1000`.
    """
    if count < FEWEST:
        return ()
    rate = _rate(count, duration_us, active_pixels)
    found = f"{count:,} events in {_time(duration_us)} ({rate:,.3g} events a second of each active pixel)"
    if duration_us < SHORTEST_US or rate > BUSIEST_HZ:
        likely = [one for one in ("ms", "s") if _usual(count, duration_us, one, unit, active_pixels)]
        what = f"times in {likely[0]}, or numbers of frames" if likely else "numbers of frames, or another unit"
        return (f"{found}: no camera is that fast. Likely {what}: say it with --time-unit",)
    if duration_us > LONG_US and (rate < QUIETEST_HZ or (rate < COARSE_HZ and coarse())):
        return (f"{found}: no camera is that slow or coarse. Likely times in ns: say it with --time-unit ns",)
    return ()


def multiples_of_1000(blocks: Iterable[NDArray[np.int64]]) -> bool:
    """Return whether all times of a recording [N] are multiples of 1000, and more than a few of them differ."""
    early, looked_at = set[int](), 0
    for t in blocks:
        if (t % 1000).any():
            return False
        early.update(np.unique(t[: max(0, LOOKED_AT - looked_at)]).tolist())
        looked_at += len(t)
    return len(early) > FEWEST


def coarse_doubt(t: Numbers, unit: str) -> tuple[str, ...]:
    """Return what is lost where times are stored as 16- or 32-bit fractions that cannot hold microseconds."""
    if t.dtype not in (np.float16, np.float32) or not t.count:
        return ()
    step = float(np.spacing(abs(t.extremes).max())) * UNITS[unit]
    if step <= COARSE_US:
        return ()
    stored = f"{8 * t.dtype.itemsize}-bit fractions of {unit}"
    return (f"times are {stored}, in steps of up to {step:,.3g} us: their order within one is lost",)


def _rate(count: int, duration_us: float, pixels: int) -> float:
    return count / max(duration_us, 1.0) * 1e6 / max(pixels, 1)


def _usual(count: int, duration_us: float, unit: str, taken: str, pixels: int) -> bool:
    """Whether a recording would be an ordinary one if its times had this unit."""
    duration = duration_us * UNITS[unit] / UNITS[taken]
    return duration >= SHORTEST_US and QUIETEST_HZ <= _rate(count, duration, pixels) <= BUSIEST_HZ


def _time(duration_us: float) -> str:
    return f"{duration_us:,.0f} us" if duration_us < 1e5 else f"{duration_us / 1e6:,.3g} s"
