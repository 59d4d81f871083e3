"""Signals that end a run early: it finishes the step, writes a checkpoint and exits with a code of the signal's own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from spikebridge.train.errors import RunStoppedError

log = logging.getLogger(__name__)

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}
"""Exit code by signal: 128 + its number on Linux, as a shell would report it."""


class StopRequest:
    """A request to stop a run, read between two steps; `signal` is 0 without one."""

    def __init__(self) -> None:
        self.signal = 0

    def ask(self, number: int) -> None:
        """Request a stop; the first signal counts."""
        self.signal = self.signal or number

    def check(self) -> None:
        """Raise the error where a stop was requested."""
        if self.signal:
            raise self.error()

    def error(self, number: int = 0) -> RunStoppedError:
        """Return the error to raise once the checkpoint is written."""
        number = number or self.signal
        return RunStoppedError(
            f"Stopped by {signal.Signals(number).name} with a checkpoint; the same command continues.", signal=number
        )


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a request while the block runs; main thread only.

    A second Ctrl-C ends at once with `KeyboardInterrupt`, and the last checkpoint counts. Not under torchrun: there a
    single one arrives twice, from the terminal and passed on by torchrun.
    """
    request, under_torchrun = StopRequest(), "TORCHELASTIC_RUN_ID" in os.environ

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and request.signal and not under_torchrun:
            raise KeyboardInterrupt
        if not request.signal:
            more = "" if under_torchrun or number != signal.SIGINT else "; once more ends at once"
            log.warning("%s: finishing the step, then a checkpoint%s", signal.Signals(number).name, more)
        request.ask(number)

    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
