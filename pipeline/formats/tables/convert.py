"""Columns of any numeric type brought into the project's types: whole microseconds, pixels, polarity 0 and 1.

Axes: N events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events


def from_columns(t: Any, x: Any, y: Any, p: Any, *, source: str) -> Events:
    """Bring columns of any numeric type into the project's types, times in whole microseconds.

    Polarity may be 0 and 1, False and True, or -1 and 1 (-1 becomes 0).

    Args:
        t: [N] whole microseconds, not negative.
        x: [N] columns.
        y: [N] rows.
        p: [N] polarities.
        source: file name for messages.

    Raises:
        RecordingError: not [N] (`shape`), fractions or no numbers (`fractional`), negative times (`negative_time`),
            numbers beyond 31 bits for pixels or 62 bits for times (`out_of_range`), another polarity (`polarity`).
    """
    columns = {name: np.asarray(column) for name, column in (("t", t), ("x", x), ("y", y), ("p", p))}
    check_shapes(columns, source)
    times = whole(columns["t"], "t", source, 2**62, "Write times as whole microseconds.")
    if times.size and int(times.min()) < 0:
        raise RecordingError(
            f"{source}: time stamp {int(times.min())}; expected 0 or later. Shift the recording's clock.",
            reason="negative_time",
        )
    pixels = [whole_pixels(columns[name], name, source).astype(np.int32) for name in "xy"]
    polarity = whole(columns["p"], "p", source, 2**31 - 1, "Give 0 and 1, or -1 and 1.")
    low, high = (int(polarity.min()), int(polarity.max())) if polarity.size else (0, 0)
    if not -1 <= low <= high <= 1 or (low == -1 and not polarity.all()):
        raise no_polarities(np.unique(polarity)[:5].tolist(), source)
    return Events(times, pixels[0], pixels[1], (polarity > 0).astype(np.uint8))


def no_polarities(found: list[int], source: str) -> RecordingError:
    """Return the error of numbers that are no polarities together."""
    return RecordingError(
        f"{source}: polarities {found}; expected 0 and 1, -1 and 1, or 1 and 2. Write them as 0 (OFF) and 1 (ON), "
        "without what is neither.",
        reason="polarity",
    )


def check_shapes(columns: Mapping[str, NDArray[Any]], source: str) -> None:
    """Refuse columns that are not four vectors of one length.

    Raises:
        RecordingError: they are not (`shape`).
    """
    if len({column.shape for column in columns.values()}) != 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise RecordingError(f"{source}: columns of the shapes {shapes}; expected four of one length.", reason="shape")


def vector(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column as [N], also one of [N,1] or [1,N], or of no numbers at all."""
    column = np.asarray(column)
    return column.reshape(-1) if column.ndim == 2 and (1 in column.shape or not column.size) else column


def whole_pixels(column: NDArray[Any], name: str, source: str) -> NDArray[np.int64]:
    """Return coordinates [N] as int64; errors as `whole`."""
    return whole(column, name, source, 2**31 - 1, "Give pixels.")


def whole(column: NDArray[Any], name: str, source: str, largest: int, advice: str) -> NDArray[np.int64]:
    """Return a column as int64.

    Raises:
        RecordingError: no numbers or fractions (`fractional`), or beyond a limit (`out_of_range`).
    """
    if column.dtype.kind not in "iufb":
        advice = " Write whole microseconds: .astype('m8[us]').astype('int64')." if column.dtype.kind in "mM" else ""
        raise RecordingError(
            f"{source}: {name} is of type {column.dtype}; expected numbers.{advice}", reason="fractional"
        )
    if column.dtype.kind == "f" and not (np.isfinite(column).all() and (column == np.floor(column)).all()):
        raise RecordingError(f"{source}: {name} holds fractions or no numbers. {advice}", reason="fractional")
    if column.size and (column.max() > largest or column.min() < -largest):
        raise RecordingError(
            f"{source}: {name} reaches {column.max()}, beyond {largest}. {advice}", reason="out_of_range"
        )
    return column.astype(np.int64)
