"""Progress where no terminal shows a bar: now and then a line, for the log of a batch job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

INTERVAL_S = 30.0
"""Least time between two lines; what takes less says nothing."""


class LineProgress:
    """What tqdm gives, as lines: `runs: 120 of 3,000 steps (4 %), 1:30 gone, 36:00 left; loss 0.69`.

    Args:
        items: what is iterated over; None where `update` counts.
        total: amount in all; None where it is not known.
        desc: what is done.
        write: takes a line.
        unit: of the amounts.
        unit_scale: amounts are shown in millions.
        initial: amount that was done before.
        clock: seconds.
    """

    disable = False
    interval_s = INTERVAL_S

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        total: int | None = None,
        desc: str | None = None,
        *,
        write: Callable[[str], None],
        unit: str = "it",
        unit_scale: bool = False,
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
        **_: Any,
    ) -> None:
        length = getattr(items, "__len__", None)
        self._items, self._total, self._desc = items, length() if total is None and length else total, desc or ""
        self._unit, self._scale = unit, 1e6 if unit_scale else 1.0
        self._write, self._clock = write, clock
        self.n, self._first = initial, initial
        self._started = self._written = clock()
        self._figures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        for item in () if self._items is None else self._items:
            yield item
            self.update(1)

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count, and write a line where one is due."""
        self.n += n
        now = self._clock()
        if now - self._written >= self.interval_s:
            self._written = now
            self._write(self._line(now))

    def set_postfix(self, values: Mapping[str, str]) -> None:
        """Keep figures for the next line; the time that is left is told by the line itself."""
        self._figures = {name: value for name, value in values.items() if name != "left"}

    def close(self) -> None:
        """Do nothing: what comes next says that it is done."""

    def _line(self, now: float) -> str:
        gone, made = now - self._started, self.n - self._first
        done = f"{self.n / self._scale:,.0f}"
        unit = f"M{self._unit}" if self._scale > 1 else f"{self._unit}s" if len(self._unit) > 2 else ""
        if self._total and self.n <= self._total:  # an estimate that is passed says nothing, as with tqdm
            left = gone / made * (self._total - self.n) if made else float("nan")
            share = f" ({100 * self.n / self._total:.0f} %)"
            text = f"{done} of {self._total / self._scale:,.0f} {unit}".rstrip() + f"{share}, {_clock_text(gone)} gone"
            text += f", {_clock_text(left)} left" if made else ""
        else:
            text = f"{done} {unit}".rstrip() + f", {_clock_text(gone)} gone"
        figures = ", ".join(f"{name} {value}" for name, value in self._figures.items())
        return f"{self._desc}: {text}" + (f"; {figures}" if figures else "")


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
