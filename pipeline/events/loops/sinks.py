"""Where the compiled loop of a decoder writes events to: columns, or words, see `pipeline.events.packing`.

A sink is a tuple: of the columns t, x, y, p as in `pipeline.events.arrays.Events`, or of the words alone. Which of the
two is known when a loop is compiled, so that one loop serves both. Words hold what has room in them: whoever asks for
them sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import overload

COLUMNS = 4


def put(sink: Any, at: Any, t: Any, x: Any, y: Any, p: Any) -> None:
    """Write an event to a place of a sink."""
    raise NotImplementedError("is there in compiled loops only")


def put_word(sink: Any, at: Any, since: Any, word: Any) -> None:
    """Write an event, a word whose time counts from `since`, to a place of a sink."""
    raise NotImplementedError("is there in compiled loops only")


@overload(put)
def _put(sink: Any, at: Any, t: Any, x: Any, y: Any, p: Any) -> Callable[..., None]:
    def to_columns(sink: Any, at: Any, t: Any, x: Any, y: Any, p: Any) -> None:
        sink[0][at] = t
        sink[1][at] = x
        sink[2][at] = y
        sink[3][at] = p

    def to_words(sink: Any, at: Any, t: Any, x: Any, y: Any, p: Any) -> None:
        sink[0][at] = t << 24 | x << 12 | y << 1 | p

    return to_columns if len(sink) == COLUMNS else to_words


@overload(put_word)
def _put_word(sink: Any, at: Any, since: Any, word: Any) -> Callable[..., None]:
    def to_columns(sink: Any, at: Any, since: Any, word: Any) -> None:
        sink[0][at] = since + (word >> 24)
        sink[1][at] = word >> 12 & 0xFFF
        sink[2][at] = word >> 1 & 0x7FF
        sink[3][at] = word & 1

    def to_words(sink: Any, at: Any, since: Any, word: Any) -> None:
        sink[0][at] = (since << 24) + word

    return to_columns if len(sink) == COLUMNS else to_words
