"""Runs of a study on their way through workers: what is finished is kept, what is unfinished continues.

Each run is an ordinary run folder. A run that fails is noted and costs the others nothing.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.executors import Workers
from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.errors import RunError, RunStoppedError, ShardMismatchError, TrainError
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.signals import StopRequest
from spikebridge.train.studies.table import Failure
from spikebridge.train.studies.workers import POLL_S, RunOutcome, RunSpec, train_run
from spikebridge.train.trainer.run import Progress

log = logging.getLogger(__name__)

STOP_FILE = ".stop"
"""In OUT, while running tasks are asked to end."""
MOST_ATTEMPTS = 3
"""Deaths of workers that a run may be blamed for."""


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    label: str
    """Of its row of the table."""
    recipe: Recipe
    """Complete."""
    shards: ShardSet
    """Open shard set that fits the recipe."""
    contents: str
    """Hash of what it holds, see `contents_id`."""
    path: Path
    steps: int
    """Of the whole run."""
    amount: float = 0.0
    """Labelled recordings, in the unit of a grid's axis."""

    def finished(self) -> bool:
        """Return whether the result is there.

        Raises:
            RunError: the folder holds something else.
        """
        status = RunFolder(self.path).status(self.recipe, self.shards.id, contents=self.contents)
        return status == "finished"


class RunPool:
    """Runs on their way through workers.

    Args:
        out: folder of the study.
        workers: opens the workers, when the first run needs them.
        options: of every run, see `RunSpec`.
        progress: that of all runs that are left, in steps.
        stop: ends all of them with a checkpoint.
    """

    def __init__(
        self,
        out: Path,
        workers: Callable[[], AbstractContextManager[Workers]],
        options: dict[str, Any],
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self.stop_file = out / STOP_FILE
        self.stop_file.unlink(missing_ok=True)  # of an earlier session
        self.options, self.progress, self.stop = options, progress, stop
        self.failures: list[Failure] = []
        self._open_workers = workers
        self._workers: Workers | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> RunPool:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self.stop_file.unlink(missing_ok=True)

    def finish(self, runs: Sequence[Run], *, what: str, overwrite: bool = False) -> None:
        """Finish all runs that can be finished; the others are in `failures`. With `overwrite` each begins anew.

        Raises:
            RunStoppedError: asked to stop; everything is at a checkpoint.
            TrainError: the cluster is gone.
        """
        left: dict[Path, Run] = {}
        for run in {run.path: run for run in runs}.values():
            try:
                if overwrite or not run.finished():
                    left[real_path(run.path)] = run
            except (RunError, ShardMismatchError) as error:
                self._fail(run, RunOutcome("failed", str(error)))
        bar = self.progress(total=sum(run.steps for run in left.values()), desc=what, unit="step", smoothing=0)
        try:
            self._train(left, bar, overwrite=overwrite)
        except PipelineError as error:
            raise TrainError(str(error)) from error
        finally:
            bar.close()
        if left and self.stop.signal:
            raise RunStoppedError(
                f"Stopped by {signal.Signals(self.stop.signal).name}; {len(runs) - len(left)} of {len(runs)} "
                f"{what} are done, the others are at a checkpoint. The same command continues.",
                signal=self.stop.signal,
            )

    def _train(self, left: dict[Path, Run], bar: Any, *, overwrite: bool) -> None:
        """Train runs until all are done or a stop is asked; take those that are done, or failed, out of `left`."""
        if not left or self.stop.signal:
            return
        if self._workers is None:  # the workers stay for all that follows: each imports torch once
            self._workers = self._opened.enter_context(self._open_workers())
        deaths: Counter[str] = Counter()

        def end(spec: RunSpec, outcome: RunOutcome) -> None:
            run = left.pop(Path(spec.run))
            bar.update(run.steps)
            if outcome.kind != "done":
                self._fail(run, outcome)

        def requeue(lost: list[RunSpec], waiting: deque[RunSpec]) -> None:
            """Put the first of the lost runs, which was at work, behind all others, or give it up."""
            waiting.extendleft(reversed(lost[1:]))
            for spec in lost[:1]:
                deaths[spec.run] += 1
                if deaths[spec.run] < MOST_ATTEMPTS:
                    waiting.append(spec)
                else:
                    end(spec, RunOutcome("failed", "its worker process died (killed, or out of memory)"))

        def stopping() -> bool:
            if self.stop.signal and not self.stop_file.exists():  # runs at work see it and end with a checkpoint
                write_atomic(self.stop_file, str(self.stop.signal).encode())
            return bool(self.stop.signal)

        specs = [replace(self._spec(run), overwrite=overwrite) for run in left.values()]
        for spec, outcome in self._workers.run(train_run, specs, requeue=requeue, stopping=stopping, poll_s=POLL_S):
            if outcome.kind != "stopped":
                end(spec, outcome)

    def _spec(self, run: Run) -> RunSpec:
        stop_file = str(real_path(self.stop_file))
        return RunSpec(
            run.shards.address, run.shards.id, run.recipe, str(real_path(run.path)), stop_file, **self.options
        )

    def _fail(self, run: Run, outcome: RunOutcome) -> None:
        self.failures.append(
            {"run": run.path.name, "label": run.label, "kind": outcome.kind, "message": outcome.message}
        )
        log.warning("%s %s: %s", run.path.name, outcome.kind, outcome.message.splitlines()[0])
