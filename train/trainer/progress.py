"""The display of a run in progress: figures of the progress bar, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from spikebridge.pipeline.base.installation import install_command
from spikebridge.train.errors import ReportError
from spikebridge.train.runs.state import flatten_numbers

REFRESH_SECONDS = 0.5
"""Between two readings of the running figures: each makes the host wait for the device."""


class NullProgress:
    """A progress bar that shows nothing."""

    disable = True

    def __init__(self, **_: Any) -> None:
        pass

    def update(self, n: int) -> None:
        """Do nothing."""

    def set_postfix(self, values: dict[str, str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class ProgressDisplay:
    """A progress bar with accuracy, time left, losses, samples/s, firing rate and replacement probability.

    The bar is tqdm-like; of the run's steps, `done` were finished before this session.
    """

    def __init__(self, bar: Any, *, steps: int, samples_per_step: float, done: int) -> None:
        self._bar, self._steps, self._per_step = bar, steps, samples_per_step
        self._shown = not getattr(bar, "disable", False)
        self._refresh = getattr(bar, "interval_s", REFRESH_SECONDS)
        self._started, self._done, self._first = time.monotonic(), done, done
        self._read = 0.0
        self._scores: dict[str, str] = {}

    def advance(self) -> None:
        """Count one more finished step."""
        self._done += 1
        self._bar.update(1)

    @property
    def is_due(self) -> bool:
        """Whether new figures are due; never where the bar is disabled."""
        return self._shown and time.monotonic() - self._read >= self._refresh

    def set_scores(self, name: str, accuracy: float | None, rates: Mapping[str, float] | None) -> None:
        """Keep the last scores of the selection split."""
        if accuracy is not None:
            self._scores[name] = f"{accuracy:.3f}"
        if rates:
            self._scores["firing"] = f"{sum(rates.values()) / len(rates):.3f}"

    def show(self, means: Mapping[str, Any], *, replacement: float | None) -> None:
        """Show the epoch's means so far (`EpochSums.means`); the time left counts validation in."""
        self._read = time.monotonic()
        per_step = (self._read - self._started) / max(1, self._done - self._first)
        minutes, seconds = divmod(round(per_step * (self._steps - self._done)), 60)
        scores = dict(self._scores)
        firing = scores.pop("firing", None)
        values = {**scores, "left": f"{minutes}:{seconds:02d}"}
        if means.get("loss_total") is not None:
            values["loss"] = f"{means['loss_total']:.3f}"
        if "train_accuracy" in means:
            values["train"] = f"{means['train_accuracy']:.3f}"
        values["samples/s"] = f"{self._per_step / max(per_step, 1e-9):.0f}"
        if firing is not None:
            values["firing"] = firing
        if replacement is not None:
            values["replaced"] = f"{replacement:.2f}"
        terms = {name.removeprefix("loss_"): value for name, value in means.items() if name.startswith("loss_")}
        values |= {name: f"{value:.3f}" for name, value in terms.items() if name != "total" and value is not None}
        self._bar.set_postfix(values)  # most important first: what does not fit is cut


class Board(Protocol):
    """What is told of every line of metrics.jsonl."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Take a line."""

    def close(self) -> None:
        """End."""


class TensorBoard:
    """Writes every line of metrics.jsonl to TensorBoard too.

    Args:
        folder: `tensorboard/` of a run.
        step: finished steps; what an earlier session wrote after them is hidden.

    Raises:
        ReportError: the package tensorboard is absent.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write all numbers under their names, see `runs.state.flatten_numbers`."""
        for name, number in flatten_numbers(line).items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(name, number, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def require_tensorboard() -> None:
    """Raise a `ReportError` that says what to install where TensorBoard is absent."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ReportError(
            f"TensorBoard logs need the package tensorboard ({error}): {install_command('tensorboard')}, "
            "or train without them; metrics.jsonl holds the same figures"
        ) from error
